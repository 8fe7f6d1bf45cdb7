// SPDX-License-Identifier: Apache-2.0
/*
 * prodcon - one thread allocates, another frees (the producer-consumer test of
 * Schneider et al., ISMM'06, as the persistent allocators' papers use it).
 *
 * Threads 2i and 2i + 1 are a pair with a bounded ring of slots between them.
 * The producer fills the slot at the head, the consumer empties the one at the
 * tail; the two counters only grow, lie in lines of their own, and each side
 * keeps a copy of the other's, so that the lines travel only when the copy
 * says full or empty.  A side that cannot go on spins a little and then yields
 * its CPU.  A thread without a partner does both in turn: fills the whole
 * ring, then empties it.
 */
#include <sched.h>

#include "workload.h"

enum { SIZE, RING };

static const struct nvd_parameter parameters[] = {
    [SIZE] = {"size", 64, NVD_MIN_BLOCK, 1 << 20, "bytes of a block"},
    [RING] = {"ring", 1000, 1, 1000000, "slots between producer and consumer"},
};

/* Slots [tail, head) modulo RING are full: tail <= head <= tail + RING. */
struct ring {
    _Alignas(NVD_CACHE_ALIGN) atomic_uint_fast64_t head; /* written by the producer */
    _Alignas(NVD_CACHE_ALIGN) atomic_uint_fast64_t tail; /* written by the consumer */
};

/* One side's view; `at` is its own counter modulo RING. */
struct side {
    size_t at;
    uint64_t own;   /* head of a producer, tail of a consumer */
    uint64_t other; /* the other side's when last looked at */
    bool draining;  /* of a thread alone */
};

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return values[RING] * ((threads + 1) / 2);
}

static size_t shared_size(const uint64_t *values, unsigned threads)
{
    (void)values;
    return sizeof(struct ring) * ((threads + 1) / 2);
}

static void produce(struct nvd_worker *worker, struct ring *ring, size_t base)
{
    struct side *side = worker->state;
    const size_t length = worker->values[RING], size = worker->values[SIZE];
    unsigned spins = 0;
    while (nvd_running(worker)) {
        if (side->own - side->other == length) {
            side->other = atomic_load_explicit(&ring->tail, memory_order_acquire);
            if (side->own - side->other == length) {
                nvd_pause(&spins);
                continue;
            }
        }
        void *slot = nvd_slot(worker, base + side->at);
        if (!nvd_alloc(worker, slot, size)) {
            sched_yield(); /* the consumer has to free something first */
            continue;
        }
        nvd_touch(worker, slot, size);
        side->at = side->at + 1 == length ? 0 : side->at + 1;
        atomic_store_explicit(&ring->head, ++side->own, memory_order_release);
    }
}

static void consume(struct nvd_worker *worker, struct ring *ring, size_t base)
{
    struct side *side = worker->state;
    const size_t length = worker->values[RING];
    unsigned spins = 0;
    while (nvd_running(worker)) {
        if (side->own == side->other) {
            side->other = atomic_load_explicit(&ring->head, memory_order_acquire);
            if (side->own == side->other) {
                nvd_pause(&spins);
                continue;
            }
        }
        if (!nvd_free(worker, nvd_slot(worker, base + side->at)))
            return;
        side->at = side->at + 1 == length ? 0 : side->at + 1;
        atomic_store_explicit(&ring->tail, ++side->own, memory_order_release);
    }
}

static void alternate(struct nvd_worker *worker, size_t base)
{
    struct side *side = worker->state;
    const size_t length = worker->values[RING], size = worker->values[SIZE];
    while (nvd_running(worker)) {
        if (side->draining) {
            if (!nvd_free(worker, nvd_slot(worker, base + side->at)))
                return;
            side->draining = ++side->at < side->own;
            if (!side->draining)
                side->at = side->own = 0;
        } else {
            void *slot = nvd_slot(worker, base + side->own);
            bool filled = nvd_alloc(worker, slot, size);
            if (filled) {
                nvd_touch(worker, slot, size);
                side->own++;
            }
            side->draining = side->own == length || (!filled && side->own > 0);
        }
    }
}

static void run(struct nvd_worker *worker)
{
    size_t pair = worker->index / 2;
    size_t base = pair * worker->values[RING];
    struct ring *ring = (struct ring *)worker->run->shared + pair;
    if (worker->index % 2 == 1)
        consume(worker, ring, base);
    else if (worker->index + 1 < worker->run->threads)
        produce(worker, ring, base);
    else
        alternate(worker, base);
}

/* A thread alone fills the ring and empties it. */
static uint64_t cycle(const uint64_t *values)
{
    return 2 * values[RING];
}

static struct nvd_workload prodcon = {
    .name = "prodcon",
    .summary = "one thread of a pair allocates, the other frees",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct side),
    .slot_count = slot_count,
    .shared_size = shared_size,
    .run = run,
    .cycle = cycle,
};
NVD_WORKLOAD(prodcon);
