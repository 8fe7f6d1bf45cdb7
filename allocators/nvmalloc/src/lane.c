/* SPDX-License-Identifier: Apache-2.0 */
/* lane.c - writing records and advancing the watermark; theory in lane.h. */
#include "lane.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "dram.h"
#include "heap.h"

uint32_t nvm_record_crc(const struct nvm_record *record, uint32_t salt)
{
    return nvm_crc32c(salt, record, offsetof(struct nvm_record, crc));
}

void nvm_watermark_write(struct nvm_persist *persist, struct nvm_watermark *lines,
                         unsigned copy, uint64_t seq, uint32_t salt)
{
    _Alignas(64) struct nvm_watermark line = {.seq = seq};
    line.crc = nvm_crc32c(salt, &line, offsetof(struct nvm_watermark, crc));
    nvm_store_line_nt(persist, &lines[copy], &line);
    /* The watermark must be durable before a record at or below it is overwritten. */
    nvm_fence(persist);
}

int nvm_lanes_init(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy)
{
    struct nvm_lanes *lanes = &heap->lanes;
    uint32_t ring = heap->super.ring;
    lanes->count = heap->super.lanes;
    lanes->salt = heap->salt;
    lanes->watermark = nvm_heap_at(heap, NVM_WATERMARK_OFFSET);
    lanes->durable = watermark;
    lanes->next_copy = next_copy;
    lanes->checkpoints = 0;
    atomic_init(&lanes->clock, clock);
    memset(&lanes->persist, 0, sizeof(lanes->persist));
    lanes->lane = nvm_dram_map(
        lanes->count * (sizeof(struct nvm_lane) + ring * sizeof(struct nvm_mirror)));
    if (lanes->lane == NULL)
        return ENOMEM;
    pthread_mutex_init(&lanes->lock, NULL);
    pthread_mutex_init(&lanes->checkpoint, NULL);
    struct nvm_record *records = nvm_heap_at(heap, NVM_LANES_OFFSET);
    struct nvm_mirror *mirrors = (struct nvm_mirror *)(lanes->lane + lanes->count);
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct nvm_lane *lane = &lanes->lane[i];
        lane->heap = heap;
        lane->ring = records + (size_t)i * ring;
        lane->mirror = mirrors + (size_t)i * ring;
        lane->size = ring;
        lane->index = (uint16_t)i;
        pthread_mutex_init(&lane->shared, NULL);
        atomic_init(&lane->active, NVM_LANE_IDLE);
    }
    return 0;
}

void nvm_lanes_fini(struct nvm_heap *heap)
{
    struct nvm_lanes *lanes = &heap->lanes;
    if (lanes->lane != NULL)
        nvm_dram_unmap(lanes->lane,
                       lanes->count * (sizeof(struct nvm_lane) +
                                       heap->super.ring * sizeof(struct nvm_mirror)));
    lanes->lane = NULL;
}

struct nvm_lane *nvm_lane_acquire(struct nvm_heap *heap)
{
    struct nvm_lanes *lanes = &heap->lanes;
    struct nvm_lane *found = &lanes->lane[0];
    pthread_mutex_lock(&lanes->lock);
    for (uint32_t i = 1; i < lanes->count; i++) {
        if (!lanes->lane[i].owned) {
            found = &lanes->lane[i];
            found->owned = true;
            break;
        }
    }
    pthread_mutex_unlock(&lanes->lock);
    return found;
}

void nvm_lane_release(struct nvm_lane *lane)
{
    struct nvm_lanes *lanes = &lane->heap->lanes;
    pthread_mutex_lock(&lanes->lock);
    lane->owned = false;
    pthread_mutex_unlock(&lanes->lock);
}

void nvm_lane_log(struct nvm_lane *lane, struct nvm_record *record)
{
    struct nvm_lanes *lanes = &lane->heap->lanes;
    record->lane = lane->index;
    /* Theory 4: announce, then draw. The draw's lock prefix orders the two. */
    atomic_store_explicit(&lane->active,
                          atomic_load_explicit(&lanes->clock, memory_order_relaxed),
                          memory_order_relaxed);
    record->seq = atomic_fetch_add(&lanes->clock, 1);
    record->crc = nvm_record_crc(record, lanes->salt);
    nvm_store_line_nt(&lane->persist, &lane->ring[lane->head_private & (lane->size - 1)],
                      record);
    /* The record must be durable before any of its effects can be: an effect
       without its record would be a half operation. */
    nvm_fence(&lane->persist);
}

void nvm_lane_end(struct nvm_lane *lane, const struct nvm_record *record,
                  const void *dest, const void *mark)
{
    lane->mirror[lane->head_private & (lane->size - 1)] =
        (struct nvm_mirror){.seq = record->seq, .dest = dest, .mark = mark};
    lane->head_private++;
    atomic_store_explicit(&lane->head, lane->head_private, memory_order_release);
    atomic_store_explicit(&lane->active, NVM_LANE_IDLE, memory_order_release);
    if (lane->index == 0)
        pthread_mutex_unlock(&lane->shared);
}

/* Remembers the lines flushed in this checkpoint, lossily: a line that is
   forgotten is flushed again, which costs but does no harm. */
#define FLUSHED_LINES 256u
struct flushed_lines {
    uintptr_t line[FLUSHED_LINES];
};

static void flush_once(struct nvm_persist *persist, struct flushed_lines *seen,
                       const void *address)
{
    uintptr_t line = (uintptr_t)address / NVM_LINE;
    uintptr_t *slot = &seen->line[(line ^ line >> 8) % FLUSHED_LINES];
    if (*slot == line)
        return;
    *slot = line;
    nvm_flush(persist, address, 1);
}

/* Largest X such that every record with seq <= X has made its stores. */
static uint64_t completed_up_to(struct nvm_lanes *lanes)
{
    uint64_t completed = atomic_load(&lanes->clock) - 1;
    for (uint32_t i = 0; i < lanes->count; i++) {
        uint64_t active = atomic_load(&lanes->lane[i].active);
        if (active != NVM_LANE_IDLE && active <= completed)
            completed = active - 1;
    }
    return completed;
}

static uint64_t flush_lane(struct nvm_lane *lane, uint64_t completed,
                           struct nvm_persist *persist, struct flushed_lines *seen)
{
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
    uint64_t at = atomic_load_explicit(&lane->flushed, memory_order_relaxed);
    for (; at < head; at++) {
        const struct nvm_mirror *mirror = &lane->mirror[at & (lane->size - 1)];
        if (mirror->seq > completed)
            break;
        flush_once(persist, seen, mirror->dest);
        flush_once(persist, seen, mirror->mark);
    }
    return at;
}

static void checkpoint_locked(struct nvm_lanes *lanes)
{
    struct flushed_lines seen = {{0}};
    uint64_t flushed[UINT8_MAX]; /* lanes->count <= 64: layout.c */
    uint64_t completed = completed_up_to(lanes);
    if (completed <= lanes->durable)
        return;
    for (uint32_t i = 0; i < lanes->count; i++)
        flushed[i] = flush_lane(&lanes->lane[i], completed, &lanes->persist, &seen);
    /* The effects must be durable before the watermark calls their records history. */
    nvm_fence(&lanes->persist);
    nvm_watermark_write(&lanes->persist, lanes->watermark, lanes->next_copy, completed,
                        lanes->salt);
    lanes->next_copy ^= 1;
    lanes->durable = completed;
    lanes->checkpoints++;
    for (uint32_t i = 0; i < lanes->count; i++)
        atomic_store_explicit(&lanes->lane[i].flushed, flushed[i], memory_order_release);
}

void nvm_lanes_checkpoint(struct nvm_heap *heap)
{
    pthread_mutex_lock(&heap->lanes.checkpoint);
    checkpoint_locked(&heap->lanes);
    pthread_mutex_unlock(&heap->lanes.checkpoint);
}

void nvm_lane_make_room(struct nvm_lane *lane)
{
    struct nvm_lanes *lanes = &lane->heap->lanes;
    if (pthread_mutex_trylock(&lanes->checkpoint) == 0) {
        checkpoint_locked(lanes);
        pthread_mutex_unlock(&lanes->checkpoint);
    }
    /* Full: only an operation in flight on another lane can hold it back, and
       that one needs the processor. */
    while (lane->head_private -
               atomic_load_explicit(&lane->flushed, memory_order_acquire) >=
           lane->size) {
        nvm_lanes_checkpoint(lane->heap);
        if (lane->head_private -
                atomic_load_explicit(&lane->flushed, memory_order_acquire) >=
            lane->size)
            sched_yield();
    }
}
