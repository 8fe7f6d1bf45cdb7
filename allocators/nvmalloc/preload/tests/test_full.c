/* SPDX-License-Identifier: Apache-2.0 */
/* test_full.c - a heap of 16 MiB that is full: NULL and ENOMEM, and nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "placement.h"

#if !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic ignored "-Walloc-size-larger-than="
#pragma GCC diagnostic ignored "-Wuse-after-free"
#endif

#define LIMIT ((size_t)16 << 20)
enum { BLOCKS_MAX = LIMIT / 16 };

/* Lies in static memory: the heap has room for the blocks only. */
static char *blocks[BLOCKS_MAX];
static unsigned sizes[BLOCKS_MAX];
static int count;

static size_t take(size_t size)
{
    errno = 0;
    char *block = malloc(size);
    if (block == NULL) {
        assert_int_equal(errno, ENOMEM);
        return 0;
    }
    assert_true(count < BLOCKS_MAX);
    assert_int_equal((uintptr_t)block % 16, 0);
    fill(block, size);
    blocks[count] = block;
    sizes[count++] = (unsigned)size;
    return size;
}

static void give_back(int i)
{
    assert_true(is_filled(blocks[i], sizes[i]));
    free(blocks[i]);
    blocks[i] = blocks[--count];
    /* Its content goes by its own address, which it keeps. */
    sizes[i] = sizes[count];
}

static void give_all_back(void)
{
    while (count > 0)
        give_back(count - 1);
}

/* Takes blocks of random sizes up to `largest` until even the smallest is refused. */
static size_t fill_up(uint64_t *random, size_t largest)
{
    size_t total = 0;
    for (; largest >= 16; largest /= 2) {
        int refused = 0;
        while (refused < 3) {
            size_t got = take(next_random(random) % largest + 1);
            total += got;
            refused += got == 0;
        }
    }
    while (take(16) != 0)
        total += 16;
    return total;
}

static void test_one_size(void **state)
{
    (void)state;
    static const size_t each[] = {16, 48, 80, 144, 1000, 4096, 30000, 500000, 1 << 20};
    for (size_t i = 0; i < sizeof(each) / sizeof(*each); i++) {
        size_t total = 0, again = 0;
        while (take(each[i]) != 0)
            total += each[i];
        assert_true(total > LIMIT / 2);
        assert_true(total < LIMIT);
        /* A block more can be had as soon as one is given back. */
        give_back(count / 2);
        assert_int_equal(take(each[i]), each[i]);
        give_all_back();
        while (take(each[i]) != 0)
            again += each[i];
        assert_in_range(again, total - each[i], total + each[i]);
        give_all_back();
    }
}

static void test_many_sizes(void **state)
{
    (void)state;
    uint64_t random = 11;
    size_t first = 0;
    for (int round = 0; round < 5; round++) {
        size_t total = fill_up(&random, 20000);
        if (round == 0)
            first = total;
        assert_true(total > LIMIT / 2);
        assert_true(total > first - first / 10);
        for (int i = 0; i < count / 2; i++) /* in no order */
            give_back((int)(next_random(&random) % (uint64_t)count));
        fill_up(&random, 3000);
        give_all_back();
    }
}

static void test_aligned_in_a_full_heap(void **state)
{
    (void)state;
    uint64_t random = 12;
    fill_up(&random, 2000);
    /* Single blocks come free here and there, of sizes that would do but for their
       alignment. */
    int asked = 0, got = 0;
    for (int i = 0; i < 20000; i++) {
        give_back((int)(next_random(&random) % (uint64_t)count));
        size_t alignment = (size_t)16 << next_random(&random) % 5;
        size_t size = next_random(&random) % 500 + 1;
        char *block = memalign(alignment, size);
        asked++;
        if (block == NULL)
            continue;
        got++;
        assert_int_equal((uintptr_t)block % alignment, 0);
        assert_true(malloc_usable_size(block) >= size);
        fill(block, size);
        blocks[count] = block;
        sizes[count++] = (unsigned)size;
    }
    assert_true(got > asked / 2);
    give_all_back();
}

static void test_shrinking_cannot_fail(void **state)
{
    (void)state;
    uint64_t random = 13;
    char *block = malloc(2000000);
    fill(block, 2000000);
    fill_up(&random, 2000);
    char *shrunk = realloc(block, 100);
    assert_non_null(shrunk);
    assert_true(is_filled_as(shrunk, block, 2000000, 100));
    errno = 0;
    assert_null(realloc(shrunk, 8000000));
    assert_int_equal(errno, ENOMEM);
    free(shrunk);
    give_all_back();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_size),
        cmocka_unit_test(test_many_sizes),
        cmocka_unit_test(test_aligned_in_a_full_heap),
        cmocka_unit_test(test_shrinking_cannot_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
