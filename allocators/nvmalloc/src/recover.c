/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recover.c - collecting the log's records and replaying them.
 *
 * Theory
 * ------
 * Let X be the watermark: the highest of the watermark lines and of what valid
 * records carry.  Every effect of a record with seq <= X is on media (lane.h).
 * Of the records above X, any effect may be on media or not.  Replaying them
 * all in seq order makes the state after the last of them, whatever was there:
 *
 *   mark  A slab's bit is set by ALLOC and cleared by FREE, an extent's entry
 *         flipped; the last record of a block decides.  A record counts for
 *         its mark only if its generation is that of the chunk entry: an
 *         entry of a later generation was written, durably and not by a
 *         record, after all records of the earlier one.  An extent's ALLOC
 *         also counts if the entry is FREE and one generation older: then the
 *         entry's own store is what was lost.
 *   slot  *dest becomes the block (ALLOC, MOVE) or 0 (FREE), *from becomes 0
 *         (MOVE); the last record of a slot decides.  Except: a slot that lies
 *         in a block which a *newer* ALLOC or FREE names is left alone (the
 *         container rule, container.c): the place may hold somebody's data now.
 *
 * Strict heaps: the application may have changed a slot since.  Only the newest
 * operation of each lane can have been cut off; every older one has had its
 * effects.  Of these
 *   a group with a MOVE is redone whole: were it done, DONE would follow it;
 *   ALLOC is redone if its block's mark is not set, no newer record names the
 *         block, and the generation fits: then the call had not returned;
 *   FREE  clears the mark, and the slot if it still refers to the block, if no
 *         newer record names the block.
 *
 * A group (records of one seq) counts if all of it is there.  Then everything
 * replayed is flushed, fenced, and the watermark moves past the last record.  A
 * crash before that leaves X where it was, and the next recovery replays the
 * same records to the same state: replay reads nothing that it writes but chunk
 * entries, whose generations it never lowers, and, in a strict heap, marks and
 * slots, where what it has written is what it would write again.
 */
#include "recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "build.h"
#include "container.h"
#include "dram.h"
#include "error.h"
#include "extent.h"
#include "mark.h"

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

/* --- collecting --- */

static bool is_slot_offset(const struct nvm_heap *heap, uint64_t offset)
{
    uint64_t table = heap->super.roots * sizeof(struct nvm_root_entry);
    return (offset % sizeof(nvm_ref) == 0 && nvm_heap_in_data(heap, offset)) ||
           (offset - NVM_ROOTS_OFFSET < table &&
            (offset - NVM_ROOTS_OFFSET) % sizeof(struct nvm_root_entry) == 0);
}

/* Fills in the block's offset and length; false if there can't be such a record.
   Records are checksummed, so one that points outside was written so: a bug or an
   attack; either way it is not followed. */
static bool place_block(const struct nvm_heap *heap, struct nvm_logged *logged)
{
    uint64_t tag = logged->record->tag;
    uint64_t offset = nvm_unit_offset(heap, nvm_tag_unit(tag));
    if (nvm_tag_op(tag) == NVM_OP_DONE)
        return true;
    if (nvm_tag_is_extent(tag)) {
        logged->bytes = (uint64_t)(uint32_t)logged->record->detail << NVM_UNIT_SHIFT;
    } else {
        if (nvm_tag_class(tag) >= NVM_CLASSES)
            return false;
        const struct nvm_class *klass = &nvm_classes[nvm_tag_class(tag)];
        if (nvm_tag_bit(tag) >= NVM_WORD_BLOCKS || nvm_tag_index(tag) >= klass->blocks)
            return false;
        offset += (uint64_t)nvm_tag_index(tag) * klass->size;
        logged->bytes = klass->size;
    }
    logged->object = offset;
    return logged->bytes != 0 && nvm_heap_in_data(heap, offset) &&
           logged->bytes <= heap->data_offset + heap->data_bytes - offset &&
           is_slot_offset(heap, logged->record->dest) &&
           (nvm_tag_op(tag) != NVM_OP_MOVE || is_slot_offset(heap, logged->record->from));
}

static int by_seq(const void *a, const void *b)
{
    const struct nvm_logged *x = a, *y = b;
    if (x->seq != y->seq)
        return x->seq > y->seq ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

static const struct nvm_record *records_of(const struct nvm_heap *heap)
{
    return nvm_heap_at(heap, heap->super.lanes_offset);
}

static bool is_valid(const uint64_t *valid, uint32_t at)
{
    return (valid[at / 64] >> (at % 64)) & 1;
}

/* Judges all records; the highest watermark that is known then. */
static uint64_t judge_records(const struct nvm_log *log, uint32_t capacity,
                              uint64_t watermark)
{
    const struct nvm_record *records = records_of(log->heap);
    const uint32_t salt = log->heap->salt;
    const struct nvm_record blank = nvm_record_blank(salt);
    uint64_t *valid = log->valid, bits = 0;
    for (uint32_t i = 0; i < capacity; i++) {
        const struct nvm_record *record = &records[i];
        bool good = record->seq == 0 && memcmp(record, &blank, sizeof(blank)) == 0;
        if (!good && nvm_record_valid(record, salt)) {
            good = true;
            if (record->watermark > watermark)
                watermark = record->watermark;
        }
        bits |= (uint64_t)good << (i % 64);
        if (i % 64 == 63 || i + 1 == capacity) {
            valid[i / 64] = bits;
            bits = 0;
        }
    }
    return watermark;
}

static int collect(struct nvm_log *log, uint32_t capacity, uint64_t watermark)
{
    const struct nvm_heap *heap = log->heap;
    const struct nvm_record *records = records_of(heap);
    const uint64_t *valid = log->valid;
    for (uint32_t i = 0; i < capacity; i++) {
        const struct nvm_record *record = &records[i];
        if (record->seq <= watermark || !is_valid(valid, i))
            continue;
        struct nvm_logged *logged = &log->entries[log->count++];
        *logged = (struct nvm_logged){.record = record,
                                      .seq = record->seq,
                                      .lane = i / heap->super.ring,
                                      .index = nvm_record_index(record)};
        if (!place_block(heap, logged))
            return nvm_fail(EUCLEAN, "lane %u: record at offset %llu is impossible",
                            logged->lane,
                            (unsigned long long)nvm_heap_offset(heap, record));
    }
    /* A lane that has not wrapped is in order already. */
    bool sorted = true;
    for (uint32_t i = 1; sorted && i < log->count; i++)
        sorted = by_seq(&log->entries[i - 1], &log->entries[i]) <= 0;
    if (!sorted)
        qsort(log->entries, log->count, sizeof(*log->entries), by_seq);
    return 0;
}

static int damaged_record(const struct nvm_heap *heap, uint32_t lane, uint32_t position)
{
    return nvm_fail(
        EUCLEAN, "lane %u: record %u (offset %llu) is damaged", lane, position,
        (unsigned long long)heap->super.lanes_offset +
            ((uint64_t)lane * heap->super.ring + position) * sizeof(struct nvm_record));
}

/*
 * Holds the lane to what it must have left: from its newest operation back, every
 * record above the watermark is there, but for those that it may have been
 * overwriting.  One that is not there is no torn one, but damaged: an
 * acknowledged operation is lost, and with it the truth about its block.  Of the
 * newest operation itself, a group, any record may be torn.
 */
static int judge_newest(const struct nvm_log *log, uint32_t lane, uint64_t watermark)
{
    const struct nvm_heap *heap = log->heap;
    const struct nvm_record *records = records_of(heap);
    const uint64_t *valid = log->valid;
    const uint32_t ring = heap->super.ring;
    const struct nvm_record *newest = NULL;
    for (uint32_t i = 0; i < ring; i++) {
        const struct nvm_record *record = &records[lane * ring + i];
        if (record->seq > watermark && is_valid(valid, lane * ring + i) &&
            record->ordinal % ring == i &&
            (newest == NULL || (int32_t)(record->ordinal - newest->ordinal) > 0))
            newest = record;
    }
    if (newest == NULL)
        return 0;
    uint32_t overwritten = NVM_ACTIONS_MAX + 1; /* a group, and strict mode's DONE */
    uint32_t back = ring - overwritten;
    uint32_t first = newest->ordinal - nvm_record_index(newest);
    back = first < back ? first : back;
    for (uint32_t ordinal = first; back-- > 0;) {
        ordinal--;
        const struct nvm_record *record = &records[lane * ring + ordinal % ring];
        if (!is_valid(valid, lane * ring + ordinal % ring) || record->ordinal != ordinal)
            return damaged_record(heap, lane, ordinal % ring);
        if (record->seq <= watermark)
            break;
    }
    return 0;
}

/*
 * Holds the lane to this: records are missing only where an operation may have been in
 * flight, which is in the newest operation and the group after it, or, if nothing has
 * been written since the heap was opened, at the ring's start.  So a page of a ring that
 * was lost does not pass for one where nothing happened.
 */
static int judge_lane(const struct nvm_log *log, uint32_t lane, uint64_t watermark)
{
    const struct nvm_heap *heap = log->heap;
    const struct nvm_record *records = records_of(heap);
    const uint64_t *valid = log->valid;
    const uint32_t ring = heap->super.ring;
    uint32_t first = 0, last = 0;
    uint64_t seq = 0;
    for (uint32_t i = 0; i < ring; i++) {
        const struct nvm_record *record = &records[lane * ring + i];
        if (record->seq < seq || !is_valid(valid, lane * ring + i))
            continue;
        seq = record->seq;
        first = record->ordinal - nvm_record_index(record);
        last = record->ordinal;
    }
    for (uint32_t i = NVM_ACTIONS_MAX; i < ring; i++)
        if (!is_valid(valid, lane * ring + i) &&
            ((i - first) & (ring - 1)) > last - first + NVM_ACTIONS_MAX)
            return damaged_record(heap, lane, i);
    return judge_newest(log, lane, watermark);
}

/* Blank records instead of torn ones, which the next recovery would not expect. */
static void mend_lanes(const struct nvm_log *log, uint32_t capacity)
{
    struct nvm_heap *heap = log->heap;
    struct nvm_record *records = nvm_heap_at(heap, heap->super.lanes_offset);
    const uint64_t *valid = log->valid;
    _Alignas(64) struct nvm_record blank = nvm_record_blank(heap->salt);
    for (uint32_t i = 0; i < capacity; i++)
        if (!is_valid(valid, i))
            nvm_store_line(&heap->structure, &records[i], (const uint64_t *)&blank);
    /* Before this session's records can be torn. */
    if (heap->structure.pending)
        nvm_fence(&heap->structure);
}

/* Leaves out groups of which a record is missing: their operation was cut off. */
static void drop_torn_groups(struct nvm_log *log)
{
    uint32_t kept = 0;
    for (uint32_t i = 0, end; i < log->count; i = end) {
        uint32_t size = nvm_record_group(log->entries[i].record);
        for (end = i; end < log->count && log->entries[end].seq == log->entries[i].seq;)
            end++;
        if (end - i != size)
            continue;
        bool moves = false;
        for (uint32_t k = i; k < end; k++)
            moves |= nvm_tag_op(log->entries[k].record->tag) == NVM_OP_MOVE;
        for (uint32_t k = i; k < end; k++)
            log->entries[k].moves = moves;
        memmove(&log->entries[kept], &log->entries[i], size * sizeof(*log->entries));
        kept += size;
    }
    log->count = kept;
}

/* Notes which records are the newest operation of their lane, and the newest of
   their block. */
static void find_newest(struct nvm_log *log)
{
    uint64_t *newest = log->lanes;
    for (uint32_t i = 0; i < log->count; i++)
        newest[log->entries[i].lane] = log->entries[i].seq;
    for (uint32_t i = 0; i < log->count; i++)
        log->entries[i].last_of_lane =
            newest[log->entries[i].lane] == log->entries[i].seq;
    nvm_find_superseded(log);
}

/* --- replay --- */

static void flush(struct nvm_heap *heap, const void *address)
{
    nvm_flush(&heap->structure, address, sizeof(uint64_t));
}

static void replay_slot(struct nvm_heap *heap, uint64_t offset, nvm_ref value)
{
    nvm_ref *slot = nvm_heap_at(heap, offset);
    *slot = value;
    flush(heap, slot);
}

/* Whether the chunk entry says that the record's slab is still there. */
static bool same_tenant(const struct nvm_heap *heap, uint64_t tag)
{
    struct nvm_chunk chunk = nvm_extent_chunk(heap, nvm_tag_unit(tag));
    return chunk.state == NVM_CHUNK_SLAB && chunk.generation == nvm_tag_generation(tag) &&
           chunk.klass == nvm_tag_class(tag);
}

static bool read_mark(const struct nvm_heap *heap, uint64_t tag)
{
    if (nvm_tag_is_extent(tag)) {
        struct nvm_chunk chunk = nvm_extent_chunk(heap, nvm_tag_unit(tag));
        return chunk.state == NVM_CHUNK_EXTENT &&
               chunk.generation == nvm_tag_generation(tag);
    }
    return (*nvm_heap_mark(heap, tag) >> nvm_tag_bit(tag)) & 1;
}

static void replay_bit(struct nvm_heap *heap, uint64_t tag, bool live)
{
    uint64_t *word = nvm_heap_mark(heap, tag);
    uint64_t number = (uint64_t)(word - heap->bitmaps);
    /* A damaged word stays damaged, and the slab will be quarantined for it. */
    if (!same_tenant(heap, tag) || !nvm_mark_valid(*word, number, heap->salt))
        return;
    uint64_t bit = (uint64_t)1 << nvm_tag_bit(tag);
    uint64_t blocks = *word & NVM_MARK_BLOCKS;
    *word = nvm_mark_word(live ? blocks | bit : blocks & ~bit, number, heap->salt);
    flush(heap, word);
}

/* Whether the entry can be that of the record's extent, before or after its effect. */
static bool same_extent(const struct nvm_heap *heap, uint64_t tag, bool birth)
{
    struct nvm_chunk chunk = nvm_extent_chunk(heap, nvm_tag_unit(tag));
    uint32_t generation = nvm_tag_generation(tag);
    bool same = chunk.generation == generation &&
                (chunk.state == NVM_CHUNK_EXTENT || chunk.state == NVM_CHUNK_FREE);
    bool unborn = chunk.state == NVM_CHUNK_FREE &&
                  (chunk.generation + 1) % NVM_CHUNK_GENERATIONS == generation;
    return same || (unborn && birth);
}

static void replay_mark(struct nvm_heap *heap, const struct nvm_logged *logged)
{
    uint64_t tag = logged->record->tag;
    bool live = nvm_tag_op(tag) == NVM_OP_ALLOC;
    if (!nvm_tag_is_extent(tag)) {
        replay_bit(heap, tag, live);
    } else if (same_extent(heap, tag, live)) {
        struct nvm_chunk chunk = {.state = live ? NVM_CHUNK_EXTENT : NVM_CHUNK_FREE,
                                  .units = (uint32_t)logged->record->detail,
                                  .generation = nvm_tag_generation(tag)};
        flush(heap, nvm_extent_flip(heap, nvm_tag_unit(tag), chunk));
    }
}

static void replay_owned(struct nvm_heap *heap, const struct nvm_logged *logged)
{
    const struct nvm_record *record = logged->record;
    unsigned op = nvm_tag_op(record->tag);
    if (op == NVM_OP_DONE)
        return;
    if (op == NVM_OP_MOVE) {
        if (!logged->from_contained)
            replay_slot(heap, record->from, 0);
    } else {
        replay_mark(heap, logged);
    }
    if (!logged->contained)
        replay_slot(heap, record->dest, op == NVM_OP_FREE ? 0 : logged->object);
}

static void replay_strict(struct nvm_heap *heap, const struct nvm_logged *logged)
{
    const struct nvm_record *record = logged->record;
    unsigned op = nvm_tag_op(record->tag);
    if (!logged->last_of_lane || logged->superseded || op == NVM_OP_DONE)
        return;
    if (logged->moves) {
        replay_owned(heap, logged);
        return;
    }
    bool extent = nvm_tag_is_extent(record->tag);
    if (extent ? !same_extent(heap, record->tag, op == NVM_OP_ALLOC)
               : !same_tenant(heap, record->tag))
        return;
    if (op == NVM_OP_ALLOC && !read_mark(heap, record->tag)) {
        if (!logged->contained)
            replay_slot(heap, record->dest, logged->object);
        /* The slot before the mark, as in the operation itself: recovery may be cut
           off, too, and tells by the mark what is left to do. */
        nvm_fence(&heap->structure);
        replay_mark(heap, logged);
    } else if (op == NVM_OP_FREE) {
        const nvm_ref *slot = nvm_heap_at(heap, record->dest);
        if (!logged->contained && *slot == logged->object)
            replay_slot(heap, record->dest, 0);
        replay_mark(heap, logged);
    }
}

static void replay_all(const struct nvm_log *log)
{
    struct nvm_heap *heap = log->heap;
    for (uint32_t i = 0; i < log->count; i++) {
        if (heap->super.mode == NVM_LOG_STRICT)
            replay_strict(heap, &log->entries[i]);
        else
            replay_owned(heap, &log->entries[i]);
    }
}

static void finish(const struct nvm_log *log, struct nvm_recovery *recovery)
{
    struct nvm_heap *heap = log->heap;
    replay_all(log);
    /* All effects before the watermark says that they are on media. */
    nvm_fence(&heap->structure);
    nvm_watermark_write(&heap->structure, nvm_heap_at(heap, NVM_WATERMARK_OFFSET),
                        recovery->next_copy, recovery->watermark, heap->salt);
    recovery->next_copy ^= 1;
    recovery->replayed = log->count;
}

/* The chunk table must be walkable before marks are written by what it says. */
static int accept_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                      void *context)
{
    (void)heap;
    (void)unit;
    (void)chunk;
    (void)context;
    return 0;
}

int nvm_recover(struct nvm_heap *heap, struct nvm_recovery *recovery)
{
    memset(recovery, 0, sizeof(*recovery));
    int error = nvm_watermark_read(heap, recovery);
    if (error == 0)
        error = nvm_heap_each_run(heap, accept_run, NULL);
    if (error != 0)
        return error;
    uint32_t capacity = heap->super.lanes_used * heap->super.ring;
    size_t bytes = nvm_log_bytes(capacity, heap->super.lanes);
    struct nvm_log log = {.heap = heap, .memory = nvm_dram_map(bytes)};
    if (log.memory == NULL)
        return nvm_fail(ENOMEM, "no memory to sort the log");
    nvm_log_place(&log, capacity, heap->super.lanes);
    uint64_t line = recovery->watermark;
    recovery->watermark = judge_records(&log, capacity, recovery->watermark);
    for (uint32_t lane = 0; error == 0 && lane < heap->super.lanes_used; lane++)
        error = judge_lane(&log, lane, recovery->watermark);
    if (error == 0)
        error = collect(&log, capacity, recovery->watermark);
    /* Torn groups are history from now on, too: no seq may be drawn twice. */
    if (error == 0 && log.count != 0)
        recovery->watermark = log.entries[log.count - 1].seq;
    drop_torn_groups(&log);
    if (error == 0 && log.count != 0) {
        find_newest(&log);
        nvm_find_contained(&log);
        finish(&log, recovery);
    } else if (error == 0 && recovery->watermark > line) {
        nvm_watermark_write(&heap->structure, nvm_heap_at(heap, NVM_WATERMARK_OFFSET),
                            recovery->next_copy, recovery->watermark, heap->salt);
        recovery->next_copy ^= 1;
    }
    if (error == 0)
        mend_lanes(&log, capacity);
    recovery->clock = recovery->watermark + 1;
    nvm_dram_unmap(log.memory, bytes);
    return error;
}
