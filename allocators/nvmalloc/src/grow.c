/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grow.c - see grow.h.
 *
 * Order, so that a crash at any line loses nothing: the file system allocates
 * the new units and their metadata; the chunk entry that makes them one free
 * run is durable; then the superblock, both copies, says that they are there.
 * Until it does, the walk does not come to them, and the file is merely longer
 * than the heap.
 *
 * Holes: before pages are given back the superblock says that free units may
 * be holes; from then on, and after every open of such a heap, units are
 * allocated in the file again before they are handed out.
 */
#include "grow.h"

#include <errno.h>

#include "arena.h"
#include "build.h"
#include "error.h"
#include "extent.h"
#include "heap.h"
#include "tcache.h"

/* A step: 1/32 of the heap, within these bounds. */
#define STEP_MIN ((uint32_t)4)
#define STEP_MAX ((uint32_t)1024)

static int allocate_pages(struct nvm_heap *heap, uint64_t from, uint64_t to)
{
    from &= ~(NVM_PAGE - 1);
    return nvm_region_allocate(&heap->region, from, to - from);
}

/* The chunk entries and bitmaps of units [first, end). */
static int allocate_metadata(struct nvm_heap *heap, uint64_t first, uint64_t end)
{
    const struct nvm_super *super = &heap->super;
    int error = allocate_pages(heap, super->chunk_offset + first * 8,
                               super->chunk_offset + end * 8);
    if (error == 0)
        error = allocate_pages(heap, super->bitmap_offset + first * NVM_BITMAP_BYTES,
                               super->bitmap_offset + end * NVM_BITMAP_BYTES);
    return error;
}

int nvm_heap_allocate(struct nvm_heap *heap)
{
    const struct nvm_super *super = &heap->super;
    if (super->size == super->max_size)
        return nvm_region_allocate(&heap->region, 0, super->size);
    int error = allocate_pages(heap, 0, super->lanes_offset);
    if (error == 0)
        error = allocate_metadata(heap, 0, super->units);
    if (error == 0)
        error = allocate_pages(heap, super->data_offset, super->size);
    return error;
}

int nvm_heap_allocate_lanes(struct nvm_heap *heap, uint32_t count)
{
    struct nvm_super *super = &heap->super;
    if (count <= super->lanes_used)
        return 0;
    uint64_t bytes = (uint64_t)super->ring * sizeof(struct nvm_record);
    int error = allocate_pages(heap, super->lanes_offset + (count - 1) * bytes,
                               super->lanes_offset + count * bytes);
    if (error != 0)
        return error;
    _Alignas(64) struct nvm_record blank = nvm_record_blank(heap->salt);
    struct nvm_record *records = nvm_heap_at(heap, super->lanes_offset);
    pthread_mutex_lock(&heap->super_lock);
    for (uint32_t i = super->lanes_used * super->ring; i < count * super->ring; i++)
        nvm_store_line(&heap->super_counts, &records[i], (const uint64_t *)&blank);
    /* Blank records before the superblock that says that lanes have valid ones. */
    nvm_fence(&heap->super_counts);
    super->lanes_used = count;
    nvm_super_write_both(heap);
    pthread_mutex_unlock(&heap->super_lock);
    return 0;
}

static int try_grow(struct nvm_heap *heap, uint32_t units)
{
    struct nvm_super *super = &heap->super;
    uint32_t first = (uint32_t)super->units;
    uint64_t end = (uint64_t)first + units;
    uint64_t size = super->data_offset + end * NVM_UNIT_BYTES;
    int error = allocate_metadata(heap, first, end);
    if (error == 0)
        error = nvm_region_grow(&heap->region, size);
    if (error == 0)
        error = allocate_pages(heap, size - (uint64_t)units * NVM_UNIT_BYTES, size);
    if (error != 0)
        return error;
    pthread_mutex_lock(&heap->chunk_lock);
    nvm_extent_found(heap, &heap->structure, first, units);
    pthread_mutex_lock(&heap->super_lock);
    super->size = size;
    super->units = end;
    nvm_super_write_both(heap);
    pthread_mutex_unlock(&heap->super_lock);
    nvm_unit_set(heap, first, units, nvm_unit_make(NVM_UNIT_FREE, 0));
    __atomic_store_n(&heap->data_bytes, end << NVM_UNIT_SHIFT, __ATOMIC_RELEASE);
    __atomic_store_n(&heap->granules,
                     (heap->data_offset + (end << NVM_UNIT_SHIFT)) >> NVM_GRANULE_SHIFT,
                     __ATOMIC_RELEASE);
    __atomic_store_n(&heap->data_words, (end << NVM_UNIT_SHIFT) / sizeof(nvm_ref),
                     __ATOMIC_RELEASE);
    pthread_mutex_unlock(&heap->chunk_lock);
    return nvm_numa_grow(heap->free_units, units);
}

int nvm_heap_grow(struct nvm_heap *heap, uint32_t units)
{
    uint64_t left = heap->super.max_units - heap->super.units;
    if (units > left)
        return ENOMEM;
    uint64_t step = heap->super.units / 32;
    step = step < STEP_MIN ? STEP_MIN : step > STEP_MAX ? STEP_MAX : step;
    step = step < units ? units : step > left ? left : step;
    int error = try_grow(heap, (uint32_t)step);
    if (error != 0 && step > units)
        error = try_grow(heap, units);
    return error;
}

int nvm_heap_fill_holes(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    if (!(heap->super.flags & NVM_SUPER_HOLES))
        return 0;
    for (uint32_t i = unit; i < unit + units; i++) {
        uint32_t first = i;
        while (i < unit + units && (heap->unit_flags[i] & NVM_UNIT_HOLE))
            i++;
        if (i == first)
            continue;
        uint64_t from = nvm_unit_offset(heap, first);
        int error =
            allocate_pages(heap, from, from + (uint64_t)(i - first) * NVM_UNIT_BYTES);
        if (error != 0)
            return error;
        for (uint32_t filled = first; filled < i; filled++)
            heap->unit_flags[filled] &= (uint8_t)~NVM_UNIT_HOLE;
    }
    return 0;
}

struct trim {
    struct nvm_heap *heap;
    size_t freed;
    int error;
};

static void punch_segment(void *context, void *address, size_t size)
{
    struct trim *trim = context;
    struct nvm_heap *heap = trim->heap;
    uint32_t unit = (uint32_t)((uintptr_t)address - 1), i = unit;
    while (i < unit + size && (heap->unit_flags[i] & NVM_UNIT_HOLE))
        i++;
    if (i == unit + size || trim->error != 0)
        return;
    uint64_t bytes = (uint64_t)size * NVM_UNIT_BYTES;
    for (i = unit; i < unit + size; i++)
        heap->unit_flags[i] |= NVM_UNIT_HOLE;
    trim->error = nvm_region_punch(&heap->region, nvm_unit_offset(heap, unit), bytes);
    if (trim->error == 0)
        trim->freed += bytes;
}

int nvm_trim(nvm_heap *heap, size_t *freed)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct trim trim = {.heap = heap};
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    nvm_tcache_flush(tcache);
    nvm_arena_purge(heap, &tcache->persist);
    pthread_mutex_lock(&heap->units_lock);
    if (!(heap->super.flags & NVM_SUPER_HOLES)) {
        pthread_mutex_lock(&heap->super_lock);
        heap->super.flags |= NVM_SUPER_HOLES;
        nvm_super_write_both(heap);
        pthread_mutex_unlock(&heap->super_lock);
    }
    /* A slot in a block that was freed may wait for its line to be flushed: that would
       fill the hole again, or raise SIGBUS where there is no room. */
    if (heap->super.mode == NVM_LOG_OWNED)
        nvm_lanes_settle(heap);
    vmem_walk(nvm_numa_heap_arena(heap->free_units), VMEM_FREE, punch_segment, &trim);
    for (unsigned node = 0; node < nvm_numa_nodes(heap->free_units); node++)
        vmem_walk(nvm_numa_node_arena(heap->free_units, node), VMEM_FREE, punch_segment,
                  &trim);
    pthread_mutex_unlock(&heap->units_lock);
    if (freed != NULL)
        *freed = trim.freed;
    return trim.error == 0
               ? 0
               : nvm_fail(trim.error, "the file system punches no holes here");
}
