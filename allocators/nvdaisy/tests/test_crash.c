/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_crash.c - every call of p_mmap.h, killed just before each of its persistence
 * events in turn, does what it is to do whole or not at all; and what is left is sound:
 * no block without an owner, nothing lost.
 *
 * A scenario is four steps, each a process of its own: `before` makes a heap, `call`
 * makes the one call, killed at event N for N = 1, 2, ... until it is no longer reached,
 * and `after` looks at what is there.  After each kill the next process opens the heap,
 * is killed, too, at every event of its recovery, and then `after` judges.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daisy.h"
#include "p_mmap.h"
#include "process.h"

enum { HEAP_BYTES = 64 * 1024 };

/* How an interrupted call may end. */
enum outcome { ABSENT = 1, WHOLE = 2 };

struct scenario {
    const char *name;
    step_fn *before; /* NULL: there is no heap yet */
    step_fn *call;
    /* With the heap open: what came of the call. Fails on anything but the two. */
    enum outcome (*judge)(void);
    /* How many blocks there are then: [0] absent, [1] whole. */
    size_t blocks[2];
};

static const struct scenario *scenario;
static enum outcome *outcome; /* shared with the steps */

static void open_heap(void)
{
    NEED(p_init(HEAP_BYTES) == 0);
}

/* A number as a block of its own, durable. */
static int *number_block(int value)
{
    int *block = p_malloc(sizeof *block);
    NEED(block != NULL);
    *block = value;
    NEED(p_persist(block, sizeof *block) == 0);
    return block;
}

static bool names_number(int id, int value)
{
    int64_t size;
    const int *block = p_get_bind_node(id, &size);
    NEED(block != NULL || errno == ENOENT);
    if (block == NULL)
        return false;
    NEED(size == sizeof *block);
    NEED(*block == value);
    return true;
}

/* ---- the scenarios ---- */

static void with_nothing(void *context)
{
    (void)context;
    open_heap();
}

static void with_bound_1(void *context)
{
    (void)context;
    open_heap();
    NEED(p_bind(1, number_block(11), sizeof(int)) == 0);
}

static void with_three_bound(void *context)
{
    with_bound_1(context);
    NEED(p_bind(2, number_block(22), sizeof(int)) == 0);
    NEED(p_bind(3000, number_block(33), sizeof(int)) == 0);
}

static void init(void *context)
{
    (void)context;
    arm_kill();
    open_heap();
}

static enum outcome empty(void)
{
    NEED(p_get_malloc(1) == NULL && errno == ENOENT);
    return WHOLE;
}

static void make_unbound(void *context)
{
    (void)context;
    open_heap();
    arm_kill();
    NEED(p_malloc(100) != NULL);
}

static enum outcome only_1(void)
{
    NEED(names_number(1, 11));
    return WHOLE; /* and the block without an id ended with its process */
}

static void bind_first(void *context)
{
    (void)context;
    open_heap();
    int *block = number_block(22);
    arm_kill();
    NEED(p_bind(2, block, sizeof *block) == 0);
}

static enum outcome perhaps_2(void)
{
    NEED(names_number(1, 11));
    return names_number(2, 22) ? WHOLE : ABSENT;
}

/* The first id of its table, which comes with it. */
enum { FAR_ID = 5000 };

static void bind_far(void *context)
{
    (void)context;
    open_heap();
    int *block = number_block(44);
    arm_kill();
    NEED(p_bind(FAR_ID, block, sizeof *block) == 0);
}

static void make_far(void *context)
{
    (void)context;
    open_heap();
    arm_kill();
    int *block = p_malloc_id(FAR_ID, sizeof *block);
    NEED(block != NULL);
    *block = 44;
    NEED(p_persist(block, sizeof *block) == 0);
}

static enum outcome perhaps_far(void)
{
    int64_t size;
    NEED(names_number(1, 11));
    const int *block = p_get_bind_node(FAR_ID, &size);
    NEED(block == NULL || size == sizeof *block);
    return block != NULL ? WHOLE : ABSENT;
}

static void bind_again(void *context)
{
    (void)context;
    open_heap();
    int *block = number_block(12);
    arm_kill();
    NEED(p_bind(1, block, sizeof *block) == 0);
}

static enum outcome old_or_new_1(void)
{
    const int *block = p_get_malloc(1);
    NEED(block != NULL && (*block == 11 || *block == 12));
    return *block == 12 ? WHOLE : ABSENT;
}

static void resize_binding(void *context)
{
    (void)context;
    open_heap();
    arm_kill();
    NEED(p_bind(1, p_get_malloc(1), 2) == 0);
}

static enum outcome old_or_new_size(void)
{
    int size;
    const int *block = p_get_bind_node(1, &size);
    NEED(block != NULL && *block == 11 && (size == 4 || size == 2));
    return size == 2 ? WHOLE : ABSENT;
}

static void make_with_id(void *context)
{
    (void)context;
    open_heap();
    arm_kill();
    NEED(p_malloc_id(2, 5000) != NULL);
}

static enum outcome perhaps_5000(void)
{
    int64_t size;
    NEED(names_number(1, 11));
    if (p_get_bind_node(2, &size) == NULL)
        return ABSENT;
    NEED(size == 5000);
    return WHOLE;
}

static void make_zeroed(void *context)
{
    (void)context;
    open_heap();
    memset(p_malloc(5000), 0xff, 5000); /* what was there before */
    NEED(p_close() == 0);
    open_heap();
    arm_kill();
    NEED(p_new(2, 5000) != NULL);
}

static enum outcome perhaps_5000_zeros(void)
{
    const unsigned char *block = p_get_malloc(2);
    for (int i = 0; block != NULL && i < 5000; i++)
        NEED(block[i] == 0);
    return perhaps_5000();
}

static void free_bound(void *context)
{
    (void)context;
    open_heap();
    int *block = p_get_malloc(3000);
    arm_kill();
    NEED(p_free(block) == 0);
}

static void free_by_id(void *context)
{
    (void)context;
    open_heap();
    arm_kill();
    NEED(p_delete(3000) == 0);
}

static enum outcome perhaps_3000(void)
{
    NEED(names_number(1, 11));
    NEED(names_number(2, 22));
    return names_number(3000, 33) ? ABSENT : WHOLE;
}

static void clear(void *context)
{
    (void)context;
    open_heap();
    for (int n = 0; n < 5; n++)
        NEED(p_malloc(64) != NULL);
    arm_kill();
    NEED(p_clear() == 0);
}

static enum outcome all_or_nothing(void)
{
    const bool first = names_number(1, 11);
    NEED(names_number(2, 22) == first);
    NEED(names_number(3000, 33) == first);
    return first ? ABSENT : WHOLE;
}

/* A list of three, the last of which nothing leads to; and nobody's blocks. */
static void with_list(void *context)
{
    (void)context;
    open_heap();
    unsigned char *base = p_get_base();
    int *tail = number_block(22), *head = p_malloc(64);
    uint32_t offset = (uint32_t)((unsigned char *)tail - base);
    NEED(head != NULL);
    memset(head, 0, 64);
    head[0] = 11;
    memcpy(&head[5], &offset, sizeof offset);
    NEED(p_persist(head, 64) == 0);
    NEED(p_bind(1, head, 64) == 0);
    for (int n = 0; n < 1000; n++) /* more than a leaf of anchors has */
        NEED(p_malloc(16) != NULL);
}

static void collect(void *context)
{
    (void)context;
    arm_kill();
    open_heap();
}

static enum outcome list_is_whole(void)
{
    const unsigned char *base = p_get_base();
    const int *head = p_get_malloc(1);
    uint32_t offset;
    NEED(head != NULL && head[0] == 11);
    memcpy(&offset, &head[5], sizeof offset);
    NEED(*(const int *)(const void *)(base + offset) == 22);
    return WHOLE;
}

static const struct scenario scenarios[] = {
    {"p_init makes a heap", NULL, init, empty, {0, 0}},
    {"p_malloc", with_bound_1, make_unbound, only_1, {1, 1}},
    {"p_bind", with_bound_1, bind_first, perhaps_2, {1, 2}},
    {"p_bind to the first id of a table", with_bound_1, bind_far, perhaps_far, {1, 2}},
    {"p_malloc_id of the first id of a table",
     with_bound_1,
     make_far,
     perhaps_far,
     {1, 2}},
    {"p_bind to an id that is taken", with_bound_1, bind_again, old_or_new_1, {1, 1}},
    {"p_bind of another size", with_bound_1, resize_binding, old_or_new_size, {1, 1}},
    {"p_malloc_id", with_bound_1, make_with_id, perhaps_5000, {1, 2}},
    {"p_new", with_bound_1, make_zeroed, perhaps_5000_zeros, {1, 2}},
    {"p_free", with_three_bound, free_bound, perhaps_3000, {3, 2}},
    {"p_delete", with_three_bound, free_by_id, perhaps_3000, {3, 2}},
    {"p_clear", with_three_bound, clear, all_or_nothing, {3, 0}},
    {"p_clear of nothing", with_nothing, clear, empty, {0, 0}},
    {"p_init frees what nothing leads to", with_list, collect, list_is_whole, {2, 2}},
};

/* ---- judging ---- */

struct tally {
    size_t blocks;
    uint64_t bytes;
};

static int count_block(void *context, void *address, uint64_t usable)
{
    (void)address;
    struct tally *tally = context;
    tally->blocks++;
    tally->bytes += usable;
    return 0;
}

/* Opens the heap by itself, holds it to its invariants, and counts its blocks. */
static size_t count_sound_blocks(void)
{
    struct daisy *heap;
    struct tally tally = {0, 0};
    uint64_t live;
    NEED(daisy_open(heap_path(), &heap) == 0);
    NEED(daisy_check(heap) == 0);
    NEED(daisy_walk(heap, 0, count_block, &tally) == 0);
    NEED(daisy_live(heap, 0, &live) == 0);
    NEED(live == tally.bytes);
    NEED(daisy_close(heap) == 0);
    return tally.blocks;
}

static void look(void *context)
{
    (void)context;
    open_heap();
    *outcome = scenario->judge();
    NEED(p_close() == 0);
    NEED(count_sound_blocks() == scenario->blocks[*outcome == WHOLE]);
}

static void reopen(void *context)
{
    (void)context;
    arm_kill();
    open_heap();
}

static void start_anew(void **state)
{
    heap_teardown(state);
    assert_int_equal(heap_setup(state), 0);
    if (scenario->before != NULL)
        run_step(scenario->before, NULL);
}

/* Kills the call at one event; then every recovery from it, at every event.  Returns
   false if the call ended before the event. */
static bool kill_call_at(void **state, uint64_t event)
{
    const uint64_t stride =
        3; /* a clean open has events, too: not all of them each time */
    start_anew(state);
    if (!run_killed(scenario->call, NULL, event))
        return false;
    for (uint64_t n = 1 + event % stride; run_killed(reopen, NULL, n); n += stride)
        ;
    run_step(look, NULL);
    return true;
}

static void a_killed_call_is_whole_or_absent(void **state)
{
    scenario = *state;
    outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(outcome != MAP_FAILED);
    assert_int_equal(heap_setup(NULL), 0);
    /* Long calls (of a thousand blocks) are killed at every seventh event from the
       hundredth on. */
    uint64_t event = 1, kills = 0, before = ABSENT;
    while (kill_call_at(NULL, event)) {
        assert_true(*outcome == ABSENT || *outcome == WHOLE);
        /* Once it is whole it stays so at every later event. */
        assert_true(before == ABSENT || *outcome == WHOLE);
        before = *outcome;
        kills++;
        event += event < 100 ? 1 : 7;
    }
    run_step(look, NULL); /* not killed: done */
    assert_int_equal(*outcome, WHOLE);
    assert_true(kills > 0);
    heap_teardown(NULL);
    munmap(outcome, sizeof *outcome);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 3000, IDS = 64 };

static void *work(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument;
    const int first = (int)(uintptr_t)argument * 10000;
    int *unbound[8] = {0};
    for (int n = 0; n < ROUNDS; n++) {
        const int id = first + (int)(next_random(&random) % IDS);
        const size_t i = next_random(&random) % 8;
        switch (next_random(&random) % 5) {
        case 0:
            if (unbound[i] == NULL)
                unbound[i] = number_block(first);
            break;
        case 1: /* replaces what the id names, and that is the thread's to free */
            if (unbound[i] != NULL) {
                int *old = p_get_malloc(id);
                NEED(p_bind(id, unbound[i], sizeof(int)) == 0);
                unbound[i] = old;
            }
            break;
        case 2:
            if (p_get_malloc(id) == NULL) {
                int *block = p_malloc_id(id, sizeof *block);
                NEED(block != NULL);
                *block = first;
            } else {
                NEED(p_free_id(id) == 0);
            }
            break;
        case 3:
            if (unbound[i] != NULL) {
                NEED(*unbound[i] == first);
                NEED(p_free(unbound[i]) == 0);
                unbound[i] = NULL;
            }
            break;
        default: {
            int *block = p_get(id, sizeof *block);
            NEED(block == NULL || *block == first);
        }
        }
    }
    return NULL;
}

static void work_in_threads(void *context)
{
    (void)context;
    pthread_t threads[THREADS];
    NEED(p_init(1 << 20) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        NEED(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        NEED(pthread_join(threads[i], NULL) == 0);
    raise(SIGKILL);
}

static void find_the_threads_ids(void *context)
{
    (void)context;
    size_t found = 0;
    NEED(p_init(1 << 20) == 0);
    for (int first = 10000; first <= THREADS * 10000; first += 10000) {
        for (int id = first; id < first + IDS; id++) {
            const int *block = p_get_malloc(id);
            found += block != NULL;
            NEED(block == NULL || *block == first);
        }
    }
    NEED(p_close() == 0);
    NEED(found > 0);
    NEED(count_sound_blocks() == found);
}

static void threads_share_the_heap(void **state)
{
    (void)state;
    assert_true(run_killed(work_in_threads, NULL, UINT64_MAX));
    run_step(find_the_threads_ids, NULL);
}

/* ---- main ---- */

int main(void)
{
    enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };
    struct CMUnitTest tests[SCENARIOS + 1] = {cmocka_unit_test_setup_teardown(
        threads_share_the_heap, heap_setup, heap_teardown)};
    for (size_t i = 0; i < SCENARIOS; i++) {
        tests[i + 1] =
            (struct CMUnitTest){scenarios[i].name, a_killed_call_is_whole_or_absent, NULL,
                                NULL, (void *)(uintptr_t)&scenarios[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
