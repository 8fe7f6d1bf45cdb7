/* SPDX-License-Identifier: Apache-2.0 */
/*
 * id_table.c - from an id to its entry, by two steps.
 *
 * The entries of ids 1 to 1024 lie in the root; those of the others in leaves, for which
 * the root has slots.
 *
 *     a leaf is live  iff  one of its entries is not empty
 *
 * at every instant, as far as a crash can tell: the first entry to be filled is published
 * together with its leaf, the last one freed together with it.  So no table is left
 * behind where the heap once was full, to keep a large block out of there.
 *
 * How many entries of a leaf are not empty is counted when that is first asked for, and
 * kept in DRAM from then on.  One lock serves all ids of a leaf, so that a leaf stays
 * while one looks at it.
 */
#include "places.h"

#include <errno.h>
#include <string.h>

#define LEAF_BYTES (DAISY_LEAF_IDS * sizeof(nvm_ref))

static uint32_t leaf_of(uint32_t id)
{
    return (id - 1) / DAISY_LEAF_IDS;
}

/* The entries of a leaf; NULL if it is not there. */
static nvm_ref *entries_of(struct daisy *heap, uint32_t leaf)
{
    return leaf == 0 ? heap->root->ids : nvm_ptr(heap->nvm, heap->root->leaves[leaf]);
}

pthread_mutex_t *id_lock(struct daisy *heap, uint32_t id)
{
    return &heap->stripes[leaf_of(id) % DAISY_STRIPES];
}

nvm_ref *id_entry(struct daisy *heap, uint32_t id)
{
    nvm_ref *entries = entries_of(heap, leaf_of(id));
    return entries == NULL ? NULL : &entries[(id - 1) % DAISY_LEAF_IDS];
}

/* ---- filling ---- */

int id_prepare(struct daisy *heap, uint32_t id, struct id_place *place)
{
    *place = (struct id_place){.id = id, .entry = id_entry(heap, id)};
    if (place->entry != NULL)
        return 0;
    place->leaf = daisy_reserve_bytes(heap, LEAF_BYTES);
    if (place->leaf == 0)
        return errno;
    nvm_ref *entries = nvm_ptr(heap->nvm, place->leaf);
    memset(entries, 0, LEAF_BYTES);
    nvm_persist(heap->nvm, entries, LEAF_BYTES);
    place->entry = &entries[(id - 1) % DAISY_LEAF_IDS];
    return 0;
}

int id_fill(struct daisy *heap, const struct id_place *place,
            const struct nvm_action *actions, size_t count, bool was_empty)
{
    const uint32_t leaf = leaf_of(place->id);
    struct nvm_action all[4];
    size_t n = 0;
    if (place->leaf != 0)
        all[n++] = (struct nvm_action){
            .kind = NVM_ACT_ALLOC, .slot = &heap->root->leaves[leaf], .ref = place->leaf};
    memcpy(all + n, actions, count * sizeof *actions);
    int error = nvm_publish(heap->nvm, all, n + count);
    if (error != 0) {
        daisy_fail(error, "id %u: %s", place->id, nvm_error());
        id_give_up(heap, place);
        return error;
    }
    if (place->leaf != 0)
        heap->filled[leaf] = 1;
    else if (was_empty && heap->filled[leaf] != 0)
        heap->filled[leaf]++;
    return 0;
}

void id_give_up(struct daisy *heap, const struct id_place *place)
{
    if (place->leaf != 0)
        nvm_cancel(heap->nvm, place->leaf);
}

/* ---- emptying ---- */

/* Entries of a live leaf that are not empty. */
static uint16_t count_filled(struct daisy *heap, uint32_t leaf)
{
    if (heap->filled[leaf] == 0) {
        const nvm_ref *entries = entries_of(heap, leaf);
        for (uint32_t i = 0; i < DAISY_LEAF_IDS; i++)
            heap->filled[leaf] += entries[i] != 0;
    }
    return heap->filled[leaf];
}

int id_free(struct daisy *heap, uint32_t id)
{
    const uint32_t leaf = leaf_of(id);
    const struct nvm_action actions[2] = {
        {.kind = NVM_ACT_FREE, .slot = id_entry(heap, id)},
        {.kind = NVM_ACT_FREE, .slot = &heap->root->leaves[leaf]}};
    const bool last = leaf != 0 && count_filled(heap, leaf) == 1;
    int error = last ? nvm_publish(heap->nvm, actions, 2)
                     : nvm_free_from(heap->nvm, actions[0].slot);
    if (error != 0)
        return daisy_fail(error, "freeing id %u: %s", id, nvm_error());
    if (leaf != 0)
        heap->filled[leaf]--;
    return 0;
}

/* ---- all of them ---- */

int id_each(struct daisy *heap, id_fn *visit, void *context)
{
    for (uint32_t id = 1; id <= DAISY_ID_LEAVES * DAISY_LEAF_IDS; id++) {
        const nvm_ref *entry = id_entry(heap, id);
        if (entry == NULL) { /* its leaf is not there, or went with the last entry */
            id = (leaf_of(id) + 1) * DAISY_LEAF_IDS;
            continue;
        }
        int stop = *entry != 0 ? visit(context, id, *entry) : 0;
        if (stop != 0)
            return stop;
    }
    return 0;
}
