/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.c - see alloc.h. */
#include "alloc.h"

#include <errno.h>

#include "extent.h"

static uint32_t units_for(size_t size)
{
    return (uint32_t)((size + NVM_UNIT_BYTES - 1) >> NVM_UNIT_SHIFT);
}

static int reserve_extent(struct nvm_tcache *tcache, size_t size,
                          struct nvm_reservation *out)
{
    struct nvm_heap *heap = tcache->heap;
    if (size > heap->super.units << NVM_UNIT_SHIFT)
        return ENOMEM;
    uint32_t units = units_for(size);
    uint32_t unit = nvm_extent_reserve(heap, units);
    if (unit == NVM_UNIT_NONE) {
        nvm_tcache_flush(tcache);
        if (nvm_arena_purge(heap, &tcache->persist) != 0)
            unit = nvm_extent_reserve(heap, units);
    }
    if (unit == NVM_UNIT_NONE)
        return ENOMEM;
    uint32_t before =
        nvm_extent_isolate(heap, &tcache->persist, unit, units, NVM_CHUNK_FREE, 0);
    *out = (struct nvm_reservation){.offset = nvm_unit_offset(heap, unit),
                                    .bytes = (uint64_t)units << NVM_UNIT_SHIFT,
                                    .unit = unit,
                                    .generation = (before + 1) % NVM_CHUNK_GENERATIONS,
                                    .extent = 1};
    return 0;
}

static void describe_slab_block(const struct nvm_block_place *place, uint64_t offset,
                                struct nvm_reservation *out)
{
    *out = (struct nvm_reservation){.offset = offset,
                                    .bytes = nvm_classes[place->klass].size,
                                    .unit = place->unit,
                                    .generation = place->generation,
                                    .place = *place};
}

int nvm_reserve_block(struct nvm_tcache *tcache, size_t size,
                      struct nvm_reservation *reservation)
{
    if (size > NVM_SMALL_MAX)
        return reserve_extent(tcache, size, reservation);
    uint64_t offset = nvm_tcache_pop(tcache, nvm_sizeclass_of(size + (size == 0)));
    struct nvm_block_place place;
    if (offset == 0 || !nvm_slab_locate(tcache->heap, offset, &place))
        return ENOMEM;
    describe_slab_block(&place, offset, reservation);
    return 0;
}

void nvm_cancel_block(struct nvm_tcache *tcache,
                      const struct nvm_reservation *reservation)
{
    if (reservation->extent)
        nvm_extent_unreserve(tcache->heap, reservation->unit,
                             (uint32_t)(reservation->bytes >> NVM_UNIT_SHIFT));
    else
        nvm_tcache_push(tcache, reservation->place.klass, reservation->offset);
}

static struct nvm_record record_of(const struct nvm_heap *heap,
                                   const struct nvm_reservation *block,
                                   enum nvm_op slab_op, enum nvm_op extent_op,
                                   const nvm_ref *dest)
{
    return (struct nvm_record){.op = (uint8_t)(block->extent ? extent_op : slab_op),
                               .klass = block->place.klass,
                               .generation = block->generation,
                               .dest = nvm_heap_offset(heap, dest),
                               .object = block->offset,
                               .bytes = block->bytes,
                               .unit = block->unit};
}

/* The entry of an extent, live or not. */
static struct nvm_chunk extent_entry(const struct nvm_reservation *block,
                                     enum nvm_chunk_state state)
{
    return (struct nvm_chunk){.state = (uint8_t)state,
                              .units = (uint32_t)(block->bytes >> NVM_UNIT_SHIFT),
                              .generation = block->generation};
}

static void mark_extent_units(struct nvm_heap *heap, const struct nvm_reservation *block)
{
    struct nvm_unit unit = {.head = block->unit,
                            .generation = (uint16_t)block->generation,
                            .kind = NVM_UNIT_EXTENT};
    nvm_unit_set(heap, block->unit, 1, unit);
    unit.kind = NVM_UNIT_INSIDE;
    nvm_unit_set(heap, block->unit + 1, (uint32_t)(block->bytes >> NVM_UNIT_SHIFT) - 1,
                 unit);
}

void nvm_commit_block(struct nvm_tcache *tcache, const struct nvm_reservation *block,
                      nvm_ref *dest)
{
    struct nvm_heap *heap = tcache->heap;
    _Alignas(64) struct nvm_record record =
        record_of(heap, block, NVM_OP_ALLOC, NVM_OP_EXTENT_ALLOC, dest);
    const void *mark = block->place.word;
    nvm_lane_begin(tcache->lane);
    nvm_lane_log(tcache->lane, &record);
    if (block->extent) {
        mark = nvm_extent_flip(heap, block->unit, extent_entry(block, NVM_CHUNK_EXTENT));
        mark_extent_units(heap, block);
    } else {
        nvm_bit_set(&block->place);
    }
    __atomic_store_n(dest, block->offset, __ATOMIC_RELAXED);
    nvm_lane_end(tcache->lane, &record, dest, mark);
}

static void free_block(struct nvm_tcache *tcache, const struct nvm_reservation *block,
                       nvm_ref *dest)
{
    struct nvm_heap *heap = tcache->heap;
    _Alignas(64) struct nvm_record record =
        record_of(heap, block, NVM_OP_FREE, NVM_OP_EXTENT_FREE, dest);
    const void *mark = block->place.word;
    if (!block->extent && block->place.unscanned)
        nvm_arena_scan(heap, block->unit);
    nvm_lane_begin(tcache->lane);
    nvm_lane_log(tcache->lane, &record);
    if (block->extent)
        mark = nvm_extent_flip(heap, block->unit, extent_entry(block, NVM_CHUNK_FREE));
    else
        nvm_bit_clear(&block->place);
    __atomic_store_n(dest, 0, __ATOMIC_RELAXED);
    nvm_lane_end(tcache->lane, &record, dest, mark);
    /* From here on others may get the block. */
    nvm_cancel_block(tcache, block);
}

bool nvm_find_block(const struct nvm_heap *heap, nvm_ref ref,
                    struct nvm_reservation *block)
{
    struct nvm_block_place place;
    if (nvm_slab_locate(heap, ref, &place)) {
        describe_slab_block(&place, ref, block);
        return nvm_bit_is_set(&place);
    }
    if (!nvm_heap_in_data(heap, ref) || ref % NVM_UNIT_BYTES != 0)
        return false;
    uint32_t first = nvm_heap_unit(heap, ref);
    struct nvm_unit unit = nvm_unit_get(heap, first);
    if (unit.kind != NVM_UNIT_EXTENT)
        return false;
    *block = (struct nvm_reservation){
        .offset = ref,
        .bytes = (uint64_t)nvm_extent_chunk(heap, first).units << NVM_UNIT_SHIFT,
        .unit = first,
        .generation = unit.generation,
        .extent = 1};
    return true;
}

/* An owned slot of the application lies in the data area, 8-aligned. */
static bool is_slot(const struct nvm_heap *heap, const nvm_ref *dest)
{
    uint64_t offset = nvm_heap_offset(heap, dest);
    return offset % sizeof(nvm_ref) == 0 && nvm_heap_in_data(heap, offset);
}

int nvm_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t size)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL)
        return ENOMEM;
    if (!is_slot(heap, dest) || *dest != 0) {
        tcache->misuses++;
        return EINVAL;
    }
    struct nvm_reservation block;
    int error = nvm_reserve_block(tcache, size, &block);
    if (error == 0)
        nvm_commit_block(tcache, &block, dest);
    return error;
}

int nvm_free_from(nvm_heap *heap, nvm_ref *dest)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL)
        return ENOMEM;
    struct nvm_reservation block;
    if (!is_slot(heap, dest) || !nvm_find_block(heap, *dest, &block)) {
        tcache->misuses++;
        return EINVAL;
    }
    free_block(tcache, &block, dest);
    return 0;
}

size_t nvm_usable_size(nvm_heap *heap, nvm_ref ref)
{
    struct nvm_reservation block;
    return nvm_find_block(heap, ref, &block) ? block.bytes : 0;
}
