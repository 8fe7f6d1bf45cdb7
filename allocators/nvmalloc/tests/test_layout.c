/* SPDX-License-Identifier: Apache-2.0 */
/* test_layout.c - geometry, and the self-validation of chunk entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "layout.h"
#include "nvmalloc.h"

static void test_areas_follow_each_other_and_fit(void **state)
{
    (void)state;
    for (uint64_t size = NVM_MIN_HEAP; size < (uint64_t)1 << 40;
         size += size / 3 / NVM_UNIT * NVM_UNIT) {
        struct nvm_super super = {.size = size, .max_size = size};
        assert_int_equal(nvm_layout_compute(&super), 0);
        uint64_t lanes = (uint64_t)super.lanes * super.ring * sizeof(struct nvm_record);
        assert_true(super.lanes <= 64 &&
                    super.lanes * super.ring <= NVM_CHUNK_GENERATIONS);
        assert_true(super.lanes_offset + lanes <= super.chunk_offset);
        assert_true(super.chunk_offset + super.max_units * 8 <= super.bitmap_offset);
        assert_true(super.bitmap_offset + super.max_units * NVM_BITMAP_BYTES <=
                    super.data_offset);
        assert_int_equal(super.data_offset % NVM_UNIT_BYTES, 0);
        assert_true(super.units >= 1);
        assert_true(super.data_offset + super.units * NVM_UNIT_BYTES <= size);
        /* Not a whole unit is wasted. */
        assert_true(size - (super.data_offset + super.units * NVM_UNIT_BYTES) <
                    2 * NVM_UNIT_BYTES);
    }
}

static void test_too_small(void **state)
{
    (void)state;
    struct nvm_super super = {.size = NVM_UNIT, .max_size = NVM_UNIT};
    assert_int_not_equal(nvm_layout_compute(&super), 0);
}

static void test_chunk_entry_keeps_its_fields(void **state)
{
    (void)state;
    struct nvm_chunk chunk = {.state = NVM_CHUNK_EXTENT,
                              .units = NVM_CHUNK_MAX_UNITS - 1,
                              .klass = 107,
                              .generation = NVM_CHUNK_GENERATIONS - 1};
    struct nvm_chunk back = nvm_chunk_unpack(nvm_chunk_pack(chunk, 5, 77));
    assert_int_equal(back.state, chunk.state);
    assert_int_equal(back.units, chunk.units);
    assert_int_equal(back.klass, chunk.klass);
    assert_int_equal(back.generation, chunk.generation);
}

static void test_chunk_entry_detects_damage(void **state)
{
    (void)state;
    struct nvm_chunk chunk = {
        .state = NVM_CHUNK_SLAB, .units = 3, .klass = 9, .generation = 12};
    uint64_t entry = nvm_chunk_pack(chunk, 5, 77);
    assert_true(nvm_chunk_intact(entry, 5, 77));
    assert_false(nvm_chunk_intact(0, 5, 77));
    assert_false(nvm_chunk_intact(entry, 6, 77)); /* another unit's */
    assert_false(nvm_chunk_intact(entry, 5, 78)); /* another heap's */
    for (unsigned a = 0; a < 64; a++) {
        assert_false(nvm_chunk_intact(entry ^ (uint64_t)1 << a, 5, 77));
        for (unsigned b = a + 1; b < 64; b++)
            assert_false(
                nvm_chunk_intact(entry ^ (uint64_t)1 << a ^ (uint64_t)1 << b, 5, 77));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_areas_follow_each_other_and_fit),
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_chunk_entry_keeps_its_fields),
        cmocka_unit_test(test_chunk_entry_detects_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
