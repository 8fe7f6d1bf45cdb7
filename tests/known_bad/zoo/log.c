// SPDX-License-Identifier: Apache-2.0
/*
 * log.c - entries, roots, recovery.  The protocol and its invariants: lane_log.h.
 */
#include <errno.h>

#include "lane_log.h"

enum zoo_plant zoo_plant;
_Thread_local unsigned zoo_my_lane;

uint64_t *zoo_word(const struct nvc_heap *heap, uint64_t where)
{
    return (uint64_t *)(heap->base + where);
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ hash >> 32;
}

/* ---- entries ---- */

static size_t bytes_of(unsigned count)
{
    return offsetof(struct zoo_entry, record) + count * sizeof(struct zoo_record);
}

static unsigned count_of(uint64_t head)
{
    return (unsigned)(head & UINT32_MAX);
}

static uint64_t head_of(const struct zoo_entry *entry, unsigned count)
{
    uint64_t hash = mix(count, entry->generation);
    for (unsigned i = 0; i < count; i++) {
        if (PLANT(checksum_without_last) && i + 1 == count)
            break;
        hash = mix(hash, entry->record[i].where);
        if (!PLANT(checksum_without_values))
            hash = mix(hash, entry->record[i].value);
    }
    return hash << 32 | count;
}

static bool is_valid(const struct zoo_entry *entry)
{
    unsigned count = count_of(entry->head);
    if (count == 0 || count > zoo_records)
        return false;
    if (PLANT(torn_record_trusted))
        return true;
    uint64_t whole = head_of(entry, count);
    while (PLANT(recovery_waits) && *(const volatile uint64_t *)&entry->head != whole)
        atomic_signal_fence(memory_order_seq_cst);
    return entry->head == whole;
}

static void apply(struct nvc_heap *heap, const struct zoo_changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++) {
        uint64_t *word = zoo_word(heap, changes->record[i].where);
        zoo_store(word, changes->record[i].value);
        if (PLANT(apply_flush_left_out) && i + 1 == changes->count)
            continue;
        zoo_flush(word, sizeof *word);
    }
    if (PLANT(fence_of_another_thread) && zoo_waiting(heap))
        return; /* who waits for the mutex fences soon */
    if (!PLANT(apply_fence_left_out))
        zoo_fence();
}

/* Into the lane's entry whose turn it is: the other one may be the newest. */
static struct zoo_entry *enter(struct nvc_heap *heap, const struct zoo_changes *changes)
{
    unsigned *turn = &heap->turn[zoo_my_lane];
    if (!PLANT(entry_not_alternated))
        *turn ^= 1;
    struct zoo_entry *entry = &heap->lane[zoo_my_lane].entry[*turn];
    for (unsigned i = 0; i < changes->count; i++) {
        zoo_store(&entry->record[i].where, changes->record[i].where);
        zoo_store(&entry->record[i].value, changes->record[i].value);
    }
    if (!PLANT(generation_repeated) || heap->generation == 0)
        heap->generation++;
    zoo_store(&entry->generation, heap->generation);
    if (PLANT(log_flush_before_store))
        zoo_flush(entry, bytes_of(changes->count));
    zoo_store(&entry->head, head_of(entry, changes->count));
    return entry;
}

void zoo_commit(struct nvc_heap *heap, const struct zoo_changes *changes)
{
    if (PLANT(log_after_apply))
        apply(heap, changes);
    const struct zoo_entry *entry = enter(heap, changes);
    size_t bytes = PLANT(log_flushes_first_line) ? zoo_line : bytes_of(changes->count);
    if (!PLANT(log_flush_left_out) && !PLANT(log_flush_before_store) &&
        !PLANT(log_flush_after_fence))
        zoo_flush(PLANT(log_flushes_wrong_line) ? entry + 1 : entry, bytes);
    if (!PLANT(log_fence_left_out))
        zoo_fence();
    if (PLANT(log_flush_after_fence))
        zoo_flush(entry, bytes);
    apply(heap, changes);
}

void zoo_commit_in_cache(struct nvc_heap *heap, const struct zoo_changes *changes)
{
    enter(heap, changes);
    for (unsigned i = 0; i < changes->count; i++)
        zoo_store(zoo_word(heap, changes->record[i].where), changes->record[i].value);
}

/* ---- roots ---- */

static uint64_t check_of(const struct zoo_root *root)
{
    return mix(mix(mix(1, root->sequence), root->floor), root->clean);
}

int zoo_find_root(struct nvc_heap *heap, struct zoo_root *found)
{
    const struct zoo_root *newest = NULL;
    for (unsigned i = 0; i < 2; i++) {
        const struct zoo_root *root = &heap->root[i];
        if (root->check != check_of(root) && !(PLANT(root_torn) && root->sequence != 0))
            continue;
        if (newest == NULL || (root->sequence > newest->sequence) != PLANT(stale_root))
            newest = root;
    }
    if (newest == NULL)
        return EUCLEAN;
    *found = *newest;
    return 0;
}

void zoo_write_root(struct nvc_heap *heap, uint64_t floor, bool clean)
{
    struct zoo_root *root = &heap->root[++heap->sequence & 1];
    struct zoo_root written = {
        .sequence = heap->sequence, .floor = floor, .clean = clean};
    zoo_store(&root->sequence, written.sequence);
    zoo_store(&root->floor, floor);
    zoo_store(&root->clean, clean);
    zoo_store(&root->check, check_of(&written));
    zoo_persist(root, sizeof *root);
}

/* ---- recovery ---- */

static int redo(struct nvc_heap *heap, const struct zoo_entry *entry)
{
    for (unsigned i = 0; i < count_of(entry->head); i++) {
        uint64_t where = entry->record[i].where, value = entry->record[i].value;
        uint64_t *word = zoo_word(heap, where);
        if (where < zoo_offset_of(heap, heap->kind) || where > heap->size - 8 ||
            where % 8 != 0)
            return EUCLEAN;
        if (PLANT(recovery_adds) && word >= heap->live && word < heap->slots)
            value ^= *word;
        zoo_store(word, value);
        if (!PLANT(recovery_not_flushed))
            zoo_flush(word, sizeof *word);
    }
    if (!PLANT(recovery_unordered))
        zoo_fence();
    return 0;
}

/* The generation of the newest valid entry; the floor if there is none above it. */
static uint64_t find_newest(const struct nvc_heap *heap, uint64_t floor)
{
    uint64_t newest = floor;
    for (unsigned i = 0; i < zoo_lanes * 2; i++) {
        const struct zoo_entry *entry = &heap->lane[i / 2].entry[i % 2];
        if (PLANT(lane_forgotten) && i / 2 == 1)
            continue;
        if (is_valid(entry) && entry->generation > newest)
            newest = entry->generation;
    }
    return newest;
}

int zoo_recover(struct nvc_heap *heap, uint64_t floor)
{
    int error = 0;
    heap->generation = find_newest(heap, floor);
    if (PLANT(recovery_floor_first))
        zoo_write_root(heap, heap->generation, false);
    for (unsigned i = 0; i < zoo_lanes * 2 && error == 0; i++) {
        const struct zoo_entry *entry = &heap->lane[i / 2].entry[i % 2];
        bool newest = entry->generation == heap->generation && heap->generation > floor;
        if ((newest || PLANT(generation_not_checked)) && is_valid(entry))
            error = redo(heap, entry);
    }
    if (error == 0)
        zoo_write_root(heap, heap->generation, false);
    return error;
}
