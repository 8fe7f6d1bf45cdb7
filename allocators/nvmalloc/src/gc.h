/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gc.h - the fast paths of a GC heap: a block's state tells all that a free has to know,
 * and the thread's cache keeps it beside the offset (tcache.h).
 */
#ifndef NVM_GC_H
#define NVM_GC_H

#include "tcache.h"

/* A block that is to be freed. */
struct nvm_gc_block {
    uint64_t offset;
    uint64_t state; /* as it is, live */
    uint64_t klass;
    uint64_t granule;
};

/* The block on top of the bin, live from now on; NULL: there is none. */
static inline __attribute__((always_inline)) void *nvm_gc_pop(struct nvm_heap *heap,
                                                              struct nvm_tcache_bin *bin)
{
    struct nvm_block *top = bin->top;
    if (__builtin_expect(top == bin->bottom, 0))
        return NULL;
    bin->top = --top;
    *nvm_block_state(heap, top->offset) = (uint16_t)top->tag;
    void *block = nvm_heap_at(heap, top->offset);
    if (block == NULL)
        __builtin_unreachable();
    return block;
}

/* Finds the live block at an address that is the beginning of a granule; false: there is
   none, but perhaps an extent. */
static inline __attribute__((always_inline)) bool
nvm_gc_find(const struct nvm_heap *heap, const void *address, struct nvm_gc_block *block)
{
    block->offset = nvm_heap_offset(heap, address);
    block->granule = nvm_block_granule(block->offset);
    if (__builtin_expect(
            block->granule >= __atomic_load_n(&heap->granules, __ATOMIC_RELAXED), 0))
        return false;
    block->state = heap->state[block->granule];
    block->klass = block->state - NVM_BLOCK_LIVE; /* wraps if it is less */
    return __builtin_expect(block->klass < NVM_CLASSES, 1);
}

/* Frees the block into the thread's cache; true: which is full now, and must be
   spilled. */
static inline __attribute__((always_inline)) bool
nvm_gc_push(struct nvm_heap *heap, struct nvm_tcache *tcache, struct nvm_gc_block block)
{
    struct nvm_tcache_bin *bin = &tcache->bins[block.klass];
    __asm__("" : "+r"(bin)); /* or gcc 12 works it out twice */
    heap->state[block.granule] = NVM_BLOCK_IDLE;
    *bin->top++ = (struct nvm_block){block.offset, block.state};
    return __builtin_expect(bin->top == bin->limit, 0);
}

#endif
