/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines.h - the instructions that a line takes to the medium, for `calibrate`.
 *
 * The flush instruction is the best that CPUID offers (clwb, clflushopt,
 * clflush), as nvmalloc and libpmem choose it.  x86-64 only.
 */
#ifndef NVD_LINES_H
#define NVD_LINES_H

#if defined(__x86_64__)
#include <cpuid.h>
#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>

#define NVD_LINE_BYTES ((size_t)64)

enum nvd_flush {
    NVD_FLUSH_CLWB,
    NVD_FLUSH_CLFLUSHOPT,
    NVD_FLUSH_CLFLUSH,
};

/* Intel SDM 2A, CPUID leaf 7: EBX bit 24 is CLWB, bit 23 CLFLUSHOPT. */
static inline enum nvd_flush nvd_best_flush(void)
{
    unsigned eax, ebx, ecx, edx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        if (ebx & (1u << 24))
            return NVD_FLUSH_CLWB;
        if (ebx & (1u << 23))
            return NVD_FLUSH_CLFLUSHOPT;
    }
    return NVD_FLUSH_CLFLUSH;
}

static inline void nvd_flush_line(enum nvd_flush flush, char *line)
{
    volatile char *byte = line;
    switch (flush) {
    case NVD_FLUSH_CLWB:
        __asm__ volatile("clwb %0" : "+m"(*byte));
        break;
    case NVD_FLUSH_CLFLUSHOPT:
        __asm__ volatile("clflushopt %0" : "+m"(*byte));
        break;
    case NVD_FLUSH_CLFLUSH:
        __asm__ volatile("clflush %0" : "+m"(*byte));
        break;
    }
}

static inline void nvd_fence(void)
{
    __asm__ volatile("sfence" ::: "memory");
}

/* Writes a whole line past the caches: first in its first 8 bytes, then zeros. */
static inline void nvd_stream_line(char *line, uint64_t first)
{
    __m128i *part = (__m128i *)(void *)line;
    _mm_stream_si128(part, _mm_set_epi64x(0, (long long)first));
    for (size_t i = 1; i < NVD_LINE_BYTES / sizeof *part; i++)
        _mm_stream_si128(part + i, _mm_setzero_si128());
}

#endif
#endif
