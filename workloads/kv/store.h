/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - a durable key-value store against adapter.h, for any allocator whose slots
 * may lie inside blocks (NVC_NESTED_SLOTS).
 *
 * Model
 * -----
 * Keys are 64-bit numbers, values are of one size, both chosen at creation.  A store has
 * two parts:
 *
 *   records   own the values.  A record has two slots; at any time one of them, told by
 *             one word, refers to the value.  A new value is allocated into the other
 *             slot and filled, then the word is flipped: that is the instant at which the
 *             update happens; then the old value is freed.
 *   an index  finds a record by its key: a hash table, or a B+-tree that scans too.  It
 *             owns nothing but its own pages, so its entries may be copied from page to
 *             page, which a slot may not.
 *
 * Three kinds of blocks hang on the driver's slot table:
 *
 *   slot 0                  the head (store.c)
 *   slots 1 .. chunks       chunks of RECORDS_PER_CHUNK records each (records.c)
 *   the rest                pages of the index, by page number (index.h)
 *
 * What is durable when a call returns: nvk_insert() and nvk_update(), whole or (on
 * failure, or before a crash) not at all.
 *
 * A crash leaves at most one operation of each thread unfinished.  nvk_open() repairs
 * what that means: values that no record refers to and pages that no page refers to
 * are freed, and a record that is complete but not yet in the index is put there, or
 * dropped if its key was taken.
 *
 * Rules of order, on which this rests (P: persist() has returned):
 *   1. A value is P before its record's word says that it is there; the old one is freed
 *      after that word is P.
 *   2. A record is P before an index entry names it.
 *   3. A page is P before another one, or the head, names it.
 *   4. An index entry is 16 bytes in one cache line, the key stored before the record
 *      number: a line's stores reach the medium in their order, so an entry with a
 *      number is whole, and one persist() is enough.
 *
 * Threads: every operation through a session of its own.  Locks (in DRAM) are taken in
 * this order: the index's shape, then one page or bucket (which guards the records that
 * its entries name, and their values), then the store's free lists.
 *
 * Errors: 0 or errno, as in adapter.h; EEXIST, ENOENT (no such key, or no store in this
 * heap), EUCLEAN (what is found contradicts the rules above; nvk_reason() tells).
 */
#ifndef NVK_STORE_H
#define NVK_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"

enum nvk_index { NVK_HASH, NVK_TREE };

struct nvk_config {
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap;
    enum nvk_index index;
    uint64_t capacity; /* records at most */
    size_t value_bytes;
    unsigned threads; /* sessions at most */
};

struct nvk_store;

/* What a thread works through; no two threads share one. */
struct nvk_session {
    struct nvk_store *store;
    unsigned thread; /* below config.threads */
    uint64_t allocs, frees;
    uint64_t record, records_end; /* fresh records of this session's own */
};

/* What nvk_open() found and repaired. */
struct nvk_repairs {
    uint64_t records; /* live ones */
    uint64_t values_freed, pages_freed, chunks_freed;
    uint64_t entries_added;   /* records that the index did not have yet */
    uint64_t entries_dropped; /* of a leaf, half of which had moved */
};

/* Slots that such a store needs. */
size_t nvk_slot_count(const struct nvk_config *config);

/* Makes a store in a heap; whatever hangs on the slot table is freed first. */
int nvk_create(const struct nvk_config *config, struct nvk_store **store);
int nvk_open(const struct nvk_config *config, struct nvk_store **store,
             struct nvk_repairs *repairs);
/* Frees what the store has in DRAM; the heap stays as it is. */
void nvk_forget(struct nvk_store *store);

void nvk_begin(struct nvk_store *store, unsigned thread, struct nvk_session *session);

int nvk_insert(struct nvk_session *session, uint64_t key, const void *value);
int nvk_update(struct nvk_session *session, uint64_t key, const void *value);
/* Copies the value out. */
int nvk_read(struct nvk_session *session, uint64_t key, void *value);
/* Copies out up to `count` values of keys from `first` on, in ascending order, and
   calls visit() for each; a value other than 0 ends the scan and is returned. */
typedef int nvk_visit_fn(void *context, uint64_t key, const void *value);
int nvk_scan(struct nvk_session *session, uint64_t first, size_t count, void *buffer,
             nvk_visit_fn *visit, void *context);

/* While no session works: every record is named by the index exactly once, and by the
   right key; the index is in order.  visit() is called for each record, in no order. */
int nvk_check(struct nvk_store *store, nvk_visit_fn *visit, void *context);

/* Bytes that the store has asked for and holds: values, records, index. */
uint64_t nvk_bytes(const struct nvk_store *store);

/* Why the thread's last call said EUCLEAN. */
const char *nvk_reason(void);

#endif
