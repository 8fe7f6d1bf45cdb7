/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.h - an open heap: what is on media, and the DRAM state derived from it.
 *
 * Everything but `region` and `super` can be dropped and rebuilt from media
 * by nvm_heap_build() / nvm_heap_drop(): threads' caches, arenas, slabs' free
 * bits, the vmem of units, the lanes' mirrors.  None of it is ever needed to
 * recover.
 *
 * Lock order (take downwards only):
 *   0. heap->root_lock; the registry's lock
 *   1. heap->threads_lock   the list of thread caches
 *   2. bin->lock            a size class of an arena (arena.h)
 *   3. heap->chunk_lock     the chunk table, heap->structure
 *   4. lanes.checkpoint, lanes.lock, the vmem's own
 * Lane 0's mutex is taken before 2, and never while 1-4 are held.
 */
#ifndef NVM_HEAP_H
#define NVM_HEAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "lane.h"
#include "layout.h"
#include "nvmalloc.h"
#include "region.h"
#include "slab.h"
#include "vmem.h"

/*
 * What a unit is part of, in DRAM: one word, so that whoever holds a reference
 * to a live block of the unit may read it without a lock.  Below the kind, it
 * is the tag (layout.h) of the slab's first block or of the extent; every unit
 * of a slab has the same.
 */
typedef uint64_t nvm_unit;
#define NVM_UNIT_KIND 61u
enum nvm_unit_kind {
    NVM_UNIT_FREE = 0,
    NVM_UNIT_SLAB,
    NVM_UNIT_UNSCANNED, /* of a slab whose free bits are not filled in */
    NVM_UNIT_EXTENT,    /* first unit of an extent */
    NVM_UNIT_INSIDE,    /* its others */
};

static inline nvm_unit nvm_unit_make(enum nvm_unit_kind kind, uint64_t tag)
{
    return (uint64_t)kind << NVM_UNIT_KIND | tag;
}

static inline unsigned nvm_unit_kind(nvm_unit unit)
{
    return (unsigned)(unit >> NVM_UNIT_KIND);
}

static inline uint64_t nvm_unit_tag(nvm_unit unit)
{
    return unit & (((uint64_t)1 << NVM_UNIT_KIND) - 1);
}

struct nvm_heap {
    struct nvm_region region;
    struct nvm_super super;
    uint32_t salt;
    uint64_t id; /* of this build of the DRAM state; never reused in a process */
    bool recovered;
    uint64_t replayed;

    /* On media. */
    _Atomic uint64_t *chunks;
    uint64_t (*bitmaps)[NVM_BITMAP_WORDS];
    uint64_t data_bytes; /* of all units */

    /* In DRAM. */
    struct nvm_lanes lanes;
    nvm_unit *units;
    uint8_t *walked;        /* by unit: the walk stops here; under chunk_lock */
    struct nvm_slab *slabs; /* by first unit */
    vmem_t *free_units;     /* address = unit + 1 */
    pthread_mutex_t chunk_lock;
    struct nvm_persist
        structure; /* counts for the holder of chunk_lock, and for open and close */
    struct nvm_arena *arenas;
    uint32_t arena_count;
    _Atomic uint32_t next_arena;
    pthread_mutex_t threads_lock;
    struct nvm_tcache *tcaches;
    struct nvm_persist retired; /* counts of threads that left */
    uint64_t retired_misuses;
    pthread_mutex_t root_lock;  /* making a root; taken before all others */
    struct nvm_heap *next_open; /* registry of open heaps (registry.c) */
};

static inline void *nvm_heap_at(const struct nvm_heap *heap, uint64_t offset)
{
    return heap->region.base + offset;
}

static inline uint64_t nvm_heap_offset(const struct nvm_heap *heap, const void *address)
{
    return (uint64_t)((const char *)address - heap->region.base);
}

/* Unit that holds a byte of the data area. */
static inline uint32_t nvm_heap_unit(const struct nvm_heap *heap, uint64_t offset)
{
    return (uint32_t)((offset - heap->super.data_offset) >> NVM_UNIT_SHIFT);
}

static inline uint64_t nvm_unit_offset(const struct nvm_heap *heap, uint32_t unit)
{
    return heap->super.data_offset + ((uint64_t)unit << NVM_UNIT_SHIFT);
}

static inline bool nvm_heap_in_data(const struct nvm_heap *heap, uint64_t offset)
{
    return offset - heap->super.data_offset < heap->data_bytes;
}

static inline nvm_unit nvm_unit_get(const struct nvm_heap *heap, uint32_t unit)
{
    return __atomic_load_n(&heap->units[unit], __ATOMIC_ACQUIRE);
}

static inline void nvm_unit_set(struct nvm_heap *heap, uint32_t first, uint32_t count,
                                nvm_unit value)
{
    for (uint32_t i = 0; i < count; i++)
        __atomic_store_n(&heap->units[first + i], value, __ATOMIC_RELEASE);
}

/* Finds the areas of a mapped heap, and its salt, from its superblock. */
void nvm_heap_place_media(struct nvm_heap *heap);

/* Derives all DRAM state from media; the log must have been replayed. */
int nvm_heap_build(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy);
void nvm_heap_drop(struct nvm_heap *heap);

/* Calls visit for every run of the chunk table, in order; its error, or EUCLEAN
   with the reason at the first entry that is not valid, ends the walk. */
typedef int nvm_run_fn(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                       void *context);
int nvm_heap_each_run(struct nvm_heap *heap, nvm_run_fn *visit, void *context);

/* Writes the other superblock copy with the next generation; durable on return. */
void nvm_super_write(struct nvm_heap *heap, bool clean);
/* Reads and judges the superblocks of a mapped file; errno values. */
int nvm_super_read(const struct nvm_region *region, struct nvm_super *super);
uint32_t nvm_super_salt(const struct nvm_super *super);

#endif
