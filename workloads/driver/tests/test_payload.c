// SPDX-License-Identifier: Apache-2.0
/* payload.c: what is written is found, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "payload.h"

static uint64_t block[512];

static void what_is_filled_is_found_at_every_length(void **state)
{
    (void)state;
    for (size_t to = 0; to <= 200; to++) {
        for (size_t from = 0; from <= to; from += 8) {
            memset(block, 0xee, sizeof block);
            nvd_payload_fill(block, from, to, 3, 9);
            assert_int_equal(nvd_payload_check(block, from, to, 3, 9).offset, to);
            unsigned char *bytes = (unsigned char *)block;
            for (size_t i = 0; i < from; i++)
                assert_int_equal(bytes[i], 0xee);
            for (size_t i = to; i < 256; i++)
                assert_int_equal(bytes[i], 0xee);
        }
    }
}

static void one_flipped_bit_is_found_where_it_is(void **state)
{
    (void)state;
    const size_t to = 1003;
    for (size_t at = 0; at < to; at++) {
        nvd_payload_fill(block, 0, to, 1, 1);
        ((unsigned char *)block)[at] ^= (unsigned char)(1u << (at % 8));
        struct nvd_payload_mismatch mismatch = nvd_payload_check(block, 0, to, 1, 1);
        assert_int_equal(mismatch.offset, at / 8 * 8);
        assert_true(mismatch.expected != mismatch.found);
    }
}

/* Stale (older seq), foreign (other slot) and shifted payloads differ in every word. */
static void payloads_share_no_word(void **state)
{
    (void)state;
    for (uint32_t slot = 0; slot < 40; slot++) {
        for (uint64_t seq = 1; seq < 40; seq++) {
            for (uint64_t k = 0; k < 8; k++) {
                uint64_t word = nvd_payload_word(slot, seq, k);
                assert_true(word != nvd_payload_word(slot + 1, seq, k));
                assert_true(word != nvd_payload_word(slot, seq + 1, k));
                assert_true(word != nvd_payload_word(slot, seq, k + 1));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_filled_is_found_at_every_length),
        cmocka_unit_test(one_flipped_bit_is_found_where_it_is),
        cmocka_unit_test(payloads_share_no_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
