/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.h - small blocks: which blocks of a slab are free, in DRAM and on media.
 *
 * A slab is a run of units cut into blocks of one size class (sizeclass.h).
 * Two bitmaps tell of its blocks, with opposite sense:
 *   on media  bit i = 1: block i is live (an acknowledged allocation)
 *   in DRAM   bit i = 1: block i is free and in no thread's cache
 * so  live(i) -> !free(i),  and  !live(i) && !free(i)  means "in a cache".
 * Only the bitmap on media counts after a crash; blocks that were in caches
 * are then free again.
 *
 * The bit on media is changed by a locked instruction (threads share words),
 * as the plain store of a logged operation: it need not be flushed before the
 * next checkpoint (lane.h).
 *
 * After an open, a slab is UNSCANNED: its DRAM bits are filled in from media
 * when it is first wanted, which makes an open cost nothing per slab.  That is
 * before a block of it is freed, too: afterwards the bit on media alone could
 * not tell a block in a cache from a free one.
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
    NVM_SLAB_UNSCANNED, /* in bin->unscanned; free and bits are not valid */
    NVM_SLAB_PARTIAL,   /* in bin->partial; 0 < free */
    NVM_SLAB_FULL,      /* in no list; free = 0 */
};

/* DRAM state; all fields under the lock of the bin that owns the slab, but
   for unit, klass and arena, which are constant while the slab lives. */
struct nvm_slab {
    struct nvm_slab *next;
    struct nvm_slab *previous;
    uint32_t unit;
    uint32_t free; /* popcount(bits) */
    uint8_t state; /* enum nvm_slab_state */
    uint8_t klass;
    uint16_t arena;
    uint64_t bits[NVM_BITMAP_WORDS];
};

/* Makes a new slab of the class, durably; NULL when no run of units is free.
   It is PARTIAL with every block free, and in no list. */
struct nvm_slab *nvm_slab_provision(struct nvm_heap *heap, struct nvm_persist *persist,
                                    unsigned klass);
/* Gives a slab without live or cached blocks back as free units, durably. */
void nvm_slab_retire(struct nvm_heap *heap, struct nvm_persist *persist,
                     struct nvm_slab *slab);

/* Fills in the DRAM bits of an UNSCANNED slab; it becomes PARTIAL or FULL. */
void nvm_slab_scan(struct nvm_heap *heap, struct nvm_slab *slab);

/* Takes up to `want` free blocks, lowest first; returns how many. */
unsigned nvm_slab_take(struct nvm_heap *heap, struct nvm_slab *slab,
                       struct nvm_block *blocks, unsigned want);
/* Gives one block back. */
void nvm_slab_give(struct nvm_slab *slab, uint32_t index);

/* Live blocks of the slab that begins at unit, by the bitmap on media. */
uint32_t nvm_slab_live(const struct nvm_heap *heap, uint32_t unit);

#endif
