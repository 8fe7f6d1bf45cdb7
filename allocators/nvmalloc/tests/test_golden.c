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

static int set_up_mode(enum nvm_mode mode)
{
    struct nvm_options options = {.size = (size_t)64 << 20, .mode = mode};
    unlink(path);
    if (nvm_create_with(path, &options, &heap) != 0)
        return -1;
    slots = nvm_root(heap, 1024 * sizeof(nvm_ref));
    return slots == NULL;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_mode(NVM_LOG_OWNED);
}

static int set_up_strict(void **state)
{
    (void)state;
    return set_up_mode(NVM_LOG_STRICT);
}

static int set_up_gc(void **state)
{
    (void)state;
    return set_up_mode(NVM_GC);
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return nvm_close(heap);
}

static struct nvm_heap_stats before;

static void begin(void)
{
    nvm_stats(heap, &before);
}

/* What has been spent since begin(). */
static struct nvm_heap_stats spent(void)
{
    struct nvm_heap_stats after;
    nvm_stats(heap, &after);
    after.flushes -= before.flushes;
    after.fences -= before.fences;
    after.effective_fences -= before.effective_fences;
    after.nt_lines -= before.nt_lines;
    after.checkpoints -= before.checkpoints;
    return after;
}

static struct nvm_heap_stats cost_of_pairs(unsigned pairs, size_t size)
{
    begin();
    for (unsigned i = 0; i < pairs; i++) {
        assert_int_equal(nvm_malloc_to(heap, &slots[i % 1024], size), 0);
        assert_int_equal(nvm_free_from(heap, &slots[i % 1024]), 0);
    }
    return spent();
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

/* A line written past the caches counts as a flush. */
static void expect_lines_and_fences(uint64_t lines, uint64_t fences)
{
    struct nvm_heap_stats cost = spent();
    assert_int_equal(cost.nt_lines + cost.flushes, lines);
    assert_int_equal(cost.effective_fences, fences);
    assert_int_equal(cost.fences, fences);
}

static void test_strict_is_three_lines_and_three_or_two_fences(void **state)
{
    (void)state;
    static const size_t sizes[] = {16, 64, 256, 1000, 40000, 512 << 10, 3 << 20};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        cost_of_pairs(1, sizes[i]); /* provisions the slab, or isolates the extent */
        for (unsigned k = 0; k < 1000; k++) { /* rings come round, stages cost nothing */
            begin();
            assert_int_equal(nvm_malloc_to(heap, &slots[k], sizes[i]), 0);
            expect_lines_and_fences(3, 3);
            begin();
            assert_int_equal(nvm_free_from(heap, &slots[k]), 0);
            expect_lines_and_fences(3, 2);
        }
    }
}

static void test_eight_published_under_one_fence(void **state)
{
    (void)state;
    struct nvm_action actions[8];
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 8; i++) {
            nvm_ref ref = nvm_reserve(heap, 100);
            assert_int_not_equal(ref, 0);
            actions[i] = (struct nvm_action){NVM_ACT_ALLOC, &slots[i], NULL, ref};
        }
        begin();
        assert_int_equal(nvm_publish(heap, actions, 8), 0);
        struct nvm_heap_stats cost = spent();
        assert_int_equal(cost.nt_lines, 8);
        assert_int_equal(cost.effective_fences, 1);
        for (unsigned i = 0; i < 8; i++)
            actions[i] = (struct nvm_action){NVM_ACT_FREE, &slots[i], NULL, 0};
        begin();
        assert_int_equal(nvm_publish(heap, actions, 8), 0);
        assert_int_equal(spent().effective_fences, 1);
    }
}

static void test_moves_and_reallocations(void **state)
{
    (void)state;
    assert_int_equal(nvm_malloc_to(heap, &slots[5], 64), 0);
    cost_of_pairs(1, 128);
    begin();
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(nvm_move_to(heap, &slots[5], &slots[6]), 0);
        assert_int_equal(nvm_move_to(heap, &slots[6], &slots[5]), 0);
    }
    expect_lines_and_fences(20, 20);
    /* In place: nothing.  Elsewhere: the copy of 64 bytes, fence, two records, fence. */
    begin();
    assert_int_equal(nvm_realloc_to(heap, &slots[5], 60), 0);
    expect_lines_and_fences(0, 0);
    begin();
    assert_int_equal(nvm_realloc_to(heap, &slots[5], 128), 0);
    expect_lines_and_fences(1 + 2, 2);
}

static void test_gc_is_nothing(void **state)
{
    (void)state;
    static const size_t sizes[] = {16, 64, 256, 1000, 40000};
    void *blocks[256];
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int warm = 1; warm >= 0; warm--) {
            begin();
            for (unsigned round = 0; round < 100; round++) {
                for (unsigned k = 0; k < 256; k++)
                    blocks[k] = nvm_malloc(heap, sizes[i]);
                for (unsigned k = 0; k < 256; k++)
                    assert_int_equal(nvm_free(heap, blocks[k]), 0);
            }
            if (warm) /* provisions slabs */
                continue;
            /* Of 25600 pairs; a slab of large blocks is given back and made again now and
               then. */
            assert_in_range(spent().effective_fences, 0, sizes[i] < 4096 ? 512 : 25600);
        }
    }
    begin();
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 64), 0);
    assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
    expect_lines_and_fences(2, 2);
}

/* --- no line is flushed again within four flushes --- */

static uintptr_t recent[4];
static unsigned flushed, reflushed;

static void watch(void *context, int kind, const void *address, size_t length)
{
    (void)context;
    if (kind == 1)
        return;
    uintptr_t first = (uintptr_t)address / 64;
    for (uintptr_t line = first; line <= ((uintptr_t)address + length - 1) / 64; line++) {
        for (unsigned i = 0; i < 4; i++)
            reflushed += recent[i] == line;
        recent[flushed++ % 4] = line;
    }
}

static void test_no_line_is_flushed_again_within_four_flushes(void **state)
{
    (void)state;
    static const size_t sizes[] = {16, 64, 200, 1000, 1500};
    uint64_t random = 1;
    for (unsigned i = 0; i < 1024; i++) /* slabs, and caches that are warm */
        assert_int_equal(nvm_malloc_to(heap, &slots[i], sizes[i % 5]), 0);
    flushed = reflushed = 0;
    nvm_observe(watch, NULL);
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        nvm_ref *slot = &slots[random >> 54];
        if (*slot != 0)
            assert_int_equal(nvm_free_from(heap, slot), 0);
        else
            assert_int_equal(nvm_malloc_to(heap, slot, sizes[(random >> 33) % 5]), 0);
    }
    nvm_observe(NULL, NULL);
    assert_true(flushed > 20000);
    assert_int_equal(reflushed, 0);
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
        cmocka_unit_test_setup_teardown(test_eight_published_under_one_fence, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_moves_and_reallocations, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_line_is_flushed_again_within_four_flushes,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_strict_is_three_lines_and_three_or_two_fences, set_up_strict, tear_down),
        cmocka_unit_test_setup_teardown(test_gc_is_nothing, set_up_gc, tear_down),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-golden-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
