/* SPDX-License-Identifier: Apache-2.0 */
/* lane.c - writing records and advancing the watermark; theory in lane.h. */
#include "lane.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "dram.h"
#include "heap.h"

void nvm_watermark_write(struct nvm_persist *persist, struct nvm_watermark *lines,
                         unsigned copy, uint64_t seq, uint32_t salt)
{
    struct nvm_watermark line = {.seq = seq};
    line.crc = nvm_crc32c(salt, &line, offsetof(struct nvm_watermark, crc));
    uint64_t words[8];
    memcpy(words, &line, sizeof(words));
    nvm_store_line_nt(persist, &lines[copy], words);
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
    atomic_init(&lanes->used, 1);
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
        lane->lanes = lanes;
        lane->ring = records + (size_t)i * ring;
        lane->mirror = mirrors + (size_t)i * ring;
        lane->mask = ring - 1;
        lane->room = ring / 2;
        lane->salt = heap->salt;
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
            if (atomic_load(&lanes->used) <= i)
                atomic_store(&lanes->used, i + 1);
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

/* Remembers the lines flushed in this checkpoint, lossily: a line that is
   forgotten is flushed again, which costs but does no harm. */
#define FLUSHED_LINES 256u
struct flushed_lines {
    uintptr_t line[FLUSHED_LINES];
};

static inline __attribute__((always_inline)) void
flush_once(struct nvm_persist *persist, struct flushed_lines *seen, const void *address)
{
    uintptr_t line = (uintptr_t)address / NVM_LINE;
    uintptr_t *slot = &seen->line[line % FLUSHED_LINES];
    if (*slot != line) {
        *slot = line;
        nvm_flush_one(persist, address);
    }
}

/* Largest X such that every record with seq <= X has made its stores. */
static uint64_t completed_up_to(struct nvm_lanes *lanes, uint32_t *used)
{
    uint64_t completed = atomic_load(&lanes->clock) - 1;
    /* After the clock: a lane that is first used from here on draws above it. */
    *used = atomic_load(&lanes->used);
    for (uint32_t i = 0; i < *used; i++) {
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
        const struct nvm_mirror *mirror = &lane->mirror[at & lane->mask];
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
    uint64_t flushed[64]; /* the most lanes that layout.c gives a heap */
    uint32_t used;
    uint64_t completed = completed_up_to(lanes, &used);
    if (completed <= lanes->durable)
        return;
    for (uint32_t i = 0; i < used; i++)
        flushed[i] = flush_lane(&lanes->lane[i], completed, &lanes->persist, &seen);
    /* The effects must be durable before the watermark calls their records history. */
    nvm_fence(&lanes->persist);
    nvm_watermark_write(&lanes->persist, lanes->watermark, lanes->next_copy, completed,
                        lanes->salt);
    lanes->next_copy ^= 1;
    lanes->durable = completed;
    lanes->checkpoints++;
    for (uint32_t i = 0; i < used; i++)
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
    struct nvm_lanes *lanes = lane->lanes;
    uint64_t size = (uint64_t)lane->mask + 1;
    if (pthread_mutex_trylock(&lanes->checkpoint) == 0) {
        checkpoint_locked(lanes);
        pthread_mutex_unlock(&lanes->checkpoint);
    }
    uint64_t flushed = atomic_load_explicit(&lane->flushed, memory_order_acquire);
    /* Full: only an operation in flight on another lane can hold it back, and
       that one needs the processor. */
    while (lane->head_private - flushed >= size) {
        nvm_lanes_checkpoint(lane->heap);
        flushed = atomic_load_explicit(&lane->flushed, memory_order_acquire);
        if (lane->head_private - flushed >= size)
            sched_yield();
    }
    /* Next time when half the ring is used; at the latest when all of it is. */
    lane->room =
        flushed + size / 2 > lane->head_private ? flushed + size / 2 : flushed + size;
}
