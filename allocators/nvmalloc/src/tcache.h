/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcache.h - a thread's caches of free blocks, and its lane.
 *
 * One struct nvm_tcache for each (thread, heap).  Its stacks hold blocks that
 * are neither live on media nor free in a slab's DRAM bits; nothing on media
 * tells of them, so a crash gives them back by itself.
 *
 * A thread finds its tcache by the heap's id, which is never reused: one that
 * was left over from a dropped heap is not found, and not touched, again.
 */
#ifndef NVM_TCACHE_H
#define NVM_TCACHE_H

#include <stdint.h>

#include "block.h"

struct nvm_tcache_bin {
    uint32_t count;
    uint32_t capacity;
    struct nvm_block *blocks; /* a stack; [0] is the oldest */
};

struct nvm_tcache {
    struct nvm_heap *heap;
    struct nvm_lane *lane;
    struct nvm_tcache *next; /* of heap->tcaches, under threads_lock */
    struct nvm_tcache *previous;
    uint32_t arena;
    struct nvm_persist persist; /* counts for slabs and extents */
    uint64_t misuses;
    struct nvm_tcache_bin bins[NVM_CLASSES];
};

struct nvm_tcache_tls {
    uint64_t id; /* of the heap that was used last */
    struct nvm_tcache *tcache;
};
extern _Thread_local struct nvm_tcache_tls nvm_tcache_last
    __attribute__((tls_model("initial-exec")));

struct nvm_tcache *nvm_tcache_find(struct nvm_heap *heap);

/* The calling thread's tcache, made if need be; NULL without DRAM. */
static inline struct nvm_tcache *nvm_tcache_get(struct nvm_heap *heap)
{
    if (__builtin_expect(nvm_tcache_last.id == heap->id, 1))
        return nvm_tcache_last.tcache;
    return nvm_tcache_find(heap);
}

/* A free block of at least the class (see nvm_arena_take); offset 0: none. */
struct nvm_block nvm_tcache_refill(struct nvm_tcache *tcache, unsigned klass);
static inline struct nvm_block nvm_tcache_pop(struct nvm_tcache *tcache, unsigned klass)
{
    struct nvm_tcache_bin *bin = &tcache->bins[klass];
    if (__builtin_expect(bin->count != 0, 1))
        return bin->blocks[--bin->count];
    return nvm_tcache_refill(tcache, klass);
}

/* Takes in a slab block that is no longer live. */
void nvm_tcache_spill(struct nvm_tcache *tcache, unsigned klass);
static inline void nvm_tcache_push(struct nvm_tcache *tcache, struct nvm_block block)
{
    unsigned klass = nvm_tag_class(block.tag);
    struct nvm_tcache_bin *bin = &tcache->bins[klass];
    if (__builtin_expect(bin->count == bin->capacity, 0))
        nvm_tcache_spill(tcache, klass);
    bin->blocks[bin->count++] = block;
}

/* Gives every cached block back to the arenas. */
void nvm_tcache_flush(struct nvm_tcache *tcache);

/* Ends all tcaches of a heap that no thread uses any more; their blocks are
   given back if `flush`, else forgotten. */
void nvm_tcache_drop_all(struct nvm_heap *heap, bool flush);

#endif
