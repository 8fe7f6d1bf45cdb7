// SPDX-License-Identifier: Apache-2.0
/*
 * threadtest - every thread allocates a batch of equal objects, then frees
 * them all in the same order, again and again (Berger et al., Hoard,
 * ASPLOS'00).
 *
 * Nothing is shared: it shows what the allocator itself makes threads share,
 * and how well it turns a whole batch over.  A batch is touched as it is
 * allocated.  When memory runs out a batch ends early.
 */
#include "workload.h"

enum { OBJECTS, SIZE };

static const struct nvd_parameter parameters[] = {
    [OBJECTS] = {"objects", 100000, 1, 10000000, "objects in a thread's batch"},
    [SIZE] = {"size", 64, NVD_MIN_BLOCK, 1 << 20, "bytes of an object"},
};

/* Slots [0, next) of the batch are full while filling, [next, filled) while
   emptying. */
struct batch {
    size_t next, filled;
    bool emptying;
};

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return values[OBJECTS] * threads;
}

static void fill(struct nvd_worker *worker, struct batch *batch, size_t base)
{
    const size_t objects = worker->values[OBJECTS], size = worker->values[SIZE];
    size_t next = batch->next;
    for (; next < objects && nvd_running(worker); next++) {
        void *slot = nvd_slot(worker, base + next);
        if (!nvd_alloc(worker, slot, size)) {
            batch->emptying = true;
            break;
        }
        nvd_touch(worker, slot, size);
    }
    batch->filled = next;
    batch->emptying |= next == objects;
    batch->next = batch->emptying ? 0 : next;
}

static void empty(struct nvd_worker *worker, struct batch *batch, size_t base)
{
    size_t next = batch->next;
    for (; next < batch->filled && nvd_running(worker); next++)
        if (!nvd_free(worker, nvd_slot(worker, base + next)))
            break;
    batch->emptying = next < batch->filled;
    batch->next = batch->emptying ? next : 0;
}

static void run(struct nvd_worker *worker)
{
    struct batch *batch = worker->state;
    size_t base = worker->index * worker->values[OBJECTS];
    while (nvd_running(worker)) {
        if (!batch->emptying)
            fill(worker, batch, base);
        if (batch->emptying)
            empty(worker, batch, base);
    }
}

static uint64_t cycle(const uint64_t *values)
{
    return 2 * values[OBJECTS];
}

static struct nvd_workload threadtest = {
    .name = "threadtest",
    .summary = "each thread allocates a batch of equal objects, then frees it",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct batch),
    .slot_count = slot_count,
    .run = run,
    .cycle = cycle,
};
NVD_WORKLOAD(threadtest);
