/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unbound.c - anchors: the places of blocks without an id.
 *
 * Leaves of anchors form a chain, the first of which lies in the root; anchor n is entry
 * n % 511 of leaf n / 511.  Which anchors are vacant is not on media: anchors_mount()
 * looks.  An anchor that a call has taken and not filled is vacant again after a crash.
 *
 * The chain grows at its end, and it shrinks there: anchors with low numbers are taken
 * first, so the last leaf is the first to become empty, and a leaf that stayed where the
 * heap once was full would keep a large block out of there.  The last leaf goes when it
 * is empty and the one before it half so (one that goes at the last anchor comes back
 * with the next).  The first leaf stays.
 */
#include "places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD 64

/* Makes room in DRAM for one page more. */
static int expect_page(struct daisy *heap)
{
    if (heap->page_count < heap->page_capacity)
        return 0;
    const uint32_t capacity = 2 * heap->page_capacity + WORD;
    struct anchor_page *pages = realloc(heap->pages, capacity * sizeof *pages);
    if (pages != NULL)
        heap->pages = pages;
    uint64_t *open_pages =
        realloc(heap->open_pages, (capacity + WORD - 1) / WORD * sizeof *open_pages);
    if (open_pages != NULL)
        heap->open_pages = open_pages;
    if (pages == NULL || open_pages == NULL)
        return daisy_fail(ENOMEM, "no DRAM for the list of unbound blocks");
    heap->page_capacity = capacity;
    return 0;
}

static void set_bit(uint64_t *words, uint32_t n, bool value)
{
    const uint64_t bit = UINT64_C(1) << n % WORD;
    words[n / WORD] = value ? words[n / WORD] | bit : words[n / WORD] & ~bit;
}

static void add_page(struct daisy *heap, struct anchor_leaf *leaf)
{
    const uint32_t number = heap->page_count++;
    struct anchor_page *page = &heap->pages[number];
    *page = (struct anchor_page){.leaf = leaf};
    for (uint32_t i = 0; i < DAISY_LEAF_ANCHORS; i++) {
        if (leaf->anchors[i] == 0) {
            set_bit(page->vacant, i, true);
            page->vacant_count++;
        }
    }
    if (number % WORD == 0)
        heap->open_pages[number / WORD] = 0;
    set_bit(heap->open_pages, number, page->vacant_count > 0);
}

void anchors_drop(struct daisy *heap)
{
    free(heap->pages);
    free(heap->open_pages);
    heap->pages = NULL;
    heap->open_pages = NULL;
    heap->page_count = heap->page_capacity = 0;
}

nvm_ref *anchor_at(struct daisy *heap, uint32_t number)
{
    const uint32_t page = number / DAISY_LEAF_ANCHORS;
    return page < heap->page_count
               ? &heap->pages[page].leaf->anchors[number % DAISY_LEAF_ANCHORS]
               : NULL;
}

static int make_leaf(struct daisy *heap)
{
    int error = expect_page(heap);
    if (error != 0)
        return error;
    nvm_ref ref = daisy_reserve_bytes(heap, sizeof(struct anchor_leaf));
    if (ref == 0)
        return errno;
    struct anchor_leaf *leaf = nvm_ptr(heap->nvm, ref);
    memset(leaf, 0, sizeof *leaf);
    nvm_persist(heap->nvm, leaf, sizeof *leaf);
    struct nvm_action action = {.kind = NVM_ACT_ALLOC,
                                .slot = &heap->pages[heap->page_count - 1].leaf->next,
                                .ref = ref};
    error = nvm_publish(heap->nvm, &action, 1);
    if (error != 0) {
        nvm_cancel(heap->nvm, ref);
        return daisy_fail(error, "a table of unbound blocks: %s", nvm_error());
    }
    add_page(heap, leaf);
    return 0;
}

/* The lowest page with a vacant anchor, or page_count. */
static uint32_t first_open_page(const struct daisy *heap)
{
    for (uint32_t word = 0; word * WORD < heap->page_count; word++) {
        if (heap->open_pages[word] != 0)
            return word * WORD + (uint32_t)__builtin_ctzll(heap->open_pages[word]);
    }
    return heap->page_count;
}

int anchor_take(struct daisy *heap, uint32_t *number)
{
    const uint32_t found = first_open_page(heap);
    int error = found == heap->page_count ? make_leaf(heap) : 0;
    if (error != 0)
        return error;
    struct anchor_page *page = &heap->pages[found];
    uint32_t word = 0;
    while (page->vacant[word] == 0)
        word++;
    const uint32_t i = word * WORD + (uint32_t)__builtin_ctzll(page->vacant[word]);
    set_bit(page->vacant, i, false);
    page->vacant_count--;
    set_bit(heap->open_pages, found, page->vacant_count > 0);
    *number = found * DAISY_LEAF_ANCHORS + i;
    return 0;
}

static void give_up_leaves(struct daisy *heap)
{
    while (heap->page_count > 1) {
        const uint32_t last = heap->page_count - 1;
        if (heap->pages[last].vacant_count < DAISY_LEAF_ANCHORS ||
            heap->pages[last - 1].vacant_count < DAISY_LEAF_ANCHORS / 2)
            return;
        if (nvm_free_from(heap->nvm, &heap->pages[last - 1].leaf->next) != 0)
            return; /* it stays, and does no harm */
        set_bit(heap->open_pages, last, false);
        heap->page_count = last;
    }
}

void anchor_give_back(struct daisy *heap, uint32_t number)
{
    struct anchor_page *page = &heap->pages[number / DAISY_LEAF_ANCHORS];
    set_bit(page->vacant, number % DAISY_LEAF_ANCHORS, true);
    page->vacant_count++;
    set_bit(heap->open_pages, number / DAISY_LEAF_ANCHORS, true);
    if (page->vacant_count == DAISY_LEAF_ANCHORS)
        give_up_leaves(heap);
}

int anchors_mount(struct daisy *heap)
{
    struct anchor_leaf *leaf = &heap->root->anchors;
    for (;;) {
        int error = expect_page(heap);
        if (error != 0)
            return error;
        add_page(heap, leaf);
        const nvm_ref next = leaf->next;
        if (next == 0)
            break;
        leaf = nvm_ptr(heap->nvm, next);
        if (nvm_usable_size(heap->nvm, next) < sizeof *leaf)
            return daisy_fail(EUCLEAN,
                              "the chain of unbound blocks leads to %#llx, where "
                              "none of its tables is",
                              (unsigned long long)next);
    }
    give_up_leaves(heap);
    return 0;
}

int anchor_each(struct daisy *heap, anchor_fn *visit, void *context)
{
    for (uint32_t n = 0; n < heap->page_count * DAISY_LEAF_ANCHORS; n++) {
        nvm_ref *anchor = anchor_at(heap, n);
        int stop = *anchor != 0 ? visit(context, n, anchor) : 0;
        if (stop != 0)
            return stop;
    }
    return 0;
}

size_t anchors_in_use(const struct daisy *heap)
{
    size_t in_use = (size_t)heap->page_count * DAISY_LEAF_ANCHORS;
    for (uint32_t page = 0; page < heap->page_count; page++)
        in_use -= heap->pages[page].vacant_count;
    return in_use;
}
