/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.c - see alloc.h; nvm_malloc_to() and nvm_free_from().
 *
 * Both have a fast path, small blocks in LOG_OWNED mode from and to the
 * thread's cache, which is all inline; everything else goes the general way.
 */
#include "alloc.h"

#include <errno.h>

#include "commit.h"
#include "error.h"
#include "extent.h"
#include "mark.h"

/* --- reserving --- */

static int reserve_extent(struct nvm_tcache *tcache, size_t size, size_t alignment,
                          struct nvm_block *block)
{
    struct nvm_heap *heap = tcache->heap;
    uint32_t unit;
    if (size > heap->super.max_units << NVM_UNIT_SHIFT)
        return ENOMEM;
    uint32_t units = (uint32_t)((size + NVM_UNIT_BYTES - 1) >> NVM_UNIT_SHIFT);
    int error = nvm_extent_reserve(heap, units, alignment, &unit);
    if (error != 0) {
        nvm_tcache_flush(tcache);
        if (nvm_arena_purge(heap, &tcache->persist) != 0)
            error = nvm_extent_reserve(heap, units, alignment, &unit);
    }
    if (error != 0)
        return error;
    /* GC: the extent is there from now on, and reachable or not. Else its birth, which
       is logged, raises the generation of its free run. */
    uint32_t generation =
        tcache->gc
            ? nvm_extent_isolate(heap, &tcache->persist, unit, units, NVM_CHUNK_EXTENT, 0)
            : nvm_extent_isolate(heap, &tcache->persist, unit, units, NVM_CHUNK_FREE, 0) +
                  1;
    block->offset = nvm_unit_offset(heap, unit);
    block->tag = nvm_extent_tag(unit, generation % NVM_CHUNK_GENERATIONS);
    *nvm_block_state(heap, block->offset) = NVM_BLOCK_IDLE;
    nvm_unit_set(heap, unit + 1, units - 1, nvm_unit_make(NVM_UNIT_INSIDE, block->tag));
    nvm_unit_set(heap, unit, 1, nvm_unit_make(NVM_UNIT_EXTENT, block->tag));
    return 0;
}

int nvm_reserve_block(struct nvm_tcache *tcache, size_t size, size_t alignment,
                      struct nvm_block *block)
{
    size += size == 0;
    if (alignment > 1) {
        unsigned klass = nvm_sizeclass_aligned(size, alignment);
        if (klass == NVM_CLASSES || alignment > NVM_UNIT_BYTES)
            return reserve_extent(tcache, size, alignment, block);
        int error = nvm_tcache_pop(tcache, klass, block);
        if (error != 0 || block->offset % alignment == 0)
            return error;
        /* In a heap that is nearly full, a block of some larger class. */
        nvm_cancel_block(tcache, *block);
        return reserve_extent(tcache, size, alignment, block);
    }
    if (size > NVM_SMALL_MAX)
        return reserve_extent(tcache, size, 1, block);
    return nvm_tcache_pop(tcache, nvm_sizeclass_of(size), block);
}

void nvm_cancel_block(struct nvm_tcache *tcache, struct nvm_block block)
{
    struct nvm_heap *heap = tcache->heap;
    *nvm_block_state(heap, block.offset) = NVM_BLOCK_IDLE;
    if (!nvm_block_is_extent(block)) {
        nvm_tcache_push(tcache, block);
        return;
    }
    uint32_t unit = nvm_tag_unit(block.tag);
    struct nvm_chunk chunk = nvm_extent_chunk(heap, unit);
    if (tcache->gc) {
        /* Unlogged: should this be lost, the collector finds it unreachable. */
        chunk.state = NVM_CHUNK_FREE;
        nvm_extent_flip(heap, unit, chunk);
    }
    nvm_extent_unreserve(heap, unit, chunk.units);
}

/* --- finding --- */

static bool find_extent(const struct nvm_heap *heap, nvm_ref ref, struct nvm_block *block)
{
    if (!nvm_heap_in_data(heap, ref) || ref % NVM_UNIT_BYTES != 0)
        return false;
    nvm_unit unit = nvm_unit_get(heap, nvm_heap_unit(heap, ref));
    block->offset = ref;
    block->tag = nvm_unit_tag(unit);
    return nvm_unit_kind(unit) == NVM_UNIT_EXTENT;
}

bool nvm_find_block(struct nvm_heap *heap, nvm_ref ref, enum nvm_block_state state,
                    struct nvm_block *block)
{
    enum nvm_locate located = nvm_block_locate(heap, ref, block);
    if (located == NVM_LOCATE_UNSCANNED) {
        nvm_arena_scan(heap, nvm_tag_unit(block->tag));
        located = nvm_block_locate(heap, ref, block); /* it may be damaged */
    }
    if (located == NVM_LOCATE_NONE && !find_extent(heap, ref, block))
        return false;
    uint16_t found = *nvm_block_state(heap, block->offset);
    return state == NVM_BLOCK_LIVE ? nvm_block_state_is_live(found) : found == state;
}

uint64_t nvm_block_bytes(const struct nvm_heap *heap, struct nvm_block block)
{
    if (nvm_block_is_extent(block))
        return (uint64_t)nvm_extent_chunk(heap, nvm_tag_unit(block.tag)).units
               << NVM_UNIT_SHIFT;
    return nvm_classes[nvm_tag_class(block.tag)].size;
}

size_t nvm_usable_size(nvm_heap *heap, nvm_ref ref)
{
    struct nvm_block block;
    nvm_protect_look(heap);
    if (heap->foreign || (!nvm_find_block(heap, ref, NVM_BLOCK_LIVE, &block) &&
                          !nvm_find_block(heap, ref, NVM_BLOCK_RESERVED, &block)))
        return 0;
    return nvm_block_bytes(heap, block);
}

/* --- misuse and exhaustion --- */

__attribute__((noinline)) int nvm_misuse(struct nvm_tcache *tcache, const char *what)
{
    tcache->misuses++;
    return nvm_fail(EINVAL, "%s", what);
}

__attribute__((noinline)) int nvm_no_room(int error, size_t size)
{
    return nvm_fail(error,
                    error == ENOSPC
                        ? "no block of %zu bytes is free, and the file cannot grow"
                        : "no block of %zu bytes is free in the heap",
                    size);
}

/* --- slots --- */

/* The common case: in the data area. */
static inline bool is_slot_in_data(const struct nvm_heap *heap, const nvm_ref *slot)
{
    return nvm_heap_in_data_aligned(heap, nvm_heap_offset(heap, slot));
}

bool nvm_is_slot(const struct nvm_heap *heap, const nvm_ref *slot)
{
    uint64_t offset = nvm_heap_offset(heap, slot) - NVM_ROOTS_OFFSET;
    uint64_t table = heap->super.roots * sizeof(struct nvm_root_entry);
    return is_slot_in_data(heap, slot) ||
           (offset < table && offset % sizeof(struct nvm_root_entry) == 0);
}

/* --- allocation --- */

static __attribute__((noinline)) int
malloc_generally(struct nvm_tcache *tcache, nvm_ref *dest, size_t alignment, size_t size)
{
    struct nvm_effect effect = {.op = NVM_OP_ALLOC, .dest = dest};
    NVM_WINDOW(tcache->heap);
    if (!nvm_is_slot(tcache->heap, dest))
        return nvm_misuse(tcache, "the slot is not an aligned place in the heap");
    if (*dest != 0)
        return nvm_misuse(tcache, "the slot is not empty");
    int error = nvm_reserve_block(tcache, size, alignment, &effect.block);
    if (error != 0)
        return nvm_no_room(error, size);
    nvm_commit(tcache, &effect, 1);
    return 0;
}

/*
 * Makes a small block's operation durable, in a lane that has room; slot: offset of
 * dest.  What is DRAM's alone comes before the record, so that little is left to be kept
 * until the fence is done.  unusual: see nvm_log_line().
 */
static inline __attribute__((always_inline)) void
commit_fast(struct nvm_heap *heap, struct nvm_lane *lane, uint64_t head, uint64_t tag,
            nvm_ref *dest, uint64_t slot, nvm_ref value, bool unusual)
{
    uint64_t at = head & lane->mask;
    nvm_lane_note(lane, at, dest, tag);
    tag |= (uint64_t)(value != 0 ? NVM_OP_ALLOC : NVM_OP_FREE) << NVM_TAG_OP;
    uint64_t seq = nvm_lane_log(lane, &heap->lanes, at, head, tag, slot, unusual);
    __atomic_store_n(dest, value, __ATOMIC_RELAXED);
    nvm_lane_end(lane, seq, head + 1);
}

/* The fast path, or false with nothing done.  Has no call in it, so it saves no
   registers: what is rare is left to malloc_outlined(). */
static inline __attribute__((always_inline)) bool malloc_fast(struct nvm_heap *heap,
                                                              struct nvm_tcache *tcache,
                                                              nvm_ref *dest, size_t size,
                                                              bool unusual)
{
    uint64_t slot = nvm_heap_offset(heap, dest);
    /* size - 1: 0 counts as 1, and goes the general way. */
    if (__builtin_expect(size - 1 >= NVM_LATE_MAX ||
                             !nvm_heap_in_data_aligned(heap, slot) || *dest != 0,
                         0))
        return false;
    struct nvm_tcache_bin *bin = &tcache->bins[nvm_sizeclass_of_small(size)];
    struct nvm_lane *lane = tcache->lane;
    uint64_t head = nvm_lane_head(lane);
    struct nvm_block *top = bin->top;
    if (__builtin_expect(top == bin->bottom || head >= lane->room, 0))
        return false;
    bin->top = --top;
    uint64_t offset = top->offset, tag = top->tag;
    uint32_t live = NVM_BLOCK_LIVE | (tag & ((1u << NVM_UNIT_BITS) - 1));
    if (__builtin_expect(offset & 8, 0)) {
        __asm__("" : "+r"(live)); /* a branch that is seldom taken, no select */
        live |= NVM_BLOCK_ODD;
    }
    *nvm_block_state(heap, offset) = (uint16_t)live;
    if (offset == 0)
        __builtin_unreachable();
    commit_fast(heap, lane, head, tag, dest, slot, offset, unusual);
    return true;
}

/* Whether the thread used the heap last, and nothing is unusual. */
static inline bool is_fast(const struct nvm_heap *heap)
{
    return nvm_tcache_last.log_id == __atomic_load_n(&heap->fast_id, __ATOMIC_RELAXED);
}

/* Makes a stage, which the fast paths leave to others. */
static void make_room(struct nvm_tcache *tcache)
{
    if (tcache->fast && !nvm_lane_has_room(tcache->lane, 1))
        nvm_lane_stage(tcache->lane, 1);
}

static __attribute__((noinline)) int malloc_outlined(nvm_heap *heap, nvm_ref *dest,
                                                     size_t size)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    make_room(tcache);
    if (tcache->fast && malloc_fast(heap, tcache, dest, size, true))
        return 0;
    return malloc_generally(tcache, dest, 1, size);
}

int nvm_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t size)
{
    if (__builtin_expect(is_fast(heap) &&
                             malloc_fast(heap, nvm_tcache_last.tcache, dest, size, false),
                         1))
        return 0;
    return malloc_outlined(heap, dest, size);
}

int nvm_aligned_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t alignment, size_t size)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 ||
        alignment > NVM_ALIGNMENT_MAX)
        return nvm_misuse(tcache, "the alignment is no power of two up to 2 MiB");
    return malloc_generally(tcache, dest, alignment, size);
}

/* --- free --- */

static __attribute__((noinline)) int free_generally(struct nvm_tcache *tcache,
                                                    nvm_ref *dest)
{
    struct nvm_effect effect = {.op = NVM_OP_FREE, .dest = dest};
    NVM_WINDOW(tcache->heap);
    if (!nvm_is_slot(tcache->heap, dest))
        return nvm_misuse(tcache, "the slot is not an aligned place in the heap");
    if (!nvm_find_block(tcache->heap, *dest, NVM_BLOCK_LIVE, &effect.block))
        return nvm_misuse(tcache, *dest == 0 ? "the slot is empty"
                                             : "the slot refers to no live block");
    nvm_commit(tcache, &effect, 1);
    /* From here on others may get the block. */
    nvm_cancel_block(tcache, effect.block);
    return 0;
}

/* The fast path, or false with nothing done: also if the cache would be full then, and
   not `unusual`.  The cache is the thread's own: others may get the block only when it
   spills, and that is after the fence. */
static inline __attribute__((always_inline)) bool
free_fast(struct nvm_heap *heap, struct nvm_tcache *tcache, nvm_ref *dest, bool unusual)
{
    struct nvm_lane *lane = tcache->lane;
    uint64_t slot = nvm_heap_offset(heap, dest), head = nvm_lane_head(lane);
    uint64_t granule, tag;
    if (__builtin_expect(head >= lane->room || !nvm_heap_in_data_aligned(heap, slot), 0))
        return false;
    uint64_t offset = *dest;
    if (__builtin_expect(!nvm_block_find_live(heap, offset, &granule, &tag), 0))
        return false;
    struct nvm_tcache_bin *bin = nvm_tcache_bin_of(tcache->bins, tag);
    struct nvm_block *top = bin->top + 1; /* there is always room for one */
    bool full = top == bin->limit;
    if (__builtin_expect(full, 0) && !unusual)
        return false;
    bin->top = top;
    __atomic_store_n(&top[-1].offset, offset, __ATOMIC_RELAXED);
    __atomic_store_n(&top[-1].tag, tag, __ATOMIC_RELAXED);
    heap->state[granule] = NVM_BLOCK_IDLE;
    commit_fast(heap, lane, head, tag, dest, slot, 0, unusual);
    if (unusual && full)
        nvm_tcache_spill(tcache, nvm_tag_class(tag));
    return true;
}

static __attribute__((noinline)) int free_outlined(nvm_heap *heap, nvm_ref *dest)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    make_room(tcache);
    if (tcache->fast && free_fast(heap, tcache, dest, true))
        return 0;
    return free_generally(tcache, dest);
}

int nvm_free_from(nvm_heap *heap, nvm_ref *dest)
{
    if (__builtin_expect(
            is_fast(heap) && free_fast(heap, nvm_tcache_last.tcache, dest, false), 1))
        return 0;
    return free_outlined(heap, dest);
}
