// SPDX-License-Identifier: Apache-2.0
/*
 * larson - a server: every thread replaces random blocks of a range of slots,
 * and the ranges wander between threads, so that blocks die in another thread
 * than the one they were born in (Larson and Krishnan, ISMM'98).
 *
 * In the original a thread hands its blocks to a new thread and ends.  Here a
 * range is a token: every `epoch` replacements a thread parks its range in one
 * shared place and takes the one that lay there, in a single atomic exchange.
 * With N threads there are N + 1 ranges (one thread alone has one and keeps
 * it), nobody waits for anybody, and a window may end at any instant.
 */
#include "workload.h"

enum { SLOTS_PER_THREAD, MIN_SIZE, MAX_SIZE, EPOCH };

static const struct nvd_parameter parameters[] = {
    [SLOTS_PER_THREAD] = {"slots_per_thread", 1000, 1, 1000000, "live blocks in a range"},
    [MIN_SIZE] = {"min_size", 64, NVD_MIN_BLOCK, 1 << 20, "bytes of the smallest block"},
    [MAX_SIZE] = {"max_size", 256, NVD_MIN_BLOCK, 1 << 20, "bytes of the largest block"},
    [EPOCH] = {"epoch", 10000, 1, 1000000000, "replacements between two exchanges"},
};

/* The range that no thread has, by number. */
struct parking {
    _Alignas(NVD_CACHE_ALIGN) atomic_size_t range;
};

struct server {
    size_t range;
    uint64_t left; /* replacements until the next exchange */
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[MIN_SIZE] <= values[MAX_SIZE] ? NULL : "min_size is above max_size";
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return values[SLOTS_PER_THREAD] * (threads == 1 ? 1 : threads + 1);
}

static size_t shared_size(const uint64_t *values, unsigned threads)
{
    (void)values;
    (void)threads;
    return sizeof(struct parking);
}

static uint64_t draw_size(struct nvd_worker *worker)
{
    const uint64_t *values = worker->values;
    return values[MIN_SIZE] + nvd_draw(worker, values[MAX_SIZE] - values[MIN_SIZE] + 1);
}

static void fill_range(struct nvd_worker *worker, size_t range)
{
    const size_t slots = worker->values[SLOTS_PER_THREAD];
    for (size_t i = 0; i < slots && nvd_running(worker); i++) {
        void *slot = nvd_slot(worker, range * slots + i);
        const uint64_t size = draw_size(worker);
        if (!nvd_alloc(worker, slot, size))
            return;
        nvd_touch(worker, slot, size);
    }
}

static void prepare(struct nvd_run *run)
{
    struct parking *parking = run->shared;
    atomic_init(&parking->range, run->threads);
}

static void setup(struct nvd_worker *worker)
{
    struct server *server = worker->state;
    server->range = worker->index;
    server->left = worker->values[EPOCH];
    fill_range(worker, worker->index);
    if (worker->index == 0 && worker->run->threads > 1)
        fill_range(worker, worker->run->threads);
}

static void run(struct nvd_worker *worker)
{
    struct parking *parking = worker->run->shared;
    struct server *server = worker->state;
    const size_t slots = worker->values[SLOTS_PER_THREAD];
    const bool alone = worker->run->threads == 1;
    while (nvd_running(worker)) {
        void *slot = nvd_slot(worker, server->range * slots + nvd_draw(worker, slots));
        if (nvd_kept_full(worker, slot) && !nvd_free(worker, slot))
            return;
        const uint64_t size = draw_size(worker);
        if (nvd_alloc(worker, slot, size))
            nvd_touch(worker, slot, size);
        if (--server->left == 0) {
            server->left = worker->values[EPOCH];
            /* Release what was done to this range's slots, acquire what was
               done to the other's. */
            if (!alone)
                server->range = atomic_exchange_explicit(&parking->range, server->range,
                                                         memory_order_acq_rel);
        }
    }
}

static struct nvd_workload larson = {
    .name = "larson",
    .summary = "random replacement of small blocks; slots wander between threads",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct server),
    .check = check,
    .slot_count = slot_count,
    .shared_size = shared_size,
    .prepare = prepare,
    .setup = setup,
    .run = run,
};
NVD_WORKLOAD(larson);
