/* SPDX-License-Identifier: Apache-2.0 */
/*
 * footprint.h - how much memory an allocator takes for what the application has.
 *
 *   ratio = bytes / live
 *
 * bytes   "heap": the heap's bytes that cannot serve a request of another size
 *         (nvc_stats.used_bytes): metadata, slabs, caches, live blocks, all of it.
 *         "resident", where the adapter cannot tell those: the process's resident
 *         memory above what it was before the heap was made.
 * live    the bytes that the application asked for and holds: requested sizes, not
 *         usable ones, so an allocator that rounds up pays for it; and the slot
 *         table, where it lies in what `bytes` counts.  Nothing is subtracted.
 */
#ifndef NVD_FOOTPRINT_H
#define NVD_FOOTPRINT_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter.h"

struct json_object;

struct nvd_footprint {
    uint64_t bytes;
    uint64_t live;
    const char *source; /* "heap", "resident"; NULL: nothing is known */
};

/* resident: above the base; UINT64_MAX if unknown.  requested: of live blocks. */
struct nvd_footprint nvd_footprint_of(const struct nvc_adapter *adapter,
                                      const struct nvc_stats *stats, uint64_t resident,
                                      uint64_t requested, uint64_t table_bytes);

/* With less than this live, what a library takes for itself drowns the ratio. */
#define NVD_FOOTPRINT_LEAST (UINT64_C(1) << 20)

/* bytes / live; 0 if nothing is known or too little is live. */
double nvd_footprint_ratio(const struct nvd_footprint *footprint);

/* Adds footprint_bytes, footprint_source, footprint_ratio and requested_bytes, null
   where unknown. */
void nvd_footprint_add(const struct nvd_footprint *footprint, uint64_t requested,
                       struct json_object *to);

#endif
