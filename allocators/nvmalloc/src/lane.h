/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lane.h - operation records: what makes an operation durable and atomic.
 *
 * Theory
 * ------
 * 1. A lane is a ring of one-line records on media, written by one thread at
 *    a time.  An operation is durable as soon as its record is: one
 *    non-temporal line and one fence, the least that any durable operation
 *    costs.  Its effects on the slot (*dest) and on the *mark* (a bitmap word
 *    or a chunk entry) are plain stores made after that fence; recovery makes
 *    them again from the record if need be.
 * 2. Sequence numbers come from one clock for all lanes, so recovery can
 *    replay all lanes' records in the order in which they happened: the
 *    newest record of a block and of a slot wins.
 * 3. Watermark.  Before a record is overwritten, a *checkpoint* flushes the
 *    slots and marks of all lanes' completed records up to some X, fences,
 *    and makes X durable.  Recovery ignores records with seq <= X.  X must be
 *    global: with a watermark a lane, an old record left in an idle lane
 *    would undo the effect of a newer record that is overwritten already.
 * 4. In flight.  A lane announces `active` = a clock value not above the seq
 *    that it will draw, before it draws it (the draw is a locked instruction,
 *    so the announcement is visible first), and withdraws it after its plain
 *    stores.  A checkpoint reads the clock first and the announcements then,
 *    and takes X below all of them; whoever it saw idle draws a seq above X.
 * 5. The container rule (a slot inside a block is redone only while no newer
 *    record names that block) is recovery's: see recover.c.
 *
 * Invariants, for each lane at any time:
 *   flushed <= head <= flushed + ring
 *   records [flushed, head) have their mirror entries in place
 *   every record with seq <= the durable watermark has its effects on media
 *
 * Why a crash is safe at any line: before the fence of nvm_lane_log() the
 * record may be absent, torn or whole; torn is absent (checksum), and nothing
 * else has changed.  After it, recovery redoes the plain stores.
 *
 * Lane 0 is shared, under a mutex, by all threads that found no free lane.
 */
#ifndef NVM_LANE_H
#define NVM_LANE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "persist.h"

#define NVM_LANE_IDLE UINT64_MAX

/* What a checkpoint must flush on behalf of a record. */
struct nvm_mirror {
    uint64_t seq;
    const void *dest;
    const void *mark;
};

struct nvm_lane {
    struct nvm_heap *heap;
    struct nvm_lanes *lanes;
    struct nvm_record *ring; /* on media */
    struct nvm_mirror *mirror;
    uint64_t head_private; /* the owner's copy of head */
    uint64_t room;         /* head at which a checkpoint is due */
    uint32_t mask;         /* records of the ring - 1 */
    uint32_t salt;
    uint16_t index;
    bool owned;             /* under nvm_lanes.lock */
    pthread_mutex_t shared; /* taken around each operation on lane 0 only */
    /* Read by checkpoints of other threads. */
    _Alignas(64) _Atomic uint64_t active;
    _Atomic uint64_t head;    /* records written since open */
    _Atomic uint64_t flushed; /* records whose effects are on media */
};

/* All lanes of a heap, the clock and the watermark. */
struct nvm_lanes {
    _Alignas(64) _Atomic uint64_t clock; /* next sequence number */
    _Alignas(64) struct nvm_lane *lane;
    uint32_t count;
    _Atomic uint32_t used; /* lanes from here on have never been owned */
    uint32_t salt;
    pthread_mutex_t lock;            /* `owned` of the lanes */
    pthread_mutex_t checkpoint;      /* guards what follows */
    struct nvm_watermark *watermark; /* two lines on media */
    uint64_t durable;                /* the watermark on media */
    unsigned next_copy;              /* which line the next one goes to */
    uint64_t checkpoints;
    struct nvm_persist persist;
};

/* clock: the next sequence number; everything below it must be history. */
int nvm_lanes_init(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy);
void nvm_lanes_fini(struct nvm_heap *heap);

/* A lane of one's own, or lane 0. */
struct nvm_lane *nvm_lane_acquire(struct nvm_heap *heap);
void nvm_lane_release(struct nvm_lane *lane);

/* Begins an operation: there is room for one record after it. */
void nvm_lane_make_room(struct nvm_lane *lane);
static inline __attribute__((always_inline)) void nvm_lane_begin(struct nvm_lane *lane)
{
    if (__builtin_expect(lane->index == 0, 0))
        pthread_mutex_lock(&lane->shared);
    if (__builtin_expect(lane->head_private >= lane->room, 0))
        nvm_lane_make_room(lane);
}

/*
 * Makes the operation durable: writes its record, fences; returns its seq.
 * The caller then makes the plain stores and calls nvm_lane_end() with the
 * places that they went to.  Inline, so that the record is put together and
 * its checksum computed in registers.
 */
static inline __attribute__((always_inline)) uint64_t
nvm_lane_log(struct nvm_lane *lane, enum nvm_op op, uint64_t tag, uint64_t dest,
             uint64_t object, uint64_t bytes)
{
    struct nvm_lanes *lanes = lane->lanes;
    /* Theory 4: announce, then draw. The draw's lock prefix orders the two. */
    atomic_store_explicit(&lane->active,
                          atomic_load_explicit(&lanes->clock, memory_order_relaxed),
                          memory_order_relaxed);
    uint64_t seq = atomic_fetch_add(&lanes->clock, 1);
    tag |= (uint64_t)op << NVM_TAG_OP;
    uint64_t crc = nvm_crc32c_u64(lane->salt, tag);
    crc = nvm_crc32c_u64(crc, seq);
    crc = nvm_crc32c_u64(crc, dest);
    crc = nvm_crc32c_u64(crc, object);
    crc = nvm_crc32c_u64(crc, bytes);
    /* The record must be durable before any of its effects can be: an effect
       without its record would be a half operation. */
    nvm_log_line(&lane->ring[lane->head_private & lane->mask], tag, seq, dest, object,
                 bytes, crc << 32);
    return seq;
}

static inline __attribute__((always_inline)) void
nvm_lane_end(struct nvm_lane *lane, uint64_t seq, const void *dest, const void *mark)
{
    struct nvm_mirror *mirror = &lane->mirror[lane->head_private & lane->mask];
    mirror->seq = seq;
    mirror->dest = dest;
    mirror->mark = mark;
    atomic_store_explicit(&lane->head, ++lane->head_private, memory_order_release);
    atomic_store_explicit(&lane->active, NVM_LANE_IDLE, memory_order_release);
    if (__builtin_expect(lane->index == 0, 0))
        pthread_mutex_unlock(&lane->shared);
}

/* Advances the watermark as far as it goes; called without the checkpoint lock. */
void nvm_lanes_checkpoint(struct nvm_heap *heap);

/* Writes the watermark line and fences; for recovery and create too. */
void nvm_watermark_write(struct nvm_persist *persist, struct nvm_watermark *lines,
                         unsigned copy, uint64_t seq, uint32_t salt);

#endif
