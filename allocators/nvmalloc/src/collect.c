/* SPDX-License-Identifier: Apache-2.0 */
/*
 * collect.c - see collect.h.
 *
 * Theory
 * ------
 * Marks are the bytes of heap->state; nothing is written to media, so a crash
 * meanwhile costs nothing but the time.  Each of several workers has a stack
 * of ranges to look through.  A range is taken a slice at a time, so a large
 * block is shared out and no stack grows by more than a slice's words at once;
 * what a stack has too much goes to a common list, from which idle workers
 * take.  The work is done when all are idle and the list is empty.
 *
 * Conservatively, every aligned word of a block that is the offset at which a
 * block of some slab begins, or an extent, refers to it: a number that looks
 * like a reference keeps its block, never the other way round.  Words are
 * judged in batches, and what they refer to is prefetched between two passes:
 * the time goes into cache misses.
 *
 * Slabs are left unscanned: their free bits are filled in from heap->state
 * when they are first wanted (slab.c).
 */
#include "collect.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "block.h"
#include "build.h"
#include "dram.h"
#include "error.h"
#include "extent.h"
#include "root.h"
#include "sigbus.h"

#define WORKERS_MAX 16u
#define STACK_ITEMS 32768u /* a stack's, and of a parcel of the common list half */
#define SLICE_BYTES 4096u
#define BATCH       64u
/* To start a thread takes as long as to mark what is in some MiB. */
#define UNITS_PER_WORKER 64u
#define SHARE_ABOVE      32u /* a stack with more gives half when somebody is idle */

struct item {
    const char *from;
    uint64_t bytes;
    nvm_trace_fn *fn; /* NULL: conservatively */
};

struct parcel {
    struct parcel *next;
    uint32_t count;
    struct item items[STACK_ITEMS / 2];
};

struct collection {
    struct nvm_heap *heap;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct parcel *parcels; /* under lock, as all below */
    uint32_t workers;
    _Atomic uint32_t idle;
    bool done;
    _Atomic bool failed;
    int error;              /* why: ENOMEM or EUCLEAN */
    const void *unreadable; /* EUCLEAN */
    uint64_t marked;
};

struct nvm_tracer {
    struct collection *collection;
    struct nvm_heap *heap;
    struct item *stack;
    uint32_t count;
    uint64_t marked;
};

void NVM_TRACE_LEAF(struct nvm_tracer *tracer, const void *block, size_t usable,
                    void *context)
{
    (void)tracer;
    (void)block;
    (void)usable;
    (void)context;
}

/* --- stacks --- */

/* Makes all workers end. */
static void give_up(struct collection *collection, int error, const void *unreadable)
{
    pthread_mutex_lock(&collection->lock);
    collection->error = error;
    collection->unreadable = unreadable;
    collection->done = true;
    atomic_store(&collection->failed, true);
    pthread_cond_broadcast(&collection->wake);
    pthread_mutex_unlock(&collection->lock);
}

/* Moves the lower half of the stack to the common list. */
static void share(struct nvm_tracer *tracer)
{
    struct collection *collection = tracer->collection;
    struct parcel *parcel = nvm_dram_map(sizeof(*parcel));
    if (parcel == NULL) {
        give_up(collection, ENOMEM, NULL);
        tracer->count = 0;
        return;
    }
    parcel->count = tracer->count / 2;
    memcpy(parcel->items, tracer->stack, parcel->count * sizeof(struct item));
    tracer->count -= parcel->count;
    memmove(tracer->stack, tracer->stack + parcel->count,
            tracer->count * sizeof(struct item));
    pthread_mutex_lock(&collection->lock);
    parcel->next = collection->parcels;
    collection->parcels = parcel;
    pthread_cond_signal(&collection->wake);
    pthread_mutex_unlock(&collection->lock);
}

static void push(struct nvm_tracer *tracer, struct item item)
{
    if (tracer->count == STACK_ITEMS)
        share(tracer);
    tracer->stack[tracer->count++] = item;
}

/* Waits for a parcel; false: there will be none. */
static bool take_parcel(struct nvm_tracer *tracer)
{
    struct collection *collection = tracer->collection;
    pthread_mutex_lock(&collection->lock);
    if (atomic_fetch_add(&collection->idle, 1) + 1 == collection->workers &&
        collection->parcels == NULL) {
        collection->done = true;
        pthread_cond_broadcast(&collection->wake);
    }
    while (collection->parcels == NULL && !collection->done)
        pthread_cond_wait(&collection->wake, &collection->lock);
    struct parcel *parcel = collection->parcels;
    if (parcel != NULL) {
        collection->parcels = parcel->next;
        atomic_fetch_sub(&collection->idle, 1);
    }
    pthread_mutex_unlock(&collection->lock);
    if (parcel == NULL)
        return false;
    memcpy(tracer->stack, parcel->items, parcel->count * sizeof(struct item));
    tracer->count = parcel->count;
    nvm_dram_unmap(parcel, sizeof(*parcel));
    return true;
}

/* --- marking --- */

/* Coordinates of the block that begins at ref, slab's or extent, live or not. */
static inline bool find(const struct nvm_heap *heap, nvm_ref ref, struct nvm_block *block)
{
    if (nvm_block_locate(heap, ref, block) != NVM_LOCATE_NONE)
        return true;
    if (!nvm_heap_in_data(heap, ref) || ref % NVM_UNIT_BYTES != 0)
        return false;
    nvm_unit unit = nvm_unit_get(heap, nvm_heap_unit(heap, ref));
    block->offset = ref;
    block->tag = nvm_unit_tag(unit);
    return nvm_unit_kind(unit) == NVM_UNIT_EXTENT;
}

static inline uint64_t block_bytes(const struct nvm_heap *heap, struct nvm_block block)
{
    return nvm_block_is_extent(block)
               ? (uint64_t)nvm_extent_chunk(heap, nvm_tag_unit(block.tag)).units
                     << NVM_UNIT_SHIFT
               : nvm_classes[nvm_tag_class(block.tag)].size;
}

static inline void mark(struct nvm_tracer *tracer, struct nvm_block block,
                        nvm_trace_fn *fn)
{
    struct nvm_heap *heap = tracer->heap;
    uint16_t *state = nvm_block_state(heap, block.offset);
    /* Two workers may come here at once: then both trace the block, which does no harm
       and costs less than a locked instruction for each. */
    if (__atomic_load_n(state, __ATOMIC_RELAXED) != NVM_BLOCK_IDLE)
        return;
    __atomic_store_n(state, nvm_block_live_state(true, block), __ATOMIC_RELAXED);
    tracer->marked++;
    if (fn == NVM_TRACE_LEAF)
        return;
    const char *from = nvm_heap_at(heap, block.offset);
    __builtin_prefetch(from);
    push(tracer, (struct item){from, block_bytes(heap, block), fn});
}

void nvm_trace(struct nvm_tracer *tracer, nvm_ref ref, nvm_trace_fn *fn)
{
    struct nvm_block block;
    if (find(tracer->heap, ref, &block))
        mark(tracer, block, fn);
}

static void scan_slice(struct nvm_tracer *tracer, const char *from, uint64_t bytes)
{
    const struct nvm_heap *heap = tracer->heap;
    const nvm_ref *words = (const nvm_ref *)from;
    struct nvm_block batch[BATCH];
    uint64_t count = bytes / sizeof(nvm_ref);
    const uint64_t data = heap->data_offset, data_bytes = heap->data_bytes;
    for (uint64_t i = 0; i < count;) {
        unsigned found = 0;
        for (; i < count && found < BATCH; i++) {
            nvm_ref word = words[i]; /* most are no references */
            if (word - data >= data_bytes || !find(heap, word, &batch[found]))
                continue;
            __builtin_prefetch(nvm_block_state(heap, batch[found].offset), 1);
            found++;
        }
        for (unsigned k = 0; k < found; k++)
            mark(tracer, batch[k], NULL);
    }
}

static void trace_item(struct nvm_tracer *tracer)
{
    struct item item = tracer->stack[--tracer->count];
    if (item.fn != NULL) {
        item.fn(tracer, item.from, item.bytes, tracer->heap->trace_context);
        return;
    }
    uint64_t slice = item.bytes < SLICE_BYTES ? item.bytes : SLICE_BYTES;
    if (slice < item.bytes)
        push(tracer, (struct item){item.from + slice, item.bytes - slice, NULL});
    scan_slice(tracer, item.from, slice);
}

static void *work(void *argument)
{
    struct nvm_tracer *tracer = argument;
    struct collection *collection = tracer->collection;
    struct nvm_sigbus guard; /* each thread its own */
    if (nvm_sigbus_caught(&guard)) {
        give_up(collection, EUCLEAN, guard.address);
        return NULL;
    }
    do {
        while (tracer->count > 0 && !atomic_load(&collection->failed)) {
            if (tracer->count > SHARE_ABOVE && atomic_load(&collection->idle) > 0)
                share(tracer);
            trace_item(tracer);
        }
    } while (!atomic_load(&collection->failed) && take_parcel(tracer));
    nvm_sigbus_end(&guard);
    return NULL;
}

/* --- around it --- */

/* Large ranges are cut up from the start, so that workers begin together. */
static void push_roots(struct nvm_tracer *tracer)
{
    struct nvm_heap *heap = tracer->heap;
    const struct nvm_root_entry *entries = nvm_heap_at(heap, NVM_ROOTS_OFFSET);
    /* An entry whose key is damaged refers to what it did: that is no reason to free it.
     */
    for (uint32_t i = 0; i < heap->super.roots; i++)
        if (entries[i].ref != 0)
            nvm_trace(tracer, entries[i].ref, heap->trace);
    for (uint32_t i = 0; i < tracer->count; i++) {
        struct item *item = &tracer->stack[i];
        if (item->fn != NULL || item->bytes < 2 * SLICE_BYTES ||
            tracer->count == STACK_ITEMS)
            continue;
        uint64_t half = item->bytes / 2 / sizeof(nvm_ref) * sizeof(nvm_ref);
        tracer->stack[tracer->count++] =
            (struct item){item->from + half, item->bytes - half, NULL};
        item->bytes = half;
        i--;
    }
}

/* Counts the units in use, too. */
static int forget_extent(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                         void *context)
{
    uint64_t *used = context;
    if (chunk.state != NVM_CHUNK_FREE)
        *used += chunk.units;
    if (chunk.state == NVM_CHUNK_EXTENT)
        *nvm_block_state(heap, nvm_unit_offset(heap, unit)) = NVM_BLOCK_IDLE;
    return 0;
}

static int free_unreached(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                          void *context)
{
    (void)context;
    if (chunk.state == NVM_CHUNK_EXTENT &&
        *nvm_block_state(heap, nvm_unit_offset(heap, unit)) == NVM_BLOCK_IDLE) {
        chunk.state = NVM_CHUNK_FREE;
        nvm_extent_flip(heap, unit, chunk);
        nvm_extent_unreserve(heap, unit, chunk.units);
    }
    return 0;
}

/* One a CPU, but not more than have something to do. */
static uint32_t worker_count(const struct nvm_heap *heap, uint64_t used_units)
{
    cpu_set_t set;
    uint32_t count = 1;
    if (heap->threads != 0)
        count = heap->threads;
    else if (sched_getaffinity(0, sizeof(set), &set) == 0)
        count = (uint32_t)CPU_COUNT(&set);
    uint64_t useful = 1 + used_units / UNITS_PER_WORKER;
    count = count > useful ? (uint32_t)useful : count;
    return count > WORKERS_MAX ? WORKERS_MAX : count;
}

/* Runs the workers; fewer where threads or memory lack, but one at least. */
static int run(struct collection *collection, struct nvm_tracer *tracers)
{
    pthread_t threads[WORKERS_MAX];
    size_t bytes = STACK_ITEMS * sizeof(struct item);
    uint32_t wanted = collection->workers, started = 0;
    for (uint32_t i = 0; i < wanted; i++) {
        tracers[i] = (struct nvm_tracer){.collection = collection,
                                         .heap = collection->heap,
                                         .stack = nvm_dram_map(bytes)};
        if (tracers[i].stack == NULL) {
            wanted = i;
            break;
        }
    }
    if (wanted == 0)
        return ENOMEM;
    push_roots(&tracers[0]);
    pthread_mutex_lock(
        &collection->lock); /* none may look at `workers` before it is right */
    for (started = 1; started < wanted; started++)
        if (pthread_create(&threads[started], NULL, work, &tracers[started]) != 0)
            break;
    collection->workers = started;
    pthread_mutex_unlock(&collection->lock);
    work(&tracers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < wanted; i++) {
        collection->marked += tracers[i].marked;
        nvm_dram_unmap(tracers[i].stack, bytes);
    }
    return collection->error;
}

int nvm_collect(struct nvm_heap *heap)
{
    struct collection collection = {.heap = heap};
    uint64_t used_units = 0;
    struct nvm_tracer tracers[WORKERS_MAX];
    pthread_mutex_init(&collection.lock, NULL);
    pthread_cond_init(&collection.wake, NULL);
    nvm_heap_each_run(heap, forget_extent, &used_units);
    collection.workers = worker_count(heap, used_units);
    int error = run(&collection, tracers);
    while (collection.parcels != NULL) {
        struct parcel *parcel = collection.parcels;
        collection.parcels = parcel->next;
        nvm_dram_unmap(parcel, sizeof(*parcel));
    }
    pthread_cond_destroy(&collection.wake);
    pthread_mutex_destroy(&collection.lock);
    if (error == EUCLEAN)
        return nvm_sigbus_error(&(struct nvm_sigbus){.address = collection.unreadable},
                                heap);
    if (error != 0)
        return nvm_fail(error, "no memory to mark the live blocks");
    nvm_heap_each_run(heap, free_unreached, NULL);
    heap->collected = true;
    heap->replayed = collection.marked;
    return 0;
}
