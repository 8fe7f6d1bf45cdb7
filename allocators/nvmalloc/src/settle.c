/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settle.c - see settle.h.
 *
 * First all marks are applied, then lines are flushed: several marks and slots
 * share a line, and a line is flushed once, after the last of them.  Which
 * lines have been flushed is remembered by a small table, lossily: a line that
 * is forgotten is flushed again, which costs but does no harm.  A table that
 * forgets nothing, and sums up the marks that meet in one word, was measured:
 * 120 instructions an operation instead of 35, for few flushes less.
 *
 * Marks are plain read-modify-writes under heap->mark_lock: one lock for a
 * whole stage costs less than a locked instruction for each mark.
 *
 * Slots come newest first: a line of slots that two stages share is flushed
 * first in the one and last in the other, so it is not written again shortly
 * after, which devices punish.
 */
#include "settle.h"

#include <string.h>

#include "heap.h"
#include "mark.h"
#include "sigbus.h"

#define LINES_MAX (2 * NVM_RING_MAX)

/* Of these loops' few instructions, counting is a large part. */
#ifdef __clang__
#define NVM_UNROLL _Pragma("unroll 4")
#else
#define NVM_UNROLL _Pragma("GCC unroll 4")
#endif

/* The lines that are to be flushed in this settling. */
struct lines {
    uintptr_t settling; /* lane->settlings, where no line's number reaches */
    const void **end;   /* of the list */
    const void *list[LINES_MAX];
};

/* Takes an address's line into the list unless it has been seen; the list's new end. */
static inline __attribute__((always_inline)) const void **
note_line(const void **end, uintptr_t settling, uintptr_t *seen, const void *address)
{
    uintptr_t number = (uintptr_t)address / NVM_LINE;
    uintptr_t *slot = &seen[number % NVM_SEEN_LINES];
    number += settling;
    if (*slot != number) {
        *slot = number;
        *end++ = address;
    }
    return end;
}

/* Of a record that is no small block's: what else to flush; NULL: nothing. */
static __attribute__((noinline)) const void *place_of_mark(struct nvm_heap *heap,
                                                           uint64_t note)
{
    uint64_t tag = note & ~NVM_NOTE_TAG;
    switch (nvm_tag_op(tag)) {
    case NVM_OP_MOVE:
        return (const void *)(tag & (((uint64_t)1 << NVM_TAG_OP) - 1));
    case NVM_OP_DONE:
        return NULL;
    default: /* applied by the operation itself */
        return nvm_tag_is_extent(tag) ? (const void *)&heap->chunks[nvm_tag_unit(tag)]
                                      : nvm_heap_mark(heap, tag);
    }
}

/* Notes the slots of records at places [from, to) in the ring, newest first. */
static inline void note_slots_of(struct nvm_lane *lane, uint64_t from, uint64_t to,
                                 struct lines *lines)
{
    uintptr_t settling = lines->settling;
    const void **end = lines->end;
    const void *previous = NULL;
    NVM_UNROLL
    for (const void **at = &lane->dests[to]; at > &lane->dests[from];) {
        const void *slot = *--at;
        if (slot == previous) /* emptied and filled again at once, as is often done */
            continue;
        end = note_line(end, settling, lane->seen_slots, slot);
        previous = slot;
    }
    lines->end = end;
}

/* Notes the marks of records at places [from, to) in the ring, and applies them if they
   are not. */
static inline __attribute__((always_inline)) void settle_marks_of(struct nvm_lane *lane,
                                                                  uint64_t from,
                                                                  uint64_t to, bool apply,
                                                                  struct lines *lines)
{
    struct nvm_heap *heap = lane->heap;
    char *bitmaps = (char *)heap->bitmaps;
    uintptr_t settling = lines->settling;
    const void **end = lines->end;
    NVM_UNROLL
    for (const uint64_t *at = &lane->notes[from]; at < &lane->notes[to]; at++) {
        uint64_t note = *at;
        if (__builtin_expect((int64_t)note < 0, 0)) {
            const void *place = place_of_mark(heap, note);
            if (place != NULL)
                end = note_line(end, settling, lane->seen_slots, place);
            continue;
        }
        uint64_t *word = (uint64_t *)(void *)(bitmaps + nvm_tag_position(note) / 64 * 8);
        if (apply)
            __atomic_store_n(word,
                             __atomic_load_n(word, __ATOMIC_RELAXED) ^
                                 nvm_mark_toggle[nvm_tag_bit(note)],
                             __ATOMIC_RELAXED);
        end = note_line(end, settling, lane->seen_marks, word);
    }
    lines->end = end;
}

/* Of records [from, to), which are fewer than the ring has places. */
static void settle_marks(struct nvm_lane *lane, uint64_t from, uint64_t to, bool apply,
                         struct lines *lines)
{
    uint64_t first = from & lane->mask, wrapped = lane->mask + 1 - first;
    uint64_t count = to - from, at_once = count < wrapped ? count : wrapped;
    if (apply) {
        settle_marks_of(lane, first, first + at_once, true, lines);
        settle_marks_of(lane, 0, count - at_once, true, lines);
    } else {
        settle_marks_of(lane, first, first + at_once, false, lines);
        settle_marks_of(lane, 0, count - at_once, false, lines);
    }
}

static void note_slots(struct nvm_lane *lane, uint64_t from, uint64_t to,
                       struct lines *lines)
{
    uint64_t first = from & lane->mask, wrapped = lane->mask + 1 - first;
    uint64_t count = to - from, at_once = count < wrapped ? count : wrapped;
    note_slots_of(lane, 0, count - at_once, lines);
    note_slots_of(lane, first, first + at_once, lines);
}

/* After all marks are applied: several share a line, and it is flushed once. */
static void flush_lines(const struct lines *lines, struct nvm_persist *persist)
{
    const void *const *at = lines->list;
    if (nvm_flush_chosen != NVM_FLUSH_CLWB || nvm_persist_observed()) {
        for (; at < lines->end; at++)
            nvm_flush_one(persist, *at);
        return;
    }
    const void *const *end = lines->end;
    NVM_UNROLL
    for (; at < end; at++)
        nvm_clwb(*at);
    persist->flushes += (uint64_t)(lines->end - lines->list);
    persist->pending |= lines->end != lines->list;
}

/* Applies the marks of records [applied, head), and flushes those and [again, applied).
 */
static void settle(struct nvm_lane *lane, uint64_t again, uint64_t head,
                   struct nvm_persist *persist)
{
    struct lines lines;
    lines.settling = ++lane->settlings << NVM_LINE_NUMBER_BITS;
    lines.end = lines.list;
    if (lines.settling == 0) { /* the numbers begin anew: none of before may be met */
        memset(lane->seen_slots, 0, sizeof(lane->seen_slots));
        memset(lane->seen_marks, 0, sizeof(lane->seen_marks));
    }
    pthread_mutex_lock(&lane->heap->mark_lock);
    settle_marks(lane, lane->applied, head, true, &lines);
    pthread_mutex_unlock(&lane->heap->mark_lock);
    settle_marks(lane, again, lane->applied, false, &lines);
    note_slots(lane, again, head, &lines);
    flush_lines(&lines, persist);
    lane->applied = head;
}

void nvm_lane_settle_later(struct nvm_lane *lane)
{
    struct nvm_persist persist = {0};
    uint64_t last = atomic_load(&lane->last);
    pthread_mutex_lock(&lane->stage);
    uint64_t head = nvm_lane_head(lane);
    /* Flushed at the last stage; this thread has fenced since, if it has written since.
     */
    if (head != lane->applied) {
        if (atomic_load(&lane->durable) < lane->flushed_seq)
            atomic_store(&lane->durable, lane->flushed_seq);
        lane->fenced = lane->applied;
    }
    settle(lane, lane->applied, head, &persist);
    nvm_persist_add(&lane->persist, &persist);
    lane->flushed_seq = last;
    pthread_mutex_unlock(&lane->stage);
}

void nvm_lane_settle(struct nvm_lane *lane)
{
    struct nvm_persist persist = {0};
    pthread_mutex_lock(&lane->stage);
    uint64_t last = atomic_load(&lane->last);
    uint64_t head = atomic_load(&lane->head);
    /* What the owner flushed but may not have fenced is flushed again: one
       thread's fence does not complete another's flush. */
    settle(lane, lane->fenced, head, &persist);
    /* Before they are called durable. */
    if (persist.pending)
        nvm_fence(&persist);
    nvm_persist_add(&lane->persist, &persist);
    lane->fenced = head;
    if (last != 0) {
        lane->flushed_seq = last;
        atomic_store(&lane->durable, last);
    }
    pthread_mutex_unlock(&lane->stage);
}

void nvm_lanes_settle(struct nvm_heap *heap)
{
    uint32_t used = atomic_load(&heap->lanes.used);
    for (uint32_t i = 0; i < used; i++)
        nvm_lane_settle(nvm_lane_at(heap, i));
}

static int probe(struct nvm_lane *lane)
{
    struct nvm_sigbus guard;
    pthread_mutex_lock(&lane->stage);
    if (nvm_sigbus_caught(&guard)) {
        pthread_mutex_unlock(&lane->stage);
        return nvm_sigbus_error(&guard, lane->heap);
    }
    uint64_t head = atomic_load(&lane->head);
    for (uint64_t at = lane->fenced; at < head; at++) {
        uint64_t note = lane->notes[at & lane->mask];
        const uint64_t *mark = (note & NVM_NOTE_TAG) != 0
                                   ? (const uint64_t *)place_of_mark(lane->heap, note)
                                   : nvm_heap_mark(lane->heap, note);
        __atomic_load_n((const uint64_t *)lane->dests[at & lane->mask], __ATOMIC_RELAXED);
        if (mark != NULL)
            __atomic_load_n(mark, __ATOMIC_RELAXED);
    }
    nvm_sigbus_end(&guard);
    pthread_mutex_unlock(&lane->stage);
    return 0;
}

int nvm_lanes_probe(struct nvm_heap *heap)
{
    uint32_t used = atomic_load(&heap->lanes.used);
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < used; i++)
        error = probe(nvm_lane_at(heap, i));
    return error;
}
