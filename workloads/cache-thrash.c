// SPDX-License-Identifier: Apache-2.0
/*
 * cache-thrash - does an allocator give pieces of one cache line to several threads?
 * (Active false sharing; Berger et al., Hoard, ASPLOS 2000.)
 *
 * Every thread allocates a small object, writes to it many times, and frees it, again
 * and again.  Where threads get neighbouring pieces of a line, each write of one takes
 * the line from the other.
 *
 * What to look at is how throughput grows with threads: twice, if nothing is shared.
 * Between two operations lie `writes` writes to the object, which is the point.
 */
#include "false_sharing.h"
#include "workload.h"

static const struct nvd_parameter parameters[] = {
    [NVD_SHARING_SIZE] = {"size", 8, NVD_MIN_BLOCK, 4096, "bytes of an object"},
    [NVD_SHARING_WRITES] = {"writes", 100, 1, 1000000,
                            "writes to an object while it lives"},
};

static struct nvd_workload cache_thrash = {
    .name = "cache-thrash",
    .summary = "each thread allocates a small object, writes to it and frees it",
    .heap_bytes = UINT64_C(64) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .slot_count = nvd_sharing_slots,
    .run = nvd_sharing_run,
    .cycle = nvd_sharing_cycle,
};
NVD_WORKLOAD(cache_thrash);
