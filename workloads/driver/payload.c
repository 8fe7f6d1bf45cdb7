// SPDX-License-Identifier: Apache-2.0
/*
 * payload.c - generates and compares payloads; see payload.h for the function.
 */
#include <string.h>

#include "payload.h"

static const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);

/* The finaliser of MurmurHash3 (Appleby): a bijection, so that two (slot, seq)
   with seq < 2^40 and slot < 2^24 never share a base. */
static uint64_t payload_base(uint32_t slot, uint64_t seq)
{
    uint64_t z = (uint64_t)slot << 40 ^ seq ^ UINT64_C(0x5bd1e9955bd1e995);
    z = (z ^ (z >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    z = (z ^ (z >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return z ^ (z >> 33);
}

uint64_t nvd_payload_word(uint32_t slot, uint64_t seq, uint64_t k)
{
    return payload_base(slot, seq) + k * step;
}

void nvd_payload_fill(void *block, size_t from, size_t to, uint32_t slot, uint64_t seq)
{
    unsigned char *bytes = block;
    uint64_t word = nvd_payload_word(slot, seq, from / 8);
    size_t at = from;
    for (; at + 8 <= to; at += 8, word += step)
        memcpy(bytes + at, &word, 8);
    if (at < to)
        memcpy(bytes + at, &word, to - at);
}

struct nvd_payload_mismatch nvd_payload_check(const void *block, size_t from, size_t to,
                                              uint32_t slot, uint64_t seq)
{
    const unsigned char *bytes = block;
    uint64_t word = nvd_payload_word(slot, seq, from / 8);
    for (size_t at = from; at < to; at += 8, word += step) {
        size_t width = to - at < 8 ? to - at : 8;
        uint64_t found = 0, expected = 0;
        memcpy(&found, bytes + at, width);
        memcpy(&expected, &word, width);
        if (found != expected)
            return (struct nvd_payload_mismatch){at, expected, found};
    }
    return (struct nvd_payload_mismatch){to, 0, 0};
}
