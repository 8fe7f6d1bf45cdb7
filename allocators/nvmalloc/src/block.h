/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.h - the coordinates of a block, in two words.
 *
 * A block is a piece of a slab, or an extent.  Where its mark is on media
 * (bitmap word or chunk entry) and what its records must bear (generation)
 * follows from the offset; working it out once, and keeping it beside the
 * offset in the caches, keeps it off the path of an allocation.
 */
#ifndef NVM_BLOCK_H
#define NVM_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "heap.h"
#include "sizeclass.h"

struct nvm_block {
    uint64_t offset; /* 0: none */
    uint64_t tag;    /* layout.h; op 0 */
};

/*
 * What a block is: a word of DRAM for each granule, in which no two blocks begin.  Only
 * whoever holds the block, or is told to free it, reads or writes it.
 *
 *   0       free, or in a cache
 *   1       reserved, by nvm_reserve()
 *   LIVE    live, and what the fast path that frees it has to know, so that it need not
 *           work it out: in a LOG heap the position of its mark in its unit, for a class
 *           whose marks are late; in a GC heap its class.  LIVE + ODD: it begins in the
 *           middle of its granule.
 *   OTHER   live, and nothing else; extents, and larger blocks of LOG heaps
 */
enum nvm_block_state {
    NVM_BLOCK_IDLE = 0,
    NVM_BLOCK_RESERVED = 1,
    NVM_BLOCK_ODD = 0x2000,
    NVM_BLOCK_LIVE = 0x8000,
    NVM_BLOCK_OTHER = 0xc000,
};
_Static_assert(NVM_BLOCK_ODD >= 1u << NVM_UNIT_BITS, "a position does not reach it");

/* Position of block `index` in its slab's bitmap, within the tag. */
static inline uint64_t nvm_block_position(uint32_t index)
{
    uint32_t word = (index * 43691u) >> 21; /* index / 48; exact below 2^16 */
    return index + word * (64 - NVM_WORD_BLOCKS);
}

/* Tag of a slab's first block. */
static inline uint64_t nvm_slab_tag(uint32_t unit, uint32_t klass, uint32_t generation)
{
    return (uint64_t)unit << NVM_UNIT_BITS | (uint64_t)generation << NVM_TAG_GENERATION |
           (uint64_t)klass << NVM_TAG_CLASS;
}

static inline uint64_t nvm_extent_tag(uint32_t unit, uint32_t generation)
{
    return nvm_slab_tag(unit, NVM_CLASS_EXTENT, generation);
}

static inline bool nvm_block_is_extent(struct nvm_block block)
{
    return nvm_tag_is_extent(block.tag);
}

/* offset: of a block's first byte. */
static inline uint16_t *nvm_block_state(const struct nvm_heap *heap, uint64_t offset)
{
    return &heap->state[offset >> NVM_GRANULE_SHIFT];
}

/* offset & 8 as NVM_BLOCK_ODD. */
static inline uint16_t nvm_block_odd(uint64_t offset)
{
    return (uint16_t)((offset & 8) << 10);
}

/* What the block's state is while it is live. */
static inline uint16_t nvm_block_live_state(bool gc, struct nvm_block block)
{
    unsigned klass = nvm_tag_class(block.tag);
    if (klass == NVM_CLASS_EXTENT || (!gc && klass >= NVM_LATE_CLASSES))
        return NVM_BLOCK_OTHER;
    uint64_t what = gc ? klass : block.tag & ((1u << NVM_UNIT_BITS) - 1);
    return (uint16_t)(NVM_BLOCK_LIVE | nvm_block_odd(block.offset) | what);
}

static inline void nvm_block_set_live(struct nvm_heap *heap, struct nvm_block block)
{
    *nvm_block_state(heap, block.offset) =
        nvm_block_live_state(heap->super.mode == NVM_GC, block);
}

static inline bool nvm_block_state_is_live(uint16_t state)
{
    return state >= NVM_BLOCK_LIVE;
}

enum nvm_locate {
    NVM_LOCATE_NONE,      /* no block of a slab begins there */
    NVM_LOCATE_FOUND,     /* live or not */
    NVM_LOCATE_UNSCANNED, /* found, in a slab that must be scanned first */
};

/* Offset from the start of the data to the slab whose first block has the tag: the
   position counts 8192 to a unit, the offset 65536. */
static inline uint64_t nvm_slab_offset(uint64_t tag)
{
    return nvm_tag_position(tag) << (NVM_UNIT_SHIFT - NVM_UNIT_BITS);
}

static inline __attribute__((always_inline)) enum nvm_locate
nvm_block_locate(const struct nvm_heap *heap, uint64_t offset, struct nvm_block *block)
{
    uint64_t from_data = offset - heap->data_offset;
    if (from_data >= __atomic_load_n(&heap->data_bytes, __ATOMIC_RELAXED))
        return NVM_LOCATE_NONE;
    nvm_unit unit = nvm_unit_get(heap, (uint32_t)(from_data >> NVM_UNIT_SHIFT));
    unsigned kind = nvm_unit_kind(unit);
    if (kind != NVM_UNIT_SLAB && kind != NVM_UNIT_UNSCANNED)
        return NVM_LOCATE_NONE;
    uint64_t tag = nvm_unit_tag(unit);
    const struct nvm_class *klass = &nvm_classes[nvm_tag_class(tag)];
    uint64_t within = from_data - nvm_slab_offset(tag);
    uint32_t index = nvm_sizeclass_index(klass, within);
    if ((uint64_t)index * klass->size != within || index >= klass->blocks)
        return NVM_LOCATE_NONE;
    block->offset = offset;
    block->tag = tag + nvm_block_position(index);
    return kind != NVM_UNIT_UNSCANNED ? NVM_LOCATE_FOUND : NVM_LOCATE_UNSCANNED;
}

/* The granule of an offset that is a multiple of a granule's bytes; of another, a number
   beyond all granules: its low bits are rotated to the top. */
static inline uint64_t nvm_block_granule(uint64_t offset)
{
    return offset >> NVM_GRANULE_SHIFT | offset << (64 - NVM_GRANULE_SHIFT);
}

/*
 * The same for the fast paths of a LOG heap: only live blocks whose state says where
 * their mark is.  Every granule of the file has a state, so one comparison is all that
 * an offset must pass; the state's own says that a block begins there.  Gives the
 * granule, and the block's tag.
 */
static inline __attribute__((always_inline)) bool
nvm_block_find_live(const struct nvm_heap *heap, uint64_t offset, uint64_t *found,
                    uint64_t *tag)
{
    uint64_t granules = __atomic_load_n(&heap->granules, __ATOMIC_RELAXED);
    uint64_t granule = nvm_block_granule(offset);
    uint64_t position;
    if (__builtin_expect(granule < granules, 1)) {
        position = (uint64_t)heap->state[granule] - NVM_BLOCK_LIVE; /* wraps if less */
    } else {
        granule = nvm_block_granule(offset - 8);
        if (granule >= granules)
            return false;
        position = heap->state[granule] ^ (NVM_BLOCK_LIVE | NVM_BLOCK_ODD);
        __asm__("" : "+r"(position)); /* or it becomes a part of the usual path */
    }
    if (__builtin_expect(position >= NVM_BLOCK_ODD, 0))
        return false;
    nvm_unit unit = __atomic_load_n(
        &heap->units_of_file[granule >> (NVM_UNIT_SHIFT - NVM_GRANULE_SHIFT)],
        __ATOMIC_ACQUIRE);
    *found = granule;
    *tag = unit + position;
    return true;
}

#endif
