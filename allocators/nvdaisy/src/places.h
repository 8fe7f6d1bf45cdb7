/* SPDX-License-Identifier: Apache-2.0 */
/*
 * places.h - what the parts of the Daisy heap know of each other; daisy.h has the theory.
 */
#ifndef DAISY_PLACES_H
#define DAISY_PLACES_H

#include <pthread.h>

#include "daisy.h"

#define DAISY_MAGIC        UINT64_C(0x3170616568796164) /* "dayheap1" */
#define DAISY_FORMAT       1u
#define DAISY_NAME         "daisy"
#define DAISY_LEAF_IDS     1024u
#define DAISY_ID_LEAVES    977u /* for 1,000,000 ids */
#define DAISY_LEAF_ANCHORS 511u
#define DAISY_STRIPES      64u

struct anchor_leaf {
    nvm_ref next;
    nvm_ref anchors[DAISY_LEAF_ANCHORS];
};
_Static_assert(sizeof(struct anchor_leaf) == 4096, "as in daisy.h");

struct daisy_root {
    uint64_t magic;
    uint64_t format;
    uint64_t size;
    uint64_t clearing;
    struct anchor_leaf anchors;
    nvm_ref ids[DAISY_LEAF_IDS];
    nvm_ref leaves[DAISY_ID_LEAVES]; /* the first is never used: its ids are above */
};
_Static_assert(offsetof(struct daisy_root, ids) == 4128, "as in daisy.h");
_Static_assert(offsetof(struct daisy_root, leaves) == 12320, "as in daisy.h");
_Static_assert(DAISY_ID_LEAVES *DAISY_LEAF_IDS >= DAISY_MAX_ID, "each id has an entry");

struct daisy_header {
    uint64_t size;
    uint32_t id;
    uint32_t anchor;
};
_Static_assert(sizeof(struct daisy_header) == 16,
               "callers' addresses stay aligned to 16");

/* What DRAM knows of a leaf: the anchors that are empty, and that no call has taken. */
struct anchor_page {
    struct anchor_leaf *leaf;
    uint64_t vacant[(DAISY_LEAF_ANCHORS + 63) / 64];
    uint32_t vacant_count;
};

struct daisy {
    nvm_heap *nvm;
    struct daisy_root *root;

    pthread_mutex_t anchors_lock; /* the four below, and every move out of an anchor */
    struct anchor_page *pages;    /* one for each leaf of the chain, in order */
    uint32_t page_count, page_capacity;
    uint64_t *open_pages; /* bit n: page n has a vacant anchor */

    pthread_mutex_t stripes[DAISY_STRIPES]; /* entries, by leaf */
    uint16_t filled[DAISY_ID_LEAVES];       /* entries of a leaf in use; 0: not counted */
};

/* --- daisy.c --- */

/* A reserved block of nvmalloc's; 0 if there is no room (errno). */
nvm_ref daisy_reserve_bytes(struct daisy *heap, uint64_t bytes);
/* A reserved block that can hold `size` bytes of the caller's behind a header; 0 if there
   is no room (errno). The caller's bytes are filled with zeros if asked. Durable. */
nvm_ref daisy_reserve(struct daisy *heap, struct daisy_header header, bool zero);
struct daisy_header *daisy_header(struct daisy *heap, nvm_ref block);

/* --- id_table.c; all but id_lock and id_each with the id's lock held --- */

pthread_mutex_t *id_lock(struct daisy *heap, uint32_t id);
/* The entry of an id; NULL if its leaf, and so the entry's block, does not exist. */
nvm_ref *id_entry(struct daisy *heap, uint32_t id);

/* The entry of an id, in a leaf that is reserved for it if there is none. */
struct id_place {
    uint32_t id;
    nvm_ref *entry;
    nvm_ref leaf; /* reserved; 0: the leaf is live */
};
/* 0 or ENOMEM.  Then either of the next two. */
int id_prepare(struct daisy *heap, uint32_t id, struct id_place *place);
/* Publishes the actions (at most 3) that fill the entry, which was empty or not, and the
   leaf with them; gives it up if that fails. */
int id_fill(struct daisy *heap, const struct id_place *place,
            const struct nvm_action *actions, size_t count, bool was_empty);
void id_give_up(struct daisy *heap, const struct id_place *place);

/* Frees the block of an entry that is not empty, and the leaf if it was the last. */
int id_free(struct daisy *heap, uint32_t id);

/* Calls visit for every id that names a block; a value other than 0 ends it.  The visitor
   may free it.  Nobody else works. */
typedef int id_fn(void *context, uint32_t id, nvm_ref block);
int id_each(struct daisy *heap, id_fn *visit, void *context);

/* --- unbound.c; all but mount and drop with anchors_lock held --- */

/* Finds the leaves and the vacant anchors of an opened heap. 0, ENOMEM, EUCLEAN. */
int anchors_mount(struct daisy *heap);
void anchors_drop(struct daisy *heap);
/* The place numbered so; NULL if there is none. */
nvm_ref *anchor_at(struct daisy *heap, uint32_t number);
/* Takes the vacant anchor with the lowest number, in a new leaf if need be; ENOMEM. */
int anchor_take(struct daisy *heap, uint32_t *number);
/* Gives back an anchor that is empty (again); gives up leaves that are not needed. */
void anchor_give_back(struct daisy *heap, uint32_t number);
/* Calls visit for every anchor that is not empty; a value other than 0 ends it. The
   visitor may empty the anchor, and must not give it back. */
typedef int anchor_fn(void *context, uint32_t number, nvm_ref *anchor);
int anchor_each(struct daisy *heap, anchor_fn *visit, void *context);
/* How many anchors are not vacant. */
size_t anchors_in_use(const struct daisy *heap);

/* --- collect.c --- */

/* Frees every anchored block that no block with an id leads to. Nobody else works. */
int daisy_collect(struct daisy *heap);

#endif
