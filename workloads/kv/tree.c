// SPDX-License-Identifier: Apache-2.0
/*
 * tree.c - an index that is a B+-tree: leaves are durable pages, the inner part is in
 * DRAM (fences.h) and rebuilt when the store is opened, as in Oukid et al., FPTree,
 * SIGMOD 2016.
 *
 * A leaf, aligned to 16:
 *   offset  0  u64 low: its first possible key
 *           8  u64 next: number of the next leaf's page, plus one; 0: none
 *          16  ENTRIES entries (internal.h), in no order
 * An entry of a leaf counts iff its record is not 0 and its key is below the next leaf's
 * low.
 *
 * Splitting a full leaf:
 *   1. a new page gets the upper half of the entries, low and next;      persist
 *   2. the old leaf's next becomes the new page: 8 bytes, and with them the
 *      upper entries of the old leaf cease to count;                     persist
 *   3. the upper entries of the old leaf are emptied, to make room; that need
 *      not be durable, since they don't count any more.
 * After a crash before 2 the new page is named by nobody and freed; after it, 3 is done
 * again.  Leaves are never merged: YCSB's core workloads delete nothing.
 *
 * Locks.  "The shape" (which leaf has which keys) has a lock for each session: a search
 * takes its own session's, a split all of them, lowest first.  Whoever has found
 * a leaf takes its lock before he lets the shape go, so a leaf cannot be split under him.
 * A scan goes from leaf to leaf by `next`, one lock at a time: keys move to the right
 * only, so nothing that was there from the beginning is missed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fences.h"
#include "internal.h"

#define ENTRIES 63u

struct leaf {
    uint64_t low;
    _Atomic uint64_t next;
    struct nvk_entry entries[ENTRIES];
};
_Static_assert(sizeof(struct leaf) == 1024, "sixteen cache lines");

struct tree {
    struct nvk_fences *fences;
    struct nvk_lock *shape; /* one for each session */
};

/* A leaf's entry, copied out. */
struct pair {
    uint64_t key, record;
};

static size_t tree_pages(const struct nvk_config *config)
{
    /* A split leaves half a leaf at least. */
    return (size_t)(config->capacity / (ENTRIES / 2)) + 2;
}

static struct leaf *leaf_at(const struct nvk_store *store, uint64_t number)
{
    return nvk_page(store, number);
}

static uint64_t next_of(const struct leaf *leaf)
{
    return atomic_load_explicit(&leaf->next, memory_order_acquire);
}

static uint64_t record_of(const struct nvk_entry *entry)
{
    return atomic_load_explicit(&entry->record, memory_order_relaxed);
}

/* ---- creating, opening ---- */

static int begin(struct nvk_store *store)
{
    struct tree *tree = calloc(1, sizeof *tree);
    if (tree == NULL)
        return ENOMEM;
    store->index = tree;
    const size_t bytes = store->config.threads * sizeof *tree->shape;
    tree->fences = nvk_fences_new();
    tree->shape = aligned_alloc(NVD_CACHE_ALIGN, bytes);
    if (tree->fences == NULL || tree->shape == NULL)
        return ENOMEM; /* nvk_forget() clears up */
    memset(tree->shape, 0, bytes);
    return 0;
}

static void tree_forget(struct nvk_store *store)
{
    struct tree *tree = store->index;
    if (tree->fences != NULL)
        nvk_fences_free(tree->fences);
    free(tree->shape);
    free(tree);
}

static int tree_create(struct nvk_store *store, uint64_t *root)
{
    int error = begin(store);
    if (error == 0)
        error = nvk_page_make(store, root);
    return error == 0 ? nvk_fences_add(((struct tree *)store->index)->fences, 0, *root)
                      : error;
}

/* Step 3 of a split: how many entries were emptied. */
static uint64_t empty_from(struct leaf *leaf, uint64_t end)
{
    uint64_t emptied = 0;
    for (unsigned i = 0; i < ENTRIES; i++)
        if (record_of(&leaf->entries[i]) != 0 && leaf->entries[i].key >= end) {
            atomic_store_explicit(&leaf->entries[i].record, 0, memory_order_relaxed);
            emptied++;
        }
    return emptied;
}

static int tree_open(struct nvk_store *store, uint64_t root, struct nvk_repairs *repairs)
{
    int error = begin(store);
    uint64_t number = root, after = 0;
    while (error == 0) {
        error = nvk_page_seen(store, number);
        if (error != 0)
            break;
        struct leaf *leaf = leaf_at(store, number);
        const uint64_t next = next_of(leaf);
        if (leaf->low < after || (number == root && leaf->low != 0))
            return nvk_broken("leaf %llu begins at %#llx, below the one before it",
                              (unsigned long long)number, (unsigned long long)leaf->low);
        error = nvk_fences_add(((struct tree *)store->index)->fences, leaf->low, number);
        if (error != 0 || next == 0)
            break;
        error =
            next - 1 < store->page_count && leaf_at(store, next - 1) != NULL
                ? 0
                : nvk_broken("leaf %llu names page %llu, which there is not",
                             (unsigned long long)number, (unsigned long long)next - 1);
        if (error == 0)
            repairs->entries_dropped += empty_from(leaf, leaf_at(store, next - 1)->low);
        after = leaf->low + 1;
        number = next - 1;
    }
    return error;
}

/* ---- searching ---- */

/* The leaf that has the key, locked. */
static struct leaf *find_leaf(struct nvk_session *session, uint64_t key,
                              struct nvk_lock **held)
{
    struct nvk_store *store = session->store;
    struct tree *tree = store->index;
    struct nvk_lock *shape = &tree->shape[session->thread];
    nvk_take(shape);
    uint64_t number = nvk_fences_find(tree->fences, key);
    *held = nvk_lock_of(store, number);
    nvk_take(*held);
    nvk_unlock(shape);
    return leaf_at(store, number);
}

static struct nvk_record *tree_find(struct nvk_session *session, uint64_t key,
                                    struct nvk_lock **held)
{
    const struct leaf *leaf = find_leaf(session, key, held);
    for (unsigned i = 0; i < ENTRIES; i++)
        if (leaf->entries[i].key == key && record_of(&leaf->entries[i]) != 0)
            return nvk_record_at(session->store, record_of(&leaf->entries[i]) - 1);
    return NULL;
}

/* ---- adding ---- */

static int compare(const void *left, const void *right)
{
    const struct pair *a = left, *b = right;
    return a->key < b->key ? -1 : a->key > b->key;
}

/* The leaf's entries with keys from `first` on, in order. */
static unsigned sorted(const struct leaf *leaf, uint64_t first, struct pair *pairs)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ENTRIES; i++) {
        uint64_t record = record_of(&leaf->entries[i]);
        if (record != 0 && leaf->entries[i].key >= first)
            pairs[count++] = (struct pair){leaf->entries[i].key, record};
    }
    qsort(pairs, count, sizeof *pairs, compare);
    return count;
}

/* The leaf is full and locked, and so is the shape. */
static int split_leaf(struct nvk_session *session, struct leaf *leaf)
{
    struct nvk_store *store = session->store;
    struct tree *tree = store->index;
    struct pair pairs[ENTRIES];
    unsigned count = sorted(leaf, 0, pairs), kept = count / 2;
    uint64_t number;
    int error = nvk_page_make(store, &number);
    if (error == 0)
        error = nvk_fences_add(tree->fences, pairs[kept].key, number);
    if (error != 0)
        return error; /* a page that was made is freed at the next open */
    session->allocs++;
    struct leaf *upper = leaf_at(store, number);
    upper->low = pairs[kept].key;
    atomic_store_explicit(&upper->next, next_of(leaf), memory_order_relaxed);
    for (unsigned i = kept; i < count; i++) {
        upper->entries[i - kept].key = pairs[i].key;
        atomic_store_explicit(&upper->entries[i - kept].record, pairs[i].record,
                              memory_order_relaxed);
    }
    nvk_persist(store, upper, sizeof *upper);
    atomic_store_explicit(&leaf->next, number + 1, memory_order_release);
    nvk_persist(store, &leaf->next, sizeof leaf->next);
    empty_from(leaf, upper->low);
    return 0;
}

/* Makes room where the key belongs, unless somebody else has done so meanwhile. */
static int make_room(struct nvk_session *session, uint64_t key)
{
    struct nvk_store *store = session->store;
    struct tree *tree = store->index;
    const unsigned sessions = store->config.threads;
    for (unsigned i = 0; i < sessions; i++)
        nvk_take(&tree->shape[i]);
    uint64_t number = nvk_fences_find(tree->fences, key);
    struct nvk_lock *lock = nvk_lock_of(store, number);
    nvk_take(lock);
    struct leaf *leaf = leaf_at(store, number);
    unsigned used = 0;
    while (used < ENTRIES && record_of(&leaf->entries[used]) != 0)
        used++;
    int error = used == ENTRIES ? split_leaf(session, leaf) : 0;
    nvk_unlock(lock);
    for (unsigned i = 0; i < sessions; i++)
        nvk_unlock(&tree->shape[i]);
    return error;
}

/* ENOSPC when the leaf is full. */
static int add_to_leaf(struct nvk_session *session, uint64_t key, uint64_t record)
{
    struct nvk_lock *held;
    struct leaf *leaf = find_leaf(session, key, &held);
    unsigned empty = ENTRIES;
    int error = 0;
    for (unsigned i = 0; i < ENTRIES; i++) {
        if (record_of(&leaf->entries[i]) == 0)
            empty = empty == ENTRIES ? i : empty;
        else if (leaf->entries[i].key == key)
            error = EEXIST;
    }
    if (error == 0 && empty < ENTRIES)
        nvk_write_entry(session->store, &leaf->entries[empty], key, record);
    else if (error == 0)
        error = ENOSPC;
    nvk_unlock(held);
    return error;
}

static int tree_add(struct nvk_session *session, uint64_t key, uint64_t record)
{
    int error;
    while ((error = add_to_leaf(session, key, record)) == ENOSPC) {
        error = make_room(session, key);
        if (error != 0)
            return error;
    }
    return error;
}

/* ---- all of them ---- */

static int tree_scan(struct nvk_session *session, uint64_t first, size_t count,
                     void *buffer, nvk_visit_fn *visit, void *context)
{
    struct nvk_store *store = session->store;
    struct nvk_lock *held;
    const struct leaf *leaf = find_leaf(session, first, &held);
    int stop = 0;
    for (;;) {
        struct pair pairs[ENTRIES];
        unsigned found = sorted(leaf, first, pairs);
        for (unsigned i = 0; stop == 0 && count > 0 && i < found; i++, count--) {
            const struct nvk_record *record = nvk_record_at(store, pairs[i].record - 1);
            memcpy(buffer, nvk_record_value(store, record), store->config.value_bytes);
            stop = visit(context, pairs[i].key, buffer);
        }
        const uint64_t next = next_of(leaf);
        nvk_unlock(held);
        if (stop != 0 || count == 0 || next == 0)
            return stop;
        held = nvk_lock_of(store, next - 1);
        nvk_take(held);
        leaf = leaf_at(store, next - 1);
    }
}

static int tree_entries(struct nvk_store *store,
                        int (*visit)(struct nvk_store *, uint64_t, uint64_t))
{
    uint64_t number = nvk_fences_find(((struct tree *)store->index)->fences, 0);
    for (;;) {
        const struct leaf *leaf = leaf_at(store, number);
        const uint64_t next = next_of(leaf);
        for (unsigned i = 0; i < ENTRIES; i++) {
            const struct nvk_entry *entry = &leaf->entries[i];
            if (record_of(entry) == 0)
                continue;
            if (entry->key < leaf->low ||
                (next != 0 && entry->key >= leaf_at(store, next - 1)->low))
                return nvk_broken("key %#llx lies in leaf %llu",
                                  (unsigned long long)entry->key,
                                  (unsigned long long)number);
            int error = visit(store, entry->key, record_of(entry) - 1);
            if (error != 0)
                return error;
        }
        if (next == 0)
            return 0;
        number = next - 1;
    }
}

const struct nvk_index_ops nvk_tree_ops = {
    .page_bytes = sizeof(struct leaf),
    .pages = tree_pages,
    .create = tree_create,
    .open = tree_open,
    .forget = tree_forget,
    .find = tree_find,
    .add = tree_add,
    .scan = tree_scan,
    .entries = tree_entries,
};
