/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_golden.c - how many flushes and fences each operation costs.
 *
 * The numbers are the design (lane.h): a durable operation is one
 * line past the caches and one fence; stages add flushes, and no fence.  A change of any
 * of them is a change of the protocol.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

static char path[64];
static nvm_heap *heap;
static nvm_ref *slots;

static int set_up(void **state)
{
    (void)state;
    unlink(path);
    if (nvm_create(path, (size_t)64 << 20, &heap) != 0)
        return -1;
    slots = nvm_root(heap, 1024 * sizeof(nvm_ref));
    return slots == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return nvm_close(heap);
}

static struct nvm_heap_stats cost_of_pairs(unsigned pairs, size_t size)
{
    struct nvm_heap_stats before, after;
    nvm_stats(heap, &before);
    for (unsigned i = 0; i < pairs; i++) {
        assert_int_equal(nvm_malloc_to(heap, &slots[i % 1024], size), 0);
        assert_int_equal(nvm_free_from(heap, &slots[i % 1024]), 0);
    }
    nvm_stats(heap, &after);
    after.flushes -= before.flushes;
    after.fences -= before.fences;
    after.effective_fences -= before.effective_fences;
    after.nt_lines -= before.nt_lines;
    after.checkpoints -= before.checkpoints;
    return after;
}

static void test_pair_is_two_lines_and_two_fences(void **state)
{
    (void)state;
    static const size_t sizes[] = {16, 64, 256, 1000, 40000, 512 << 10};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        cost_of_pairs(1, sizes[i]); /* provisions the slab */
        struct nvm_heap_stats cost = cost_of_pairs(10, sizes[i]);
        assert_int_equal(cost.checkpoints, 0);
        assert_int_equal(cost.effective_fences, 20);
        assert_int_equal(cost.fences, 20);
        assert_int_equal(cost.nt_lines, 20);
    }
}

static void test_extent_pair_is_two_lines_and_two_fences_once_isolated(void **state)
{
    (void)state;
    cost_of_pairs(1, 3 << 20);
    struct nvm_heap_stats cost = cost_of_pairs(10, 3 << 20);
    assert_int_equal(cost.effective_fences, 20);
}

static void test_stages_add_flushes_and_no_fence(void **state)
{
    (void)state;
    cost_of_pairs(1, 64); /* provisions the slab */
    struct nvm_heap_stats cost = cost_of_pairs(10000, 64);
    assert_int_equal(cost.checkpoints, 0);
    assert_int_equal(cost.effective_fences, 20000);
    assert_int_equal(cost.nt_lines, 20000);
    /* A stage in 64 operations.  Their 32 slots in a row are 4 lines (5 if astride), and
       one block's mark is in one. */
    assert_in_range(cost.flushes, 20000 / 64 * 5, 20000 / 64 * 6 + 320);
}

static void test_provisioning_a_slab_is_two_fences(void **state)
{
    (void)state;
    struct nvm_heap_stats before, after;
    nvm_stats(heap, &before);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 3000), 0);
    nvm_stats(heap, &after);
    /* Bitmap and tail entry; slab entry; the record. */
    assert_int_equal(after.effective_fences - before.effective_fences, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pair_is_two_lines_and_two_fences, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            test_extent_pair_is_two_lines_and_two_fences_once_isolated, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_stages_add_flushes_and_no_fence, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_provisioning_a_slab_is_two_fences, set_up,
                                        tear_down),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-golden-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
