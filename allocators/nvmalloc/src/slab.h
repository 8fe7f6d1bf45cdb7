/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.h - small blocks: which blocks of a slab are free, in DRAM and on media.
 *
 * A slab is a run of units cut into blocks of one size class (sizeclass.h).
 * Three things tell of its blocks:
 *   bitmap on media     bit i = 1: block i is live; what counts after a crash,
 *                       together with the records that are not settled (lane.h)
 *   slab_bits in DRAM   bit i = 1: block i is free and in no thread's cache
 *   heap->state in DRAM what block i is to whoever holds it (block.h)
 * so  state(i) != IDLE  ->  !free(i),  and  state(i) == IDLE && !free(i)  means
 * "in a cache".  nvm_check() holds the states to that: it counts the live ones.  Blocks
 * that were in caches are free again after a crash. In a GC heap the bitmap on media
 * counts only after a clean close.
 *
 * After an open, a slab is UNSCANNED: its DRAM state is filled in from media
 * when it is first wanted, which makes an open cost nothing per slab.  That is
 * before a block of it is freed, too.
 *
 * A slab with a bitmap word that does not fit its checksum is DAMAGED: nothing
 * is allocated from it or freed to it, its units are never handed out again,
 * its blocks stay readable; the rest of the heap lives.
 */
#ifndef NVM_SLAB_H
#define NVM_SLAB_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

struct nvm_heap;
struct nvm_persist;
struct nvm_block;

enum nvm_slab_state {
    NVM_SLAB_NONE = 0,
    NVM_SLAB_UNSCANNED,  /* in bin->unscanned; free and its bits are not valid */
    NVM_SLAB_PARTIAL,    /* in bin->partial; 0 < free */
    NVM_SLAB_FULL,       /* in no list; free = 0 */
    NVM_SLAB_DAMAGED,    /* in no list; out of use */
    NVM_SLAB_EVACUATING, /* in no list; 0 < free; its blocks are being moved out */
};

/* DRAM state; all fields under the lock of the bin that owns the slab, but
   for unit, klass and arena, which are constant while the slab lives. */
struct nvm_slab {
    struct nvm_slab *next;
    struct nvm_slab *previous;
    uint32_t unit;
    uint32_t free; /* blocks whose bits are set */
    uint32_t hint; /* words before it have no free block */
    uint8_t state; /* enum nvm_slab_state */
    uint8_t klass;
    uint16_t arena;
};

/* Makes a new slab of the class, durably.  It is PARTIAL with every block free, and in
   no list.  0, ENOMEM or ENOSPC. */
int nvm_slab_provision(struct nvm_heap *heap, struct nvm_persist *persist, unsigned klass,
                       struct nvm_slab **slab);
/* Gives a slab without live or cached blocks back as free units, durably. */
void nvm_slab_retire(struct nvm_heap *heap, struct nvm_persist *persist,
                     struct nvm_slab *slab);

/* Fills in the DRAM state of an UNSCANNED slab; it becomes PARTIAL, FULL or DAMAGED. */
void nvm_slab_scan(struct nvm_heap *heap, struct nvm_slab *slab);

/* Takes up to `want` free blocks, lowest first; returns how many. */
unsigned nvm_slab_take(struct nvm_heap *heap, struct nvm_slab *slab,
                       struct nvm_block *blocks, unsigned want);
/* Gives one block back. */
void nvm_slab_give(struct nvm_heap *heap, struct nvm_slab *slab, uint64_t tag);

/* Live blocks in word `word` of the slab whose first block has the tag: by DRAM if
   the slab was scanned, else by media, where a damaged word has none. */
uint64_t nvm_slab_live(const struct nvm_heap *heap, uint64_t tag, uint32_t word);

/* Writes the bitmap on media from DRAM, of a scanned slab; durable after a fence.
   What the close of a GC heap does. */
void nvm_slab_store(struct nvm_heap *heap, struct nvm_persist *persist, uint64_t tag);

#endif
