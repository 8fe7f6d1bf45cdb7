/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.c - see alloc.h. */
#include "alloc.h"

#include <errno.h>

#include "error.h"
#include "extent.h"

/* --- extents --- */

static int reserve_extent(struct nvm_tcache *tcache, size_t size, struct nvm_block *block)
{
    struct nvm_heap *heap = tcache->heap;
    if (size > heap->super.units << NVM_UNIT_SHIFT)
        return ENOMEM;
    uint32_t units = (uint32_t)((size + NVM_UNIT_BYTES - 1) >> NVM_UNIT_SHIFT);
    uint32_t unit = nvm_extent_reserve(heap, units);
    if (unit == NVM_UNIT_NONE) {
        nvm_tcache_flush(tcache);
        if (nvm_arena_purge(heap, &tcache->persist) != 0)
            unit = nvm_extent_reserve(heap, units);
    }
    if (unit == NVM_UNIT_NONE)
        return ENOMEM;
    /* The extent's birth raises the generation of its free run. */
    uint32_t generation =
        nvm_extent_isolate(heap, &tcache->persist, unit, units, NVM_CHUNK_FREE, 0) + 1;
    block->offset = nvm_unit_offset(heap, unit);
    block->tag =
        NVM_TAG_EXTENT | nvm_block_tag(unit, 0, generation % NVM_CHUNK_GENERATIONS, 0);
    return 0;
}

static void mark_extent_units(struct nvm_heap *heap, struct nvm_block block,
                              uint32_t units)
{
    uint32_t first = nvm_tag_unit(block.tag);
    nvm_unit_set(heap, first, 1, nvm_unit_make(NVM_UNIT_EXTENT, block.tag));
    nvm_unit_set(heap, first + 1, units - 1, nvm_unit_make(NVM_UNIT_INSIDE, block.tag));
}

/* Logs the birth (EXTENT) or death (FREE) of an extent and sets *dest. */
static void commit_extent(struct nvm_tcache *tcache, struct nvm_block block,
                          nvm_ref *dest, enum nvm_chunk_state state)
{
    struct nvm_heap *heap = tcache->heap;
    bool birth = state == NVM_CHUNK_EXTENT;
    uint32_t unit = nvm_tag_unit(block.tag);
    struct nvm_chunk chunk = {.state = (uint8_t)state,
                              .units = nvm_extent_chunk(heap, unit).units,
                              .generation = nvm_tag_generation(block.tag)};
    uint64_t bytes = (uint64_t)chunk.units << NVM_UNIT_SHIFT;
    nvm_lane_begin(tcache->lane);
    uint64_t seq =
        nvm_lane_log(tcache->lane, birth ? NVM_OP_EXTENT_ALLOC : NVM_OP_EXTENT_FREE,
                     block.tag, nvm_heap_offset(heap, dest), block.offset, bytes);
    const void *mark = nvm_extent_flip(heap, unit, chunk);
    if (birth)
        mark_extent_units(heap, block, chunk.units);
    __atomic_store_n(dest, birth ? block.offset : 0, __ATOMIC_RELAXED);
    nvm_lane_end(tcache->lane, seq, dest, mark);
}

/* --- slab blocks --- */

/* Logs the allocation or free of a slab block, sets its bit and *dest. */
static inline __attribute__((always_inline)) void
commit_slab_block(struct nvm_tcache *tcache, struct nvm_block block, nvm_ref *dest,
                  bool live)
{
    struct nvm_heap *heap = tcache->heap;
    struct nvm_lane *lane = tcache->lane;
    uint64_t *word = nvm_block_word(heap, block);
    nvm_lane_begin(lane);
    uint64_t seq = nvm_lane_log(lane, live ? NVM_OP_ALLOC : NVM_OP_FREE, block.tag,
                                nvm_heap_offset(heap, dest), block.offset, 0);
    if (live)
        __atomic_fetch_or(word, nvm_block_mask(block), __ATOMIC_RELAXED);
    else
        __atomic_fetch_and(word, ~nvm_block_mask(block), __ATOMIC_RELAXED);
    __atomic_store_n(dest, live ? block.offset : 0, __ATOMIC_RELAXED);
    nvm_lane_end(lane, seq, dest, word);
}

/* --- either --- */

int nvm_reserve_block(struct nvm_tcache *tcache, size_t size, struct nvm_block *block)
{
    if (__builtin_expect(size > NVM_SMALL_MAX, 0))
        return reserve_extent(tcache, size, block);
    *block = nvm_tcache_pop(tcache, nvm_sizeclass_of(size + (size == 0)));
    return block->offset != 0 ? 0 : ENOMEM;
}

void nvm_commit_block(struct nvm_tcache *tcache, struct nvm_block block, nvm_ref *dest)
{
    if (__builtin_expect(nvm_block_is_extent(block), 0))
        commit_extent(tcache, block, dest, NVM_CHUNK_EXTENT);
    else
        commit_slab_block(tcache, block, dest, true);
}

void nvm_cancel_block(struct nvm_tcache *tcache, struct nvm_block block)
{
    if (nvm_block_is_extent(block)) {
        uint32_t unit = nvm_tag_unit(block.tag);
        nvm_extent_unreserve(tcache->heap, unit,
                             nvm_extent_chunk(tcache->heap, unit).units);
    } else {
        nvm_tcache_push(tcache, block);
    }
}

static bool find_extent(const struct nvm_heap *heap, nvm_ref ref, struct nvm_block *block)
{
    if (!nvm_heap_in_data(heap, ref) || ref % NVM_UNIT_BYTES != 0)
        return false;
    nvm_unit unit = nvm_unit_get(heap, nvm_heap_unit(heap, ref));
    block->offset = ref;
    block->tag = nvm_unit_tag(unit);
    return nvm_unit_kind(unit) == NVM_UNIT_EXTENT;
}

bool nvm_find_block(const struct nvm_heap *heap, nvm_ref ref, struct nvm_block *block)
{
    if (nvm_block_locate(heap, ref, block) != NVM_LOCATE_NONE)
        return nvm_block_bit(heap, *block);
    return find_extent(heap, ref, block);
}

uint64_t nvm_block_bytes(const struct nvm_heap *heap, struct nvm_block block)
{
    if (nvm_block_is_extent(block))
        return (uint64_t)nvm_extent_chunk(heap, nvm_tag_unit(block.tag)).units
               << NVM_UNIT_SHIFT;
    return nvm_classes[nvm_tag_class(block.tag)].size;
}

/* An owned slot of the application lies in the data area, 8-aligned. */
static inline bool is_slot(const struct nvm_heap *heap, const nvm_ref *dest)
{
    uint64_t offset = nvm_heap_offset(heap, dest);
    return offset % sizeof(nvm_ref) == 0 && nvm_heap_in_data(heap, offset);
}

static __attribute__((noinline)) int misuse(struct nvm_tcache *tcache, const char *what)
{
    tcache->misuses++;
    return nvm_fail(EINVAL, "%s", what);
}

static __attribute__((noinline)) int heap_full(size_t size)
{
    return nvm_fail(ENOMEM, "no block of %zu bytes is free in the heap", size);
}

/* Everything but a small block from the cache: out of the fast path. */
static __attribute__((noinline)) int malloc_slowly(struct nvm_tcache *tcache,
                                                   nvm_ref *dest, size_t size)
{
    struct nvm_block block;
    if (nvm_reserve_block(tcache, size, &block) != 0)
        return heap_full(size);
    nvm_commit_block(tcache, block, dest);
    return 0;
}

int nvm_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t size)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (__builtin_expect(tcache == NULL, 0))
        return ENOMEM;
    if (__builtin_expect(!is_slot(heap, dest) || *dest != 0, 0))
        return misuse(tcache,
                      "the slot is not empty, or not an aligned place in the heap");
    /* size - 1: 0 counts as 1, and is left to the slow path. */
    if (__builtin_expect(size - 1 >= NVM_SMALL_MAX, 0))
        return malloc_slowly(tcache, dest, size);
    struct nvm_tcache_bin *bin = &tcache->bins[nvm_sizeclass_of(size)];
    if (__builtin_expect(bin->count == 0, 0))
        return malloc_slowly(tcache, dest, size);
    commit_slab_block(tcache, bin->blocks[--bin->count], dest, true);
    return 0;
}

static __attribute__((noinline)) int free_extent(struct nvm_tcache *tcache, nvm_ref *dest)
{
    struct nvm_block block;
    if (!find_extent(tcache->heap, *dest, &block))
        return misuse(tcache, "the slot refers to no live block");
    commit_extent(tcache, block, dest, NVM_CHUNK_FREE);
    /* From here on others may get the units. */
    nvm_cancel_block(tcache, block);
    return 0;
}

int nvm_free_from(nvm_heap *heap, nvm_ref *dest)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_block block;
    if (__builtin_expect(tcache == NULL, 0))
        return ENOMEM;
    if (__builtin_expect(!is_slot(heap, dest), 0))
        return misuse(tcache, "the slot is not an aligned place in the heap");
    enum nvm_locate located = nvm_block_locate(heap, *dest, &block);
    if (__builtin_expect(located == NVM_LOCATE_NONE, 0))
        return free_extent(tcache, dest);
    if (__builtin_expect(!nvm_block_bit(heap, block), 0))
        return misuse(tcache, "the slot refers to a block that is free already");
    if (__builtin_expect(located == NVM_LOCATE_UNSCANNED, 0))
        nvm_arena_scan(heap, nvm_tag_unit(block.tag));
    commit_slab_block(tcache, block, dest, false);
    /* From here on others may get the block. */
    nvm_tcache_push(tcache, block);
    return 0;
}

size_t nvm_usable_size(nvm_heap *heap, nvm_ref ref)
{
    struct nvm_block block;
    return nvm_find_block(heap, ref, &block) ? nvm_block_bytes(heap, block) : 0;
}
