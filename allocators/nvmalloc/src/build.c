/* SPDX-License-Identifier: Apache-2.0 */
/* build.c - see build.h. */
#include "build.h"

#include <errno.h>
#include <string.h>

#include "block.h"
#include "claims.h"
#include "dram.h"
#include "error.h"
#include "extent.h"
#include "heap.h"
#include "registry.h"
#include "sigbus.h"
#include "tcache.h"

void nvm_heap_place_media(struct nvm_heap *heap)
{
    heap->base = heap->region.base;
    heap->salt = nvm_super_salt(&heap->super);
    heap->chunks = nvm_heap_at(heap, heap->super.chunk_offset);
    heap->bitmaps = nvm_heap_at(heap, heap->super.bitmap_offset);
    heap->data_offset = heap->super.data_offset;
    heap->data_bytes = heap->super.units << NVM_UNIT_SHIFT;
    heap->data_words = heap->data_bytes / sizeof(nvm_ref);
    heap->granules = (heap->data_offset + heap->data_bytes) >> NVM_GRANULE_SHIFT;
}

static size_t state_bytes(const struct nvm_heap *heap)
{
    return ((heap->super.data_offset + (heap->super.max_units << NVM_UNIT_SHIFT)) >>
            NVM_GRANULE_SHIFT) *
           sizeof(*heap->state);
}

static size_t units_bytes(const struct nvm_heap *heap)
{
    return ((heap->super.data_offset >> NVM_UNIT_SHIFT) + heap->super.max_units) *
           sizeof(*heap->units);
}

static int map_tables(struct nvm_heap *heap)
{
    uint64_t units = heap->super.max_units;
    heap->units_of_file = nvm_dram_map(units_bytes(heap));
    heap->unit_flags = nvm_dram_map(units);
    heap->walked = nvm_dram_map(units);
    heap->slab_bits = nvm_dram_map(units * sizeof(*heap->slab_bits));
    heap->slabs = nvm_dram_map(units * sizeof(*heap->slabs));
    heap->state = nvm_dram_map(state_bytes(heap));
    if (heap->units_of_file == NULL || heap->unit_flags == NULL || heap->walked == NULL ||
        heap->slab_bits == NULL || heap->slabs == NULL || heap->state == NULL)
        return nvm_fail(ENOMEM, "no memory for the tables of %llu units",
                        (unsigned long long)units);
    heap->units = heap->units_of_file + (heap->data_offset >> NVM_UNIT_SHIFT);
    heap->free_units = nvm_numa_create("nvmalloc units", heap->super.units, units, 0);
    return heap->free_units != NULL
               ? 0
               : nvm_fail(errno, "no memory for the arena of units, or NVM_NUMA_NODES "
                                 "is not a number from 1 to 64");
}

/* Units in use that the walk has come by since the last free ones. */
struct stretch {
    uint32_t first;
    uint32_t units;
};

static int end_stretch(struct nvm_heap *heap, struct stretch *stretch, uint32_t next)
{
    struct stretch ended = *stretch;
    *stretch = (struct stretch){.first = next};
    return nvm_claims_make(heap, ended.first, ended.units);
}

static int build_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    struct stretch *stretch = context;
    heap->walked[unit] = 1;
    uint64_t tag;
    switch (chunk.state) {
    case NVM_CHUNK_SLAB:
        tag = nvm_slab_tag(unit, chunk.klass, chunk.generation);
        nvm_unit_set(heap, unit, chunk.units, nvm_unit_make(NVM_UNIT_UNSCANNED, tag));
        nvm_arena_adopt(heap, unit, chunk.klass);
        stretch->units += chunk.units;
        return 0;
    case NVM_CHUNK_EXTENT:
        tag = nvm_extent_tag(unit, chunk.generation);
        nvm_unit_set(heap, unit, chunk.units, nvm_unit_make(NVM_UNIT_INSIDE, tag));
        nvm_unit_set(heap, unit, 1, nvm_unit_make(NVM_UNIT_EXTENT, tag));
        nvm_block_set_live(heap, (struct nvm_block){nvm_unit_offset(heap, unit), tag});
        stretch->units += chunk.units;
        return 0;
    default:
        nvm_unit_set(heap, unit, chunk.units, nvm_unit_make(NVM_UNIT_FREE, 0));
        if (heap->super.flags & NVM_SUPER_HOLES)
            for (uint32_t i = 0; i < chunk.units; i++)
                heap->unit_flags[unit + i] |= NVM_UNIT_HOLE;
        return end_stretch(heap, stretch, unit + chunk.units);
    }
}

/* 0, or EUCLEAN with the reason, for the entry that the walk has come to. */
static int judge_entry(const struct nvm_heap *heap, uint64_t unit)
{
    uint64_t entry = atomic_load_explicit(&heap->chunks[unit], memory_order_relaxed);
    struct nvm_chunk chunk = nvm_chunk_unpack(entry);
    const char *fault = NULL;
    if (!nvm_chunk_intact(entry, unit, heap->salt))
        fault = "its checksum does not fit";
    else if (chunk.state > NVM_CHUNK_EXTENT)
        fault = "its state is unknown";
    else if (chunk.units == 0 || chunk.units > heap->super.units - unit)
        fault = "it reaches beyond the heap";
    else if (chunk.state == NVM_CHUNK_SLAB &&
             (chunk.klass >= NVM_CLASSES ||
              nvm_classes[chunk.klass].units != chunk.units))
        fault = "its size class does not fit its length";
    if (fault == NULL)
        return 0;
    return nvm_fail(
        EUCLEAN, "chunk table entry of unit %llu (offset %llu, value 0x%016llx): %s",
        (unsigned long long)unit, (unsigned long long)heap->super.chunk_offset + unit * 8,
        (unsigned long long)entry, fault);
}

int nvm_heap_each_run(struct nvm_heap *heap, nvm_run_fn *visit, void *context)
{
    for (uint64_t unit = 0; unit < heap->super.units;) {
        int error = judge_entry(heap, unit);
        if (error != 0)
            return error;
        struct nvm_chunk chunk = nvm_extent_chunk(heap, (uint32_t)unit);
        error = visit(heap, (uint32_t)unit, chunk, context);
        if (error != 0)
            return error;
        unit += chunk.units;
    }
    return 0;
}

int nvm_heap_each_run_guarded(struct nvm_heap *heap, nvm_run_fn *visit, void *context)
{
    struct nvm_sigbus guard;
    if (nvm_sigbus_caught(&guard))
        return nvm_sigbus_error(&guard, heap);
    int error = nvm_heap_each_run(heap, visit, context);
    nvm_sigbus_end(&guard);
    return error;
}

int nvm_heap_build(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy)
{
    atomic_store(&heap->quarantined, 0);
    int error = map_tables(heap);
    if (error == 0)
        error = nvm_arenas_init(heap);
    if (error == 0)
        error = nvm_lanes_init(heap, clock, watermark, next_copy);
    struct stretch stretch = {0};
    if (error == 0)
        error = nvm_heap_each_run(heap, build_run, &stretch);
    if (error == 0)
        error = end_stretch(heap, &stretch, 0);
    if (error == 0)
        nvm_registry_enter(heap);
    else
        nvm_heap_drop(heap);
    return error;
}

static void unmap(void *table, size_t bytes)
{
    if (table != NULL)
        nvm_dram_unmap(table, bytes);
}

void nvm_heap_drop(struct nvm_heap *heap)
{
    uint64_t units = heap->super.max_units;
    nvm_registry_remove(heap);
    nvm_tcache_drop_all(heap, false);
    nvm_lanes_fini(heap);
    nvm_arenas_fini(heap);
    if (heap->free_units != NULL)
        nvm_numa_destroy(heap->free_units);
    unmap(heap->units_of_file, units_bytes(heap));
    unmap(heap->unit_flags, units);
    unmap(heap->walked, units);
    unmap(heap->slab_bits, units * sizeof(*heap->slab_bits));
    unmap(heap->slabs, units * sizeof(*heap->slabs));
    unmap(heap->state, state_bytes(heap));
    heap->free_units = NULL;
    heap->units = heap->units_of_file = NULL;
    heap->unit_flags = NULL;
    heap->walked = NULL;
    heap->slab_bits = NULL;
    heap->slabs = NULL;
    heap->state = NULL;
    heap->id = 0;
}
