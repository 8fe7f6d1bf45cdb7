/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lane.h - operation records: what makes an operation durable and atomic.
 *
 * Theory
 * ------
 * 1. A lane is a ring of one-line records on media, written by one thread at
 *    a time.  An operation is durable as soon as its record is: one line past
 *    the caches and one fence, the least that any durable operation costs.
 *    Its effects, on the slot (*dest) and on the *mark* (a bitmap word or a
 *    chunk entry), come after that fence; recovery makes them again from the
 *    record if need be.
 * 2. Sequence numbers come from one clock for all lanes, so recovery can
 *    replay all lanes' records in the order in which they happened: the
 *    newest record of a block and of a slot wins.
 * 3. Watermark.  A record may be overwritten once some X >= its seq is durably
 *    the heap's watermark, and X may become that once the effects of every
 *    lane's records with seq <= X are durable.  Recovery ignores records with
 *    seq <= X.  X must be global: with a watermark a lane, an old record left
 *    in an idle lane would undo the effect of a newer one, overwritten already.
 * 4. Every record carries the watermark that its writer knew at its last stage: it
 *    becomes durable with the record, for nothing.  It never goes back: while a lane
 *    overwrites its oldest record, its newest one carries as much.
 * 5. A *stage* is due whenever a quarter of a ring has been written.  It
 *    settles the records since the last stage: applies their marks, and
 *    flushes each line of slots and marks once, without a fence: the next
 *    record's fence completes them.  So the lane can say at its next stage
 *    that they are durable, the watermark can pass them, and when the ring
 *    comes round their places are free: an operation costs one effective
 *    fence, and nothing else ever fences while all lanes keep moving.
 *    Marks are applied late because a locked instruction in every operation
 *    would keep the processor from working ahead while it waits for the fence.
 * 6. Marks are toggled (mark.h), so lanes may apply theirs in any order.  A
 *    block's mark is right once all records of it are settled; until then they
 *    are above the watermark, or recovery does not run.  What is live *now* is
 *    told by heap->state, in DRAM.  Before a slab's units change hands, all
 *    lanes are settled (nvm_lanes_settle).
 * 7. In flight.  `last` is 0 from before an operation draws its seq (the draw
 *    is a locked instruction, so the 0 is visible first) until its effects are
 *    made.  Whoever computes X reads the clock first and then `last` of all
 *    lanes: a lane that it saw idle draws a seq above X.
 * 8. An idle lane that has unsettled records holds the watermark back.  Who
 *    finds no room settles all lanes, fences, and writes a watermark line
 *    (nvm_lanes_checkpoint).  Lanes are settled under lane->stage.
 * 9. The container rule (a slot inside a block is redone only while no newer
 *    record names that block) is recovery's: see recover.c.
 * 10. Strict mode: an operation has made its effects durable when it returns,
 *    so of each lane only the newest operation may have to be redone.
 *
 * Invariants, for each lane at any time:
 *   fenced <= applied <= head          (counts of records since open)
 *   effects of records before `fenced` are durable; marks of records before
 *   `applied` are applied, and their lines flushed by the lane's own thread
 *   every record with seq <= durable has its effects on media
 *   head <= room <= (first record above the watermark on media) + ring
 *
 * Why a crash is safe at any line: before the fence of nvm_lane_log() the
 * record may be absent, torn or whole; torn is absent (checksum), and nothing
 * else has changed.  After it, recovery redoes the effects.
 *
 * The last lane is shared, under a mutex, by all threads that found no free one.
 */
#ifndef NVM_LANE_H
#define NVM_LANE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "persist.h"

/* Records of a ring, at most (layout.c). */
#define NVM_RING_MAX 256u

/* A note (nvm_lane_note()) with this bit is the record's tag, op included (MOVE: op, and
   the address of `from`); one without it is the tag of a block whose mark is late. */
#define NVM_NOTE_TAG ((uint64_t)1 << 63)

/* Where a stage stood: records before `head` have seq <= `seq`. */
struct nvm_stage {
    uint64_t head;
    uint64_t seq;
};
#define NVM_STAGES 8u

/* Slots of a lane's tables of flushed lines, and the bits of a line's number; those above
   tell one settling from another, so that the tables need not be emptied. */
#define NVM_SEEN_LINES       256u
#define NVM_LINE_NUMBER_BITS 51u

struct nvm_lane {
    /* The owner's. */
    uint64_t room;           /* head at which a stage is due */
    struct nvm_record *ring; /* on media */
    uint64_t mask;           /* records of the ring - 1 */
    uint64_t crc_start;      /* nvm_record_crc_watermark() of what `staging` carries */
    uint32_t salt;
    uint16_t index;
    bool owned;  /* under nvm_lanes.lock */
    bool shared; /* the last lane */
    struct nvm_heap *heap;
    struct nvm_stage stages[NVM_STAGES]; /* newest at stage_count - 1 */
    uint64_t stage_count;
    uint64_t carry_head; /* from this record on, `staging`'s watermark is carried */
    uint64_t watermark_on_media; /* at least */
    _Atomic uint64_t joined;     /* records that shared another's fence */
    /* The record that is being written; its `watermark` is what the newest one
       carries.  detail, from and zero are 0 between operations. */
    _Alignas(64) struct nvm_record staging;

    /* Read by other threads. */
    _Alignas(64) _Atomic uint64_t last; /* seq of the newest record; 0: in flight */
    _Atomic uint64_t head;              /* records since open whose mirror is in place */
    _Atomic uint64_t durable;           /* seq; see the invariants */
    pthread_mutex_t turn;               /* the shared lane: held around each operation */
    pthread_mutex_t stage;              /* guards what follows */
    uint64_t fenced;
    uint64_t applied;
    uint64_t flushed_seq; /* seq of the last applied record */
    uint64_t settlings;
    uintptr_t seen_slots[NVM_SEEN_LINES];
    uintptr_t seen_marks[NVM_SEEN_LINES];
    struct nvm_persist persist; /* counts of its settlings */

    /* The owner's again: what a stage must settle on behalf of each record, by its place
       in the ring. */
    _Alignas(64) const void *dests[NVM_RING_MAX];
    uint64_t notes[NVM_RING_MAX];
};

/* All lanes of a heap, the clock and the watermark. */
struct nvm_lanes {
    _Alignas(64) _Atomic uint64_t clock; /* next sequence number */
    _Alignas(64) _Atomic uint64_t watermark;
    _Alignas(64) char *lane; /* `count` of them, `stride` bytes apart */
    size_t stride;
    uint32_t count;
    _Atomic uint32_t used;      /* lanes from here on have never been owned */
    pthread_mutex_t lock;       /* `owned` of the lanes, `used` */
    pthread_mutex_t checkpoint; /* guards what follows */
    struct nvm_watermark *line; /* two lines on media */
    uint64_t line_seq;          /* the higher of them */
    unsigned next_copy;         /* which one is written next */
    uint64_t checkpoints;
    struct nvm_persist persist;
};

/* clock: the next sequence number; everything below it must be history. */
int nvm_lanes_init(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy);
void nvm_lanes_fini(struct nvm_heap *heap);

/* A lane of one's own, or the shared one; NULL: the file system has no room for one. */
struct nvm_lane *nvm_lane_acquire(struct nvm_heap *heap);
void nvm_lane_release(struct nvm_lane *lane);

/* Makes room for `count` records; called before an operation. */
void nvm_lane_stage(struct nvm_lane *lane, unsigned count);
static inline uint64_t nvm_lane_head(const struct nvm_lane *lane)
{
    return atomic_load_explicit(&lane->head, memory_order_relaxed);
}

static inline bool nvm_lane_has_room(const struct nvm_lane *lane, unsigned count)
{
    return nvm_lane_head(lane) + count <= lane->room;
}

/*
 * Makes the operation durable: writes its record, fences; returns its seq.
 * The caller then makes the effects and calls nvm_lane_note() and
 * nvm_lane_end().  at: place in the ring of the record number head, nvm_lane_head();
 * tag: with the op; dest: offset.  There is room.
 */
static inline __attribute__((always_inline)) uint64_t
nvm_lane_log(struct nvm_lane *lane, struct nvm_lanes *lanes, uint64_t at, uint64_t head,
             uint64_t tag, uint64_t dest, bool unusual)
{
    struct nvm_record *record = &lane->staging;
    /* Theory 7: announce, then draw. The draw's lock prefix orders the two. */
    atomic_store_explicit(&lane->last, 0, memory_order_relaxed);
    record->tag = tag;
    record->dest = dest;
    record->ordinal = (uint32_t)head;
    uint64_t crc = nvm_record_crc_place(lane->crc_start ^ (uint32_t)head, tag, dest);
    __asm__("" : "+r"(crc)); /* before the draw: nothing else is kept across it */
    uint64_t seq = atomic_fetch_add(&lanes->clock, 1);
    record->seq = seq;
    record->crc = (uint32_t)nvm_crc32c_u64(crc, seq);
    /* The record must be durable before any of its effects can be: an effect
       without its record would be a half operation. */
    nvm_log_line(&lane->ring[at], (const uint64_t *)record, unusual);
    return seq;
}

/* Remembers what the stage must settle of the record at that place in the ring. */
static inline __attribute__((always_inline)) void
nvm_lane_note(struct nvm_lane *lane, uint64_t at, const void *dest, uint64_t note)
{
    lane->dests[at] = dest;
    lane->notes[at] = note;
}

/* Ends the operation, all of whose records are noted; head: behind them. */
static inline __attribute__((always_inline)) void
nvm_lane_end(struct nvm_lane *lane, uint64_t seq, uint64_t head)
{
    atomic_store_explicit(&lane->head, head, memory_order_release);
    atomic_store_explicit(&lane->last, seq, memory_order_release);
}

/*
 * Several records of one operation under one fence: all of them count after a
 * crash, or none.  tag, dest, detail (units of an extent) and from are set;
 * the rest is filled in.  count <= a quarter of the ring, and room was made.
 * The caller then makes the effects, one nvm_lane_note() for each record, and
 * calls nvm_lane_end().
 */
uint64_t nvm_lane_log_group(struct nvm_lane *lane, const struct nvm_record *records,
                            unsigned count);

/* Strict: ends the operation `seq`, of `count` records, whose effects are durable. */
void nvm_lane_end_settled(struct nvm_lane *lane, uint64_t seq, unsigned count);

/* Applies and makes durable what all lanes have written so far. */
void nvm_lanes_settle(struct nvm_heap *heap);

/* Settles, and moves the watermark on media as far as it goes. */
void nvm_lanes_checkpoint(struct nvm_heap *heap);

/* Writes the watermark line and fences; for recovery and create too. */
void nvm_watermark_write(struct nvm_persist *persist, struct nvm_watermark *lines,
                         unsigned copy, uint64_t seq, uint32_t salt);

#endif
