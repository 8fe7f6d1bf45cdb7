// SPDX-License-Identifier: Apache-2.0
/*
 * space.c - which blocks are live: the two tables.  What an operation takes or releases
 * is a list of changes first, and looked up there before the tables.
 */
#include "lane_log.h"

uint64_t zoo_offset_of(const struct nvc_heap *heap, const void *address)
{
    return (uint64_t)((const unsigned char *)address - heap->base);
}

void zoo_change(struct zoo_changes *changes, uint64_t where, uint64_t value)
{
    changes->record[changes->count].where = where;
    changes->record[changes->count++].value = value;
}

/* A word as it will be. */
static uint64_t look(const struct nvc_heap *heap, const struct zoo_changes *changes,
                     const uint64_t *word)
{
    uint64_t where = zoo_offset_of(heap, word);
    for (unsigned i = changes->count; i > 0; i--) {
        if (changes->record[i - 1].where == where)
            return changes->record[i - 1].value;
    }
    return *word;
}

static uint64_t all_blocks(unsigned class)
{
    unsigned count = zoo_chunk >> class;
    return count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
}

static uint64_t slot_word(uint64_t offset, uint64_t bytes)
{
    return bytes / zoo_line << 32 | offset / zoo_line;
}

static uint64_t chunks_of(uint64_t kind)
{
    uint64_t run = kind & ZOO_LARGE ? kind & UINT32_MAX : 1;
    return run != 0 ? run : 1; /* a damaged word must not stop a search */
}

/* The first of `run` free chunks in a row; 0: there are none. */
static uint64_t find_chunks(struct nvc_heap *heap, const struct zoo_changes *changes,
                            uint64_t run)
{
    uint64_t length = 0, c = heap->header->first;
    while (c < heap->frontier && length < run) {
        uint64_t kind = look(heap, changes, &heap->kind[c]);
        length = kind == 0 ? length + 1 : 0;
        c += kind == 0 ? 1 : chunks_of(kind);
    }
    if (length < run && c - length + run > heap->header->chunks)
        return 0;
    uint64_t at = c - length;
    if (heap->frontier < at + run)
        heap->frontier = at + run;
    return at;
}

static uint64_t take_small(struct nvc_heap *heap, struct zoo_changes *changes,
                           unsigned class)
{
    uint64_t c = heap->header->first, live = 0;
    while (c < heap->frontier) {
        uint64_t kind = look(heap, changes, &heap->kind[c]);
        live = kind == class ? look(heap, changes, &heap->live[c]) : UINT64_MAX;
        if (kind == class && live != all_blocks(class))
            break;
        c += chunks_of(kind);
    }
    if (c >= heap->frontier) {
        c = find_chunks(heap, changes, 1);
        live = 0;
        if (c == 0)
            return 0;
        zoo_change(changes, zoo_offset_of(heap, &heap->kind[c]), class);
    }
    unsigned block = (unsigned)__builtin_ctzll(~live);
    zoo_change(changes, zoo_offset_of(heap, &heap->live[c]), live | UINT64_C(1) << block);
    return slot_word(c * zoo_chunk + ((uint64_t)block << class), UINT64_C(1) << class);
}

uint64_t zoo_take(struct nvc_heap *heap, struct zoo_changes *changes, size_t size)
{
    for (unsigned class = zoo_first_class; class <= zoo_last_class; class ++) {
        if (size <= (size_t)1 << class)
            return take_small(heap, changes, class);
    }
    uint64_t run = size / zoo_chunk + (size % zoo_chunk != 0);
    uint64_t c = run <= heap->header->chunks ? find_chunks(heap, changes, run) : 0;
    if (c == 0)
        return 0;
    if (PLANT(size_recorded_first))
        zoo_store_persist(&heap->kind[c], ZOO_LARGE | run);
    zoo_change(changes, zoo_offset_of(heap, &heap->kind[c]), ZOO_LARGE | run);
    return slot_word(c * zoo_chunk, run * zoo_chunk);
}

void zoo_release(struct nvc_heap *heap, struct zoo_changes *changes, uint64_t slot)
{
    uint64_t offset = (slot & UINT32_MAX) * zoo_line, c = offset / zoo_chunk;
    uint64_t kind = look(heap, changes, &heap->kind[c]);
    if (!(kind & ZOO_LARGE)) {
        uint64_t bit = UINT64_C(1) << (offset % zoo_chunk >> kind);
        uint64_t live = look(heap, changes, &heap->live[c]) & ~bit;
        zoo_change(changes, zoo_offset_of(heap, &heap->live[c]), live);
        if (live != 0)
            return;
    }
    zoo_change(changes, zoo_offset_of(heap, &heap->kind[c]), 0);
}

bool zoo_is_live(const struct nvc_heap *heap, uint64_t slot)
{
    uint64_t offset = (slot & UINT32_MAX) * zoo_line, c = offset / zoo_chunk;
    if (c < heap->header->first || c >= heap->header->chunks)
        return false;
    uint64_t kind = heap->kind[c];
    if (kind & ZOO_LARGE)
        return slot == slot_word(c * zoo_chunk, chunks_of(kind) * zoo_chunk);
    return kind != 0 && slot == slot_word(offset, UINT64_C(1) << kind) &&
           offset % (UINT64_C(1) << kind) == 0 &&
           (heap->live[c] >> (offset % zoo_chunk >> kind) & 1);
}

uint64_t zoo_find_frontier(const struct nvc_heap *heap)
{
    uint64_t frontier = heap->header->first;
    for (uint64_t c = frontier; c < heap->header->chunks; c++) {
        if (heap->kind[c] != 0)
            frontier = c + chunks_of(heap->kind[c]);
    }
    return frontier;
}

int zoo_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    for (uint64_t c = heap->header->first; c < heap->frontier;) {
        uint64_t kind = heap->kind[c];
        uint64_t small = UINT64_C(1) << kind % 64;
        uint64_t bytes = kind & ZOO_LARGE ? chunks_of(kind) * zoo_chunk : small;
        uint64_t live = kind == 0 ? 0 : kind & ZOO_LARGE ? 1 : heap->live[c];
        for (; live != 0; live &= live - 1) {
            uint64_t block = (uint64_t)__builtin_ctzll(live);
            int stop = visit(
                context,
                (struct nvc_block){heap->base + c * zoo_chunk + block * bytes, bytes});
            if (stop != 0)
                return stop;
        }
        c += chunks_of(kind);
    }
    return 0;
}

const char *zoo_find_damage(const struct nvc_heap *heap)
{
    for (uint64_t c = heap->header->first; c < heap->frontier;) {
        uint64_t kind = heap->kind[c];
        if (kind & ZOO_LARGE) {
            if (chunks_of(kind) == 0 || chunks_of(kind) > heap->header->chunks - c)
                return "a large block lies outside of the heap";
        } else if (kind != 0) {
            if (kind < zoo_first_class || kind > zoo_last_class)
                return "a chunk is of no kind";
            if (heap->live[c] & ~all_blocks((unsigned)kind))
                return "a chunk has more live blocks than blocks";
        }
        c += chunks_of(kind);
    }
    return NULL;
}
