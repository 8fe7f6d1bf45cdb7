/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c.h - CRC-32C (Castagnoli polynomial, reflected 0x82f63b78) of on-media
 * structures, by the SSE4.2 instruction.  nvmalloc needs x86-64 with SSE4.2
 * (2008) and says so at open; a table would be dead code on every machine that
 * has a flush instruction worth the name.
 */
#ifndef NVM_CRC32C_H
#define NVM_CRC32C_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t nvm_crc32c_u64(uint64_t crc, uint64_t value)
{
    __asm__("crc32q %1, %0" : "+r"(crc) : "rm"(value));
    return crc;
}

static inline uint32_t nvm_crc32c_u32(uint32_t crc, uint32_t value)
{
    __asm__("crc32l %1, %0" : "+r"(crc) : "rm"(value));
    return crc;
}

/* Media is read in words whatever it holds. */
typedef uint64_t __attribute__((may_alias, aligned(4))) nvm_crc32c_word;
typedef uint32_t __attribute__((may_alias)) nvm_crc32c_half;

/* bytes: aligned to 4; length: a multiple of 4. Chain by passing the last result as crc.
 */
static inline uint32_t nvm_crc32c(uint32_t crc, const void *bytes, size_t length)
{
    const char *from = bytes;
    uint64_t state = crc;
    for (; length >= 8; length -= 8, from += 8)
        /* The analyser loses sight of members behind the cast.
           NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
        state = nvm_crc32c_u64(state, *(const nvm_crc32c_word *)from);
    if (length >= 4)
        state = nvm_crc32c_u32((uint32_t)state, *(const nvm_crc32c_half *)from);
    return (uint32_t)state;
}

#endif
