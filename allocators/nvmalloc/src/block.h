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

static inline uint64_t nvm_block_tag(uint32_t unit, uint32_t klass, uint32_t generation,
                                     uint32_t index)
{
    return (uint64_t)unit << NVM_UNIT_BITS | index |
           (uint64_t)generation << NVM_TAG_GENERATION | (uint64_t)klass << NVM_TAG_CLASS;
}

static inline bool nvm_block_is_extent(struct nvm_block block)
{
    return (block.tag & NVM_TAG_EXTENT) != 0;
}

/* The word on media that holds a slab block's bit, and the bit. */
static inline uint64_t *nvm_block_word(const struct nvm_heap *heap,
                                       struct nvm_block block)
{
    uint64_t bit = block.tag & (((uint64_t)1 << NVM_TAG_GENERATION) - 1);
    return &heap->bitmaps[0][0] + bit / 64;
}

static inline uint64_t nvm_block_mask(struct nvm_block block)
{
    return (uint64_t)1 << (block.tag & 63);
}

/* Whether a slab block is live. */
static inline bool nvm_block_bit(const struct nvm_heap *heap, struct nvm_block block)
{
    return (__atomic_load_n(nvm_block_word(heap, block), __ATOMIC_RELAXED) &
            nvm_block_mask(block)) != 0;
}

enum nvm_locate {
    NVM_LOCATE_NONE,      /* no block of a slab begins there */
    NVM_LOCATE_FOUND,     /* live or not */
    NVM_LOCATE_UNSCANNED, /* found, in a slab that must be scanned before it is freed */
};

static inline enum nvm_locate nvm_block_locate(const struct nvm_heap *heap,
                                               uint64_t offset, struct nvm_block *block)
{
    if (!nvm_heap_in_data(heap, offset))
        return NVM_LOCATE_NONE;
    nvm_unit unit = nvm_unit_get(heap, nvm_heap_unit(heap, offset));
    unsigned kind = nvm_unit_kind(unit);
    if (kind != NVM_UNIT_SLAB && kind != NVM_UNIT_UNSCANNED)
        return NVM_LOCATE_NONE;
    uint64_t tag = nvm_unit_tag(unit);
    const struct nvm_class *klass = &nvm_classes[nvm_tag_class(tag)];
    uint64_t within = offset - nvm_unit_offset(heap, nvm_tag_unit(tag));
    uint32_t index = nvm_sizeclass_index(klass, within);
    if ((uint64_t)index * klass->size != within || index >= klass->blocks)
        return NVM_LOCATE_NONE;
    block->offset = offset;
    block->tag = tag | index;
    return kind == NVM_UNIT_SLAB ? NVM_LOCATE_FOUND : NVM_LOCATE_UNSCANNED;
}

#endif
