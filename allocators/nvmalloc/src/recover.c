/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recover.c - replaying the log.
 *
 * Theory
 * ------
 * Let X be the durable watermark.  Every effect of a record with seq <= X is
 * on media (lane.h).  Of the records above X, any effect may be on media or
 * not, because lines are evicted as the cache likes.  Replaying them all in
 * seq order makes the state after the last of them, whatever was there:
 *
 *   mark  A slab's bit is set by ALLOC and cleared by FREE, an extent's entry
 *         flipped; the last record of a block decides.  A record counts for
 *         its mark only if its generation is that of the chunk entry: an
 *         entry of a later generation was written, durably and not by a
 *         record, after all records of the earlier one.  An extent's ALLOC
 *         also counts if the entry is FREE and one generation older: then the
 *         entry's own store is what was lost.
 *   slot  *dest becomes the block (ALLOC) or 0 (FREE); the last record of a
 *         slot decides.  Except: a slot that lies in a block which a *newer*
 *         record names is left alone (the container rule).  That block was
 *         freed, or allocated anew, since, and the place may hold somebody's
 *         data now.
 *
 * Then everything replayed is flushed, fenced, and the watermark moves past
 * the last record.  A crash before that leaves X where it was, and the next
 * recovery replays the same records to the same state: replay reads nothing
 * that it writes but chunk entries, whose generations it never lowers.
 *
 * Container rule, how: all records' blocks are intervals of file offsets; a
 * sweep over the intervals' starts and the slots, by offset, keeps the
 * intervals that are open in a heap ordered by seq, newest on top.  O(n log n)
 * in the number of records (at most lanes * ring).
 */
#include "recover.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "dram.h"
#include "error.h"
#include "extent.h"
#include "heap.h"
#include "sizeclass.h"

/* A record above the watermark. */
struct entry {
    const struct nvm_record *record;
    uint64_t seq;
    bool contained; /* a newer record names the block that holds its slot */
};

struct log {
    struct nvm_heap *heap;
    struct entry *entries; /* capacity: lanes * ring */
    uint32_t *order;       /* scratch for the sweep: indices */
    uint32_t *open;        /* scratch: a binary heap of indices */
    uint32_t count;
};

int nvm_watermark_read(const struct nvm_heap *heap, struct nvm_recovery *recovery)
{
    const struct nvm_watermark *lines = nvm_heap_at(heap, NVM_WATERMARK_OFFSET);
    bool found = false;
    for (unsigned copy = 0; copy < 2; copy++) {
        if (lines[copy].crc !=
            nvm_crc32c(heap->salt, &lines[copy], offsetof(struct nvm_watermark, crc)))
            continue;
        if (!found || lines[copy].seq > recovery->watermark) {
            recovery->watermark = lines[copy].seq;
            recovery->next_copy = copy ^ 1;
        }
        found = true;
    }
    if (!found)
        return nvm_fail(EUCLEAN, "both watermark lines are damaged (offset %llu)",
                        (unsigned long long)NVM_WATERMARK_OFFSET);
    return 0;
}

static uint64_t record_bytes(const struct nvm_record *record)
{
    return record->bytes != 0 ? record->bytes
                              : nvm_classes[nvm_tag_class(record->tag)].size;
}

/* Records are checksummed, so one that points outside was written so: a bug
   or an attack; either way it is not followed. */
static bool is_sane(const struct nvm_heap *heap, const struct nvm_record *record)
{
    bool root = record->dest - NVM_ROOTS_OFFSET <
                NVM_ROOT_ENTRIES * sizeof(struct nvm_root_entry);
    return nvm_tag_class(record->tag) < NVM_CLASSES &&
           nvm_tag_unit(record->tag) < heap->super.units &&
           record->dest % sizeof(nvm_ref) == 0 &&
           (root || nvm_heap_in_data(heap, record->dest)) &&
           nvm_heap_in_data(heap, record->object) &&
           nvm_heap_in_data(heap, record->object + record_bytes(record) - 1);
}

static int by_seq(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static int collect(struct log *log, uint64_t watermark)
{
    const struct nvm_heap *heap = log->heap;
    const struct nvm_record *records = nvm_heap_at(heap, NVM_LANES_OFFSET);
    uint32_t capacity = heap->super.lanes * heap->super.ring;
    for (uint32_t i = 0; i < capacity; i++) {
        const struct nvm_record *record = &records[i];
        if (record->seq <= watermark || !nvm_record_valid(record, heap->salt))
            continue;
        if (!is_sane(heap, record))
            return nvm_fail(EUCLEAN, "lane %u: record at offset %llu is impossible",
                            i / heap->super.ring,
                            (unsigned long long)nvm_heap_offset(heap, record));
        log->entries[log->count++] = (struct entry){.record = record, .seq = record->seq};
    }
    qsort(log->entries, log->count, sizeof(*log->entries), by_seq);
    return 0;
}

/* --- container rule: the sweep --- */

static uint64_t interval_start(const struct log *log, uint32_t index)
{
    return log->entries[index].record->object;
}

static uint64_t interval_end(const struct log *log, uint32_t index)
{
    return log->entries[index].record->object + record_bytes(log->entries[index].record);
}

static int by_object(const void *a, const void *b, void *context)
{
    uint64_t x = interval_start(context, *(const uint32_t *)a);
    uint64_t y = interval_start(context, *(const uint32_t *)b);
    return (x > y) - (x < y);
}

static int by_dest(const void *a, const void *b, void *context)
{
    const struct log *log = context;
    uint64_t x = log->entries[*(const uint32_t *)a].record->dest;
    uint64_t y = log->entries[*(const uint32_t *)b].record->dest;
    return (x > y) - (x < y);
}

/* Entries are sorted by seq, so a greater index is a newer record. */
static void open_push(uint32_t *heap, uint32_t *size, uint32_t index)
{
    uint32_t at = (*size)++;
    while (at > 0 && heap[(at - 1) / 2] < index) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = index;
}

static void open_pop(uint32_t *heap, uint32_t *size)
{
    uint32_t last = heap[--(*size)];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= *size)
            break;
        if (child + 1 < *size && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= last)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
}

static void find_contained(struct log *log)
{
    uint32_t *starts = log->order;
    uint32_t *slots = log->order + log->count;
    uint32_t next = 0, open = 0;
    for (uint32_t i = 0; i < log->count; i++)
        starts[i] = slots[i] = i;
    qsort_r(starts, log->count, sizeof(*starts), by_object, log);
    qsort_r(slots, log->count, sizeof(*slots), by_dest, log);
    for (uint32_t i = 0; i < log->count; i++) {
        uint64_t dest = log->entries[slots[i]].record->dest;
        while (next < log->count && interval_start(log, starts[next]) <= dest)
            open_push(log->open, &open, starts[next++]);
        while (open > 0 && interval_end(log, log->open[0]) <= dest)
            open_pop(log->open, &open);
        log->entries[slots[i]].contained = open > 0 && log->open[0] > slots[i];
    }
}

/* --- replay --- */

static void replay_bit(struct nvm_heap *heap, const struct nvm_record *record)
{
    uint32_t unit = nvm_tag_unit(record->tag), index = nvm_tag_index(record->tag);
    struct nvm_chunk chunk = nvm_extent_chunk(heap, unit);
    if (chunk.state != NVM_CHUNK_SLAB ||
        chunk.generation != nvm_tag_generation(record->tag) ||
        chunk.klass != nvm_tag_class(record->tag))
        return;
    uint64_t *word = &heap->bitmaps[unit][index / 64];
    uint64_t mask = (uint64_t)1 << (index % 64);
    *word = nvm_tag_op(record->tag) == NVM_OP_ALLOC ? *word | mask : *word & ~mask;
    nvm_flush(&heap->structure, word, sizeof(*word));
}

static void replay_extent(struct nvm_heap *heap, const struct nvm_record *record)
{
    uint32_t unit = nvm_tag_unit(record->tag),
             generation = nvm_tag_generation(record->tag);
    unsigned op = nvm_tag_op(record->tag);
    struct nvm_chunk chunk = nvm_extent_chunk(heap, unit);
    bool same = chunk.generation == generation &&
                (chunk.state == NVM_CHUNK_EXTENT || chunk.state == NVM_CHUNK_FREE);
    bool unborn = chunk.state == NVM_CHUNK_FREE &&
                  (chunk.generation + 1) % NVM_CHUNK_GENERATIONS == generation;
    if (!same && !(unborn && op == NVM_OP_EXTENT_ALLOC))
        return;
    chunk.state = op == NVM_OP_EXTENT_ALLOC ? NVM_CHUNK_EXTENT : NVM_CHUNK_FREE;
    chunk.units = (uint32_t)(record->bytes >> NVM_UNIT_SHIFT);
    chunk.generation = generation;
    nvm_flush(&heap->structure, nvm_extent_flip(heap, unit, chunk), sizeof(uint64_t));
}

static void replay(struct nvm_heap *heap, const struct entry *entry)
{
    const struct nvm_record *record = entry->record;
    unsigned op = nvm_tag_op(record->tag);
    bool alloc = op == NVM_OP_ALLOC || op == NVM_OP_EXTENT_ALLOC;
    if (op == NVM_OP_ALLOC || op == NVM_OP_FREE)
        replay_bit(heap, record);
    else
        replay_extent(heap, record);
    if (!entry->contained) {
        nvm_ref *dest = nvm_heap_at(heap, record->dest);
        *dest = alloc ? record->object : 0;
        nvm_flush(&heap->structure, dest, sizeof(*dest));
    }
}

static void finish(const struct log *log, struct nvm_recovery *recovery)
{
    struct nvm_heap *heap = log->heap;
    for (uint32_t i = 0; i < log->count; i++)
        replay(heap, &log->entries[i]);
    /* All effects before the watermark says that they are on media. */
    nvm_fence(&heap->structure);
    recovery->watermark = log->entries[log->count - 1].seq;
    nvm_watermark_write(&heap->structure, nvm_heap_at(heap, NVM_WATERMARK_OFFSET),
                        recovery->next_copy, recovery->watermark, heap->salt);
    recovery->next_copy ^= 1;
    recovery->replayed = log->count;
}

int nvm_recover(struct nvm_heap *heap, struct nvm_recovery *recovery)
{
    memset(recovery, 0, sizeof(*recovery));
    int error = nvm_watermark_read(heap, recovery);
    if (error != 0)
        return error;
    size_t capacity = (size_t)heap->super.lanes * heap->super.ring;
    size_t bytes = capacity * (sizeof(struct entry) + 3 * sizeof(uint32_t));
    struct log log = {.heap = heap, .entries = nvm_dram_map(bytes)};
    if (log.entries == NULL)
        return nvm_fail(ENOMEM, "no memory to sort the log");
    log.order = (uint32_t *)(log.entries + capacity);
    log.open = log.order + 2 * capacity;
    error = collect(&log, recovery->watermark);
    if (error == 0 && log.count != 0) {
        find_contained(&log);
        finish(&log, recovery);
    }
    recovery->clock = recovery->watermark + 1;
    nvm_dram_unmap(log.entries, bytes);
    return error;
}
