/* SPDX-License-Identifier: Apache-2.0 */
/* walk.c - live blocks and statistics, read off the metadata on media. */
#include <string.h>

#include "heap.h"
#include "sizeclass.h"
#include "tcache.h"

struct walk {
    nvm_walk_fn *visit;
    void *context;
};

static int walk_slab(struct nvm_heap *heap, uint32_t unit, const struct nvm_class *klass,
                     const struct walk *walk)
{
    char *base = nvm_heap_at(heap, nvm_unit_offset(heap, unit));
    for (uint32_t word = 0; word < (klass->blocks + 63) / 64; word++) {
        uint64_t live = __atomic_load_n(&heap->bitmaps[unit][word], __ATOMIC_RELAXED);
        for (; live != 0; live &= live - 1) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzl(live);
            int result = walk->visit(walk->context, base + (uint64_t)index * klass->size,
                                     klass->size);
            if (result != 0)
                return result;
        }
    }
    return 0;
}

static int walk_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                    void *context)
{
    const struct walk *walk = context;
    if (chunk.state == NVM_CHUNK_SLAB)
        return walk_slab(heap, unit, &nvm_classes[chunk.klass], walk);
    if (chunk.state == NVM_CHUNK_EXTENT)
        return walk->visit(walk->context, nvm_heap_at(heap, nvm_unit_offset(heap, unit)),
                           (size_t)chunk.units << NVM_UNIT_SHIFT);
    return 0;
}

int nvm_walk(nvm_heap *heap, nvm_walk_fn *visit, void *context)
{
    struct walk walk = {visit, context};
    return nvm_heap_each_run(heap, walk_run, &walk);
}

static int count_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    struct nvm_heap_stats *stats = context;
    uint64_t bytes = (uint64_t)chunk.units << NVM_UNIT_SHIFT;
    if (chunk.state == NVM_CHUNK_FREE)
        return 0;
    stats->used_bytes += bytes;
    if (chunk.state == NVM_CHUNK_SLAB) {
        uint32_t live = nvm_slab_live(heap, unit);
        stats->live_blocks += live;
        stats->live_bytes += (uint64_t)live * nvm_classes[chunk.klass].size;
    } else {
        stats->live_blocks++;
        stats->live_bytes += bytes;
    }
    return 0;
}

static void add(struct nvm_heap_stats *stats, const struct nvm_persist *persist)
{
    stats->flushes += persist->flushes;
    stats->fences += persist->fences;
    stats->effective_fences += persist->effective_fences;
    stats->nt_lines += persist->nt_lines;
}

void nvm_stats(nvm_heap *heap, struct nvm_heap_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    stats->file_bytes = heap->super.size;
    stats->used_bytes = heap->super.data_offset;
    stats->map_sync = heap->region.map_sync;
    stats->recovered = heap->recovered;
    stats->replayed = heap->replayed;
    stats->checkpoints = heap->lanes.checkpoints;
    strncpy(stats->flush, nvm_persist_name(), sizeof(stats->flush) - 1);
    nvm_heap_each_run(heap, count_run, stats);
    add(stats, &heap->structure);
    add(stats, &heap->lanes.persist);
    for (uint32_t i = 0; i < heap->lanes.count; i++) {
        /* Each record: a non-temporal line and an effective fence. */
        uint64_t records = atomic_load(&heap->lanes.lane[i].head);
        stats->nt_lines += records;
        stats->fences += records;
        stats->effective_fences += records;
    }
    pthread_mutex_lock(&heap->threads_lock);
    add(stats, &heap->retired);
    stats->misuses = heap->retired_misuses;
    for (const struct nvm_tcache *tcache = heap->tcaches; tcache != NULL;
         tcache = tcache->next) {
        add(stats, &tcache->persist);
        stats->misuses += tcache->misuses;
    }
    pthread_mutex_unlock(&heap->threads_lock);
}
