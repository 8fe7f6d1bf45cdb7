/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h - a clock cheap enough to time one allocation.
 *
 * On x86 with an invariant TSC, a tick is a TSC tick, read by rdtscp and
 * fenced so that neither the measured code nor what follows it moves across
 * the reading; elsewhere a tick is a nanosecond of CLOCK_MONOTONIC.  The
 * duration of a tick is measured against CLOCK_MONOTONIC_RAW over the time
 * that the caller lets pass between nvd_clock_start() and nvd_clock_settle().
 */
#ifndef NVD_CLOCK_H
#define NVD_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct nvd_clock {
    bool tsc;
    uint64_t ns_per_tick; /* fixed point, 32 fraction bits; set by settle */
    uint64_t start_ticks, start_ns;
};

/* CLOCK_MONOTONIC in ns. */
static inline uint64_t nvd_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline uint64_t nvd_clock_ticks(const struct nvd_clock *clock)
{
#if defined(__x86_64__)
    if (__builtin_expect(clock->tsc, 1)) {
        uint32_t low, high, processor;
        __asm__ volatile("rdtscp\n\tlfence"
                         : "=a"(low), "=d"(high), "=c"(processor)
                         :
                         : "memory");
        return (uint64_t)high << 32 | low;
    }
#else
    (void)clock;
#endif
    return nvd_monotonic_ns();
}

static inline uint64_t nvd_clock_ns(const struct nvd_clock *clock, uint64_t ticks)
{
    return (uint64_t)((unsigned __int128)ticks * clock->ns_per_tick >> 32);
}

/* Chooses the clock and notes the time. */
void nvd_clock_start(struct nvd_clock *clock);
/* Fixes ns_per_tick; waits until 20 ms have passed since the start, which
   bounds its error by some 10^-5. */
void nvd_clock_settle(struct nvd_clock *clock);
/* What two readings with nothing between them differ by, in ns: the median
   of many.  A part of every latency. */
uint64_t nvd_clock_overhead_ns(const struct nvd_clock *clock);

#endif
