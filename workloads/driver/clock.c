// SPDX-License-Identifier: Apache-2.0
/* clock.c - see clock.h. */
#include <stdlib.h>

#include "clock.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* The least time between start and settle. */
#define SETTLE_NS UINT64_C(20000000)

static uint64_t raw_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Whether rdtscp exists and the TSC runs at one rate in every power state
   (Intel SDM 3A, 18.17.1: CPUID 80000007H, EDX bit 8). */
static bool has_invariant_tsc(void)
{
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(0x80000001u, &eax, &ebx, &ecx, &edx) || !(edx & (1u << 27)))
        return false;
    return __get_cpuid(0x80000007u, &eax, &ebx, &ecx, &edx) && (edx & (1u << 8));
#else
    return false;
#endif
}

void nvd_clock_start(struct nvd_clock *clock)
{
    clock->tsc = has_invariant_tsc();
    clock->ns_per_tick = UINT64_C(1) << 32;
    clock->start_ns = raw_ns();
    clock->start_ticks = nvd_clock_ticks(clock);
}

void nvd_clock_settle(struct nvd_clock *clock)
{
    if (!clock->tsc)
        return;
    uint64_t elapsed_ns, ticks;
    do {
        elapsed_ns = raw_ns() - clock->start_ns;
        ticks = nvd_clock_ticks(clock) - clock->start_ticks;
    } while (elapsed_ns < SETTLE_NS);
    clock->ns_per_tick = (uint64_t)(((unsigned __int128)elapsed_ns << 32) / ticks);
}

static int ascending(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

uint64_t nvd_clock_overhead_ns(const struct nvd_clock *clock)
{
    enum { READINGS = 1001 };
    uint64_t ticks[READINGS];
    for (int i = 0; i < READINGS; i++) {
        uint64_t begin = nvd_clock_ticks(clock);
        ticks[i] = nvd_clock_ticks(clock) - begin;
    }
    qsort(ticks, READINGS, sizeof ticks[0], ascending);
    return nvd_clock_ns(clock, ticks[READINGS / 2]);
}
