// SPDX-License-Identifier: Apache-2.0
/*
 * first_fit.c - the smallest allocator that survives SIGKILL and power loss.
 *
 * Model.  The heap is cut into granules of 64 bytes.  extents[g] is the number
 * of granules of the live block that begins at granule g, or 0.  A slot is 8
 * bytes, run << 32 | first granule, 0 when empty.  Which granules are free is
 * known in DRAM only (a bitmap), and rebuilt from extents[] at open.
 *
 * Durability.  One redo record for the heap, under one mutex:
 *   1. record's fields, persist          (a record not armed is ignored)
 *   2. record.armed = 1, persist         (from here the operation happens)
 *   3. extents[g] = n or 0, *slot = {n, g} or 0, flush both, fence
 *   4. record.armed = 0, persist
 * A crash before 2 is durable: nothing was changed.  After it: recovery redoes
 * 3, whose stores have the same result however often they are repeated, and
 * disarms.  No other record exists, so none can be stale.  A slot may lie in a
 * block: the record is disarmed before any later operation could free it.
 *
 * Media, in this order:
 *      0  struct header, 128 bytes
 *    128  slots x 8 bytes
 *         extents, 4 bytes a granule of the file (those of metadata stay 0)
 *         data, from first_granule on
 * Valid iff magic matches and size is the file's length.
 *
 * Locking: `lock` serialises alloc, free, and all of the bitmap.
 *
 * The planted faults (first_fit.h) are branches on the personality, each
 * marked FAULT.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "adapter.h"
#include "first_fit.h"

#define MAGIC UINT64_C(0x3154494654535246) /* "FRSTFIT1" */

enum {
    granule = 64,
    quarantine_granules = 64, /* leaks_at_recovery: 4 KiB each time */
};

struct header {
    uint64_t magic;
    uint64_t size;
    uint64_t slots;
    uint64_t first_granule;
    uint32_t clean;      /* 1: closed, nothing to recover */
    uint32_t high_water; /* granule behind the last live block, at clean close */
    uint64_t pad[3];
    struct {
        uint32_t armed;
        uint32_t is_free;
        uint64_t slot; /* offset of the slot in the file */
        uint32_t at;   /* granule */
        uint32_t run;  /* granules */
        uint64_t pad[5];
    } record; /* a line of its own */
};
_Static_assert(sizeof(struct header) == 128, "header");

struct nvc_heap {
    pthread_mutex_t lock;
    unsigned char *base;
    struct header *header;
    uint32_t *extents;
    uint64_t *used; /* bitmap in DRAM: 1 = not free */
    uint32_t granules;
    uint32_t rover; /* where the next search begins */
    bool recovered; /* this open was of a heap that was not closed */
    bool created;   /* by this process */
    unsigned allocs, frees;
};

static _Thread_local char error_text[128];
static nvc_event_fn *event_fn;
static void *event_context;
static _Atomic uint64_t flushes, fences;

static int failed(int error, const char *text)
{
    snprintf(error_text, sizeof error_text, "%s", text);
    return error;
}

/* ---- persistence ---- */

static void flush(const void *address, size_t length)
{
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_FLUSH, address, length);
    uintptr_t line = (uintptr_t)address & ~(uintptr_t)63;
    for (; line < (uintptr_t)address + length; line += 64) {
#if defined(__x86_64__)
        _mm_clflush((const void *)line);
#endif
        atomic_fetch_add_explicit(&flushes, 1, memory_order_relaxed);
    }
}

static void fence(void)
{
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_FENCE, NULL, 0);
#if defined(__x86_64__)
    _mm_sfence();
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
    atomic_fetch_add_explicit(&fences, 1, memory_order_relaxed);
}

static void persist_range(const void *address, size_t length)
{
    flush(address, length);
    fence();
}

/* Stores that a crash may fall between must not be merged or moved by the
   compiler; a 4- or 8-byte aligned one is atomic. */
static void store32(uint32_t *where, uint32_t value)
{
    atomic_signal_fence(memory_order_seq_cst);
    *(volatile uint32_t *)where = value;
    atomic_signal_fence(memory_order_seq_cst);
}

static void store64(uint64_t *where, uint64_t value)
{
    atomic_signal_fence(memory_order_seq_cst);
    *(volatile uint64_t *)where = value;
    atomic_signal_fence(memory_order_seq_cst);
}

/* ---- free granules, in DRAM ---- */

static bool is_used(const struct nvc_heap *heap, uint32_t g)
{
    return heap->used[g / 64] >> (g % 64) & 1;
}

static void mark_run(struct nvc_heap *heap, uint32_t at, uint32_t run, bool used)
{
    for (uint32_t g = at; g < at + run;) {
        if (g % 64 == 0 && at + run - g >= 64) {
            heap->used[g / 64] = used ? UINT64_MAX : 0;
            g += 64;
            continue;
        }
        uint64_t bit = UINT64_C(1) << (g % 64);
        heap->used[g / 64] = used ? heap->used[g / 64] | bit : heap->used[g / 64] & ~bit;
        g++;
    }
}

/* First run of free granules in [from, to); 0 if there is none. */
static uint32_t find_run(const struct nvc_heap *heap, uint32_t run, uint32_t from,
                         uint32_t to)
{
    uint32_t length = 0;
    for (uint32_t g = from; g < to;) {
        if (g % 64 == 0 && to - g >= 64) {
            uint64_t word = heap->used[g / 64];
            if (word == UINT64_MAX || word == 0) {
                length = word == 0 ? length + 64 : 0;
                g += 64;
                if (length >= run)
                    return g - length;
                continue;
            }
        }
        length = is_used(heap, g) ? 0 : length + 1;
        g++;
        if (length >= run)
            return g - length;
    }
    return 0;
}

static uint32_t take_run(struct nvc_heap *heap, uint32_t run)
{
    uint32_t first = (uint32_t)heap->header->first_granule;
    uint32_t at = find_run(heap, run, heap->rover, heap->granules);
    if (at == 0)
        at = find_run(heap, run, first, heap->granules);
    if (at != 0) {
        mark_run(heap, at, run, true);
        heap->rover = at + run < heap->granules ? at + run : first;
    }
    return at;
}

/* ---- operations ---- */

static uint64_t *slot_at(struct nvc_heap *heap, uint64_t offset)
{
    return (uint64_t *)(heap->base + offset);
}

static uint64_t reference(uint32_t at, uint32_t run)
{
    return run != 0 ? (uint64_t)run << 32 | at : 0;
}

/* Step 3; repeatable. */
static void apply(struct nvc_heap *heap, uint64_t slot, uint32_t at, uint32_t run)
{
    if (run != 0 || !first_fit_personality.free_forgets_mark) { /* FAULT */
        store32(&heap->extents[at], run);
        flush(&heap->extents[at], sizeof heap->extents[at]);
    }
    store64(slot_at(heap, slot), reference(at, run));
    flush(slot_at(heap, slot), sizeof(uint64_t));
    fence();
}

static void run_logged(struct nvc_heap *heap, uint64_t slot, uint32_t at, uint32_t run,
                       bool is_free)
{
    struct header *header = heap->header;
    header->record.slot = slot;
    header->record.at = at;
    header->record.run = run;
    header->record.is_free = is_free;
    persist_range(&header->record, sizeof header->record);
    store32(&header->record.armed, 1);
    persist_range(&header->record, sizeof header->record);
    apply(heap, slot, at, is_free ? 0 : run);
    if (first_fit_personality.rolls_back_acknowledged) /* FAULT */
        return;
    store32(&header->record.armed, 0);
    persist_range(&header->record, sizeof header->record);
}

/* FAULT: a crash between the two leaves a slot whose block is free. */
static void publish_then_mark(struct nvc_heap *heap, uint64_t slot, uint32_t at,
                              uint32_t run)
{
    store64(slot_at(heap, slot), reference(at, run));
    persist_range(slot_at(heap, slot), sizeof(uint64_t));
    store32(&heap->extents[at], run);
    persist_range(&heap->extents[at], sizeof heap->extents[at]);
}

static int first_fit_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    if (size == 0 || *(const uint64_t *)slot != 0)
        return failed(EINVAL, "the size is 0 or the slot is not empty");
    if (size > (size_t)heap->granules * granule)
        return failed(ENOMEM, "larger than the heap");
    uint32_t run = (uint32_t)((size + granule - 1) / granule);
    uint64_t where = (uint64_t)((unsigned char *)slot - heap->base);
    pthread_mutex_lock(&heap->lock);
    if (heap->created && ++heap->allocs == first_fit_personality.crashes_at_alloc)
        raise(SIGSEGV); /* FAULT */
    uint32_t at = take_run(heap, run);
    if (at != 0) {
        if (first_fit_personality.publish_before_mark)
            publish_then_mark(heap, where, at, run);
        else
            run_logged(heap, where, at, run, false);
    }
    pthread_mutex_unlock(&heap->lock);
    return at != 0 ? 0 : failed(ENOMEM, "no run of free granules is long enough");
}

static int first_fit_free_from(struct nvc_heap *heap, void *slot)
{
    uint64_t word = *(const uint64_t *)slot;
    uint32_t at = (uint32_t)word, run = (uint32_t)(word >> 32);
    if (at < heap->header->first_granule || at >= heap->granules ||
        run > heap->granules - at)
        return failed(EINVAL, "the slot refers to no block");
    pthread_mutex_lock(&heap->lock);
    if (first_fit_personality.refuses_free_each != 0 &&
        ++heap->frees % first_fit_personality.refuses_free_each == 0) { /* FAULT */
        pthread_mutex_unlock(&heap->lock);
        return failed(EIO, "not in the mood");
    }
    run_logged(heap, (uint64_t)((unsigned char *)slot - heap->base), at, run, true);
    if (!first_fit_personality.free_forgets_mark) /* FAULT */
        mark_run(heap, at, run, false);
    pthread_mutex_unlock(&heap->lock);
    return 0;
}

static struct nvc_block first_fit_read(struct nvc_heap *heap, const void *slot)
{
    uint64_t word = *(const uint64_t *)slot;
    if (word == 0)
        return (struct nvc_block){NULL, 0};
    return (struct nvc_block){heap->base + (word & UINT32_MAX) * granule,
                              (word >> 32) * granule};
}

static void first_fit_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    persist_range(address, length);
}

static int first_fit_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    for (uint32_t g = 0; g < heap->granules; g++) {
        if (heap->extents[g] == 0)
            continue;
        struct nvc_block block = {heap->base + (size_t)g * granule,
                                  (size_t)heap->extents[g] * granule};
        int stop = visit(context, block);
        if (stop != 0)
            return stop;
    }
    return 0;
}

/* ---- open, recovery, close ---- */

static int take_image(void *base, size_t size, struct nvc_heap **heap)
{
    struct nvc_heap *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failed(ENOMEM, "no memory for the heap's handle");
    made->base = base;
    pthread_mutex_init(&made->lock, NULL);
    made->header = base;
    made->granules = (uint32_t)(size / granule);
    *heap = made;
    return 0;
}

static int map_heap(int fd, size_t size, struct nvc_heap **heap)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return failed(errno, "the heap can't be mapped");
    int error = take_image(base, size, heap);
    if (error != 0)
        munmap(base, size);
    return error;
}

static void forget_heap(struct nvc_heap *heap)
{
    pthread_mutex_destroy(&heap->lock);
    free(heap->used);
    free(heap);
}

static void unmap_heap(struct nvc_heap *heap)
{
    munmap(heap->base, (size_t)heap->granules * granule);
    forget_heap(heap);
}

/* FAULT: takes back the operation of the record, which may be long acknowledged. */
static void roll_back(struct nvc_heap *heap)
{
    const struct header *header = heap->header;
    apply(heap, header->record.slot, header->record.at,
          header->record.is_free ? header->record.run : 0);
}

static void redo(struct nvc_heap *heap)
{
    const struct header *header = heap->header;
    apply(heap, header->record.slot, header->record.at,
          header->record.is_free ? 0 : header->record.run);
}

/* FAULT */
static void scribble(struct nvc_heap *heap)
{
    for (uint32_t g = 0; g < heap->granules; g++) {
        if (heap->extents[g] != 0) {
            memset(heap->base + (size_t)g * granule, 0xbd, granule);
            return;
        }
    }
}

static void recover(struct nvc_heap *heap)
{
    struct header *header = heap->header;
    if (header->record.armed) {
        while (first_fit_personality.hangs_in_recovery &&
               header->record.is_free) /* FAULT */
            atomic_signal_fence(memory_order_seq_cst);
        if (first_fit_personality.rolls_back_acknowledged)
            roll_back(heap);
        else
            redo(heap);
        store32(&header->record.armed, 0);
        persist_range(&header->record, sizeof header->record);
    }
    if (first_fit_personality.scribbles_at_recovery)
        scribble(heap);
}

/* Rebuilds the bitmap. */
static int mount(struct nvc_heap *heap)
{
    struct header *header = heap->header;
    heap->extents = (uint32_t *)(heap->base + sizeof *header + header->slots * 8);
    heap->used = calloc(heap->granules / 64 + 1, sizeof *heap->used);
    if (heap->used == NULL)
        return failed(ENOMEM, "no memory for the bitmap");
    heap->rover = (uint32_t)header->first_granule;
    mark_run(heap, 0, heap->rover, true);
    bool recovering = !header->clean;
    heap->recovered = recovering;
    if (recovering)
        recover(heap);
    for (uint32_t g = 0; g < heap->granules; g++) {
        bool trusted = !first_fit_personality.forgets_above_high_water ||
                       g < header->high_water; /* FAULT */
        if (heap->extents[g] != 0 && trusted)
            mark_run(heap, g, heap->extents[g], true);
    }
    if (recovering && first_fit_personality.leaks_at_recovery) { /* FAULT */
        uint32_t at = take_run(heap, quarantine_granules);
        if (at != 0)
            store32(&heap->extents[at], quarantine_granules);
    }
    store32(&header->clean, 0);
    persist_range(header, sizeof *header);
    return 0;
}

static bool is_heap(const struct nvc_heap *heap, size_t size)
{
    return heap->header->magic == MAGIC && heap->header->size == size;
}

static int first_fit_attach(void *base, size_t size, const struct nvc_options *options,
                            struct nvc_heap **heap)
{
    (void)options;
    int error = take_image(base, size, heap);
    if (error != 0)
        return error;
    error = is_heap(*heap, size) ? mount(*heap)
                                 : failed(EMEDIUMTYPE, "not a heap of this allocator");
    if (error != 0)
        forget_heap(*heap);
    return error;
}

static int first_fit_open(const char *path, const struct nvc_options *options,
                          struct nvc_heap **heap)
{
    (void)options;
    struct stat status;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return failed(errno, "the heap file can't be opened");
    int error = fstat(fd, &status) != 0 ? errno : 0;
    if (error == 0 && (size_t)status.st_size < sizeof(struct header))
        error = EMEDIUMTYPE;
    if (error == 0)
        error = map_heap(fd, (size_t)status.st_size, heap);
    close(fd);
    if (error != 0)
        return failed(error, "the heap file can't be used");
    if (!is_heap(*heap, (size_t)status.st_size))
        error = failed(EMEDIUMTYPE, "not a heap of this allocator");
    else
        error = mount(*heap);
    if (error != 0)
        unmap_heap(*heap);
    return error;
}

static int first_fit_create(const char *path, const struct nvc_options *options,
                            struct nvc_heap **heap)
{
    size_t size = options->size & ~(size_t)4095;
    size_t metadata = sizeof(struct header) + options->slots * 8 + size / granule * 4;
    if (size < 65536 || metadata + 4096 > size)
        return failed(EINVAL, "the heap is too small for its slots");
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(errno, "the heap file can't be made");
    int error = posix_fallocate(fd, 0, (off_t)size);
    if (error == 0)
        error = map_heap(fd, size, heap);
    close(fd);
    if (error != 0) {
        unlink(path);
        return failed(error, "no space for the heap file");
    }
    struct header *header = (*heap)->header;
    header->size = size;
    header->slots = options->slots;
    header->first_granule = (metadata + granule - 1) / granule;
    header->clean = 1;
    persist_range(header, sizeof *header);
    store64(&header->magic, MAGIC);
    persist_range(header, sizeof *header);
    error = mount(*heap);
    if (error != 0)
        unmap_heap(*heap);
    else
        (*heap)->created = true;
    return error;
}

static int first_fit_close(struct nvc_heap *heap)
{
    uint32_t high_water = 0;
    for (uint32_t g = 0; g < heap->granules; g++) {
        if (heap->extents[g] != 0)
            high_water = g + heap->extents[g];
    }
    store32(&heap->header->high_water, high_water);
    persist_range(heap->header, sizeof *heap->header);
    store32(&heap->header->clean, 1);
    persist_range(heap->header, sizeof *heap->header);
    unmap_heap(heap);
    return 0;
}

/* ---- the rest of the contract ---- */

static void *first_fit_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->header->slots;
    return heap->base + sizeof(struct header);
}

static struct nvc_block first_fit_range(struct nvc_heap *heap)
{
    return (struct nvc_block){heap->base, heap->header->size};
}

static void first_fit_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    uint64_t used = 0, live = 0;
    pthread_mutex_lock(&heap->lock);
    for (uint32_t g = 0; g < heap->granules; g++) {
        used += is_used(heap, g);
        live += heap->extents[g];
    }
    pthread_mutex_unlock(&heap->lock);
    /* What keeps its blocks to itself keeps their sum too. */
    stats->live_bytes = first_fit_personality.walks ? live * granule : UINT64_MAX;
    stats->heap_bytes = heap->header->size;
    stats->used_bytes = used * granule;
    stats->flushes = flushes;
    stats->fences = fences;
    stats->nt_lines = 0;
    snprintf(stats->flush, sizeof stats->flush, "clflush");
}

/* Extents are disjoint and inside the heap. */
static int first_fit_check(struct nvc_heap *heap)
{
    uint64_t end = heap->header->first_granule;
    if (first_fit_personality.check_cries_wolf && heap->recovered) /* FAULT */
        return failed(EUCLEAN, "wolf");
    for (uint32_t g = 0; g < heap->granules; g++) {
        if (heap->extents[g] == 0)
            continue;
        if (g < end || heap->extents[g] > heap->granules - g)
            return failed(EUCLEAN, "an extent lies in another, or outside of the heap");
        end = g + heap->extents[g];
    }
    return 0;
}

static int first_fit_observe(nvc_event_fn *fn, void *context)
{
    event_context = context;
    event_fn = fn;
    return 0;
}

static const char *first_fit_version(void)
{
    return "1";
}

static const char *first_fit_last_error(void)
{
    return error_text;
}

extern nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    static struct nvc_adapter adapter = {
        .version = NVC_ADAPTER_VERSION,
        .struct_size = sizeof(struct nvc_adapter),
        .consistency = NVC_CONSISTENCY_LOG,
        .slot_size = 8,
        .min_size = 65536,
        .library_version = first_fit_version,
        .create = first_fit_create,
        .open = first_fit_open,
        .close = first_fit_close,
        .check = first_fit_check,
        .slots = first_fit_slots,
        .range = first_fit_range,
        .alloc_to = first_fit_alloc_to,
        .free_from = first_fit_free_from,
        .read = first_fit_read,
        .persist = first_fit_persist,
        .stats = first_fit_stats,
        .observe = first_fit_observe,
        .last_error = first_fit_last_error,
        .attach = first_fit_attach,
        .detach = forget_heap,
    };
    adapter.name = first_fit_personality.name;
    adapter.capabilities =
        NVC_PERSISTENT | NVC_THREADS | NVC_OBSERVABLE | NVC_NESTED_SLOTS;
    if (first_fit_personality.walks) {
        adapter.capabilities |= NVC_WALK;
        adapter.walk = first_fit_walk;
    }
    return &adapter;
}
