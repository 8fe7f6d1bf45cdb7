/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stepping.h - instructions per operation where there is no hardware counter:
 * a sample of operations of a running workload, each stepped over by a tracer
 * (tracer.h).
 *
 * A step is some 10,000 times slower than an instruction, so only a few hundred
 * operations can be stepped over, and it matters which: an allocator has cheap
 * operations and rare dear ones (a slab is used up), and a workload may have
 * phases (threadtest allocates 100,000 blocks, then frees them).  Hence:
 *
 *   span     a stretch of the workload's life: its cycle (struct nvd_workload),
 *            repeated until the bursts have room; 16384 operations without a cycle
 *   stratum  one of 4 equal parts of a span
 *   burst    operations in a row, at a random place in every stratum; all bursts
 *            of a span are equally long
 *   pass     over a span: full speed from burst to burst
 *
 * The first pass has bursts of 8 operations and is always done, however little the
 * budget is; each that follows doubles them, so that what happens every 64
 * operations is seen as often as it happens, or fills up the budget.  Every phase of
 * a cycle has its share, and all operations but those next to the strata's edges
 * have the same chance: instructions / ops estimates the mean over the workload.
 * Places are counted in operations and drawn from the seed, not from a clock, so
 * that a second run steps over the same operations.
 *
 * An allocator may be too slow for that: one that walks a list of 100,000 chunks takes as
 * many steps for one operation as others for hundreds.  It is given up as soon as that
 * shows: when the live set and the warm-up take more than some seconds of CPU time at
 * full speed, or a burst of the first pass more than some 100,000 steps.  A burst is
 * never cut short instead: where it ends would depend on what its operations cost, and
 * the mean with it.
 *
 * What differs from a hardware counter's figure (`perf`):
 *   - It is the mean of a sample; `deviation` is its standard error, as far as the
 *     sample can know it: too small where it met none of the rare dear operations.
 *     What happens every 100,000 operations is most likely not in it, and weighs far
 *     too much where it is.
 *   - One thread, pinned with its tracer to one CPU: no contention.
 *   - Much time passes at a step.  An allocator that looks at the clock (jemalloc
 *     returns pages after a while) does more by the clock, and no two runs are alike.
 *   - The same: a system call counts 1, a locked instruction 1, a `rep` one 1 (see
 *     tracer.h), and the workload's own loop, with its calls and nvd_touch(), is
 *     part of the count.
 *
 * The loop's own share is measured in the same way, in the same process, with an
 * allocator put in that does nothing: `driver_*`.  It contains the two or three
 * instructions of each empty function.  What is left after subtracting it is the
 * allocator's.
 */
#ifndef NVD_STEPPING_H
#define NVD_STEPPING_H

#include <stdint.h>

#include "tracer.h"
#include "workload.h"

struct nvd_stepping_request {
    struct nvd_tracer *tracer;
    uint64_t budget; /* of steps, for all that is measured */
    uint64_t seed;
    double seconds; /* no new pass begins after so long */
};

/* Where a worker fails whose allocator is too slow to be stepped over: a finding about
   neither of the two, and told soon, not at a timeout. */
#define NVD_STEPPING_TOO_SLOW "too-slow"

struct nvd_stepped {
    uint64_t instructions, ops;
    double deviation; /* standard error of instructions / ops */
    uint64_t driver_instructions, driver_ops;
    uint64_t setup_failed_allocs;
};

/* Runs the workload's setup(), brings it into its steady state and measures; the calling
   process is the tracer's child, `worker` and its run's signals lie in the tracer's
   memory.  False if the worker has failed (it says why). */
bool nvd_stepping_sample(const struct nvd_stepping_request *request,
                         const struct nvd_workload *workload, struct nvd_worker *worker,
                         struct nvd_stepped *result);
/* Measures the driver's share.  The workload's idea of its slots is no longer
   true afterwards: it must not run again. */
bool nvd_stepping_driver(const struct nvd_stepping_request *request,
                         const struct nvd_workload *workload, struct nvd_worker *worker,
                         struct nvd_stepped *result);

#endif
