// SPDX-License-Identifier: Apache-2.0
/*
 * payload.h - what a block holds: a function of its slot and its sequence number.
 *
 * Word k (8 bytes, from the block's start) of the payload of (slot, seq) is
 * base(slot, seq) + k * step, with base a 64-bit mix and step odd.  So two
 * payloads of different (slot, seq) differ in every word, a payload that is
 * shifted within its block differs in every word, and one can tell from any
 * whole word whose payload it is.  The last length % 8 bytes are the first
 * bytes of the next word.  It is generated at the speed of memory: the oracle
 * reads every live byte after every crash.
 */
#ifndef NVD_PAYLOAD_H
#define NVD_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

/* Where a payload differs first: offset == length if it does not. */
struct nvd_payload_mismatch {
    size_t offset;
    uint64_t expected;
    uint64_t found;
};

/* Writes payload bytes [from, to) of (slot, seq) to block + from; from is a
   multiple of 8, and block is aligned to 8 at least. */
void nvd_payload_fill(void *block, size_t from, size_t to, uint32_t slot, uint64_t seq);

/* Compares the same bytes; the result's offset is `to` when all agree. */
struct nvd_payload_mismatch nvd_payload_check(const void *block, size_t from, size_t to,
                                              uint32_t slot, uint64_t seq);

/* Word k of the payload of (slot, seq). */
uint64_t nvd_payload_word(uint32_t slot, uint64_t seq, uint64_t k);

#endif
