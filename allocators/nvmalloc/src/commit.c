/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit.c - see commit.h.
 *
 * LOG_OWNED  records, fence; then plain stores, settled later (lane.h).
 *
 * LOG_STRICT records, fence (a); slots that are filled, fence (b); slots that
 *            are emptied and marks, fence (c).  After (c) the application may do
 *            with its slots what it likes, so recovery must be able to tell
 *            whether an operation got that far:
 *              ALLOC  its mark is set on media: yes.  (b) is for this: with the
 *                     mark durable and the slot not, the block would leak.
 *              FREE   needs not be told: emptying the slot again, if it still
 *                     refers to the block, and clearing the mark again is right
 *                     as long as no newer record names the block.
 *              MOVE   leaves no trace of its own: the lane's DONE record says so.
 *
 * GC         the slot, fence.  Nothing else is on media.
 */
#include "commit.h"

#include <string.h>

#include "extent.h"
#include "mark.h"

static uint64_t slot_value(const struct nvm_effect *effect)
{
    return effect->op == NVM_OP_FREE ? 0 : effect->block.offset;
}

static void store_slot(nvm_ref *slot, nvm_ref value)
{
    __atomic_store_n(slot, value, __ATOMIC_RELAXED);
}

/* --- marks --- */

static void set_units(struct nvm_heap *heap, struct nvm_block block, bool live)
{
    uint32_t first = nvm_tag_unit(block.tag);
    uint32_t units = nvm_extent_chunk(heap, first).units;
    struct nvm_chunk chunk = {.state = live ? NVM_CHUNK_EXTENT : NVM_CHUNK_FREE,
                              .units = units,
                              .generation = nvm_tag_generation(block.tag)};
    nvm_extent_flip(heap, first, chunk);
}

/* Makes the mark on media say what the effect says, now; its place. */
static const void *apply_mark(struct nvm_heap *heap, const struct nvm_effect *effect)
{
    if (nvm_block_is_extent(effect->block)) {
        set_units(heap, effect->block, effect->op == NVM_OP_ALLOC);
        return (const void *)&heap->chunks[nvm_tag_unit(effect->block.tag)];
    }
    uint64_t *word = nvm_heap_mark(heap, effect->block.tag);
    __atomic_fetch_xor(word, nvm_mark_toggle[nvm_tag_bit(effect->block.tag)],
                       __ATOMIC_RELAXED);
    return word;
}

static void set_state(struct nvm_heap *heap, const struct nvm_effect *effect)
{
    if (effect->op == NVM_OP_ALLOC)
        nvm_block_set_live(heap, effect->block);
    else
        *nvm_block_state(heap, effect->block.offset) = NVM_BLOCK_IDLE;
}

/* --- the log --- */

static uint64_t record_tag(const struct nvm_effect *effect)
{
    return effect->block.tag | (uint64_t)effect->op << NVM_TAG_OP;
}

static uint64_t log_effects(struct nvm_tcache *tcache, const struct nvm_effect *effects,
                            unsigned count)
{
    struct nvm_heap *heap = tcache->heap;
    struct nvm_record records[NVM_ACTIONS_MAX];
    for (unsigned i = 0; i < count; i++) {
        records[i].tag = record_tag(&effects[i]);
        records[i].dest = nvm_heap_offset(heap, effects[i].dest);
        records[i].from =
            effects[i].op == NVM_OP_MOVE ? nvm_heap_offset(heap, effects[i].from) : 0;
        records[i].detail =
            nvm_block_is_extent(effects[i].block)
                ? nvm_extent_chunk(heap, nvm_tag_unit(effects[i].block.tag)).units
                : 0;
    }
    return nvm_lane_log_group(tcache->lane, records, count);
}

static void make_room(struct nvm_lane *lane, unsigned count)
{
    if (!nvm_lane_has_room(lane, count))
        nvm_lane_stage(lane, count);
}

static void commit_owned(struct nvm_tcache *tcache, const struct nvm_effect *effects,
                         unsigned count)
{
    struct nvm_heap *heap = tcache->heap;
    struct nvm_lane *lane = tcache->lane;
    make_room(lane, count);
    uint64_t head = nvm_lane_head(lane);
    uint64_t seq = log_effects(tcache, effects, count);
    for (unsigned i = 0; i < count; i++) {
        const struct nvm_effect *effect = &effects[i];
        uint64_t note = record_tag(effect) | NVM_NOTE_TAG;
        if (effect->op == NVM_OP_MOVE) {
            store_slot(effect->from, 0);
            note = NVM_NOTE_TAG | (uint64_t)NVM_OP_MOVE << NVM_TAG_OP |
                   (uintptr_t)effect->from;
        } else {
            set_state(heap, effect);
            if (nvm_mark_is_late(effect->block.tag))
                note = effect->block.tag;
            else
                apply_mark(heap, effect);
        }
        store_slot(effect->dest, slot_value(effect));
        nvm_lane_note(lane, (head + i) & lane->mask, effect->dest, note);
    }
    nvm_lane_end(lane, seq, head + count);
}

/* Strict, (b): what refers to blocks from now on. */
static bool fill_slots(struct nvm_persist *persist, const struct nvm_effect *effects,
                       unsigned count)
{
    bool filled = false;
    for (unsigned i = 0; i < count; i++) {
        if (effects[i].op == NVM_OP_FREE)
            continue;
        store_slot(effects[i].dest, effects[i].block.offset);
        nvm_flush_one(persist, effects[i].dest);
        filled = true;
    }
    return filled;
}

/* Strict, (c). A slot that a later effect of the group fills stays filled. */
static void empty_slot(struct nvm_persist *persist, const struct nvm_effect *effects,
                       unsigned count, unsigned i, nvm_ref *slot)
{
    for (unsigned later = i + 1; later < count; later++)
        if (effects[later].op != NVM_OP_FREE && effects[later].dest == slot)
            return;
    store_slot(slot, 0);
    nvm_flush_one(persist, slot);
}

static void commit_strict(struct nvm_tcache *tcache, const struct nvm_effect *effects,
                          unsigned count)
{
    struct nvm_lane *lane = tcache->lane;
    struct nvm_persist *persist = &tcache->persist;
    bool moves = false;
    make_room(lane, count + 1);
    uint64_t seq = log_effects(tcache, effects, count);
    if (fill_slots(persist, effects, count))
        nvm_fence(persist); /* (b) slots before marks, or blocks leak */
    for (unsigned i = 0; i < count; i++) {
        if (effects[i].op == NVM_OP_MOVE) {
            moves = true;
            empty_slot(persist, effects, count, i, effects[i].from);
            continue;
        }
        if (effects[i].op == NVM_OP_FREE)
            empty_slot(persist, effects, count, i, effects[i].dest);
        set_state(tcache->heap, &effects[i]);
        nvm_flush_one(persist, apply_mark(tcache->heap, &effects[i]));
    }
    nvm_fence(persist); /* (c) all of it before the application goes on */
    nvm_lane_end_settled(lane, seq, count);
    if (moves) {
        struct nvm_record done = {.tag = (uint64_t)NVM_OP_DONE << NVM_TAG_OP};
        seq = nvm_lane_log_group(lane, &done, 1);
        nvm_lane_end_settled(lane, seq, 1);
    }
}

static void commit_gc(struct nvm_tcache *tcache, const struct nvm_effect *effects,
                      unsigned count)
{
    const struct nvm_effect *last = &effects[count - 1];
    struct nvm_persist *persist = &tcache->persist;
    for (unsigned i = 0; i < count; i++)
        set_state(tcache->heap, &effects[i]);
    store_slot(last->dest, slot_value(last));
    nvm_flush_one(persist, last->dest);
    /* The reference, or its absence, before the application goes on. */
    nvm_fence(persist);
}

void nvm_commit(struct nvm_tcache *tcache, const struct nvm_effect *effects,
                unsigned count)
{
    struct nvm_lane *lane = tcache->lane;
    if (tcache->gc) {
        commit_gc(tcache, effects, count);
        return;
    }
    if (lane->shared)
        pthread_mutex_lock(&lane->turn);
    if (tcache->heap->super.mode == NVM_LOG_STRICT)
        commit_strict(tcache, effects, count);
    else
        commit_owned(tcache, effects, count);
    if (lane->shared)
        pthread_mutex_unlock(&lane->turn);
}
