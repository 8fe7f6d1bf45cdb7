/* SPDX-License-Identifier: Apache-2.0 */
/*
 * collect.c - which blocks without an id does a block with an id lead to?
 *
 * The blocks in question are those that are in anchors when the heap is opened; a program
 * that binds all it keeps has none, and then this takes no time.  Else every block with
 * an id is read, word by word, for offsets that lie in one of them, and each one so
 * reached is read likewise.  What is not reached is freed.
 *
 * A word may look like an offset and be none: then a block is kept that nobody wants,
 * until the word is gone.  The other error, a block freed that somebody wants, cannot
 * happen to who keeps the rule of p_mmap.h: offsets from the base, of 32 or 64 bits, at a
 * multiple of 4.
 *
 * A crash meanwhile is just another crash: each block is freed in one atomic step, and no
 * block that is to stay depends on one that is not.
 */
#include "places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A block in question: the offsets of its caller's bytes. */
struct candidate {
    uint64_t begin, end;
    uint32_t anchor;
    bool reached;
};

struct collection {
    struct daisy *heap;
    const unsigned char *base;
    struct candidate *candidates; /* by address */
    size_t count;
    size_t *pending; /* reached and not read yet */
    size_t pending_count;
};

static int by_begin(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    return (a->begin > b->begin) - (a->begin < b->begin);
}

static int add_candidate(void *context, uint32_t number, nvm_ref *anchor)
{
    struct collection *collection = context;
    const uint64_t usable = nvm_usable_size(collection->heap->nvm, *anchor);
    if (usable <= sizeof(struct daisy_header))
        return daisy_fail(EUCLEAN, "anchor %u refers to %#llx, where no block is", number,
                          (unsigned long long)*anchor);
    collection->candidates[collection->count++] = (struct candidate){
        *anchor + sizeof(struct daisy_header), *anchor + usable, number, false};
    return 0;
}

static int find_candidates(struct collection *collection)
{
    const size_t most = anchors_in_use(collection->heap);
    if (most == 0)
        return 0;
    collection->candidates = calloc(most, sizeof *collection->candidates);
    collection->pending = calloc(most, sizeof *collection->pending);
    if (collection->candidates == NULL || collection->pending == NULL)
        return daisy_fail(ENOMEM, "no DRAM for %zu blocks without an id", most);
    int error = anchor_each(collection->heap, add_candidate, collection);
    qsort(collection->candidates, collection->count, sizeof *collection->candidates,
          by_begin);
    return error;
}

/* An offset was found: if it lies in a candidate, that one is reached. */
static void reach(struct collection *collection, uint64_t offset)
{
    size_t low = 0, high = collection->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (collection->candidates[middle].begin <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return;
    struct candidate *last = &collection->candidates[low - 1];
    if (offset < last->end && !last->reached) {
        last->reached = true;
        collection->pending[collection->pending_count++] = low - 1;
    }
}

static void read_words(struct collection *collection, uint64_t begin, uint64_t end)
{
    const uint64_t first = collection->candidates[0].begin;
    const uint64_t last = collection->candidates[collection->count - 1].end;
    for (uint64_t at = begin; at + sizeof(uint32_t) <= end; at += sizeof(uint32_t)) {
        uint32_t narrow;
        memcpy(&narrow, collection->base + at, sizeof narrow);
        if (narrow >= first && narrow < last)
            reach(collection, narrow);
        if (last <= UINT32_MAX || at + sizeof(uint64_t) > end)
            continue;
        uint64_t wide;
        memcpy(&wide, collection->base + at, sizeof wide);
        if (wide > UINT32_MAX && wide < last)
            reach(collection, wide);
    }
}

static int read_bound(void *context, uint32_t id, nvm_ref block)
{
    struct collection *collection = context;
    const uint64_t usable = nvm_usable_size(collection->heap->nvm, block);
    if (usable <= sizeof(struct daisy_header))
        return daisy_fail(EUCLEAN, "id %u names %#llx, where no block is", id,
                          (unsigned long long)block);
    read_words(collection, block + sizeof(struct daisy_header), block + usable);
    while (collection->pending_count > 0) {
        size_t next = collection->pending[--collection->pending_count];
        const struct candidate *reached = &collection->candidates[next];
        read_words(collection, reached->begin, reached->end);
    }
    return 0;
}

static int free_unreached(struct collection *collection)
{
    struct daisy *heap = collection->heap;
    for (size_t i = 0; i < collection->count; i++) {
        if (collection->candidates[i].reached)
            continue;
        const uint32_t anchor = collection->candidates[i].anchor;
        int error = nvm_free_from(heap->nvm, anchor_at(heap, anchor));
        if (error != 0)
            return daisy_fail(error, "freeing what nothing leads to: %s", nvm_error());
        anchor_give_back(heap, anchor);
    }
    return 0;
}

int daisy_collect(struct daisy *heap)
{
    struct collection collection = {.heap = heap};
    size_t length;
    void *base;
    nvm_range(heap->nvm, &base, &length);
    collection.base = base;
    int error = find_candidates(&collection);
    if (error == 0 && collection.count > 0) {
        error = id_each(heap, read_bound, &collection);
        if (error == 0)
            error = free_unreached(&collection);
    }
    free(collection.candidates);
    free(collection.pending);
    return error;
}
