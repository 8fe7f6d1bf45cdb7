// SPDX-License-Identifier: Apache-2.0
/*
 * xmalloc - what one thread allocates another one frees, always (Lever and Boreham,
 * malloc() Performance in a Multithreaded Linux Environment, USENIX 2000, FREENIX).
 *
 * In prodcon a thread is either a producer or a consumer, and small pieces of a ring
 * change hands.  Here every thread is both, and whole batches do: a thread fills a
 * batch of objects of mixed sizes and puts it into the next thread's mailbox, takes what
 * lies in its own, and frees all of that.  So free lists fill up with blocks from
 * elsewhere in every thread at once.
 *
 * Batches are tokens.  There are two for each thread, and a mailbox holds one, so
 * at least N of the 2N are in threads' hands and somebody can always go on.  A thread
 * whose neighbour has not emptied its mailbox keeps the batch and frees it itself, and
 * one that has three in hand takes no more: nobody waits for a slow one, nor hoards.
 * One thread alone is its own neighbour.
 *
 * A batch's content is looked at before it is freed.
 */
#include "workload.h"

enum { BATCH, MIN_SIZE, MAX_SIZE };

static const struct nvd_parameter parameters[] = {
    [BATCH] = {"batch", 1024, 1, 1000000, "objects that change hands together"},
    [MIN_SIZE] = {"min_size", 16, NVD_MIN_BLOCK, 1 << 20, "bytes of the smallest block"},
    [MAX_SIZE] = {"max_size", 512, NVD_MIN_BLOCK, 1 << 20, "bytes of the largest block"},
};

#define BATCHES_EACH 2u

/* The number of a batch, plus one; 0: empty. */
struct mailbox {
    _Alignas(NVD_CACHE_ALIGN) atomic_size_t batch;
    size_t filled[BATCHES_EACH]; /* objects in batches of this thread's numbers */
};

enum doing { FILLING, EMPTYING };

/* What a thread is at, so that a window may end at any object. */
struct post {
    size_t spare[BATCHES_EACH + 1]; /* batches in hand with nothing in them */
    size_t spares;
    bool busy; /* `batch` is being filled or emptied */
    enum doing doing;
    size_t batch, at; /* its next object */
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[MIN_SIZE] <= values[MAX_SIZE] ? NULL : "min_size is above max_size";
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return values[BATCH] * BATCHES_EACH * threads;
}

static size_t shared_size(const uint64_t *values, unsigned threads)
{
    (void)values;
    return sizeof(struct mailbox) * threads;
}

static void setup(struct nvd_worker *worker)
{
    struct post *post = worker->state;
    for (size_t i = 0; i < BATCHES_EACH; i++)
        post->spare[post->spares++] = worker->index * BATCHES_EACH + i;
}

static size_t *filled(struct nvd_worker *worker, size_t batch)
{
    struct mailbox *boxes = worker->run->shared;
    return &boxes[batch / BATCHES_EACH].filled[batch % BATCHES_EACH];
}

/* Until the batch is full, or as full as memory allows. */
static void fill(struct nvd_worker *worker, struct post *post)
{
    const uint64_t *values = worker->values;
    const size_t base = post->batch * values[BATCH];
    bool room = true;
    while (room && post->at < values[BATCH] && nvd_running(worker)) {
        void *slot = nvd_slot(worker, base + post->at);
        uint64_t size =
            values[MIN_SIZE] + nvd_draw(worker, values[MAX_SIZE] - values[MIN_SIZE] + 1);
        room = nvd_alloc(worker, slot, size);
        if (room) {
            nvd_touch(worker, slot, size);
            post->at++;
        }
    }
    *filled(worker, post->batch) = post->at;
    post->busy = room && post->at < values[BATCH];
}

static void empty(struct nvd_worker *worker, struct post *post)
{
    const size_t base = post->batch * worker->values[BATCH];
    const size_t count = *filled(worker, post->batch);
    while (post->at < count && nvd_running(worker)) {
        if (!nvd_free_checked(worker, nvd_slot(worker, base + post->at)))
            return;
        post->at++;
    }
    post->busy = post->at < count;
}

static void start(struct post *post, enum doing doing, size_t batch)
{
    *post = (struct post){
        .spare = {post->spare[0], post->spare[1], post->spare[2]},
        .spares = post->spares,
        .busy = true,
        .doing = doing,
        .batch = batch,
    };
}

/* Release what was done to this batch's slots; the receiver's exchange acquires it. */
static void give_away(struct nvd_worker *worker, struct post *post)
{
    struct mailbox *boxes = worker->run->shared;
    atomic_size_t *next = &boxes[(worker->index + 1) % worker->run->threads].batch;
    size_t nothing = 0;
    if (!atomic_compare_exchange_strong_explicit(
            next, &nothing, post->batch + 1, memory_order_release, memory_order_relaxed))
        start(post, EMPTYING, post->batch);
}

static void finish_batch(struct nvd_worker *worker, struct post *post)
{
    if (post->doing == FILLING)
        give_away(worker, post);
    else
        post->spare[post->spares++] = post->batch;
}

static void run(struct nvd_worker *worker)
{
    struct mailbox *boxes = worker->run->shared;
    struct post *post = worker->state;
    unsigned spins = 0;
    while (nvd_running(worker)) {
        if (post->busy) {
            (post->doing == FILLING ? fill : empty)(worker, post);
            if (!post->busy)
                finish_batch(worker, post);
            continue;
        }
        size_t arrived = 0;
        if (post->spares <= BATCHES_EACH)
            arrived = atomic_exchange_explicit(&boxes[worker->index].batch, 0,
                                               memory_order_acquire);
        if (arrived != 0)
            start(post, EMPTYING, arrived - 1);
        else if (post->spares > 0)
            start(post, FILLING, post->spare[--post->spares]);
        else
            nvd_pause(&spins);
    }
}

/* A thread alone fills a batch and empties it. */
static uint64_t cycle(const uint64_t *values)
{
    return 2 * values[BATCH];
}

static struct nvd_workload xmalloc = {
    .name = "xmalloc",
    .summary = "whole batches are allocated in one thread and freed in the next",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct post),
    .check = check,
    .slot_count = slot_count,
    .shared_size = shared_size,
    .setup = setup,
    .run = run,
    .cycle = cycle,
};
NVD_WORKLOAD(xmalloc);
