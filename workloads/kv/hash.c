// SPDX-License-Identifier: Apache-2.0
/*
 * hash.c - an index that is a hash table of buckets in pages.
 *
 * A page, aligned to 16:
 *   offset  0  u64 next: number of the page that continues the bucket, plus one; 0: none
 *           8  u64 unused
 *          16  ENTRIES entries (internal.h)
 * Bucket b begins in page b.  There are so many that half of their entries are in use
 * when the store is full; they are made with it and never split (the number of records
 * is known), and a bucket that overflows gets another page.
 *
 * The entries of a bucket are filled in order, and never emptied: the first empty one
 * ends it.
 */
#include <errno.h>

#include "internal.h"

#define ENTRIES 15u

struct page {
    _Atomic uint64_t next;
    uint64_t unused;
    struct nvk_entry entries[ENTRIES];
};
_Static_assert(sizeof(struct page) == 256, "four cache lines");

static uint64_t buckets(const struct nvk_config *config)
{
    return config->capacity * 2 / ENTRIES + 1;
}

static size_t hash_pages(const struct nvk_config *config)
{
    /* At this load some 1 % of the buckets overflow (Poisson, mean 7.5); with a quarter
       more pages even a poor hash of the keys is served. */
    return (size_t)(buckets(config) + buckets(config) / 4 + 16);
}

static uint64_t bucket_of(const struct nvk_store *store, uint64_t key)
{
    return nvk_mix(key) % buckets(&store->config);
}

static struct page *next_page(const struct nvk_store *store, const struct page *page)
{
    uint64_t next = atomic_load_explicit(&page->next, memory_order_acquire);
    return next == 0 ? NULL : nvk_page(store, next - 1);
}

static int hash_create(struct nvk_store *store, uint64_t *root)
{
    const uint64_t count = buckets(&store->config);
    int error = 0;
    *root = 0;
    for (uint64_t i = 0, number; error == 0 && i < count; i++) {
        error = nvk_page_make(store, &number);
        if (error == 0 && number != i)
            error = nvk_broken("page %llu was made where %llu was due",
                               (unsigned long long)number, (unsigned long long)i);
    }
    return error;
}

static int hash_open(struct nvk_store *store, uint64_t root, struct nvk_repairs *repairs)
{
    (void)root;
    (void)repairs;
    const uint64_t count = buckets(&store->config);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t next = i + 1;
        while (next != 0) {
            int error = nvk_page_seen(store, next - 1);
            if (error != 0)
                return error;
            const struct page *page = nvk_page(store, next - 1);
            next = atomic_load_explicit(&page->next, memory_order_relaxed);
        }
    }
    return 0;
}

static void hash_forget(struct nvk_store *store)
{
    (void)store;
}

static struct nvk_record *hash_find(struct nvk_session *session, uint64_t key,
                                    struct nvk_lock **held)
{
    struct nvk_store *store = session->store;
    uint64_t bucket = bucket_of(store, key);
    *held = nvk_lock_of(store, bucket);
    nvk_take(*held);
    for (const struct page *page = nvk_page(store, bucket); page != NULL;
         page = next_page(store, page))
        for (unsigned i = 0; i < ENTRIES; i++) {
            const struct nvk_entry *entry = &page->entries[i];
            uint64_t record = atomic_load_explicit(&entry->record, memory_order_relaxed);
            if (record == 0)
                return NULL;
            if (entry->key == key)
                return nvk_record_at(store, record - 1);
        }
    return NULL;
}

/* A page more for a bucket whose last page this is. */
static struct page *grow(struct nvk_session *session, struct page *last, int *error)
{
    struct nvk_store *store = session->store;
    uint64_t number;
    *error = nvk_page_make(store, &number);
    if (*error != 0)
        return NULL;
    session->allocs++;
    atomic_store_explicit(&last->next, number + 1, memory_order_release);
    nvk_persist(store, &last->next, sizeof last->next);
    return nvk_page(store, number);
}

static int hash_add(struct nvk_session *session, uint64_t key, uint64_t record)
{
    struct nvk_store *store = session->store;
    uint64_t bucket = bucket_of(store, key);
    struct nvk_lock *lock = nvk_lock_of(store, bucket);
    int error = ENOENT;
    nvk_take(lock);
    for (struct page *page = nvk_page(store, bucket); error == ENOENT;) {
        for (unsigned i = 0; error == ENOENT && i < ENTRIES; i++) {
            struct nvk_entry *entry = &page->entries[i];
            if (atomic_load_explicit(&entry->record, memory_order_relaxed) == 0) {
                nvk_write_entry(store, entry, key, record);
                error = 0;
            } else if (entry->key == key) {
                error = EEXIST;
            }
        }
        struct page *next = next_page(store, page);
        if (error == ENOENT && next == NULL) {
            int grown = 0;
            next = grow(session, page, &grown);
            error = grown != 0 ? grown : ENOENT;
        }
        page = next;
    }
    nvk_unlock(lock);
    return error;
}

static int hash_scan(struct nvk_session *session, uint64_t first, size_t count,
                     void *buffer, nvk_visit_fn *visit, void *context)
{
    (void)session;
    (void)first;
    (void)count;
    (void)buffer;
    (void)visit;
    (void)context;
    return ENOTSUP; /* a hash has no order */
}

static int hash_entries(struct nvk_store *store,
                        int (*visit)(struct nvk_store *, uint64_t, uint64_t))
{
    const uint64_t count = buckets(&store->config);
    for (uint64_t bucket = 0; bucket < count; bucket++)
        for (const struct page *page = nvk_page(store, bucket); page != NULL;
             page = next_page(store, page))
            for (unsigned i = 0; i < ENTRIES; i++) {
                const struct nvk_entry *entry = &page->entries[i];
                uint64_t record =
                    atomic_load_explicit(&entry->record, memory_order_relaxed);
                if (record == 0)
                    continue;
                if (bucket_of(store, entry->key) != bucket)
                    return nvk_broken("key %#llx lies in bucket %llu",
                                      (unsigned long long)entry->key,
                                      (unsigned long long)bucket);
                int error = visit(store, entry->key, record - 1);
                if (error != 0)
                    return error;
            }
    return 0;
}

const struct nvk_index_ops nvk_hash_ops = {
    .page_bytes = sizeof(struct page),
    .pages = hash_pages,
    .create = hash_create,
    .open = hash_open,
    .forget = hash_forget,
    .find = hash_find,
    .add = hash_add,
    .scan = hash_scan,
    .entries = hash_entries,
};
