/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workload.h - what a workload is, and what it may use.
 *
 * A workload is a program of allocations and frees, run by N threads on the
 * heap's slot table.  Adding one is adding two files and nothing else:
 * workloads/<name>.c, which fills a struct nvd_workload and ends with
 * NVD_WORKLOAD(it), and workloads/<name>.yaml, which says the same of its
 * parameters and heap size (`nvdrive info` prints the C side; a test holds the
 * two in agreement).
 *
 * How to write one
 * ----------------
 * 1. Declare an enum of parameter indices and the nvd_parameter table in the
 *    same order.  All parameters are integers; values arrive range-checked in
 *    run->values[].  check() may refuse combinations.
 * 2. slot_count() says how many slots the threads need.  Split them so that
 *    each slot has one owner thread at any time.  Who passes a slot on does it
 *    with a release and takes it with an acquire operation.
 * 3. prepare() (once, before the threads start) fills run->shared; setup()
 *    (each thread) builds the live set that the steady state starts from.
 * 4. run() (each thread, once a window) works until nvd_running() says no, and
 *    checks that at least once every few operations (or goes on to the end of a piece
 *    of work that makes no sense in parts; then it asks nvd_failed()).  It is called
 * again for the next window and must go on where it left: what it needs to remember lies
 * in worker->state (state_size bytes, zeroed, a cache line of its own) or in run->shared.
 * 5. Use nvd_alloc(), nvd_free() and nvd_touch() only.  nvd_alloc() returns
 *    false when there is no memory (counted) or the run has failed; don't
 *    retry at once, do something else: free, take the next slot, yield.  A
 *    workload whose slots are full but for such failures asks nvd_kept_full()
 *    before it frees, which costs nothing while all goes well.
 *
 * What a block holds: nvd_touch() writes its first 8 bytes (nvd_mark(): slot and
 * size), as the classic programs touch what they get.  Nothing is persisted:
 * the bench measures the allocator, not the application.  Every live block
 * must have been touched: after the last window the driver reads the 8 bytes
 * of all of them, so a block handed out twice does not pass unnoticed, and the
 * sum of the sizes is what the application really asked for.  So no size may
 * be below NVD_MIN_BLOCK.  A workload that keeps something else in its blocks
 * has a verify() of its own.
 *
 * A workload whose unit is not the allocation (a request to a store, a step of
 * a program) counts it in worker->requests, says so with counts_requests, and
 * times a request as a whole (nvd_request_begin(), nvd_request_end()).
 *
 * Cost: a volatile allocator needs 10 ns an operation, so the loop around it
 * counts.  The wrappers below are inline, call the adapter through pointers in
 * the worker's own cache lines, and never write shared memory.  The clock is
 * read in the latency window only, behind one branch that is always predicted.
 */
#ifndef NVD_WORKLOAD_H
#define NVD_WORKLOAD_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"
#include "latency.h"

/* Two lines: the adjacent-line prefetcher makes pairs of them travel together. */
#define NVD_CACHE_ALIGN 128

/* The smallest block that nvd_touch() may write. */
#define NVD_MIN_BLOCK 8

/* Parameters of a workload at most; the bench keeps values in a fixed array. */
#define NVD_PARAMETERS_MAX 16

struct nvd_parameter {
    const char *name; /* [a-z_]+ */
    uint64_t initial; /* the default */
    uint64_t min, max;
    const char *help; /* one line, with the unit */
};

/* What workers look at all the time and hardly anybody ever writes. */
struct nvd_signals {
    _Alignas(NVD_CACHE_ALIGN) atomic_bool stop; /* the window is over */
    atomic_bool holes;  /* an allocation has failed: slots may be empty */
    atomic_bool failed; /* the run has failed, nvd_worker_fail() */
};

/* One sample's state that all threads see; constant while they run, but for
   `signals`, `wake` and whatever the workload keeps in `shared`. */
struct nvd_run {
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap;
    char *slots; /* the slot table */
    size_t slot_size;
    size_t slot_count; /* what slot_count() asked for */
    unsigned threads;
    const uint64_t *values; /* one for each parameter */
    void *shared;           /* shared_size() bytes, zeroed, NVD_CACHE_ALIGNed */
    sem_t wake;             /* posted when a worker fails: ends the window */
    struct nvd_signals signals;
};

/* A thread's own.  The hot part is first. */
struct nvd_worker {
    _Alignas(NVD_CACHE_ALIGN) int (*alloc_to)(struct nvc_heap *, void *, size_t);
    int (*free_from)(struct nvc_heap *, void *);
    void *(*address)(struct nvc_heap *, const void *); /* NULL: use read */
    struct nvc_block (*read)(struct nvc_heap *, const void *);
    struct nvc_heap *heap;
    const struct nvd_signals *signals;
    struct nvd_latency *latency; /* not NULL: time every operation */
    uint64_t allocs, frees;      /* done in this window */
    uint64_t requests;           /* likewise, of a workload that counts_requests */
    uint64_t draw_state;         /* of nvd_draw() */
    size_t slot_size;
    char *slots;

    struct nvd_run *run;
    const uint64_t *values; /* run->values */
    void *state;            /* the workload's, state_size bytes */
    unsigned index;         /* 0 .. run->threads - 1 */

    uint64_t failed_allocs;              /* ENOMEM in this window */
    uint64_t storm_ops;                  /* allocs + frees when the storm began */
    struct nvd_latency *request_latency; /* `latency`, while a request hides it */
    uint64_t storm_length;               /* failures in a row without any success */
    uint64_t storm_since;                /* monotonic ns of the first of them */

    /* The first error that is not ENOMEM, or a storm; where is NULL if none. */
    const char *where;
    int error;
    char message[256];
};

struct nvd_trial; /* trial.h */

struct nvd_workload {
    const char *name; /* the file's name without .c */
    const char *summary;
    uint64_t heap_bytes; /* enough for the defaults and the threads of a big machine */
    const struct nvd_parameter *parameters;
    size_t parameter_count;
    size_t state_size;    /* bytes of worker->state */
    uint32_t needs;       /* NVC_... capabilities that an adapter must have */
    unsigned max_threads; /* 0: any number */
    bool counts_requests; /* worker->requests are its operations */

    /* Reads the file of --input, before anything else.  NULL, or what is wrong with it.
       The function is NULL where no file is wanted. */
    const char *(*input)(const char *path);

    /* The other shape of a workload (trial.h): not windows of operations, but a
       script with a beginning and an end.  Then run is NULL, and of the functions
       below only check and slot_count are used. */
    int (*trial)(struct nvd_trial *trial);

    /* NULL, or why these values don't go together (static text).  May be NULL. */
    const char *(*check)(const uint64_t *values, unsigned threads);
    size_t (*slot_count)(const uint64_t *values, unsigned threads);
    /* Bytes of run->shared.  May be NULL. */
    size_t (*shared_size)(const uint64_t *values, unsigned threads);
    void (*prepare)(struct nvd_run *run);     /* may be NULL */
    void (*setup)(struct nvd_worker *worker); /* may be NULL */
    void (*run)(struct nvd_worker *worker);
    /* Checks all that the workload keeps in the heap, between two windows, by
       thread 0 alone; sets *bytes to what the application asked for and has.
       False after nvd_worker_fail(worker, "sweep", 0, why).  NULL: the driver
       looks at what nvd_touch() wrote. */
    bool (*verify)(struct nvd_worker *worker, uint64_t *bytes);
    /* Frees what verify() and run() keep in DRAM.  May be NULL. */
    void (*finish)(struct nvd_run *run);
    /* After how many operations of a thread alone run() has come round to where it
       was.  NULL: it has no phases, any stretch of it is like any other. */
    uint64_t (*cycle)(const uint64_t *values);

    struct nvd_workload *next; /* the registry's */
};

/* workload.c: the registry, sorted by name. */
void nvd_workload_register(struct nvd_workload *workload);
const struct nvd_workload *nvd_workload_first(void);
const struct nvd_workload *nvd_workload_find(const char *name);
/* Sets the parameter that "KEY=VALUE" names.  NULL, or what is wrong with it:
   a text that lives until the thread's next call. */
const char *nvd_workload_set(const struct nvd_workload *workload, uint64_t *values,
                             const char *assignment);

/* Registers before main(). */
#define NVD_WORKLOAD(workload)                                                           \
    __attribute__((constructor)) static void nvd_register_##workload(void)               \
    {                                                                                    \
        nvd_workload_register(&workload);                                                \
    }                                                                                    \
    _Static_assert(sizeof(workload) == sizeof(struct nvd_workload),                      \
                   "a struct nvd_workload")

/* The slow halves of the wrappers below (workload.c). */
uint64_t nvd_request_begin_timed(struct nvd_worker *worker);
void nvd_request_end_timed(struct nvd_worker *worker, uint64_t begin);
int nvd_alloc_timed(struct nvd_worker *worker, void *slot, size_t size);
void nvd_block_spoilt(struct nvd_worker *worker, const void *slot, uint64_t found);
int nvd_free_timed(struct nvd_worker *worker, void *slot);
void nvd_alloc_failed(struct nvd_worker *worker, int error);
/* Notes the error unless there is one already, and ends the window for all. */
void nvd_worker_fail(struct nvd_worker *worker, const char *where, int error,
                     const char *message);

static inline bool nvd_running(const struct nvd_worker *worker)
{
    return !atomic_load_explicit(&worker->signals->stop, memory_order_relaxed);
}

/* For a workload that goes on when the window is over, because another worker waits for
   what it does: it must not when the run has failed. */
static inline bool nvd_failed(const struct nvd_worker *worker)
{
    return atomic_load_explicit(&worker->signals->failed, memory_order_relaxed);
}

static inline void *nvd_slot(const struct nvd_worker *worker, size_t index)
{
    return worker->slots + index * worker->slot_size;
}

/* Allocates into an empty slot; false, and the slot stays empty, when not. */
static inline bool nvd_alloc(struct nvd_worker *worker, void *slot, size_t size)
{
    int error = __builtin_expect(worker->latency == NULL, 1)
                    ? worker->alloc_to(worker->heap, slot, size)
                    : nvd_alloc_timed(worker, slot, size);
    if (__builtin_expect(error != 0, 0)) {
        nvd_alloc_failed(worker, error);
        return false;
    }
    worker->allocs++;
    return true;
}

/* Frees what a full slot refers to; false only when the run has failed. */
static inline bool nvd_free(struct nvd_worker *worker, void *slot)
{
    int error = __builtin_expect(worker->latency == NULL, 1)
                    ? worker->free_from(worker->heap, slot)
                    : nvd_free_timed(worker, slot);
    if (__builtin_expect(error != 0, 0)) {
        nvd_worker_fail(worker, "free_from", error, NULL);
        return false;
    }
    worker->frees++;
    return true;
}

/* A request begins; what it allocates and frees is not timed by itself.  The
   result is nvd_request_end()'s. */
static inline uint64_t nvd_request_begin(struct nvd_worker *worker)
{
    return __builtin_expect(worker->latency == NULL, 1) ? 0
                                                        : nvd_request_begin_timed(worker);
}

/* The request is done, and counts. */
static inline void nvd_request_end(struct nvd_worker *worker, uint64_t begin)
{
    worker->requests++;
    if (__builtin_expect(worker->request_latency != NULL, 0))
        nvd_request_end_timed(worker, begin);
}

/* The request could not be served; it does not count. */
static inline void nvd_request_cancel(struct nvd_worker *worker)
{
    if (worker->request_latency != NULL) {
        worker->latency = worker->request_latency;
        worker->request_latency = NULL;
    }
}

/* The block of a slot, NULL if the slot is empty. */
static inline void *nvd_block(const struct nvd_worker *worker, const void *slot)
{
    return __builtin_expect(worker->address != NULL, 1)
               ? worker->address(worker->heap, slot)
               : worker->read(worker->heap, slot).address;
}

/* Whether a slot that the workload fills whenever memory allows is full.  A
   slot that came from another thread came with acquire, and with it the news
   that this thread's allocation failed. */
static inline bool nvd_kept_full(const struct nvd_worker *worker, const void *slot)
{
    return __builtin_expect(
               !atomic_load_explicit(&worker->signals->holes, memory_order_relaxed), 1) ||
           nvd_block(worker, slot) != NULL;
}

/* What a block of the table's slot holds: who owns it (the low half of the slot's
   address, unique in a table of less than 4 GB) and the size asked for. */
static inline uint64_t nvd_mark(const void *slot, size_t size)
{
    return (uint64_t)size << 32 | (uint32_t)(uintptr_t)slot;
}

/* Writes the first 8 bytes of a full slot's block of `size` < 4 GB. */
static inline void nvd_touch(const struct nvd_worker *worker, const void *slot,
                             size_t size)
{
    uint64_t *block = nvd_block(worker, slot);
    *block = nvd_mark(slot, size);
}

/* nvd_free() of a touched block, after a look at whether it is still what was written:
   for workloads whose blocks change hands. */
static inline bool nvd_free_checked(struct nvd_worker *worker, void *slot)
{
    const uint64_t *block = nvd_block(worker, slot);
    if (__builtin_expect((uint32_t)*block != (uint32_t)nvd_mark(slot, 0), 0)) {
        nvd_block_spoilt(worker, slot, *block);
        return false;
    }
    return nvd_free(worker, slot);
}

/* Lets the other threads go on while this one waits for them: spins, and now and then
   gives its CPU away. */
void nvd_pause(unsigned *spins);

/* Uniform in [0, bound), 0 < bound <= 2^32.  The high half of Knuth's MMIX
   congruential generator (The Art of Computer Programming 2, 3.3.4): one
   multiplication, where the driver's better generator would cost as much as a
   cached allocation.  The bias, at most bound / 2^32, does not matter here. */
static inline uint64_t nvd_draw(struct nvd_worker *worker, uint64_t bound)
{
    worker->draw_state = worker->draw_state * UINT64_C(6364136223846793005) +
                         UINT64_C(1442695040888963407);
    return (worker->draw_state >> 32) * bound >> 32;
}

#endif
