// SPDX-License-Identifier: Apache-2.0
/*
 * large - random replacement of blocks of 32-512 KB in a modest live set, as a
 * database's buffers come and go (Durner, Leis and Neumann, DaMoN'19; sizes as
 * in NVAlloc, ASPLOS'22).
 *
 * It shows the path of extents: splitting, coalescing and fragmentation; the
 * thread caches do not help.  Only the first 8 bytes of a block are touched.
 */
#include "workload.h"

enum { SLOTS_PER_THREAD, MIN_SIZE, MAX_SIZE };

static const struct nvd_parameter parameters[] = {
    [SLOTS_PER_THREAD] = {"slots_per_thread", 64, 1, 100000, "live blocks of a thread"},
    [MIN_SIZE] = {"min_size", 32 << 10, NVD_MIN_BLOCK, 1 << 30,
                  "bytes of the smallest block"},
    [MAX_SIZE] = {"max_size", 512 << 10, NVD_MIN_BLOCK, 1 << 30,
                  "bytes of the largest block"},
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[MIN_SIZE] <= values[MAX_SIZE] ? NULL : "min_size is above max_size";
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return values[SLOTS_PER_THREAD] * threads;
}

static void place(struct nvd_worker *worker, void *slot)
{
    const uint64_t *values = worker->values;
    uint64_t size =
        values[MIN_SIZE] + nvd_draw(worker, values[MAX_SIZE] - values[MIN_SIZE] + 1);
    if (nvd_alloc(worker, slot, size))
        nvd_touch(worker, slot, size);
}

static void setup(struct nvd_worker *worker)
{
    const size_t slots = worker->values[SLOTS_PER_THREAD];
    for (size_t i = 0; i < slots && nvd_running(worker); i++)
        place(worker, nvd_slot(worker, worker->index * slots + i));
}

static void run(struct nvd_worker *worker)
{
    const size_t slots = worker->values[SLOTS_PER_THREAD];
    const size_t base = worker->index * slots;
    while (nvd_running(worker)) {
        void *slot = nvd_slot(worker, base + nvd_draw(worker, slots));
        if (nvd_kept_full(worker, slot) && !nvd_free(worker, slot))
            return;
        place(worker, slot);
    }
}

static struct nvd_workload large = {
    .name = "large",
    .summary = "random replacement of blocks of 32-512 KB",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .check = check,
    .slot_count = slot_count,
    .setup = setup,
    .run = run,
};
NVD_WORKLOAD(large);
