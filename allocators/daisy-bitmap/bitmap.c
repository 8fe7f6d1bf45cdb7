/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap.c - the run search and the two operations; bitmap.h has the theory.
 */
#include "bitmap.h"

#include <errno.h>
#include <stdbool.h>

#define WORD_BITS 64

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Offset of a granule in the file, and the granule of a block's offset. */
static uint64_t offset_of(const struct nvc_heap *heap, uint64_t granule)
{
    return (uint64_t)(heap->granules - heap->region.base) + granule * BITMAP_GRANULE;
}

/* Granules of a block with a size, the granule of the size itself included. */
static uint64_t run_of(uint64_t size)
{
    return 1 + (size + BITMAP_GRANULE - 1) / BITMAP_GRANULE;
}

/* First granule in [from, end) whose bit is `set`, or end. */
static uint64_t find_bit(const struct nvc_heap *heap, uint64_t from, uint64_t end,
                         bool set)
{
    while (from < end) {
        uint64_t word = heap->bits[from / WORD_BITS];
        if (!set)
            word = ~word;
        word >>= from % WORD_BITS;
        if (word != 0)
            return least(from + (uint64_t)__builtin_ctzll(word), end);
        from += WORD_BITS - from % WORD_BITS;
    }
    return end;
}

/* First granule of `run` free ones in [from, end), or end. */
static uint64_t find_run(const struct nvc_heap *heap, uint64_t from, uint64_t end,
                         uint64_t run)
{
    while (from < end) {
        uint64_t free = find_bit(heap, from, end, false);
        if (end - free < run)
            return end;
        uint64_t stop = find_bit(heap, free, free + run, true);
        if (stop == free + run)
            return free;
        from = stop;
    }
    return end;
}

static void mark_run(struct nvc_heap *heap, uint64_t first, uint64_t run, bool used)
{
    const uint64_t end = first + run;
    for (uint64_t at = first; at < end;) {
        uint64_t here = least(WORD_BITS - at % WORD_BITS, end - at);
        uint64_t mask = (here == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << here) - 1)
                        << at % WORD_BITS;
        if (used)
            heap->bits[at / WORD_BITS] |= mask;
        else
            heap->bits[at / WORD_BITS] &= ~mask;
        at += here;
    }
    uint64_t *word = &heap->bits[first / WORD_BITS];
    native_heap_persist(word, ((end - 1) / WORD_BITS - first / WORD_BITS + 1) * 8);
    heap->used += used ? run : -run;
}

static uint64_t *size_at(const struct nvc_heap *heap, uint64_t granule)
{
    return (uint64_t *)(void *)(heap->granules + granule * BITMAP_GRANULE);
}

int bitmap_mount(struct nvc_heap *heap)
{
    const uint64_t bytes = heap->region.bytes;
    uint64_t at = NATIVE_HEAP_FIRST + heap->region.slots * sizeof(struct bind_node);
    at = (at + 63) & ~UINT64_C(63);
    if (heap->region.slots > bytes / sizeof(struct bind_node) || bytes < at + 4096)
        return native_heap_fail(EINVAL, "%llu slots don't fit in a heap of %llu bytes",
                                (unsigned long long)heap->region.slots,
                                (unsigned long long)bytes);
    heap->nodes = (struct bind_node *)(void *)(heap->region.base + NATIVE_HEAP_FIRST);
    heap->bits = (uint64_t *)(void *)(heap->region.base + at);
    /* A granule takes its own bytes and a bit. */
    uint64_t bitmap = ((bytes - at) / (8 * BITMAP_GRANULE + 1) + 63) & ~UINT64_C(63);
    heap->granules = heap->region.base + at + bitmap;
    heap->count = least((bytes - at - bitmap) / BITMAP_GRANULE, bitmap * 8);
    heap->next = heap->used = heap->live = 0;
    for (uint64_t word = 0; word < bitmap / 8; word++)
        heap->used += (uint64_t)__builtin_popcountll(heap->bits[word]);
    for (uint64_t i = 0; i < heap->region.slots; i++)
        heap->live += bitmap_usable(heap, heap->nodes[i].offset);
    return 0;
}

uint64_t bitmap_malloc(struct nvc_heap *heap, uint64_t size)
{
    if (size > heap->region.bytes)
        return 0;
    const uint64_t run = run_of(size);
    uint64_t granule = find_run(heap, heap->next, heap->count, run);
    if (granule == heap->count) {
        /* Once more from the beginning, and over the place where it began. */
        uint64_t end = least(heap->next + run - 1, heap->count);
        granule = find_run(heap, 0, end, run);
        if (granule == end)
            return 0;
    }
    mark_run(heap, granule, run, true);
    uint64_t *place = size_at(heap, granule);
    *place = size;
    native_heap_persist(place, sizeof *place);
    heap->next = granule + run;
    heap->live += (run - 1) * BITMAP_GRANULE;
    return offset_of(heap, granule + 1);
}

/* True if a whole run can lie at a granule, by the size in it. */
static bool is_run(const struct nvc_heap *heap, uint64_t granule)
{
    if (granule >= heap->count)
        return false;
    uint64_t size = *size_at(heap, granule);
    return size != 0 && size <= heap->region.bytes &&
           run_of(size) <= heap->count - granule;
}

/* The granule that holds the size of the block at an offset; count if none can. */
static uint64_t granule_of(const struct nvc_heap *heap, uint64_t offset)
{
    uint64_t first = offset_of(heap, 1);
    if (offset < first || (offset - first) % BITMAP_GRANULE != 0)
        return heap->count;
    return least((offset - first) / BITMAP_GRANULE, heap->count);
}

int bitmap_free(struct nvc_heap *heap, uint64_t offset)
{
    uint64_t granule = granule_of(heap, offset);
    if (!is_run(heap, granule))
        return native_heap_fail(EINVAL, "there is no block at offset %#llx",
                                (unsigned long long)offset);
    uint64_t run = run_of(*size_at(heap, granule));
    mark_run(heap, granule, run, false);
    heap->live -= (run - 1) * BITMAP_GRANULE;
    return 0;
}

uint64_t bitmap_usable(const struct nvc_heap *heap, uint64_t offset)
{
    uint64_t granule = granule_of(heap, offset);
    return is_run(heap, granule) ? (run_of(*size_at(heap, granule)) - 1) * BITMAP_GRANULE
                                 : 0;
}

int bitmap_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    uint64_t granule = find_bit(heap, 0, heap->count, true);
    while (granule < heap->count) {
        if (!is_run(heap, granule))
            return native_heap_fail(EUCLEAN, "granule %llu is in use by no block",
                                    (unsigned long long)granule);
        uint64_t run = run_of(*size_at(heap, granule));
        struct nvc_block block = {
            .address = heap->region.base + offset_of(heap, granule + 1),
            .usable = (run - 1) * BITMAP_GRANULE,
        };
        int stop = visit(context, block);
        if (stop != 0)
            return stop;
        granule = find_bit(heap, granule + run, heap->count, true);
    }
    return 0;
}
