/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_powerfail.c - cuts the power before every persistence event.
 *
 * A shadow image holds what surely is on media: lines as they were when they
 * were flushed (or written non-temporally), once the fence after that has
 * passed.  Before each flush, fence and non-temporal store of a history of
 * random operations, images are built from the shadow plus some of the lines
 * that differ from it (none, all, random halves: a cache may evict any), each
 * is opened as a heap, and held to the recovery contract: every slot as
 * acknowledged, the one in flight whole or absent, content as persisted, live
 * blocks = reachable blocks, nvm_check().  A second crash is simulated by
 * opening every image twice, the first time without closing.
 *
 * Single-threaded; whole lines only.  The power-fail laboratory (faults/) goes
 * down to single stores and two threads; this test is the allocator's own.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define HEAP_BYTES     ((size_t)1 << 20)
#define LINE           64u
#define LINES          (HEAP_BYTES / LINE)
#define OUTER          24u
#define INNER          4u /* slots at the start of a container block */
#define RANDOM_SUBSETS 2u

/* What the application knows of a slot. */
struct expected {
    size_t size; /* 0: empty */
    uint64_t stamp;
    int persisted; /* content (inner slots included) is durable */
};

struct model {
    struct expected outer[OUTER];
    struct expected inner[OUTER][INNER];
};

static char heap_path[64], image_path[64];
static nvm_heap *heap;
static char *heap_base;
static nvm_ref *slots;
static char shadow[HEAP_BYTES];
static struct {
    size_t line;
    int taken; /* content captured (flush) or to be read at the fence (nt) */
    char content[LINE];
} queue[LINES];
static size_t queued;
static struct model before, after; /* of the operation in flight */
static uint64_t random_state, states, images_replayed;
static const char *phase;

static uint64_t draw(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void note_line(size_t line, int flushed)
{
    queue[queued].line = line;
    queue[queued].taken = flushed;
    if (flushed)
        memcpy(queue[queued].content, heap_base + line * LINE, LINE);
    queued++;
    assert_true(queued < LINES);
}

static void commit_queue(void)
{
    for (size_t i = 0; i < queued; i++)
        memcpy(shadow + queue[i].line * LINE,
               queue[i].taken ? queue[i].content : heap_base + queue[i].line * LINE,
               LINE);
    queued = 0;
}

/* --- the oracle --- */

struct block {
    char *address;
    size_t usable;
};
struct blocks {
    struct block list[OUTER * (INNER + 1) + 2];
    size_t count;
};

static int collect(void *context, void *address, size_t usable)
{
    struct blocks *blocks = context;
    assert_true(blocks->count < sizeof(blocks->list) / sizeof(blocks->list[0]));
    blocks->list[blocks->count++] = (struct block){address, usable};
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

static void fill(char *block, size_t from, size_t size, uint64_t stamp)
{
    for (size_t i = from; i < size; i++)
        block[i] = (char)(stamp * 31 + i);
}

static int content_fits(const char *block, size_t from, size_t size, uint64_t stamp)
{
    for (size_t i = from; i < size; i++)
        if (block[i] != (char)(stamp * 31 + i))
            return 0;
    return 1;
}

/* Whether a slot is in state e (content included, where that is durable). */
static int slot_is(nvm_heap *image, nvm_ref ref, const struct expected *e, size_t from)
{
    if (e->size == 0 || ref == 0)
        return (e->size == 0) == (ref == 0);
    if (nvm_usable_size(image, ref) < e->size)
        return 0;
    return !e->persisted || content_fits(nvm_ptr(image, ref), from, e->size, e->stamp);
}

static void check_slot(nvm_heap *image, nvm_ref ref, const struct expected *was,
                       const struct expected *will, size_t from, struct blocks *reached)
{
    if (!slot_is(image, ref, was, from) && !slot_is(image, ref, will, from))
        fail_msg("%s: slot refers to %llu (%zu usable, live %d): neither %zu bytes "
                 "(stamp %llu) nor %zu (stamp %llu)",
                 phase, (unsigned long long)ref, nvm_usable_size(image, ref),
                 content_fits(nvm_ptr(image, ref), from, was->size, was->stamp),
                 was->size, (unsigned long long)was->stamp, will->size,
                 (unsigned long long)will->stamp);
    if (ref != 0)
        collect(reached, nvm_ptr(image, ref), nvm_usable_size(image, ref));
}

static void check_contract(nvm_heap *image)
{
    struct blocks walked = {.count = 0}, reached = {.count = 0};
    nvm_ref *table = nvm_root(image, OUTER * sizeof(nvm_ref));
    assert_non_null(table);
    collect(&reached, table, nvm_usable_size(image, nvm_off(image, table)));
    for (unsigned i = 0; i < OUTER; i++) {
        const struct expected *was = &before.outer[i], *will = &after.outer[i];
        check_slot(image, table[i], was, will, INNER * sizeof(nvm_ref), &reached);
        if (table[i] == 0 || !was->persisted || !will->persisted)
            continue;
        const nvm_ref *inner = nvm_ptr(image, table[i]);
        for (unsigned k = 0; k < INNER; k++)
            check_slot(image, inner[k], &before.inner[i][k], &after.inner[i][k], 0,
                       &reached);
    }
    assert_int_equal(nvm_walk(image, collect, &walked), 0);
    qsort(reached.list, reached.count, sizeof(reached.list[0]), by_address);
    assert_int_equal(walked.count, reached.count);
    for (size_t i = 0; i < walked.count; i++) {
        assert_ptr_equal(walked.list[i].address, reached.list[i].address);
        if (i > 0)
            assert_true(walked.list[i - 1].address + walked.list[i - 1].usable <=
                        walked.list[i].address);
    }
    if (nvm_check(image) != 0)
        fail_msg("nvm_check: %s", nvm_error());
}

static void check_image(const char *image)
{
    unlink(image_path);
    int fd = open(image_path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image, HEAP_BYTES), HEAP_BYTES);
    close(fd);
    for (int crash = 0; crash < 2; crash++) {
        nvm_heap *opened;
        struct nvm_heap_stats stats;
        if (nvm_open(image_path, &opened) != 0)
            fail_msg("%s: open: %s", phase, nvm_error());
        check_contract(opened);
        nvm_stats(opened, &stats);
        images_replayed += stats.replayed != 0;
        /* The first time, leave the file as an unclean open leaves it. */
        if (crash == 0) {
            char *copy = malloc(HEAP_BYTES);
            void *base;
            size_t length;
            nvm_range(opened, &base, &length);
            memcpy(copy, base, HEAP_BYTES);
            nvm_close(opened);
            fd = open(image_path, O_RDWR);
            assert_int_equal(pwrite(fd, copy, HEAP_BYTES, 0), HEAP_BYTES);
            close(fd);
            free(copy);
        } else {
            nvm_close(opened);
        }
    }
    states++;
}

static void observe(void *context, int kind, const void *address, size_t length);

/* Cuts the power here, in all the ways that are tried. */
static void cut_power(void)
{
    static char image[HEAP_BYTES];
    nvm_observe(NULL, NULL);
    for (unsigned way = 0; way < 2 + RANDOM_SUBSETS; way++) {
        memcpy(image, way == 1 ? heap_base : shadow, HEAP_BYTES);
        for (size_t line = 0; way >= 2 && line < LINES; line++)
            if (memcmp(shadow + line * LINE, heap_base + line * LINE, LINE) != 0 &&
                draw() & 1)
                memcpy(image + line * LINE, heap_base + line * LINE, LINE);
        check_image(image);
    }
    nvm_observe(observe, NULL);
}

static void observe(void *context, int kind, const void *address, size_t length)
{
    (void)context;
    cut_power();
    if (kind == 1) {
        commit_queue();
        return;
    }
    size_t first = (size_t)((const char *)address - heap_base) / LINE;
    size_t last = (size_t)((const char *)address + length - 1 - heap_base) / LINE;
    for (size_t line = first; line <= last; line++)
        note_line(line, kind == 0);
}

/* --- the history --- */

static void persist_content(nvm_ref ref, struct expected *e, size_t from, int container)
{
    char *block = nvm_ptr(heap, ref);
    if (container)
        memset(block, 0, INNER * sizeof(nvm_ref));
    fill(block, from, e->size, e->stamp);
    nvm_persist(heap, block, e->size);
    e->persisted = 1;
}

static size_t draw_size(size_t least)
{
    static const size_t limits[] = {64, 256, 1024, 8192, 40000, 150000};
    return least + draw() % limits[draw() % (draw() % 8 == 0 ? 6 : 4)];
}

static void step_slot(nvm_ref *slot, struct expected *was, struct expected *will,
                      size_t from)
{
    static uint64_t stamp;
    if (*slot != 0) {
        phase = "free";
        memset(will, 0, sizeof(*will));
        /* Content may be overwritten as soon as the free is durable. */
        assert_int_equal(nvm_free_from(heap, slot), 0);
        *was = *will;
        return;
    }
    phase = "alloc";
    *will = (struct expected){.size = draw_size(from + 16), .stamp = ++stamp};
    int error = nvm_malloc_to(heap, slot, will->size);
    if (error != 0) {
        memset(will, 0, sizeof(*will));
        return;
    }
    *was = *will;
    persist_content(*slot, will, from, from != 0);
    *was = *will;
}

static void step(void)
{
    unsigned i = (unsigned)(draw() % OUTER);
    if (slots[i] != 0 && draw() % 3 != 0) {
        nvm_ref *inner = nvm_ptr(heap, slots[i]);
        unsigned k = (unsigned)(draw() % INNER);
        step_slot(&inner[k], &before.inner[i][k], &after.inner[i][k], 0);
        return;
    }
    if (slots[i] != 0) {
        nvm_ref *inner = nvm_ptr(heap, slots[i]);
        for (unsigned k = 0; k < INNER; k++)
            if (inner[k] != 0)
                step_slot(&inner[k], &before.inner[i][k], &after.inner[i][k], 0);
    }
    step_slot(&slots[i], &before.outer[i], &after.outer[i], INNER * sizeof(nvm_ref));
}

static void run_history(uint64_t seed, unsigned operations)
{
    void *base;
    size_t length;
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
    memset(&before, 0, sizeof(before));
    memset(&after, 0, sizeof(after));
    unlink(heap_path);
    assert_int_equal(nvm_create(heap_path, HEAP_BYTES, &heap), 0);
    slots = nvm_root(heap, OUTER * sizeof(nvm_ref));
    assert_non_null(slots);
    nvm_range(heap, &base, &length);
    heap_base = base;
    /* What came before the history may be evicted or not, too: it starts from
       a file that a clean close and open left. */
    nvm_close(heap);
    assert_int_equal(nvm_open(heap_path, &heap), 0);
    nvm_range(heap, &base, &length);
    heap_base = base;
    slots = nvm_root(heap, OUTER * sizeof(nvm_ref));
    memcpy(shadow, heap_base, HEAP_BYTES);
    queued = 0;
    nvm_observe(observe, NULL);
    for (unsigned i = 0; i < operations; i++)
        step();
    nvm_observe(NULL, NULL);
    assert_int_equal(nvm_check(heap), 0);
    nvm_close(heap);
    unlink(heap_path);
    unlink(image_path);
}

static void test_every_event(void **state)
{
    (void)state;
    const char *budget = getenv("NVM_TEST_HISTORIES");
    unsigned histories = budget != NULL ? (unsigned)strtoul(budget, NULL, 10) : 6;
    for (unsigned seed = 1; seed <= histories; seed++)
        run_history(seed, 120);
    print_message("%llu states checked, %llu of their opens replayed records\n",
                  (unsigned long long)states, (unsigned long long)images_replayed);
    /* A history that never leaves anything to replay would test nothing. */
    assert_true(images_replayed > states / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_event)};
    snprintf(heap_path, sizeof(heap_path), "/dev/shm/nvm-powerfail-%d", (int)getpid());
    snprintf(image_path, sizeof(image_path), "/dev/shm/nvm-powerfail-%d.image",
             (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
