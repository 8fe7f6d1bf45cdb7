/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.h - an open heap: what is on media, and the DRAM state derived from it.
 *
 * Everything but `region` and `super` can be dropped and rebuilt from media
 * (build.h): threads' caches, arenas, slabs' free bits, the vmem of units, the
 * lanes' mirrors.  None of it is ever needed to recover.
 *
 * Lock order (take downwards only):
 *   0. heap->root_lock; the registry's lock
 *   1. heap->threads_lock   the list of thread caches
 *   2. lane->turn           of the shared lane
 *   3. bin->lock            a size class of an arena (arena.h)
 *   4. heap->units_lock     which units are free, growth
 *   5. heap->chunk_lock     the chunk table, heap->structure
 *   6. lanes.lock, lanes.checkpoint, lane->stage, the vmem's own
 *   7. heap->mark_lock      applying marks
 *   8. heap->super_lock     writing a superblock
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
#include "protect.h"
#include "region.h"
#include "sizeclass.h"
#include "slab.h"
#include "numa.h"

/*
 * What a unit is part of, in DRAM: one word, so that whoever holds a reference
 * to a live block of the unit may read it without a lock.  Below the kind, it
 * is the tag (layout.h) of the slab's first block or of the extent; every unit
 * of a slab has the same.
 */
typedef uint64_t nvm_unit;
#define NVM_UNIT_KIND 61u
enum nvm_unit_kind {
    NVM_UNIT_SLAB = 0, /* of a slab that is scanned; so the word is the tag */
    NVM_UNIT_FREE,
    NVM_UNIT_UNSCANNED, /* of a slab whose free bits are not filled in */
    NVM_UNIT_EXTENT,    /* first unit of an extent, live or reserved */
    NVM_UNIT_INSIDE,    /* its others */
    NVM_UNIT_DAMAGED,   /* of a slab that is quarantined */
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

static inline bool nvm_unit_is_scanned(nvm_unit unit)
{
    return nvm_unit_kind(unit) == NVM_UNIT_SLAB;
}

/* log2 of the bytes of the file that have one state: no block is smaller. */
#define NVM_GRANULE_SHIFT 4u

/* heap->unit_flags; under units_lock */
#define NVM_UNIT_HOLE    1u /* its pages may be a hole of the file */
#define NVM_UNIT_CLAIM   2u /* first of a claim (claims.h) */
#define NVM_UNIT_CLAIMED 4u /* of a claim */

/* No heap's id, and no thread's. */
#define NVM_NO_ID UINT64_MAX

struct nvm_heap {
    /* What every call looks at. */
    uint64_t id;      /* of this build of the DRAM state; never reused in a process */
    uint64_t fast_id; /* the same where the fast paths of a LOG heap may be taken, else
                         NVM_NO_ID; an atomic */
    char *base;
    uint64_t data_offset;
    uint64_t data_bytes; /* of all units in use; grows, so read as an atomic */
    uint64_t data_words; /* the same in words of 8 bytes */
    nvm_unit *units;     /* of the data */
    nvm_unit
        *units_of_file; /* the same array, by 64 KiB of the file: 0 before the data */
    uint16_t *state;    /* of blocks, by the granule of the file in which they begin
                          (block.h) */
    uint64_t granules;  /* of the file, to the end of the units in use; an atomic too */

    struct nvm_protection protection;
    struct nvm_region region;
    struct nvm_super super;
    uint32_t salt;
    bool foreign; /* in a child of the process that opened it */
    bool recovered;
    bool collected; /* heap->state tells what is live, bitmaps on media do not */
    uint64_t replayed;
    unsigned threads; /* that may recover a GC heap; 0: one a CPU */
    nvm_trace_fn *trace;
    void *trace_context;

    /* On media. */
    _Atomic uint64_t *chunks;
    uint64_t *bitmaps; /* NVM_BITMAP_WORDS a unit */

    /* In DRAM. */
    struct nvm_lanes lanes;
    uint8_t *unit_flags;
    uint8_t *walked; /* by unit: the walk over the chunk table stops here; chunk_lock */
    struct nvm_slab *slabs;                  /* by first unit */
    uint64_t (*slab_bits)[NVM_BITMAP_WORDS]; /* free blocks, by the same */
    struct nvm_numa *free_units;
    pthread_mutex_t units_lock; /* growth, holes, aligned runs */
    pthread_mutex_t chunk_lock;
    pthread_mutex_t mark_lock;    /* late marks, while a lane settles */
    struct nvm_persist structure; /* counts for the holder of chunk_lock, and for
                                     open and close */
    struct nvm_arena *arenas;
    uint32_t arena_count;
    _Atomic uint32_t next_arena;
    _Atomic uint64_t quarantined; /* bytes of slabs that are damaged */
    pthread_mutex_t threads_lock;
    struct nvm_tcache *tcaches;
    struct nvm_persist retired; /* counts of threads that left */
    uint64_t retired_misuses;
    pthread_mutex_t root_lock; /* making a root or a name; taken before all others */
    pthread_mutex_t super_lock;
    struct nvm_persist super_counts; /* under super_lock */
    struct nvm_heap *next_open;      /* registry of open heaps (registry.c) */
};

static inline void *nvm_heap_at(const struct nvm_heap *heap, uint64_t offset)
{
    return heap->base + offset;
}

static inline uint64_t nvm_heap_offset(const struct nvm_heap *heap, const void *address)
{
    return (uint64_t)((const char *)address - heap->base);
}

/* Unit that holds a byte of the data area. */
static inline uint32_t nvm_heap_unit(const struct nvm_heap *heap, uint64_t offset)
{
    return (uint32_t)((offset - heap->data_offset) >> NVM_UNIT_SHIFT);
}

static inline uint64_t nvm_unit_offset(const struct nvm_heap *heap, uint32_t unit)
{
    return heap->data_offset + ((uint64_t)unit << NVM_UNIT_SHIFT);
}

/* Whether an offset is that of an aligned word of the data: alignment and range in one,
   by rotating the low bits to the top. */
static inline bool nvm_heap_in_data_aligned(const struct nvm_heap *heap, uint64_t offset)
{
    uint64_t from_data = offset - heap->data_offset;
    return (from_data >> 3 | from_data << 61) <
           __atomic_load_n(&heap->data_words, __ATOMIC_RELAXED);
}

static inline bool nvm_heap_in_data(const struct nvm_heap *heap, uint64_t offset)
{
    return offset - heap->data_offset <
           __atomic_load_n(&heap->data_bytes, __ATOMIC_RELAXED);
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

static inline struct nvm_lane *nvm_lane_at(const struct nvm_heap *heap, uint32_t index)
{
    return (struct nvm_lane *)(void *)(heap->lanes.lane + index * heap->lanes.stride);
}

/* The bitmap word on media that holds a slab block's mark: a unit's positions are as many
   as its words' bits. */
static inline uint64_t *nvm_heap_mark(const struct nvm_heap *heap, uint64_t tag)
{
    return heap->bitmaps + nvm_tag_position(tag) / 64;
}

static inline uint64_t *nvm_heap_bitmap(const struct nvm_heap *heap, uint32_t unit)
{
    return heap->bitmaps + (size_t)unit * NVM_BITMAP_WORDS;
}

/* Whether the mark of a slab block is applied when its lane settles. */
static inline bool nvm_mark_is_late(uint64_t tag)
{
    return nvm_tag_class(tag) < NVM_LATE_CLASSES;
}

/* Finds the areas of a mapped heap, and its salt, from its superblock. */
void nvm_heap_place_media(struct nvm_heap *heap);

/* Allocates the rings of the first `count` lanes in the file, and says so on media. */
int nvm_heap_allocate_lanes(struct nvm_heap *heap, uint32_t count);

/* Writes the other superblock copy with the next generation; durable on return. */
void nvm_super_write(struct nvm_heap *heap, bool clean);
/* Writes both copies: what has changed is not lost with the newer of them. */
void nvm_super_write_both(struct nvm_heap *heap);
/* Reads and judges the superblocks of a mapped file; errno values.  *doubtful: a
   copy is damaged, which may have been the newer. */
int nvm_super_read(const struct nvm_region *region, struct nvm_super *super,
                   bool *doubtful);
uint32_t nvm_super_salt(const struct nvm_super *super);

#endif
