/* SPDX-License-Identifier: Apache-2.0 */
/* walk.c - live blocks and statistics. */
#include <string.h>

#include "block.h"
#include "build.h"
#include "error.h"
#include "mark.h"
#include "tcache.h"

struct walk {
    nvm_walk_fn *visit;
    void *context;
};

static int walk_slab(struct nvm_heap *heap, uint32_t unit, const struct nvm_class *klass,
                     const struct walk *walk)
{
    char *base = nvm_heap_at(heap, nvm_unit_offset(heap, unit));
    nvm_arena_scan(heap, unit); /* unless it is */
    uint64_t tag = nvm_unit_tag(nvm_unit_get(heap, unit));
    const uint64_t *free = heap->slab_bits[unit];
    const uint32_t words = klass->words, blocks = klass->blocks;
    for (uint32_t word = 0; word < words; word++) {
        /* Most words of most slabs; that none of a free block is live is check()'s. */
        if (free[word] == nvm_mark_capacity(word, blocks))
            continue;
        uint64_t live = nvm_slab_live(heap, tag, word);
        for (; live != 0; live &= live - 1) {
            uint64_t index = word * NVM_WORD_BLOCKS + (uint32_t)__builtin_ctzl(live);
            int result =
                walk->visit(walk->context, base + index * klass->size, klass->size);
            if (result != 0)
                return result;
        }
    }
    return 0;
}

/* Whether a unit begins an extent that is live; one that is reserved is none. */
static bool is_live_extent(const struct nvm_heap *heap, uint32_t unit)
{
    nvm_unit member = nvm_unit_get(heap, unit);
    return nvm_unit_kind(member) == NVM_UNIT_EXTENT &&
           nvm_block_state_is_live(*nvm_block_state(heap, nvm_unit_offset(heap, unit)));
}

static int walk_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                    void *context)
{
    const struct walk *walk = context;
    if (chunk.state == NVM_CHUNK_SLAB)
        return walk_slab(heap, unit, &nvm_classes[chunk.klass], walk);
    if (is_live_extent(heap, unit))
        return walk->visit(walk->context, nvm_heap_at(heap, nvm_unit_offset(heap, unit)),
                           (size_t)chunk.units << NVM_UNIT_SHIFT);
    return 0;
}

/* The whole table can be read, before anything is visited: no guard may be around what
   the application does. */
static int pass_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                    void *context)
{
    (void)heap, (void)unit, (void)chunk, (void)context;
    return 0;
}

int nvm_walk(nvm_heap *heap, nvm_walk_fn *visit, void *context)
{
    struct walk walk = {visit, context};
    if (heap->foreign)
        return nvm_tcache_refused(heap);
    nvm_protect_look(heap);
    int error = nvm_heap_each_run_guarded(heap, pass_run, NULL);
    return error != 0 ? error : nvm_heap_each_run(heap, walk_run, &walk);
}

static int count_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    struct nvm_heap_stats *stats = context;
    uint64_t bytes = (uint64_t)chunk.units << NVM_UNIT_SHIFT;
    nvm_unit member = nvm_unit_get(heap, unit);
    if (chunk.state == NVM_CHUNK_SLAB) {
        const struct nvm_class *klass = &nvm_classes[chunk.klass];
        uint64_t live = 0;
        for (uint32_t word = 0; word < klass->words; word++)
            live += (uint64_t)__builtin_popcountl(
                nvm_slab_live(heap, nvm_unit_tag(member), word));
        stats->used_bytes += bytes;
        stats->live_blocks += live;
        stats->live_bytes += live * klass->size;
    } else if (nvm_unit_kind(member) == NVM_UNIT_EXTENT) {
        stats->used_bytes += bytes;
        stats->live_blocks += is_live_extent(heap, unit);
        stats->live_bytes += is_live_extent(heap, unit) ? bytes : 0;
    }
    return 0;
}

/* Metadata that is allocated in the file: all of it is in use. */
static uint64_t metadata_bytes(const struct nvm_heap *heap)
{
    const struct nvm_super *super = &heap->super;
    if (super->size == super->max_size)
        return super->data_offset;
    uint64_t lanes =
        (uint64_t)super->lanes_used * super->ring * sizeof(struct nvm_record);
    return super->lanes_offset + lanes + super->units * (8 + NVM_BITMAP_BYTES);
}

static void add_lanes(const struct nvm_heap *heap, struct nvm_persist *sum)
{
    uint32_t used = atomic_load(&heap->lanes.used);
    for (uint32_t i = 0; i < used; i++) {
        struct nvm_lane *lane = nvm_lane_at(heap, i);
        /* Each record is a line, and but for those of a group an effective fence. */
        uint64_t records = atomic_load(&lane->head);
        uint64_t fences = records - atomic_load(&lane->joined);
        sum->nt_lines += records;
        sum->fences += fences;
        sum->effective_fences += fences;
        pthread_mutex_lock(&lane->stage);
        nvm_persist_add(sum, &lane->persist);
        pthread_mutex_unlock(&lane->stage);
    }
}

void nvm_stats(nvm_heap *heap, struct nvm_heap_stats *stats)
{
    struct nvm_persist sum = {0};
    memset(stats, 0, sizeof(*stats));
    if (heap->foreign)
        return;
    nvm_protect_look(heap);
    stats->protect = heap->protection.on;
    stats->file_bytes = heap->super.size;
    stats->max_bytes = heap->super.max_size;
    stats->used_bytes = metadata_bytes(heap);
    stats->quarantined_bytes = atomic_load(&heap->quarantined);
    stats->mode = heap->super.mode;
    stats->map_sync = heap->region.map_sync;
    stats->recovered = heap->recovered;
    stats->replayed = heap->replayed;
    stats->checkpoints = heap->lanes.checkpoints;
    strncpy(stats->flush, nvm_persist_name(), sizeof(stats->flush) - 1);
    nvm_heap_each_run_guarded(heap, count_run, stats);
    add_lanes(heap, &sum);
    nvm_persist_add(&sum, &heap->structure);
    nvm_persist_add(&sum, &heap->super_counts);
    nvm_persist_add(&sum, &heap->lanes.persist);
    pthread_mutex_lock(&heap->threads_lock);
    nvm_persist_add(&sum, &heap->retired);
    stats->misuses = heap->retired_misuses;
    for (const struct nvm_tcache *tcache = heap->tcaches; tcache != NULL;
         tcache = tcache->next) {
        nvm_persist_add(&sum, &tcache->persist);
        stats->misuses += tcache->misuses;
    }
    pthread_mutex_unlock(&heap->threads_lock);
    stats->flushes = sum.flushes;
    stats->fences = sum.fences;
    stats->effective_fences = sum.effective_fences;
    stats->nt_lines = sum.nt_lines;
}
