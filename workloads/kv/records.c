// SPDX-License-Identifier: Apache-2.0
/*
 * records.c - who owns the values; see store.h for the model and its rules of order.
 *
 * A chunk, aligned to 16 in its block:
 *   offset  0  u64 mark: mix(identity of the store, number of the chunk)
 *           8  u64 unused
 *          16  NVK_RECORDS_PER_CHUNK records of record_bytes each (internal.h)
 * A chunk is valid iff its mark is right; the mark is made durable after the rest is
 * zeroed, and the identity is another one for each store, so a block that was cut short
 * in its making, or belonged to an older store, is not taken for one.
 *
 * Record r lies in chunk r / NVK_RECORDS_PER_CHUNK.  A record is
 *   free     current 0: both slots are empty, but for an insert cut short, whose value is
 *            freed at the next open
 *   live     current 1 or 2: that slot refers to the value; the other one is empty, but
 *            for an update cut short: the same
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

#define CHUNK_HEAD 16u

static uint64_t mark_of(const struct nvk_store *store, uint64_t chunk)
{
    return nvk_mix(store->identity ^ nvk_mix(chunk + 1));
}

static void *chunk_slot(const struct nvk_store *store, uint64_t chunk)
{
    return store->table + (1 + chunk) * store->slot_size;
}

/* Slot 1 or 2 of a record. */
static void *slot_of(const struct nvk_store *store, const struct nvk_record *record,
                     uint64_t which)
{
    return (char *)(uintptr_t)record + sizeof *record + (which - 1) * store->slot_size;
}

size_t nvk_chunks(const struct nvk_config *config)
{
    /* A session's last chunk may be begun only. */
    return (size_t)(config->capacity / NVK_RECORDS_PER_CHUNK) + config->threads + 1;
}

struct nvk_record *nvk_record_at(const struct nvk_store *store, uint64_t number)
{
    char *chunk = store->chunks[number / NVK_RECORDS_PER_CHUNK];
    return (struct nvk_record *)(chunk + CHUNK_HEAD +
                                 number % NVK_RECORDS_PER_CHUNK * store->record_bytes);
}

const void *nvk_record_value(const struct nvk_store *store,
                             const struct nvk_record *record)
{
    uint64_t current = atomic_load_explicit(&record->current, memory_order_relaxed);
    return nvk_block(store, slot_of(store, record, current));
}

/* The chunk in its block, which may be aligned to 8 only. */
static char *aligned(char *block)
{
    return block == NULL ? NULL : (char *)(((uintptr_t)block + 15) & ~(uintptr_t)15);
}

static size_t chunk_bytes(const struct nvk_store *store)
{
    return CHUNK_HEAD + NVK_RECORDS_PER_CHUNK * store->record_bytes;
}

/* ---- making ---- */

static int make_chunk(struct nvk_store *store, uint64_t number)
{
    const struct nvc_adapter *adapter = store->config.adapter;
    const size_t bytes = chunk_bytes(store);
    void *slot = chunk_slot(store, number);
    int error = adapter->alloc_to(store->config.heap, slot, bytes + 8);
    if (error != 0)
        return error;
    char *chunk = aligned(nvk_block(store, slot));
    memset(chunk, 0, bytes);
    nvk_persist(store, chunk, bytes);
    /* Valid from here on: a crash before it leaves a block without a mark. */
    uint64_t mark = mark_of(store, number);
    memcpy(chunk, &mark, sizeof mark);
    nvk_persist(store, chunk, sizeof mark);
    store->chunks[number] = chunk;
    return 0;
}

/* A free record for this session. */
static int take_record(struct nvk_session *session, uint64_t *number)
{
    struct nvk_store *store = session->store;
    if (session->record < session->records_end) {
        *number = session->record++;
        return 0;
    }
    int error = 0;
    nvk_take(&store->free_lock);
    if (store->free_count > 0) {
        *number = store->free_records[--store->free_count];
    } else {
        while (store->next_chunk < store->chunk_count &&
               store->chunks[store->next_chunk] != NULL)
            store->next_chunk++;
        size_t chunk = store->next_chunk;
        error = chunk < store->chunk_count ? make_chunk(store, chunk) : ENOMEM;
        if (error == 0) {
            session->allocs++;
            *number = chunk * NVK_RECORDS_PER_CHUNK;
            session->record = *number + 1;
            session->records_end = *number + NVK_RECORDS_PER_CHUNK;
        }
    }
    nvk_unlock(&store->free_lock);
    return error;
}

/* Fills an empty slot with a durable value. */
static int put_value(struct nvk_session *session, void *slot, const void *value)
{
    struct nvk_store *store = session->store;
    const size_t bytes = store->config.value_bytes;
    int error = store->config.adapter->alloc_to(store->config.heap, slot, bytes);
    if (error != 0)
        return error;
    session->allocs++;
    char *block = nvk_block(store, slot);
    memcpy(block, value, bytes);
    nvk_persist(store, block, bytes);
    return 0;
}

static int free_value(struct nvk_session *session, void *slot)
{
    struct nvk_store *store = session->store;
    int error = store->config.adapter->free_from(store->config.heap, slot);
    session->frees += error == 0;
    return error;
}

static void give_back(struct nvk_session *session, uint64_t number)
{
    struct nvk_store *store = session->store;
    if (session->record == number + 1) {
        session->record = number;
        return;
    }
    nvk_take(&store->free_lock);
    store->free_records[store->free_count++] = number;
    nvk_unlock(&store->free_lock);
}

int nvk_record_make(struct nvk_session *session, uint64_t key, const void *value,
                    uint64_t *number)
{
    struct nvk_store *store = session->store;
    int error = take_record(session, number);
    if (error != 0)
        return error;
    struct nvk_record *record = nvk_record_at(store, *number);
    error = put_value(session, slot_of(store, record, 1), value);
    if (error != 0) {
        give_back(session, *number);
        return error;
    }
    /* One line, the key first: the record is live with it, or not at all. */
    record->key = key;
    atomic_store_explicit(&record->current, 1, memory_order_release);
    nvk_persist(store, record, sizeof *record);
    return 0;
}

int nvk_record_drop(struct nvk_session *session, uint64_t number)
{
    struct nvk_store *store = session->store;
    struct nvk_record *record = nvk_record_at(store, number);
    uint64_t current = atomic_load_explicit(&record->current, memory_order_relaxed);
    atomic_store_explicit(&record->current, 0, memory_order_relaxed);
    nvk_persist(store, record, sizeof *record);
    int error = free_value(session, slot_of(store, record, current));
    give_back(session, number);
    return error;
}

int nvk_record_update(struct nvk_session *session, struct nvk_record *record,
                      const void *value)
{
    struct nvk_store *store = session->store;
    uint64_t current = atomic_load_explicit(&record->current, memory_order_relaxed);
    uint64_t other = 3 - current;
    int error = put_value(session, slot_of(store, record, other), value);
    if (error != 0)
        return error;
    atomic_store_explicit(&record->current, other, memory_order_release);
    nvk_persist(store, &record->current, sizeof record->current);
    return free_value(session, slot_of(store, record, current));
}

/* ---- opening ---- */

/* Frees what a slot that should be empty refers to. */
static int clear_slot(struct nvk_store *store, void *slot, uint64_t *freed)
{
    if (nvk_block(store, slot) == NULL)
        return 0;
    ++*freed;
    return store->config.adapter->free_from(store->config.heap, slot);
}

static int open_record(struct nvk_store *store, uint64_t number,
                       struct nvk_repairs *repairs)
{
    struct nvk_record *record = nvk_record_at(store, number);
    uint64_t current = atomic_load_explicit(&record->current, memory_order_relaxed);
    if (current > 2)
        return nvk_broken("record %llu has its value in slot %llu",
                          (unsigned long long)number, (unsigned long long)current);
    int error = 0;
    for (uint64_t which = 1; error == 0 && which <= 2; which++)
        if (which != current)
            error =
                clear_slot(store, slot_of(store, record, which), &repairs->values_freed);
    if (error != 0)
        return error;
    if (current == 0)
        store->free_records[store->free_count++] = number;
    else if (nvk_record_value(store, record) == NULL)
        return nvk_broken("record %llu is live and has no value",
                          (unsigned long long)number);
    repairs->records += current != 0;
    return 0;
}

static int open_chunk(struct nvk_store *store, uint64_t number,
                      struct nvk_repairs *repairs)
{
    void *slot = chunk_slot(store, number);
    char *chunk = aligned(nvk_block(store, slot));
    if (chunk == NULL)
        return 0;
    uint64_t mark;
    memcpy(&mark, chunk, sizeof mark);
    if (mark != mark_of(store, number))
        return clear_slot(store, slot, &repairs->chunks_freed);
    store->chunks[number] = chunk;
    int error = 0;
    for (uint64_t i = 0; error == 0 && i < NVK_RECORDS_PER_CHUNK; i++)
        error = open_record(store, number * NVK_RECORDS_PER_CHUNK + i, repairs);
    return error;
}

int nvk_records_open(struct nvk_store *store, struct nvk_repairs *repairs)
{
    int error = 0;
    for (uint64_t i = 0; error == 0 && i < store->chunk_count; i++)
        error = open_chunk(store, i, repairs);
    return error;
}
