/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcache.h - a thread's caches of free blocks, and its lane.
 *
 * One struct nvm_tcache for each (thread, heap).  Its stacks hold blocks that
 * are neither live on media nor free in a slab's DRAM bits; nothing on media
 * tells of them, so a crash gives them back by itself.
 *
 * In a GC heap the tag of a cached block is nvm_block_live_state() of it instead: that is
 * what nvm_malloc() and nvm_free() deal in, and the tag can be worked out from the offset
 * when the block is given back.
 *
 * A thread finds its tcache by the heap's id, which is never reused: one that
 * was left over from a dropped heap is not found, and not touched, again.
 */
#ifndef NVM_TCACHE_H
#define NVM_TCACHE_H

#include <stdint.h>

#include "block.h"
#include "error.h"

struct nvm_tcache_bin {
    struct nvm_block *top; /* of a stack: one past the newest */
    struct nvm_block *bottom;
    struct nvm_block *limit; /* top when it is full */
    uint64_t unused;
};
_Static_assert(sizeof(struct nvm_tcache_bin) == 32, "indexed by a shift");

/* Of the block's class: `(tag >> CLASS & 127) * 32` in two steps, not three. */
static inline __attribute__((always_inline)) struct nvm_tcache_bin *
nvm_tcache_bin_of(struct nvm_tcache_bin *bins, uint64_t tag)
{
    uint64_t bytes = (tag >> (NVM_TAG_CLASS - 5)) & (127u << 5);
    return (struct nvm_tcache_bin *)(void *)((char *)bins + bytes);
}

static inline uint32_t nvm_tcache_count(const struct nvm_tcache_bin *bin)
{
    return (uint32_t)(bin->top - bin->bottom);
}

struct nvm_tcache {
    struct nvm_heap *heap;
    struct nvm_lane *lane; /* NULL: a GC heap */
    bool fast;             /* LOG_OWNED, a lane of its own, no key to turn */
    bool gc;
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
    uint64_t log_id; /* the same, if the tcache is `fast`; else 0 */
    uint64_t gc_id;  /* the same, if it is that of a GC heap; else 0 */
};
extern _Thread_local struct nvm_tcache_tls nvm_tcache_last
    __attribute__((tls_model("initial-exec")));

struct nvm_tcache *nvm_tcache_find(struct nvm_heap *heap);

/* The calling thread's tcache, made if need be; NULL: see nvm_tcache_refused(). */
static inline struct nvm_tcache *nvm_tcache_get(struct nvm_heap *heap)
{
    if (__builtin_expect(nvm_tcache_last.id == heap->id, 1))
        return nvm_tcache_last.tcache;
    return nvm_tcache_find(heap);
}

/* Why there is no tcache: EPERM (a child of the process that opened the heap),
   ENOMEM or ENOSPC, explained. */
int nvm_tcache_refused(struct nvm_heap *heap);
#ifdef __clang_analyzer__
#define nvm_tcache_refused(heap) nvm_never_zero(nvm_tcache_refused(heap))
#endif

/* A free block of at least the class (see nvm_arena_take); *error says why there is
   none. */
int nvm_tcache_refill(struct nvm_tcache *tcache, unsigned klass, struct nvm_block *block);
static inline int nvm_tcache_pop(struct nvm_tcache *tcache, unsigned klass,
                                 struct nvm_block *block)
{
    struct nvm_tcache_bin *bin = &tcache->bins[klass];
    if (__builtin_expect(bin->top == bin->bottom, 0))
        return nvm_tcache_refill(tcache, klass, block);
    *block = *--bin->top;
    if (tcache->gc)
        nvm_block_locate(tcache->heap, block->offset, block);
    return 0;
}

/* Gives the older half of a full bin back; 0, so that an operation can end with the
   call. */
int nvm_tcache_spill(struct nvm_tcache *tcache, unsigned klass);

/* Takes in a slab block that is no longer live. */
static inline void nvm_tcache_push(struct nvm_tcache *tcache, struct nvm_block block)
{
    unsigned klass = nvm_tag_class(block.tag);
    struct nvm_tcache_bin *bin = &tcache->bins[klass];
    if (tcache->gc)
        block.tag = nvm_block_live_state(true, block);
    *bin->top++ = block; /* there is always room for one */
    if (bin->top == bin->limit)
        nvm_tcache_spill(tcache, klass);
}

/* Gives every cached block back to the arenas. */
void nvm_tcache_flush(struct nvm_tcache *tcache);

/* Ends all tcaches of a heap that no thread uses any more; their blocks are
   given back if `flush`, else forgotten. */
void nvm_tcache_drop_all(struct nvm_heap *heap, bool flush);

#endif
