// SPDX-License-Identifier: Apache-2.0
/*
 * mstress - churn with live data that moves between threads, after the stress test of
 * Leijen, Zorn and de Moura (Mimalloc: Free List Sharding in Action, APLAS 2019;
 * test-stress.c of its repository, which their benchmark suite runs as mstress).
 *
 * A thread owns some of the slots, and which ones changes all the time: a step in
 * `swap_every` gives one of them away, with whatever block is in it, and takes another
 * one from a pool that all threads share, in a single atomic exchange.  All other steps
 * take a random slot of the thread's own: a full one is freed, an empty one filled.
 * So half of the slots are full, blocks live long or short as it happens, and sooner
 * or later each is freed by a stranger.
 *
 * Sizes: 16 bytes to 1 KB, small ones more often (each power of two from 16 bytes has
 * the same share); one in a hundred is 64 times as big.
 *
 * A block's mark is looked at before it is freed.
 */
#include "workload.h"

enum { SLOTS_PER_THREAD, POOL, SWAP_EVERY, BIG_PER_MILLE };

static const struct nvd_parameter parameters[] = {
    [SLOTS_PER_THREAD] = {"slots_per_thread", 10000, 1, 1000000, "slots of a thread"},
    [POOL] = {"pool", 1000, 1, 1000000, "slots that lie between the threads"},
    [SWAP_EVERY] = {"swap_every", 8, 1, 1000000, "steps between two exchanges"},
    [BIG_PER_MILLE] = {"big_per_mille", 10, 0, 1000, "blocks that are 64 times as big"},
};

#define SMALLEST 16u
#define OCTAVES  6u /* 16 bytes to 1 KB */
#define BIG      64u

/* run->shared: the pool's slots, then those of each thread, thread by thread. */
struct step {
    uint64_t until_swap;
};

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return values[POOL] + values[SLOTS_PER_THREAD] * threads;
}

static size_t shared_size(const uint64_t *values, unsigned threads)
{
    return slot_count(values, threads) * sizeof(atomic_uint);
}

/* A thread's own slots; nobody else looks at them. */
static atomic_uint *own_slots(const struct nvd_worker *worker)
{
    atomic_uint *slots = worker->run->shared;
    return slots + worker->values[POOL] +
           worker->index * worker->values[SLOTS_PER_THREAD];
}

static void prepare(struct nvd_run *run)
{
    atomic_uint *slots = run->shared;
    for (size_t i = 0; i < run->slot_count; i++)
        atomic_init(&slots[i], (unsigned)i);
}

static uint64_t draw_size(struct nvd_worker *worker)
{
    uint64_t size = (uint64_t)SMALLEST << nvd_draw(worker, OCTAVES);
    size += nvd_draw(worker, size);
    return nvd_draw(worker, 1000) < worker->values[BIG_PER_MILLE] ? size * BIG : size;
}

static void fill(struct nvd_worker *worker, void *slot)
{
    const uint64_t size = draw_size(worker);
    if (nvd_alloc(worker, slot, size))
        nvd_touch(worker, slot, size);
}

static void setup(struct nvd_worker *worker)
{
    struct step *step = worker->state;
    atomic_uint *own = own_slots(worker);
    step->until_swap = worker->values[SWAP_EVERY];
    for (size_t i = 0; i < worker->values[SLOTS_PER_THREAD]; i += 2)
        fill(worker,
             nvd_slot(worker, atomic_load_explicit(&own[i], memory_order_relaxed)));
}

static void run(struct nvd_worker *worker)
{
    struct step *step = worker->state;
    atomic_uint *pool = worker->run->shared;
    atomic_uint *own = own_slots(worker);
    const uint64_t owned = worker->values[SLOTS_PER_THREAD];
    while (nvd_running(worker)) {
        atomic_uint *mine = &own[nvd_draw(worker, owned)];
        unsigned index = atomic_load_explicit(mine, memory_order_relaxed);
        if (--step->until_swap == 0) {
            step->until_swap = worker->values[SWAP_EVERY];
            atomic_uint *place = &pool[nvd_draw(worker, worker->values[POOL])];
            /* Release what was done to the one slot, acquire what was done to the
               other. */
            index = atomic_exchange_explicit(place, index, memory_order_acq_rel);
            atomic_store_explicit(mine, index, memory_order_relaxed);
        }
        void *slot = nvd_slot(worker, index);
        if (nvd_block(worker, slot) == NULL)
            fill(worker, slot);
        else if (!nvd_free_checked(worker, slot))
            return;
    }
}

static struct nvd_workload mstress = {
    .name = "mstress",
    .summary = "random churn of all sizes; single blocks wander between threads",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct step),
    .slot_count = slot_count,
    .shared_size = shared_size,
    .prepare = prepare,
    .setup = setup,
    .run = run,
};
NVD_WORKLOAD(mstress);
