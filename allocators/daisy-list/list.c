/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - walking and cutting the list; list.h has the theory.
 */
#include "list.h"

#include <errno.h>
#include <string.h>

#define HEADER  sizeof(struct chunk)
#define UNIT    8 /* payloads are multiples of it */
#define FIRST   NATIVE_HEAP_FIRST
#define DAMAGED UINT64_MAX

static struct chunk *chunk_at(const struct nvc_heap *heap, uint64_t at)
{
    return (struct chunk *)(void *)(heap->region.base + at);
}

static uint64_t end_of(const struct nvc_heap *heap)
{
    return heap->region.bytes / UNIT * UNIT;
}

static void write_header(struct nvc_heap *heap, uint64_t at, struct chunk header)
{
    struct chunk *chunk = chunk_at(heap, at);
    *chunk = header;
    native_heap_persist(chunk, sizeof *chunk);
}

/* The chunk after the one at an offset: 0 after the last, DAMAGED if this one is
   none. */
static uint64_t next_of(const struct nvc_heap *heap, uint64_t at)
{
    const struct chunk *chunk = chunk_at(heap, at);
    const uint64_t left = end_of(heap) - at - HEADER;
    if (chunk->size % UNIT == 0 && chunk->size <= left) {
        const uint64_t behind = at + HEADER + chunk->size;
        if (chunk->next == 0 && chunk->size == left)
            return 0;
        if (chunk->next == behind && left - chunk->size >= HEADER)
            return behind;
    }
    native_heap_fail(EUCLEAN,
                     "the list ends at offset %#llx: size %#llx and next %#llx don't fit",
                     (unsigned long long)at, (unsigned long long)chunk->size,
                     (unsigned long long)chunk->next);
    return DAMAGED;
}

void list_clear(struct nvc_heap *heap)
{
    write_header(heap, FIRST, (struct chunk){.size = end_of(heap) - FIRST - HEADER});
}

int list_mount(struct nvc_heap *heap)
{
    heap->live = heap->unused = 0;
    for (uint64_t at = FIRST; at != 0;) {
        const struct chunk *chunk = chunk_at(heap, at);
        const uint64_t next = next_of(heap, at);
        if (next == DAMAGED)
            return EUCLEAN;
        if (chunk->id == 0) {
            heap->unused += chunk->size;
        } else {
            heap->live += chunk->size;
            /* Like a search that ends where it first meets the id. */
            if (chunk->id <= heap->region.slots && heap->addresses[chunk->id - 1] == 0)
                heap->addresses[chunk->id - 1] = at + HEADER;
        }
        at = next;
    }
    return 0;
}

/* Joins a free chunk with the free ones behind it. Returns the chunk behind them. */
static uint64_t merge_from(struct nvc_heap *heap, uint64_t at, uint64_t next)
{
    struct chunk joined = *chunk_at(heap, at);
    const uint64_t before = joined.size;
    while (next != 0 && next != DAMAGED && chunk_at(heap, next)->id == 0) {
        const uint64_t behind = next_of(heap, next);
        if (behind == DAMAGED)
            return DAMAGED;
        joined.size += HEADER + chunk_at(heap, next)->size;
        joined.next = behind;
        heap->unused += HEADER;
        next = behind;
    }
    if (joined.size != before)
        write_header(heap, at, joined);
    return next;
}

/* Gives a free chunk to an id and what is more than `size` of it to a new free
   chunk behind it, where that is enough for a header. */
static void cut(struct nvc_heap *heap, uint64_t at, uint64_t id, uint64_t size)
{
    const struct chunk old = *chunk_at(heap, at);
    heap->unused -= old.size;
    if (old.size - size < HEADER) {
        write_header(heap, at, (struct chunk){id, old.size, old.next});
        heap->live += old.size;
        return;
    }
    const uint64_t behind = at + HEADER + size;
    const uint64_t rest = old.size - size - HEADER;
    write_header(heap, at, (struct chunk){id, size, behind});
    write_header(heap, behind, (struct chunk){0, rest, old.next});
    heap->live += size;
    heap->unused += rest;
}

uint64_t list_malloc(struct nvc_heap *heap, uint64_t id, uint64_t size, int *error)
{
    *error = 0;
    if (size > heap->region.bytes)
        return 0;
    size = (size + UNIT - 1) / UNIT * UNIT;
    for (uint64_t at = FIRST; at != 0;) {
        const struct chunk *chunk = chunk_at(heap, at);
        uint64_t next = next_of(heap, at);
        if (chunk->id == 0) {
            if (heap->merge)
                next = merge_from(heap, at, next);
            if (next != DAMAGED && chunk->size >= size) {
                cut(heap, at, id, size);
                return at + HEADER;
            }
        }
        if (next == DAMAGED) {
            *error = EUCLEAN;
            return 0;
        }
        at = next;
    }
    return 0;
}

int list_free(struct nvc_heap *heap, uint64_t id)
{
    for (uint64_t at = FIRST; at != 0;) {
        struct chunk found = *chunk_at(heap, at);
        if (found.id == id) {
            memset(heap->region.base + at + HEADER, 0, found.size);
            found.id = 0;
            write_header(heap, at, found);
            heap->live -= found.size;
            heap->unused += found.size;
            return 0;
        }
        at = next_of(heap, at);
        if (at == DAMAGED)
            return EUCLEAN;
    }
    return native_heap_fail(EINVAL, "no chunk has the id %llu", (unsigned long long)id);
}

uint64_t list_usable(const struct nvc_heap *heap, uint64_t payload)
{
    return chunk_at(heap, payload - HEADER)->size;
}

int list_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    for (uint64_t at = FIRST; at != 0;) {
        const struct chunk *chunk = chunk_at(heap, at);
        if (chunk->id != 0) {
            struct nvc_block block = {heap->region.base + at + HEADER, chunk->size};
            int stop = visit(context, block);
            if (stop != 0)
                return stop;
        }
        at = next_of(heap, at);
        if (at == DAMAGED)
            return EUCLEAN;
    }
    return 0;
}
