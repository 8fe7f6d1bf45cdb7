// SPDX-License-Identifier: Apache-2.0
/*
 * shbench - sizes skewed to the small ones and lifetimes of three kinds, after
 * MicroQuill's SmartHeap benchmark as the persistent allocators' papers use it
 * (64-1000 bytes, smaller sizes more often).
 *
 * Every step allocates one block and frees one:
 *   8 of 16 steps   the oldest block of a ring of slots dies and its slot is
 *                   filled again: a lifetime of `slots_per_thread / 2` steps
 *   7 of 16 steps   a block is allocated, touched and freed at once
 *   1 of 16 steps   a random block of the other half of the slots is replaced:
 *                   long lives, geometrically distributed
 * A size is min + (max - min) * u^3 with u uniform in [0, 1): half of the
 * blocks lie in the lowest eighth of the range.
 */
#include "workload.h"

enum { SLOTS_PER_THREAD, MIN_SIZE, MAX_SIZE };

static const struct nvd_parameter parameters[] = {
    [SLOTS_PER_THREAD] = {"slots_per_thread", 2000, 4, 1000000, "slots of a thread"},
    [MIN_SIZE] = {"min_size", 64, NVD_MIN_BLOCK, 1 << 20, "bytes of the smallest block"},
    [MAX_SIZE] = {"max_size", 1000, NVD_MIN_BLOCK, 1 << 20, "bytes of the largest block"},
};

/* A thread's slots: one for the short lives, then the ring, then the long lives. */
struct population {
    size_t oldest; /* the ring's next slot */
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

static uint64_t draw_size(struct nvd_worker *worker)
{
    /* u in 20 bits, so that u^3 fits 60 and the product is taken of its top. */
    uint64_t u = nvd_draw(worker, 1 << 20);
    uint64_t cube = u * u * u >> 30; /* in [0, 2^30) */
    uint64_t span = worker->values[MAX_SIZE] - worker->values[MIN_SIZE] + 1;
    return worker->values[MIN_SIZE] + (span * cube >> 30);
}

static bool renew(struct nvd_worker *worker, void *slot)
{
    if (nvd_kept_full(worker, slot) && !nvd_free(worker, slot))
        return false;
    const uint64_t size = draw_size(worker);
    if (nvd_alloc(worker, slot, size))
        nvd_touch(worker, slot, size);
    return true;
}

static bool flash(struct nvd_worker *worker, void *slot)
{
    const uint64_t size = draw_size(worker);
    if (!nvd_alloc(worker, slot, size))
        return true;
    nvd_touch(worker, slot, size);
    return nvd_free(worker, slot);
}

static void setup(struct nvd_worker *worker)
{
    const size_t slots = worker->values[SLOTS_PER_THREAD];
    size_t base = worker->index * slots;
    for (size_t i = 1; i < slots && nvd_running(worker); i++) {
        void *slot = nvd_slot(worker, base + i);
        const uint64_t size = draw_size(worker);
        if (!nvd_alloc(worker, slot, size))
            return;
        nvd_touch(worker, slot, size);
    }
}

static void run(struct nvd_worker *worker)
{
    struct population *population = worker->state;
    const size_t slots = worker->values[SLOTS_PER_THREAD];
    const size_t short_slot = worker->index * slots;
    const size_t ring = short_slot + 1, ring_length = slots / 2;
    const size_t longs = ring + ring_length, long_count = slots - 1 - ring_length;
    size_t oldest = population->oldest;
    bool going = true;
    while (going && nvd_running(worker)) {
        uint64_t kind = nvd_draw(worker, 16);
        if (kind < 8) {
            going = renew(worker, nvd_slot(worker, ring + oldest));
            oldest = oldest + 1 == ring_length ? 0 : oldest + 1;
        } else if (kind < 15) {
            going = flash(worker, nvd_slot(worker, short_slot));
        } else {
            going = renew(worker, nvd_slot(worker, longs + nvd_draw(worker, long_count)));
        }
    }
    population->oldest = oldest;
}

static struct nvd_workload shbench = {
    .name = "shbench",
    .summary = "sizes skewed to small, lifetimes short, first-in-first-out and long",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct population),
    .check = check,
    .slot_count = slot_count,
    .setup = setup,
    .run = run,
};
NVD_WORKLOAD(shbench);
