/* SPDX-License-Identifier: Apache-2.0 */
/* lane.c - writing records and advancing the watermark; theory in lane.h. */
#include "lane.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "dram.h"
#include "heap.h"
#include "settle.h"

void nvm_watermark_write(struct nvm_persist *persist, struct nvm_watermark *lines,
                         unsigned copy, uint64_t seq, uint32_t salt)
{
    _Alignas(64) struct nvm_watermark line = {.seq = seq};
    line.crc = nvm_crc32c(salt, &line, offsetof(struct nvm_watermark, crc));
    nvm_store_line(persist, &lines[copy], (const uint64_t *)&line);
    /* The watermark must be durable before a record at or below it is overwritten. */
    nvm_fence(persist);
}

/* What the lane's records from `head` on carry. */
static void carry(struct nvm_lane *lane, uint64_t head, uint64_t watermark)
{
    lane->carry_head = head;
    lane->staging.watermark = watermark;
    lane->crc_start = nvm_record_crc_watermark(watermark, lane->salt);
}

static void init_lane(struct nvm_heap *heap, uint32_t index, uint64_t clock)
{
    struct nvm_lanes *lanes = &heap->lanes;
    struct nvm_lane *lane = nvm_lane_at(heap, index);
    struct nvm_record *records = nvm_heap_at(heap, heap->super.lanes_offset);
    lane->heap = heap;
    lane->ring = records + (size_t)index * heap->super.ring;
    lane->mask = heap->super.ring - 1;
    lane->room = 0;
    lane->salt = heap->salt;
    lane->index = (uint16_t)index;
    lane->shared = index == lanes->count - 1;
    pthread_mutex_init(&lane->turn, NULL);
    pthread_mutex_init(&lane->stage, NULL);
    carry(lane, 0, 0);
    /* As if it had just settled everything before the clock. */
    lane->flushed_seq = clock - 1;
    atomic_init(&lane->last, clock - 1);
    atomic_init(&lane->durable, clock - 1);
}

int nvm_lanes_init(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy)
{
    struct nvm_lanes *lanes = &heap->lanes;
    lanes->count = heap->super.lanes;
    lanes->line = nvm_heap_at(heap, NVM_WATERMARK_OFFSET);
    lanes->line_seq = watermark;
    lanes->next_copy = next_copy;
    lanes->checkpoints = 0;
    atomic_init(&lanes->clock, clock);
    atomic_init(&lanes->watermark, watermark);
    atomic_init(&lanes->used, 0);
    memset(&lanes->persist, 0, sizeof(lanes->persist));
    lanes->stride = sizeof(struct nvm_lane);
    lanes->lane = nvm_dram_map(lanes->count * lanes->stride);
    if (lanes->lane == NULL)
        return ENOMEM;
    pthread_mutex_init(&lanes->lock, NULL);
    pthread_mutex_init(&lanes->checkpoint, NULL);
    return 0;
}

void nvm_lanes_fini(struct nvm_heap *heap)
{
    struct nvm_lanes *lanes = &heap->lanes;
    if (lanes->lane != NULL)
        nvm_dram_unmap(lanes->lane, lanes->count * lanes->stride);
    lanes->lane = NULL;
}

/* Takes into use the lane that comes next; false: no room for it on media. */
static bool open_lane(struct nvm_heap *heap, uint32_t index)
{
    if (nvm_heap_allocate_lanes(heap, index + 1) != 0)
        return false;
    init_lane(heap, index, atomic_load(&heap->lanes.clock));
    atomic_store(&heap->lanes.used, index + 1);
    return true;
}

struct nvm_lane *nvm_lane_acquire(struct nvm_heap *heap)
{
    struct nvm_lanes *lanes = &heap->lanes;
    struct nvm_lane *found = NULL;
    pthread_mutex_lock(&lanes->lock);
    for (uint32_t i = 0; found == NULL && i < lanes->count; i++) {
        if (atomic_load(&lanes->used) <= i && !open_lane(heap, i))
            break;
        struct nvm_lane *lane = nvm_lane_at(heap, i);
        if (!lane->owned || lane->shared) {
            lane->owned = true;
            found = lane;
        }
    }
    pthread_mutex_unlock(&lanes->lock);
    return found;
}

void nvm_lane_release(struct nvm_lane *lane)
{
    struct nvm_lanes *lanes = &lane->heap->lanes;
    /* The next owner's fences do not complete this thread's flushes. */
    if (!lane->shared)
        nvm_lane_settle(lane);
    pthread_mutex_lock(&lanes->lock);
    lane->owned = false;
    pthread_mutex_unlock(&lanes->lock);
}

/* Largest X such that the effects of all records with seq <= X are durable. */
static uint64_t history(struct nvm_heap *heap)
{
    struct nvm_lanes *lanes = &heap->lanes;
    uint64_t seq = atomic_load(&lanes->clock) - 1;
    /* After the clock: a lane that is first used from here on draws above it. */
    uint32_t used = atomic_load(&lanes->used);
    for (uint32_t i = 0; i < used; i++) {
        struct nvm_lane *lane = nvm_lane_at(heap, i);
        uint64_t last = atomic_load(&lane->last);
        uint64_t durable = atomic_load(&lane->durable);
        if ((last == 0 || durable < last) && durable < seq)
            seq = durable;
    }
    return seq;
}

static void raise_watermark(struct nvm_lanes *lanes, uint64_t seq)
{
    uint64_t now = atomic_load(&lanes->watermark);
    while (now < seq && !atomic_compare_exchange_weak(&lanes->watermark, &now, seq))
        continue;
}

void nvm_lanes_checkpoint(struct nvm_heap *heap)
{
    struct nvm_lanes *lanes = &heap->lanes;
    nvm_lanes_settle(heap);
    pthread_mutex_lock(&lanes->checkpoint);
    uint64_t seq = history(heap);
    if (seq > lanes->line_seq) {
        nvm_watermark_write(&lanes->persist, lanes->line, lanes->next_copy, seq,
                            heap->salt);
        lanes->next_copy ^= 1;
        lanes->line_seq = seq;
        lanes->checkpoints++;
    }
    raise_watermark(lanes, lanes->line_seq);
    pthread_mutex_unlock(&lanes->checkpoint);
}

/* What is surely the watermark on media: what a line says. */
static uint64_t watermark_line(struct nvm_lane *lane)
{
    struct nvm_lanes *lanes = &lane->heap->lanes;
    pthread_mutex_lock(&lanes->checkpoint);
    uint64_t seq = lanes->line_seq;
    pthread_mutex_unlock(&lanes->checkpoint);
    return seq;
}

/* Head up to which records may be written: what they overwrite is history. */
static uint64_t room_below(struct nvm_lane *lane, uint64_t watermark)
{
    uint64_t ring = (uint64_t)lane->mask + 1;
    uint64_t first = lane->stage_count > NVM_STAGES ? lane->stage_count - NVM_STAGES : 0;
    for (uint64_t i = lane->stage_count; i > first; i--) {
        const struct nvm_stage *stage = &lane->stages[(i - 1) % NVM_STAGES];
        if (stage->seq <= watermark)
            return stage->head + ring;
    }
    return ring; /* what was there at open is history */
}

void nvm_lane_stage(struct nvm_lane *lane, unsigned count)
{
    struct nvm_heap *heap = lane->heap;
    uint64_t quarter = ((uint64_t)lane->mask + 1) / 4, head = nvm_lane_head(lane);
    lane->stages[lane->stage_count++ % NVM_STAGES] =
        (struct nvm_stage){head, atomic_load(&lane->last)};
    if (lane->shared)
        nvm_lane_settle(lane); /* other threads write here: no fence of ours follows */
    else
        nvm_lane_settle_later(lane);
    raise_watermark(&heap->lanes, history(heap));
    if (head > lane->carry_head) /* a record has carried it to media */
        lane->watermark_on_media = lane->staging.watermark;
    uint64_t room = room_below(lane, lane->watermark_on_media);
    carry(lane, head, atomic_load(&heap->lanes.watermark));
    while (room < head + count) {
        /* A lane that has come to rest, or an operation in flight, holds it back. */
        nvm_lanes_checkpoint(heap);
        room = room_below(lane, watermark_line(lane));
        if (room < head + count)
            sched_yield();
    }
    lane->room = room < head + quarter ? room : head + quarter;
}

uint64_t nvm_lane_log_group(struct nvm_lane *lane, const struct nvm_record *records,
                            unsigned count)
{
    struct nvm_lanes *lanes = &lane->heap->lanes;
    struct nvm_record *record = &lane->staging;
    struct nvm_persist counts = {0};
    uint64_t head = nvm_lane_head(lane);
    atomic_store_explicit(&lane->last, 0, memory_order_relaxed);
    uint64_t seq = atomic_fetch_add(&lanes->clock, 1);
    for (unsigned i = 0; i < count; i++) {
        record->tag = records[i].tag;
        record->dest = records[i].dest;
        record->seq = seq;
        record->detail = records[i].detail | (uint64_t)i << NVM_DETAIL_INDEX |
                         (uint64_t)(count - 1) << NVM_DETAIL_GROUP;
        record->from = records[i].from;
        record->ordinal = (uint32_t)(head + i);
        record->crc = nvm_record_crc(record, lane->salt);
        nvm_store_line(&counts, &lane->ring[(head + i) & lane->mask],
                       (const uint64_t *)record);
    }
    record->detail = record->from = 0;
    /* All records before any effect: without one of them the group is absent. */
    nvm_fence(&counts);
    /* Each record counts as a line and a fence by being there (walk.c). */
    /* Only ever written here, by the lane's owner: no locked instruction is needed, and
       one would do the fence's work besides. */
    uint64_t joined = atomic_load_explicit(&lane->joined, memory_order_relaxed);
    atomic_store_explicit(&lane->joined, joined + count - 1, memory_order_relaxed);
    return seq;
}

void nvm_lane_end_settled(struct nvm_lane *lane, uint64_t seq, unsigned count)
{
    pthread_mutex_lock(&lane->stage);
    lane->applied = lane->fenced = nvm_lane_head(lane) + count;
    lane->flushed_seq = seq;
    atomic_store(&lane->durable, seq);
    nvm_lane_end(lane, seq, lane->applied);
    pthread_mutex_unlock(&lane->stage);
}
