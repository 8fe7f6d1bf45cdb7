/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - runs one workload on an open heap through its windows.
 *
 * The caller (command_bench.c) makes the heap and fills in the request; here
 * are the threads and the measuring.
 *
 * Windows, in order: setup (each thread builds its live set), warm-up,
 * throughput, latency.  Before and after each, all workers and the coordinator
 * meet at a barrier; in between the coordinator sleeps, so that it takes no
 * time from a worker's CPU, and then raises the stop flag.  The adapter's
 * stats are read at the barriers, where nobody works on the heap.
 *
 * With a tracer there are no windows and no other thread: the calling process,
 * the tracer's child, runs the workload itself, and a sample of its operations is
 * stepped over (stepping.h).
 */
#ifndef NVD_BENCH_H
#define NVD_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "events.h"
#include "latency.h"
#include "stepping.h"
#include "workload.h"

struct nvd_bench_request {
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap;
    const struct nvd_workload *workload;
    const uint64_t *values;
    unsigned threads;
    uint64_t seed;
    const int *cpus; /* thread i runs on cpus[i % cpu_count]; count 0: anywhere */
    int cpu_count;
    double warmup_seconds, seconds, latency_seconds;
    bool observed;             /* nvd_events_observe() is in place */
    bool delayed;              /* nvd_device_observe() is */
    uint64_t resident_base;    /* resident bytes before the heap was made */
    struct nvd_tracer *tracer; /* not NULL: step; for one thread, not observed */
    uint64_t step_budget;
    double step_seconds; /* as in struct nvd_stepping_request */
};

struct nvd_bench_result {
    /* The throughput window; with a tracer only the stats after the last operation. */
    double seconds;     /* from the first worker's start to the last one's end */
    double cpu_seconds; /* CPU time of the workers in it */
    uint64_t allocs, frees, requests, failed_allocs;
    uint64_t ops; /* requests, or allocs + frees: what the workload counts */
    bool has_instructions;
    uint64_t instructions;
    uint64_t minor_faults, major_faults;
    struct nvc_stats stats_before, stats; /* at its two ends */
    /* Usable bytes of all full slots, at its end; UINT64_MAX if only the workload
       knows its blocks. */
    uint64_t slot_bytes;
    uint64_t requested_bytes; /* what the application asked for and has, at its end */
    uint64_t used_peak; /* largest used_bytes at a window's end; UINT64_MAX: unknown */
    bool has_resident;
    uint64_t resident_peak; /* above resident_base, up to its end */
    uint64_t resident;      /* likewise, at its end */

    uint64_t setup_failed_allocs;

    struct nvd_latency *latency; /* NULL without a latency window; the caller's */
    uint64_t clock_overhead_ns;

    struct nvd_event_counts events; /* throughput and latency windows */
    uint64_t event_ops;             /* operations in them */

    struct nvd_stepped stepped; /* with a tracer */
};

/* NVD_OK and a result; or the exit code after an error line was emitted. */
int nvd_bench_run(const struct nvd_bench_request *request,
                  struct nvd_bench_result *result);

#endif
