/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.h - slabs by size class, shared by the threads that are bound to them.
 *
 * A thread takes blocks from the bins of its own arena in batches, and gives
 * surplus blocks back to the bin that owns their slab, whichever arena that
 * is; a slab never changes its arena while it lives.  Only when no units are
 * free does a thread take from other arenas, and then from larger classes: so
 * ENOMEM means that no block in any bin would hold the request.
 *
 * A bin keeps one empty slab back, so that a class that hovers around a slab
 * boundary does not retire and provision (three fences) at every turn.
 */
#ifndef NVM_ARENA_H
#define NVM_ARENA_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sizeclass.h"

struct nvm_heap;
struct nvm_persist;
struct nvm_slab;
struct nvm_block;

struct nvm_bin {
    _Alignas(64) pthread_mutex_t lock;
    struct nvm_slab *partial;   /* 0 < free, scanned */
    struct nvm_slab *unscanned; /* found at open */
    uint32_t empty;             /* of `partial`, those with every block free */
};

struct nvm_arena {
    struct nvm_bin bins[NVM_CLASSES];
};

/* One arena a processor, at most 16. */
int nvm_arenas_init(struct nvm_heap *heap);
void nvm_arenas_fini(struct nvm_heap *heap);

/* Registers a slab found at open with an arena, unscanned. */
void nvm_arena_adopt(struct nvm_heap *heap, uint32_t unit, unsigned klass);

/*
 * Takes up to `want` free blocks of a class that holds them (the asked one,
 * or if `larger` and the heap is nearly full another arena's or a larger one); returns
 * how many, 0 when there is none anywhere: *error is ENOMEM then, or ENOSPC.
 */
unsigned nvm_arena_take(struct nvm_heap *heap, struct nvm_persist *persist,
                        uint32_t arena, unsigned klass, struct nvm_block *blocks,
                        unsigned want, bool larger, int *error);

/* Scans the slab that begins at unit, unless somebody did meanwhile. */
void nvm_arena_scan(struct nvm_heap *heap, uint32_t unit);

/* Scans all that are left. */
void nvm_arena_scan_all(struct nvm_heap *heap);

/* Gives blocks back to the bins that own them. They must not be live. */
void nvm_arena_give(struct nvm_heap *heap, struct nvm_persist *persist,
                    const struct nvm_block *blocks, unsigned count);

/* Retires every empty slab that the bins keep back; returns how many. */
unsigned nvm_arena_purge(struct nvm_heap *heap, struct nvm_persist *persist);

/*
 * For defrag.c.  An evacuating slab is in no list: nothing is allocated from it, and it
 * is retired when its last block is given back.
 */
void nvm_bin_scan_all(struct nvm_heap *heap, struct nvm_bin *bin); /* bin->lock is held */
/* Makes a partial slab, not empty, evacuate; bin->lock is held. */
void nvm_bin_evacuate(struct nvm_bin *bin, struct nvm_slab *slab);
/* Makes an evacuating slab partial again. */
void nvm_arena_keep(struct nvm_heap *heap, struct nvm_slab *slab);
/* One block from a slab of the class that is in use already; 0: there is none. */
unsigned nvm_arena_take_partial(struct nvm_heap *heap, uint32_t arena, unsigned klass,
                                struct nvm_block *block);

#endif
