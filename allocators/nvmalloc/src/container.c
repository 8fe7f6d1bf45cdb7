/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container.c - see container.h.
 *
 * The blocks of all ALLOC and FREE records are intervals of file offsets.  A
 * sweep over the intervals' starts and the slots, by offset, keeps the
 * intervals that are open in a heap ordered by age, newest on top.  An interval
 * that has ended leaves when it comes to the top: one below it that has not
 * ended is older, and cannot make a slot contained that the top does not.
 * O(n log n) in the number of records (at most lanes * ring).
 */

#include "container.h"

#include <stdlib.h>

#include "heap.h"

size_t nvm_log_bytes(size_t capacity, uint32_t lanes)
{
    return capacity * (sizeof(struct nvm_logged) + 4 * sizeof(uint32_t)) +
           (lanes + 1 + capacity / 64 + 1) * sizeof(uint64_t);
}

void nvm_log_place(struct nvm_log *log, size_t capacity, uint32_t lanes)
{
    log->entries = log->memory;
    log->lanes = (uint64_t *)(log->entries + capacity);
    log->valid = log->lanes + lanes + 1;
    log->starts = (uint32_t *)(log->valid + capacity / 64 + 1);
    log->slots = log->starts + capacity;
    log->open = log->slots + 2 * capacity;
}

static bool names_block(const struct nvm_logged *logged)
{
    unsigned op = nvm_tag_op(logged->record->tag);
    return op == NVM_OP_ALLOC || op == NVM_OP_FREE;
}

static int by_object(const void *a, const void *b, void *context)
{
    const struct nvm_log *log = context;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    uint64_t x = log->entries[i].object, y = log->entries[k].object;
    if (x != y)
        return x > y ? 1 : -1;
    return (i > k) - (i < k);
}

/* A slot of the sweep: an entry's number, twice, plus 1 for its `from`. */
static uint64_t slot_offset(const struct nvm_log *log, uint32_t slot)
{
    const struct nvm_record *record = log->entries[slot / 2].record;
    return slot % 2 != 0 ? record->from : record->dest;
}

static int by_slot(const void *a, const void *b, void *context)
{
    uint64_t x = slot_offset(context, *(const uint32_t *)a);
    uint64_t y = slot_offset(context, *(const uint32_t *)b);
    return (x > y) - (x < y);
}

/* Entries are in order, so a greater number is a newer record. */
static void open_push(uint32_t *heap, uint32_t *size, uint32_t entry)
{
    uint32_t at = (*size)++;
    while (at > 0 && heap[(at - 1) / 2] < entry) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
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

static void note(struct nvm_log *log, uint32_t slot, uint32_t open)
{
    struct nvm_logged *logged = &log->entries[slot / 2];
    /* Newer: of a later operation. One group may fill a slot of a block that it allocates
       or frees itself. */
    bool contained = open > 0 && log->entries[log->open[0]].seq > logged->seq;
    if (slot % 2 != 0)
        logged->from_contained = contained;
    else
        logged->contained = contained;
}

void nvm_find_contained(struct nvm_log *log)
{
    const uint32_t blocks = log->blocks;
    uint32_t slots = 0, next = 0, open = 0;
    for (uint32_t i = 0; i < log->count; i++) {
        unsigned op = nvm_tag_op(log->entries[i].record->tag);
        if (op != NVM_OP_DONE)
            log->slots[slots++] = 2 * i;
        if (op == NVM_OP_MOVE)
            log->slots[slots++] = 2 * i + 1;
    }
    qsort_r(log->slots, slots, sizeof(*log->slots), by_slot, log);
    for (uint32_t i = 0; i < slots; i++) {
        uint64_t offset = slot_offset(log, log->slots[i]);
        while (next < blocks && log->entries[log->starts[next]].object <= offset)
            open_push(log->open, &open, log->starts[next++]);
        while (open > 0 &&
               log->entries[log->open[0]].object + log->entries[log->open[0]].bytes <=
                   offset)
            open_pop(log->open, &open);
        note(log, log->slots[i], open);
    }
}

void nvm_find_superseded(struct nvm_log *log)
{
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < log->count; i++)
        if (names_block(&log->entries[i]))
            log->starts[blocks++] = i;
    qsort_r(log->starts, blocks, sizeof(*log->starts), by_object, log);
    for (uint32_t i = 0; i + 1 < blocks; i++) {
        struct nvm_logged *older = &log->entries[log->starts[i]];
        const struct nvm_logged *newer = &log->entries[log->starts[i + 1]];
        older->superseded = older->object == newer->object;
    }
    log->blocks = blocks;
}
