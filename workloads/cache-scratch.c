// SPDX-License-Identifier: Apache-2.0
/*
 * cache-scratch - does an allocator make threads share cache lines by reusing what it
 * was given? (Passive false sharing; Berger et al., Hoard, ASPLOS 2000.)
 *
 * One thread allocates a small object for each of the others, one right after the
 * other, so that several lie in one line.  Each thread frees the one it was handed, and
 * then allocates an object of the same size, writes to it many times, and frees it,
 * again and again.  An allocator that gives a thread the piece of the line back which
 * it has just freed makes the threads fight for that line for ever.
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

/* Thread 0 fills everybody's slot; the window's barrier hands them over. */
static void setup(struct nvd_worker *worker)
{
    const uint64_t size = worker->values[NVD_SHARING_SIZE];
    for (unsigned i = 0; worker->index == 0 && i < worker->run->threads; i++) {
        void *slot = nvd_slot(worker, i);
        if (!nvd_alloc(worker, slot, size))
            return;
        nvd_touch(worker, slot, size);
    }
}

static struct nvd_workload cache_scratch = {
    .name = "cache-scratch",
    .summary =
        "objects born in one cache line, each reused and written by its own thread",
    .heap_bytes = UINT64_C(64) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .slot_count = nvd_sharing_slots,
    .setup = setup,
    .run = nvd_sharing_run,
    .cycle = nvd_sharing_cycle,
};
NVD_WORKLOAD(cache_scratch);
