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

/* What a slab's block is, by position; in DRAM, one byte each.  Only whoever
   holds the block, or is told to free it, reads or writes it. */
enum nvm_block_state {
    NVM_BLOCK_IDLE = 0, /* free, in a cache, or reserved */
    NVM_BLOCK_LIVE = 1,
    NVM_BLOCK_RESERVED = 2, /* by nvm_reserve() */
};

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

static inline uint8_t *nvm_block_state(const struct nvm_heap *heap, uint64_t tag)
{
    return &heap->state[nvm_tag_position(tag)];
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
    if (kind > NVM_UNIT_SLAB && kind != NVM_UNIT_UNSCANNED)
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

/*
 * The same for the fast paths: only live blocks of QUICK slabs.  A block past the
 * last one has no live state, so its number needs no check.  A QUICK unit's word
 * is its slab's tag as it stands.
 */
static inline __attribute__((always_inline)) bool
nvm_block_find_live(const struct nvm_heap *heap, uint64_t offset, struct nvm_block *block)
{
    uint64_t from_data = offset - heap->data_offset;
    if (__builtin_expect(
            from_data >= __atomic_load_n(&heap->data_bytes, __ATOMIC_RELAXED), 0))
        return false;
    nvm_unit unit =
        __atomic_load_n(&heap->units[from_data >> NVM_UNIT_SHIFT], __ATOMIC_ACQUIRE);
    if (__builtin_expect(nvm_unit_kind(unit) != NVM_UNIT_QUICK, 0))
        return false;
    const struct nvm_class *klass = &nvm_classes[nvm_tag_class(unit)];
    uint64_t within = from_data - nvm_slab_offset(unit);
    uint64_t index = (within * klass->reciprocal) >> 44;
    if (__builtin_expect(index * klass->size != within, 0))
        return false;
    block->offset = offset;
    block->tag = unit + nvm_block_position((uint32_t)index);
    return __builtin_expect(*nvm_block_state(heap, block->tag) == NVM_BLOCK_LIVE, 1);
}

#endif
