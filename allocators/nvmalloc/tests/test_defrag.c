/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_defrag.c - nvm_defrag() and nvm_trim(): thin slabs are emptied, what is in the
 * blocks stays, the file gets its pages back, and the heap works on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define SLOTS 60000u

static char path[64];
static nvm_heap *heap;
static nvm_ref *slots;
static nvm_ref **list;

static size_t size_of(unsigned slot)
{
    return 40 + slot * 7u % 160;
}

static int set_up(void **state)
{
    const struct nvm_options options = {.max_size = (size_t)64 << 20,
                                        .mode = (enum nvm_mode)(uintptr_t)*state};
    unlink(path);
    if (nvm_create_with(path, &options, &heap) != 0)
        return -1;
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    list = malloc(SLOTS * sizeof(nvm_ref *));
    for (unsigned i = 0; i < SLOTS; i++)
        list[i] = &slots[i];
    return slots == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    free(list);
    unlink(path);
    return nvm_close(heap);
}

static void fill(unsigned slot)
{
    assert_int_equal(nvm_malloc_to(heap, &slots[slot], size_of(slot)), 0);
    memset(nvm_ptr(heap, slots[slot]), (int)slot, size_of(slot));
}

static void expect_content(unsigned slot)
{
    const unsigned char *bytes = nvm_ptr(heap, slots[slot]);
    for (size_t i = 0; i < size_of(slot); i++)
        assert_int_equal(bytes[i], (unsigned char)slot);
}

static double overhead(void)
{
    struct nvm_heap_stats stats;
    nvm_stats(heap, &stats);
    return (double)stats.used_bytes / (double)stats.live_bytes;
}

/* One block in eight stays, spread over all slabs. */
static void thin_out(void)
{
    for (unsigned i = 0; i < SLOTS; i++)
        fill(i);
    for (unsigned i = 0; i < SLOTS; i++)
        if (i % 8 != 3)
            assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
}

static void test_thin_slabs_are_emptied(void **state)
{
    (void)state;
    size_t moved;
    thin_out();
    double before = overhead();
    assert_true(before > 3);
    assert_int_equal(nvm_defrag(heap, list, SLOTS, &moved), 0);
    /* Those in the slabs that are kept stay where they are. */
    assert_in_range(moved, SLOTS / 8 / 2, SLOTS / 8);
    /* A slab of each class is left at most, of 20 classes; all others were full before.
     */
    assert_true(overhead() < before / 2);
    for (unsigned i = 3; i < SLOTS; i += 8)
        expect_content(i);
    assert_int_equal(nvm_check(heap), 0);
    /* Nothing is left to do. */
    assert_int_equal(nvm_defrag(heap, list, SLOTS, &moved), 0);
    assert_true(moved < SLOTS / 80);
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i] == 0)
            fill(i);
    assert_int_equal(nvm_check(heap), 0);
}

static void test_slots_that_are_not_given_keep_their_blocks(void **state)
{
    (void)state;
    size_t moved;
    thin_out();
    nvm_ref kept = slots[3];
    assert_int_equal(nvm_defrag(heap, list + SLOTS / 2, SLOTS / 2, &moved), 0);
    assert_int_equal(slots[3], kept);
    for (unsigned i = 3; i < SLOTS; i += 8)
        expect_content(i);
    assert_int_equal(nvm_check(heap), 0);
    /* The slabs that could not be emptied serve again. */
    double before = overhead();
    for (unsigned i = 0; i < SLOTS / 4; i++)
        if (slots[i] == 0)
            fill(i);
    assert_true(overhead() < before);
}

static void test_trim_gives_pages_back_and_takes_them_again(void **state)
{
    (void)state;
    struct stat full, trimmed;
    size_t freed;
    thin_out();
    assert_int_equal(nvm_defrag(heap, list, SLOTS, NULL), 0);
    assert_int_equal(stat(path, &full), 0);
    assert_int_equal(nvm_trim(heap, &freed), 0);
    assert_int_equal(stat(path, &trimmed), 0);
    assert_true(freed > 0);
    assert_true((full.st_blocks - trimmed.st_blocks) * 512 >= (blkcnt_t)freed / 2);
    nvm_close(heap);
    assert_int_equal(nvm_open(path, &heap), 0);
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    for (unsigned i = 3; i < SLOTS; i += 8)
        expect_content(i);
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i] == 0)
            fill(i);
    for (unsigned i = 0; i < SLOTS; i++)
        expect_content(i);
    assert_int_equal(nvm_check(heap), 0);
}

static void test_misuse_moves_nothing(void **state)
{
    (void)state;
    nvm_ref stray = 0, *bad = &stray;
    thin_out();
    assert_int_equal(nvm_defrag(heap, &bad, 1, NULL), 22 /* EINVAL */);
    assert_int_equal(nvm_check(heap), 0);
}

#define IN(mode, test)                                                                   \
    {                                                                                    \
#test " in " #mode, test, set_up, tear_down, (void *)(uintptr_t)(mode)           \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN(NVM_LOG_OWNED, test_thin_slabs_are_emptied),
        IN(NVM_LOG_STRICT, test_thin_slabs_are_emptied),
        IN(NVM_GC, test_thin_slabs_are_emptied),
        IN(NVM_LOG_OWNED, test_slots_that_are_not_given_keep_their_blocks),
        IN(NVM_LOG_OWNED, test_trim_gives_pages_back_and_takes_them_again),
        IN(NVM_GC, test_trim_gives_pages_back_and_takes_them_again),
        IN(NVM_LOG_OWNED, test_misuse_moves_nothing),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-defrag-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
