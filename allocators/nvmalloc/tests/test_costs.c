/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_costs.c - what every operation costs on media, in every mode.
 *
 *   test_costs             holds the costs to the table below
 *   test_costs --markdown  prints the table as docs/nvmalloc.md has it, from measurement
 *
 * A cost is that of the operation alone, in a heap where its slab and its caches are
 * there and the lane has room: "L+F/E" is L lines written past the caches, F lines
 * flushed, E effective fences.  What stages add to it is in test_golden.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define SLOTS 64u
#define GROUP 8u

static char path[64];
static nvm_heap *heap;
static nvm_ref *slots;
static nvm_ref reserved[GROUP];
static void *block;

/* --- operations: what comes before them, and they themselves --- */

static void nothing(void)
{
}

static void allocate(size_t size)
{
    assert_int_equal(nvm_malloc_to(heap, &slots[0], size), 0);
}

static void malloc_small(void)
{
    allocate(64);
}

static void malloc_large(void)
{
    allocate((size_t)3 << 20);
}

static void free_slot(void)
{
    assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
}

/* Makes and frees one, so that slab, run and caches are there. */
static void warm_small(void)
{
    malloc_small();
    free_slot();
}

static void warm_large(void)
{
    malloc_large();
    free_slot();
}

static void before_realloc(void)
{
    for (unsigned i = 0; i < 2; i++) {
        allocate(128 - 64 * i);
        free_slot();
    }
    malloc_small();
}

static void realloc_in_place(void)
{
    assert_int_equal(nvm_realloc_to(heap, &slots[0], 60), 0);
}

static void realloc_moving(void)
{
    assert_int_equal(nvm_realloc_to(heap, &slots[0], 128), 0);
}

static void before_move(void)
{
    malloc_small();
}

static void move(void)
{
    assert_int_equal(nvm_move_to(heap, &slots[0], &slots[1]), 0);
}

static void before_reserve(void)
{
    warm_small();
}

static void reserve(void)
{
    assert_int_not_equal(reserved[0] = nvm_reserve(heap, 64), 0);
}

static void before_publish(void)
{
    for (unsigned i = 0; i < GROUP; i++)
        assert_int_not_equal(reserved[i] = nvm_reserve(heap, 64), 0);
}

static void publish(unsigned count)
{
    struct nvm_action actions[GROUP];
    for (unsigned i = 0; i < count; i++)
        actions[i] = (struct nvm_action){
            .kind = NVM_ACT_ALLOC, .slot = &slots[i], .ref = reserved[i]};
    assert_int_equal(nvm_publish(heap, actions, count), 0);
}

static void publish_one(void)
{
    publish(1);
}

static void publish_group(void)
{
    publish(GROUP);
}

static void cancel(void)
{
    assert_int_equal(nvm_cancel(heap, reserved[0]), 0);
}

static void root_again(void)
{
    assert_non_null(nvm_root(heap, 8));
}

static void make_name(void)
{
    assert_non_null(nvm_named(heap, "name", 1));
}

static void find_name(void)
{
    assert_non_null(nvm_named(heap, "name", 0));
}

static void unname(void)
{
    assert_int_equal(nvm_unname(heap, "name"), 0);
}

static void persist_line(void)
{
    nvm_persist(heap, slots, 64);
}

static void warm_gc(void)
{
    assert_non_null(block = nvm_malloc(heap, 64));
    assert_int_equal(nvm_free(heap, block), 0);
}

static void gc_malloc(void)
{
    assert_non_null(block = nvm_malloc(heap, 64));
}

static void gc_free(void)
{
    assert_int_equal(nvm_free(heap, block), 0);
}

#define NEVER "-"

static const struct cost {
    const char *name;
    void (*before)(void);
    void (*what)(void);
    const char *expected[3]; /* by mode; NEVER: it has no such operation */
} costs[] = {
    {"`nvm_malloc_to`, `nvm_aligned_malloc_to`: up to 512 KiB",
     warm_small,
     malloc_small,
     {"1+0/1", "1+2/3", "0+1/1"}},
    {"the same, larger", warm_large, malloc_large, {"1+0/1", "1+2/3", "0+2/2"}},
    {"`nvm_free_from`", malloc_small, free_slot, {"1+0/1", "1+2/2", "0+1/1"}},
    {"`nvm_realloc_to`, in place",
     before_realloc,
     realloc_in_place,
     {"0+0/0", "0+0/0", "0+0/0"}},
    {"`nvm_realloc_to`, 64 bytes that move",
     before_realloc,
     realloc_moving,
     {"2+1/2", "2+4/4", "0+2/2"}},
    {"`nvm_move_to`", before_move, move, {"1+0/1", "2+2/4", NEVER}},
    {"`nvm_reserve`", before_reserve, reserve, {"0+0/0", "0+0/0", "0+0/0"}},
    {"`nvm_cancel`", before_publish, cancel, {"0+0/0", "0+0/0", "0+0/0"}},
    {"`nvm_publish` of 1", before_publish, publish_one, {"1+0/1", "1+2/3", "0+1/1"}},
    {"`nvm_publish` of 8", before_publish, publish_group, {"8+0/1", "8+16/3", NEVER}},
    {"`nvm_malloc`", warm_gc, gc_malloc, {NEVER, NEVER, "0+0/0"}},
    {"`nvm_free`", gc_malloc, gc_free, {NEVER, NEVER, "0+0/0"}},
    {"`nvm_named` of what is there", make_name, find_name, {"0+0/0", "0+0/0", "0+0/0"}},
    {"`nvm_root` of what is there", nothing, root_again, {"0+0/0", "0+0/0", "0+0/0"}},
    {"`nvm_named`, made", nothing, make_name, {"0+1/1", "0+1/1", "0+1/1"}},
    {"`nvm_unname`, after one operation", make_name, unname, {"1+3/3", "1+1/2", "0+1/1"}},
    {"`nvm_persist` of a line", nothing, persist_line, {"0+1/1", "0+1/1", "0+1/1"}},
};
#define COSTS (sizeof(costs) / sizeof(costs[0]))

/* --- measuring --- */

static void open_fresh(enum nvm_mode mode)
{
    struct nvm_options options = {.size = (size_t)64 << 20, .mode = mode};
    unlink(path);
    assert_int_equal(nvm_create_with(path, &options, &heap), 0);
    assert_non_null(slots = nvm_root(heap, SLOTS * sizeof(nvm_ref)));
}

static void measure(const struct cost *cost, enum nvm_mode mode, char text[32])
{
    struct nvm_heap_stats before, after;
    open_fresh(mode);
    cost->before();
    nvm_stats(heap, &before);
    cost->what();
    nvm_stats(heap, &after);
    snprintf(text, 32, "%u+%u/%u", (unsigned)(after.nt_lines - before.nt_lines),
             (unsigned)(after.flushes - before.flushes),
             (unsigned)(after.effective_fences - before.effective_fences));
    assert_int_equal(nvm_close(heap), 0);
    unlink(path);
}

static void test_costs(void **state)
{
    char text[32];
    (void)state;
    for (unsigned i = 0; i < COSTS; i++) {
        for (enum nvm_mode mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
            if (strcmp(costs[i].expected[mode], NEVER) == 0)
                continue;
            measure(&costs[i], mode, text);
            if (strcmp(text, costs[i].expected[mode]) != 0)
                fail_msg("%s, mode %d: %s, not %s", costs[i].name, (int)mode, text,
                         costs[i].expected[mode]);
        }
    }
}

static void print_markdown(void)
{
    char text[32];
    for (unsigned i = 0; i < COSTS; i++) {
        printf("| %s |", costs[i].name);
        for (enum nvm_mode mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
            bool never = strcmp(costs[i].expected[mode], NEVER) == 0;
            if (!never)
                measure(&costs[i], mode, text);
            printf(" %s |", never ? NEVER : text);
        }
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_costs)};
    snprintf(path, sizeof(path), "/dev/shm/nvm-costs-%d", (int)getpid());
    if (argc == 2 && strcmp(argv[1], "--markdown") == 0) {
        print_markdown();
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
