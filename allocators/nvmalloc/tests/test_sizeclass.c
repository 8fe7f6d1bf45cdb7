/* SPDX-License-Identifier: Apache-2.0 */
/* test_sizeclass.c - every size and every class, exhaustively. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "layout.h"
#include "sizeclass.h"

static void test_smallest_class_that_fits(void **state)
{
    (void)state;
    for (size_t size = 1; size <= NVM_SMALL_MAX; size++) {
        unsigned klass = nvm_sizeclass_of(size);
        assert_true(klass < NVM_CLASSES);
        assert_true(nvm_classes[klass].size >= size);
        assert_true(klass == 0 || nvm_classes[klass - 1].size < size);
    }
}

static void test_waste_is_at_most_an_eighth_from_64_bytes_up(void **state)
{
    (void)state;
    for (size_t size = 64; size <= NVM_SMALL_MAX; size++) {
        uint32_t block = nvm_classes[nvm_sizeclass_of(size)].size;
        assert_true((block - size) * 8 <= block);
    }
}

static void test_multiples_of_16_get_multiples_of_16(void **state)
{
    (void)state;
    for (size_t size = 16; size <= NVM_SMALL_MAX; size += 16)
        assert_int_equal(nvm_classes[nvm_sizeclass_of(size)].size % 16, 0);
}

static void test_slabs(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NVM_CLASSES; i++) {
        const struct nvm_class *klass = &nvm_classes[i];
        uint64_t bytes = klass->units * NVM_UNIT_BYTES;
        assert_in_range(klass->units, 1, 16);
        assert_in_range(klass->blocks, 1, NVM_BITMAP_WORDS * 64);
        assert_true((uint64_t)klass->blocks * klass->size <= bytes);
        assert_true((bytes - (uint64_t)klass->blocks * klass->size) * 32 < bytes);
        assert_true(klass->cache >= 1);
    }
}

static void test_index_of_every_byte_near_a_boundary(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NVM_CLASSES; i++) {
        const struct nvm_class *klass = &nvm_classes[i];
        for (uint32_t block = 0; block < klass->blocks; block++) {
            uint64_t start = (uint64_t)block * klass->size;
            assert_int_equal(nvm_sizeclass_index(klass, start), block);
            assert_int_equal(nvm_sizeclass_index(klass, start + 1), block);
            assert_int_equal(nvm_sizeclass_index(klass, start + klass->size - 1), block);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest_class_that_fits),
        cmocka_unit_test(test_waste_is_at_most_an_eighth_from_64_bytes_up),
        cmocka_unit_test(test_multiples_of_16_get_multiples_of_16),
        cmocka_unit_test(test_slabs),
        cmocka_unit_test(test_index_of_every_byte_near_a_boundary),
    };
    nvm_sizeclass_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
