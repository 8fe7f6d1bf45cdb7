/* SPDX-License-Identifier: Apache-2.0 */
/* extent.c - see extent.h. */
#include "extent.h"

#include <stdatomic.h>

#include "heap.h"

/* The vmem deals in addresses, and 0 is its "none". */
static void *unit_address(uint32_t unit)
{
    return (void *)((uintptr_t)unit + 1);
}

uint32_t nvm_extent_reserve(struct nvm_heap *heap, uint32_t units)
{
    void *address = vmem_alloc(heap->free_units, units, VM_NOSLEEP | VM_BESTFIT);
    return address == NULL ? NVM_UNIT_NONE : (uint32_t)((uintptr_t)address - 1);
}

void nvm_extent_unreserve(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    nvm_unit_set(heap, unit, units, nvm_unit_make(NVM_UNIT_FREE, 0));
    vmem_free(heap->free_units, unit_address(unit), units);
}

struct nvm_chunk nvm_extent_chunk(const struct nvm_heap *heap, uint32_t unit)
{
    return nvm_chunk_unpack(
        atomic_load_explicit(&heap->chunks[unit], memory_order_relaxed));
}

static void store_entry(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk)
{
    atomic_store_explicit(&heap->chunks[unit], nvm_chunk_pack(chunk, unit, heap->salt),
                          memory_order_relaxed);
}

/* The generation after that of whatever the entry holds; an entry that was
   never written counts as 0. */
static uint32_t next_generation(const struct nvm_heap *heap, uint32_t unit)
{
    uint64_t entry = atomic_load_explicit(&heap->chunks[unit], memory_order_relaxed);
    return (nvm_chunk_unpack(entry).generation + 1) % NVM_CHUNK_GENERATIONS;
}

static void write_entry(struct nvm_heap *heap, struct nvm_persist *persist, uint32_t unit,
                        struct nvm_chunk chunk)
{
    store_entry(heap, unit, chunk);
    nvm_flush(persist, (const void *)&heap->chunks[unit], sizeof(uint64_t));
}

/* First unit of the run that holds `unit`. */
static uint32_t run_of(const struct nvm_heap *heap, uint32_t unit)
{
    while (!heap->walked[unit])
        unit--;
    return unit;
}

uint32_t nvm_extent_isolate(struct nvm_heap *heap, struct nvm_persist *persist,
                            uint32_t unit, uint32_t units, enum nvm_chunk_state state,
                            unsigned klass)
{
    uint32_t end = unit + units;
    pthread_mutex_lock(&heap->chunk_lock);
    uint32_t first = run_of(heap, unit);
    uint32_t last = run_of(heap, end - 1);
    uint32_t last_end = last + nvm_extent_chunk(heap, last).units;
    struct nvm_chunk wanted = {.state = state,
                               .units = units,
                               .klass = (uint8_t)klass,
                               .generation = next_generation(heap, unit)};
    struct nvm_chunk now = nvm_extent_chunk(heap, unit);
    bool exact = first == unit && first == last && last_end == end;
    if (exact && state == NVM_CHUNK_FREE && now.state == NVM_CHUNK_FREE) {
        pthread_mutex_unlock(&heap->chunk_lock);
        return now.generation;
    }
    if (last_end > end) {
        write_entry(heap, persist, end,
                    (struct nvm_chunk){.state = NVM_CHUNK_FREE,
                                       .units = last_end - end,
                                       .generation = next_generation(heap, end)});
        heap->walked[end] = 1;
    }
    if (first != unit)
        write_entry(heap, persist, unit, wanted);
    /* Steps 1 and 2 (and the caller's slab bitmap) before the walk reaches them. */
    if (persist->pending)
        nvm_fence(persist);
    if (first != unit)
        write_entry(heap, persist, first,
                    (struct nvm_chunk){.state = NVM_CHUNK_FREE,
                                       .units = unit - first,
                                       .generation = next_generation(heap, first)});
    else
        write_entry(heap, persist, unit, wanted);
    /* Step 3 before anything is done that takes the run for granted. */
    nvm_fence(persist);
    for (uint32_t i = unit + 1; i < end; i++)
        heap->walked[i] = 0;
    heap->walked[unit] = 1;
    pthread_mutex_unlock(&heap->chunk_lock);
    return wanted.generation;
}

const void *nvm_extent_flip(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk)
{
    store_entry(heap, unit, chunk);
    return (const void *)&heap->chunks[unit];
}
