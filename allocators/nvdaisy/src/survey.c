/* SPDX-License-Identifier: Apache-2.0 */
/*
 * survey.c - the whole heap seen from outside: every block, and whether all agrees.
 */
#include "places.h"

#include <errno.h>
#include <stdlib.h>

/* ---- walk ---- */

/* What nvmalloc's heap has beside the callers' blocks. */
struct own_blocks {
    nvm_ref *refs; /* sorted */
    size_t count;
};

struct walk {
    struct daisy *heap;
    struct own_blocks own;
    daisy_walk_fn *visit;
    void *context;
};

static int by_value(const void *left, const void *right)
{
    const nvm_ref a = *(const nvm_ref *)left, b = *(const nvm_ref *)right;
    return (a > b) - (a < b);
}

static int list_own(struct daisy *heap, nvm_ref ours, struct own_blocks *own)
{
    own->count = 0;
    own->refs = calloc(DAISY_ID_LEAVES + heap->page_count + 2, sizeof *own->refs);
    if (own->refs == NULL)
        return daisy_fail(ENOMEM, "no DRAM for a walk");
    own->refs[own->count++] = nvm_off(heap->nvm, heap->root);
    if (ours != 0)
        own->refs[own->count++] = ours;
    for (unsigned i = 0; i < DAISY_ID_LEAVES; i++) {
        if (heap->root->leaves[i] != 0)
            own->refs[own->count++] = heap->root->leaves[i];
    }
    for (uint32_t i = 1; i < heap->page_count; i++) /* the first is in the root */
        own->refs[own->count++] = nvm_off(heap->nvm, heap->pages[i].leaf);
    qsort(own->refs, own->count, sizeof *own->refs, by_value);
    return 0;
}

static int visit_block(void *context, void *block, size_t usable)
{
    const struct walk *walk = context;
    const nvm_ref ref = nvm_off(walk->heap->nvm, block);
    if (bsearch(&ref, walk->own.refs, walk->own.count, sizeof ref, by_value) != NULL)
        return 0;
    const size_t header = sizeof(struct daisy_header);
    return walk->visit(walk->context, (unsigned char *)block + header,
                       usable > header ? usable - header : 0);
}

int daisy_walk(struct daisy *heap, nvm_ref ours, daisy_walk_fn *visit, void *context)
{
    struct walk walk = {.heap = heap, .visit = visit, .context = context};
    int result = list_own(heap, ours, &walk.own);
    if (result == 0)
        result = nvm_walk(heap->nvm, visit_block, &walk);
    free(walk.own.refs);
    return result;
}

int daisy_live(struct daisy *heap, nvm_ref ours, uint64_t *bytes)
{
    struct own_blocks own;
    int error = list_own(heap, ours, &own);
    if (error != 0)
        return error;
    struct nvm_heap_stats stats;
    nvm_stats(heap->nvm, &stats);
    *bytes =
        stats.live_bytes - (stats.live_blocks - own.count) * sizeof(struct daisy_header);
    for (size_t i = 0; i < own.count; i++)
        *bytes -= nvm_usable_size(heap->nvm, own.refs[i]);
    free(own.refs);
    return 0;
}

/* ---- check ---- */

static int check_block(struct daisy *heap, nvm_ref block, const char *place,
                       uint32_t number, uint32_t named)
{
    const uint64_t usable = nvm_usable_size(heap->nvm, block);
    const struct daisy_header *header = daisy_header(heap, block);
    if (usable <= sizeof *header)
        return daisy_fail(EUCLEAN, "%s %u refers to %#llx, where no block is", place,
                          number, (unsigned long long)block);
    if (named != number)
        return daisy_fail(EUCLEAN, "%s %u refers to %#llx, whose header says %s %u",
                          place, number, (unsigned long long)block, place, named);
    if (header->size > usable - sizeof *header)
        return daisy_fail(EUCLEAN, "%s %u: the block at %#llx has %llu bytes, not %llu",
                          place, number, (unsigned long long)block,
                          (unsigned long long)usable, (unsigned long long)header->size);
    return 0;
}

static int check_id(void *context, uint32_t id, nvm_ref block)
{
    struct daisy *heap = context;
    const uint64_t usable = nvm_usable_size(heap->nvm, block);
    return check_block(heap, block, "id", id,
                       usable != 0 ? daisy_header(heap, block)->id : 0);
}

static int check_anchor(void *context, uint32_t number, nvm_ref *anchor)
{
    struct daisy *heap = context;
    const uint64_t usable = nvm_usable_size(heap->nvm, *anchor);
    return check_block(heap, *anchor, "anchor", number,
                       usable != 0 ? daisy_header(heap, *anchor)->anchor : UINT32_MAX);
}

int daisy_check(struct daisy *heap)
{
    int error = nvm_check(heap->nvm);
    if (error != 0)
        return daisy_fail(error, "%s", nvm_error());
    error = id_each(heap, check_id, heap);
    return error == 0 ? anchor_each(heap, check_anchor, heap) : error;
}
