/* SPDX-License-Identifier: Apache-2.0 */
/*
 * latency.h - a histogram of latencies in ns, in HdrHistogram's layout.
 *
 * Debian has no C library of HdrHistogram, so the C side only sorts values
 * into the buckets of that layout and hands them out as sparse pairs; whoever
 * reads them (the Python package hdrhistogram) computes the percentiles.
 *
 * Layout (lowest discernible value 1, three significant digits): values below
 * 2048 have a bucket each; above, every doubling [2^k, 2^(k+1)) is cut into
 * 1024 equal buckets.  So bucket width / value <= 1/1024 < 10^-3, and
 *
 *   index(v) = v                                       v < 2048
 *            = 1024 * (k - 9) + (v >> (k - 10)) - 1024  v in [2^k, 2^(k+1)), k >= 11
 *
 * Values of NVD_LATENCY_LIMIT and more are counted in the last bucket; the
 * exact maximum is kept beside.  A histogram is written by one thread.
 */
#ifndef NVD_LATENCY_H
#define NVD_LATENCY_H

#include <stddef.h>
#include <stdint.h>

#include "clock.h"

struct json_object;

#define NVD_LATENCY_BITS    40 /* 2^40 ns = 18 minutes */
#define NVD_LATENCY_LIMIT   (UINT64_C(1) << NVD_LATENCY_BITS)
#define NVD_LATENCY_BUCKETS (UINT64_C(1024) * (NVD_LATENCY_BITS - 9))

struct nvd_latency {
    const struct nvd_clock *clock; /* of the ticks that are recorded */
    uint64_t samples;
    uint64_t max_ns;
    uint64_t counts[NVD_LATENCY_BUCKETS];
};

/* The bucket of a value, and the lowest value of a bucket. */
static inline size_t nvd_latency_index(uint64_t ns)
{
    if (ns < 2048)
        return (size_t)ns;
    if (ns >= NVD_LATENCY_LIMIT)
        return NVD_LATENCY_BUCKETS - 1;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    return 1024u * (exponent - 9) + (size_t)(ns >> (exponent - 10)) - 1024u;
}
uint64_t nvd_latency_lowest(size_t index);

static inline void nvd_latency_record(struct nvd_latency *latency, uint64_t ns)
{
    latency->samples++;
    if (ns > latency->max_ns)
        latency->max_ns = ns;
    latency->counts[nvd_latency_index(ns)]++;
}

/* Zeroed with its pages in place (the first record must not fault), or NULL. */
struct nvd_latency *nvd_latency_new(const struct nvd_clock *clock);
void nvd_latency_add(struct nvd_latency *into, const struct nvd_latency *from);
/* {"counts":[[lowest ns of the bucket,count],...],"max_ns":n,"samples":n} */
struct json_object *nvd_latency_json(const struct nvd_latency *latency);

#endif
