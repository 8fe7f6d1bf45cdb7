/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - what the parts of the store share.
 */
#ifndef NVK_INTERNAL_H
#define NVK_INTERNAL_H

#include <stdatomic.h>

#include "store.h"
#include "workload.h"

#define NVK_RECORDS_PER_CHUNK 32u
#define NVK_LOCKS             4096u /* of buckets or leaves, by number */

/* A spin lock with a line of its own. */
struct nvk_lock {
    _Alignas(NVD_CACHE_ALIGN) atomic_bool taken;
};

/* An entry of the index; empty if record is 0, else it means record - 1.
   Rule 4 of store.h: aligned to 16, key before record. */
struct nvk_entry {
    uint64_t key;
    _Atomic uint64_t record;
};
_Static_assert(sizeof(struct nvk_entry) == 16, "four in a cache line");

/* A record, as it lies in its chunk: this, then its two slots.
 *   offset 0   u64 key
 *          8   u64 current: 0 no value, 1 the first slot's, 2 the second one's
 *         16   slot, slot_size bytes
 *   16 + s     slot, slot_size bytes
 * Key and `current` share a line, because a record is aligned to 16. */
struct nvk_record {
    uint64_t key;
    _Atomic uint64_t current;
};
_Static_assert(sizeof(struct nvk_record) == 16, "the slots follow");

/* The index's functions.  All but find, add and scan are called by one thread alone. */
struct nvk_index_ops {
    size_t page_bytes;
    size_t (*pages)(const struct nvk_config *config); /* at most */
    /* Makes the empty index; *root is kept in the head. */
    int (*create)(struct nvk_store *store, uint64_t *root);
    /* Finds the pages of an index, noting each with nvk_page_seen(); repairs it. */
    int (*open)(struct nvk_store *store, uint64_t root, struct nvk_repairs *repairs);
    void (*forget)(struct nvk_store *store);
    /* Locks what holds the key, and finds its record: NULL if there is none.  The lock
       is held until nvk_unlock(). */
    struct nvk_record *(*find)(struct nvk_session *session, uint64_t key,
                               struct nvk_lock **held);
    /* Adds an entry for a record that is durable; EEXIST if the key has one. */
    int (*add)(struct nvk_session *session, uint64_t key, uint64_t record);
    int (*scan)(struct nvk_session *session, uint64_t first, size_t count, void *buffer,
                nvk_visit_fn *visit, void *context);
    /* Calls visit() for each entry; EUCLEAN if the entries are not in order. */
    int (*entries)(struct nvk_store *store,
                   int (*visit)(struct nvk_store *store, uint64_t key, uint64_t record));
};

extern const struct nvk_index_ops nvk_hash_ops, nvk_tree_ops;

struct nvk_store {
    struct nvk_config config;
    const struct nvk_index_ops *ops;
    char *table; /* the driver's slots */
    size_t slot_size;
    size_t record_bytes;
    uint64_t identity; /* of this store among all that ever lay in this memory */

    /* By chunk and page number: the block's address, NULL if there is none. */
    size_t chunk_count, page_count;
    char **chunks;
    _Atomic(char *) *pages;

    struct nvk_lock *locks;
    struct nvk_lock free_lock;    /* guards what follows */
    size_t next_chunk, next_page; /* from here on, look for an empty one */
    uint64_t *free_records;       /* a stack, after nvk_open() */
    size_t free_count;

    void *index;         /* the index's own state in DRAM */
    unsigned char *seen; /* a byte a page or a record, during open and check */
    uint64_t counted;
};

static inline void nvk_take(struct nvk_lock *lock)
{
    unsigned spins = 0;
    while (atomic_exchange_explicit(&lock->taken, true, memory_order_acquire))
        nvd_pause(&spins);
}

static inline void nvk_unlock(struct nvk_lock *lock)
{
    atomic_store_explicit(&lock->taken, false, memory_order_release);
}

static inline struct nvk_lock *nvk_lock_of(struct nvk_store *store, uint64_t number)
{
    return &store->locks[number % NVK_LOCKS];
}

/* EUCLEAN, and the reason. */
int nvk_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A mix of 64 bits into 64 (the finaliser of MurmurHash3; Appleby). */
uint64_t nvk_mix(uint64_t value);

static inline void nvk_persist(const struct nvk_store *store, const void *address,
                               size_t length)
{
    store->config.adapter->persist(store->config.heap, address, length);
}

/* The block that a slot refers to, NULL if it is empty. */
static inline char *nvk_block(const struct nvk_store *store, const void *slot)
{
    const struct nvc_adapter *adapter = store->config.adapter;
    return adapter->address != NULL ? adapter->address(store->config.heap, slot)
                                    : adapter->read(store->config.heap, slot).address;
}

/* Writes an empty entry of a page, durably (rule 4). */
void nvk_write_entry(struct nvk_store *store, struct nvk_entry *entry, uint64_t key,
                     uint64_t record);

/* ---- records.c ---- */

struct nvk_record *nvk_record_at(const struct nvk_store *store, uint64_t number);
/* Makes a record with this value, durable; ENOMEM if there is no room for it. */
int nvk_record_make(struct nvk_session *session, uint64_t key, const void *value,
                    uint64_t *number);
/* Gives a record back that no entry names. */
int nvk_record_drop(struct nvk_session *session, uint64_t number);
int nvk_record_update(struct nvk_session *session, struct nvk_record *record,
                      const void *value);
const void *nvk_record_value(const struct nvk_store *store,
                             const struct nvk_record *record);
/* Finds the chunks, and frees what operations that were cut short have left. */
int nvk_records_open(struct nvk_store *store, struct nvk_repairs *repairs);
size_t nvk_chunks(const struct nvk_config *config);

/* ---- store.c: pages ---- */

/* A zeroed page, durable; nobody names it yet. */
int nvk_page_make(struct nvk_store *store, uint64_t *number);
static inline void *nvk_page(const struct nvk_store *store, uint64_t number)
{
    return atomic_load_explicit(&store->pages[number], memory_order_acquire);
}
/* During open: EUCLEAN if there is no such page, or it was seen before. */
int nvk_page_seen(struct nvk_store *store, uint64_t number);

#endif
