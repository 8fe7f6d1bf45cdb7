/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mark.h - the words of a slab's bitmap on media, each with its own checksum.
 *
 *   bits 0-47   block i of the word is live
 *   bits 48-63  sum(bits 0-47) ^ seal(word number, salt)
 *
 * sum() is linear over GF(2), so setting or clearing bit i changes the word by
 * the constant nvm_mark_toggle[i], whatever else it holds: one `lock xor`
 * keeps the checksum right, for the price of a `lock or` without one.  And
 * toggles commute: lanes may apply theirs in any order (lane.h).
 * The seal makes a word of a zeroed page, or of another place, invalid.
 *
 * Valid if and only if the upper 16 bits are what the lower 48 say.
 */
#ifndef NVM_MARK_H
#define NVM_MARK_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

#define NVM_MARK_BLOCKS (((uint64_t)1 << NVM_WORD_BLOCKS) - 1)

extern uint64_t nvm_mark_toggle[64]; /* by bit; 0 from 48 on */

/* Fills nvm_mark_toggle; idempotent and thread safe. */
void nvm_mark_init(void);

static inline uint64_t nvm_mark_sum(uint64_t blocks)
{
    uint64_t crc = nvm_crc32c_u64(0, blocks);
    return (crc ^ (crc >> 16)) & 0xffff;
}

/* number: of the word among all bitmaps. */
static inline uint64_t nvm_mark_seal(uint64_t number, uint32_t salt)
{
    uint64_t crc = nvm_crc32c_u64(salt, number);
    return ((crc ^ (crc >> 16)) & 0xffff) | 1; /* never 0: a zeroed page is no bitmap */
}

/* The word whose blocks are `blocks`. */
static inline uint64_t nvm_mark_word(uint64_t blocks, uint64_t number, uint32_t salt)
{
    return blocks | (nvm_mark_sum(blocks) ^ nvm_mark_seal(number, salt))
                        << NVM_WORD_BLOCKS;
}

static inline bool nvm_mark_valid(uint64_t word, uint64_t number, uint32_t salt)
{
    return word == nvm_mark_word(word & NVM_MARK_BLOCKS, number, salt);
}

/* The blocks that word number `word` of a slab of `blocks` blocks has. */
static inline uint64_t nvm_mark_capacity(uint32_t word, uint32_t blocks)
{
    uint32_t first = word * NVM_WORD_BLOCKS;
    if (first + NVM_WORD_BLOCKS <= blocks)
        return NVM_MARK_BLOCKS;
    return first < blocks ? ((uint64_t)1 << (blocks - first)) - 1 : 0;
}

static inline uint32_t nvm_mark_words(uint32_t blocks)
{
    return (blocks + NVM_WORD_BLOCKS - 1) / NVM_WORD_BLOCKS;
}

#endif
