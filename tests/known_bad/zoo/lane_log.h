// SPDX-License-Identifier: Apache-2.0
/*
 * lane_log.h - a small correct allocator with a redo log, for faults to be planted in.
 *
 * Media, in chunks of 4 KiB:
 *   line 0        struct zoo_header
 *   lines 1, 2    two roots, written in turn; the valid one with the higher sequence
 * counts line 3        the frontier: chunks from it on are free; true only in a heap that
 * was closed chunks 1, 2   lanes, one a thread, of two log entries, written in turn
 *   tables        a word a chunk: 0 free, 6 .. 11 cut into blocks of 2^n bytes,
 *                 zoo_large | n the first of n chunks that are one block;
 *                 a word a chunk: which of its blocks are live; the slots
 *   chunks from `first` on: blocks
 * A slot is granules of the block << 32 | its first granule (64 bytes).
 *
 * An operation is a list of records {where, value}: the words that it changes, all of
 * metadata and slots.  Under the heap's mutex:
 *   1. the records, generation and checksum go to the lane's other entry; flush, fence
 *   2. the words are stored; flush, fence
 * Invariants:
 *   A. Generations grow by one an operation, over all lanes.
 *   B. When an entry of generation g becomes valid, what g - 1 stored is on media. So
 * only the newest valid entry may have to be redone, and older ones must not be. C. The
 * newest valid entry stays valid until the next one is: it is not overwritten (two
 * entries a lane), or its generation is at most the root's floor. Recovery redoes the
 * newest valid entry above the floor; then, all of it on media, writes a root with this
 * floor.  Redoing has the same result however often it happens.
 */
#ifndef ZOO_LANE_LOG_H
#define ZOO_LANE_LOG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"
#include "plants.h"

enum {
    zoo_line = 64,
    zoo_chunk = 4096,
    zoo_lanes = 8,
    zoo_records = 27,
    zoo_first_class = 6, /* 64 bytes, a granule */
    zoo_last_class = 11,
};

#define ZOO_LARGE (UINT64_C(1) << 32)

struct zoo_header {
    uint64_t magic, size, slots, chunks, first;
    uint64_t pad[3];
};

struct zoo_root {
    uint64_t sequence;
    uint64_t floor; /* generations up to it are on media */
    uint64_t clean; /* closed: nothing to recover, the frontier is true */
    uint64_t check;
    uint64_t pad[4];
};

struct zoo_record {
    uint64_t where, value; /* where: offset of the word in the heap */
};

struct zoo_entry {
    uint64_t generation;
    uint64_t head; /* records | checksum << 32 */
    struct zoo_record record[zoo_records];
};
_Static_assert(sizeof(struct zoo_entry) == 7 * zoo_line, "entry");

struct zoo_lane {
    struct zoo_entry entry[2];
};
_Static_assert(sizeof(struct zoo_lane) * zoo_lanes <= 2 * zoo_chunk, "lanes");

struct nvc_heap {
    pthread_mutex_t lock; /* an operation as a whole */
    unsigned char *base;
    size_t size;
    int fd; /* -1: attached */
    struct zoo_header *header;
    struct zoo_root *root; /* two */
    uint64_t *summary;     /* the frontier on media */
    struct zoo_lane *lane;
    uint64_t *kind, *live, *slots; /* the tables */
    uint64_t sequence;             /* of the newest root */
    uint64_t generation;           /* of the newest entry */
    uint64_t frontier;
    unsigned turn[zoo_lanes]; /* the entry written last */
    unsigned lanes_taken;     /* bits */
    _Atomic unsigned waiting; /* threads that wait for the mutex, more or less */
};

/* The words that an operation changes. */
struct zoo_changes {
    unsigned count;
    struct zoo_record record[zoo_records];
};

/* ---- persist.c ---- */

void zoo_flush(const void *address, size_t length);
void zoo_fence(void);
/* Copies past the caches; whole granules. */
void zoo_copy_nt_store(void *to, const void *from, size_t length);
int zoo_observe(nvc_event_fn *fn, void *context);

/* A store that a crash may come right after. */
static inline void zoo_store(uint64_t *where, uint64_t value)
{
    atomic_signal_fence(memory_order_seq_cst);
    *(volatile uint64_t *)where = value;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void zoo_persist(const void *address, size_t length)
{
    zoo_flush(address, length);
    zoo_fence();
}

static inline void zoo_store_persist(uint64_t *where, uint64_t value)
{
    zoo_store(where, value);
    zoo_persist(where, sizeof *where);
}

/* ---- log.c ---- */

extern _Thread_local unsigned zoo_my_lane;

/* The mutex. No locked instruction may count who waits: it would be a fence. */
static inline void zoo_lock(struct nvc_heap *heap)
{
    unsigned waiting = atomic_load_explicit(&heap->waiting, memory_order_relaxed);
    atomic_store_explicit(&heap->waiting, waiting + 1, memory_order_relaxed);
    pthread_mutex_lock(&heap->lock);
    waiting = atomic_load_explicit(&heap->waiting, memory_order_relaxed);
    atomic_store_explicit(&heap->waiting, waiting - (waiting != 0), memory_order_relaxed);
}

static inline void zoo_unlock(struct nvc_heap *heap)
{
    pthread_mutex_unlock(&heap->lock);
}

static inline bool zoo_waiting(struct nvc_heap *heap)
{
    return atomic_load_explicit(&heap->waiting, memory_order_relaxed) != 0;
}

uint64_t *zoo_word(const struct nvc_heap *heap, uint64_t where);
/* Makes all changes, or none if power fails before. */
void zoo_commit(struct nvc_heap *heap, const struct zoo_changes *changes);
/* For a plant: the same without a flush or a fence. */
void zoo_commit_in_cache(struct nvc_heap *heap, const struct zoo_changes *changes);
/* Finds the newest root; EUCLEAN if none is valid. */
int zoo_find_root(struct nvc_heap *heap, struct zoo_root *found);
void zoo_write_root(struct nvc_heap *heap, uint64_t floor, bool clean);
/* Redoes what is to be redone, and writes a root. EUCLEAN for a senseless record. */
int zoo_recover(struct nvc_heap *heap, uint64_t floor);

/* ---- space.c ---- */

void zoo_change(struct zoo_changes *changes, uint64_t where, uint64_t value);
/* A block of at least size bytes, taken in `changes`: its slot word; 0: none is free. */
uint64_t zoo_take(struct nvc_heap *heap, struct zoo_changes *changes, size_t size);
void zoo_release(struct nvc_heap *heap, struct zoo_changes *changes, uint64_t slot);
/* True if the slot word names a live block of this heap. */
bool zoo_is_live(const struct nvc_heap *heap, uint64_t slot);
/* The first chunk from which on all are free. */
uint64_t zoo_find_frontier(const struct nvc_heap *heap);
uint64_t zoo_offset_of(const struct nvc_heap *heap, const void *address);
int zoo_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context);
/* NULL, or what is wrong with the tables. */
const char *zoo_find_damage(const struct nvc_heap *heap);

#endif
