// SPDX-License-Identifier: Apache-2.0
/*
 * store.c - the head, the pages, and the operations that put records and index together;
 * see store.h for the model.
 *
 * The head is a block in slot 0:
 *   offset  0  u64 magic
 *           8  u64 identity: random, another one for each store
 *          16  u64 index     enum nvk_index
 *          24  u64 capacity  \
 *          32  u64 values     > as in struct nvk_config
 *          40  u64 threads   /
 *          48  u64 root: the index's own
 *          56  u64 check: a mix of all of the above
 * It is valid iff magic and check are right, and is written when everything that it
 * leads to is durable.  While there is no valid head there is no store: what hangs on
 * the slots then was left by a creation cut short, and holds no values.
 *
 * Opening is idempotent, and a crash in it is just another crash: each repair frees what
 * nobody names, or finishes what nobody was told of yet.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

#define MAGIC UINT64_C(0x3165726f74736b76) /* "vkstore1" */

struct head {
    uint64_t magic, identity, index, capacity, value_bytes, threads, root, check;
};
_Static_assert(sizeof(struct head) == 64, "as in the table above");

static _Thread_local char reason[256];

const char *nvk_reason(void)
{
    return reason;
}

int nvk_broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return EUCLEAN;
}

uint64_t nvk_mix(uint64_t z)
{
    z = (z ^ (z >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    z = (z ^ (z >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return z ^ (z >> 33);
}

static uint64_t check_of(const struct head *head)
{
    const uint64_t words[] = {head->magic,    head->identity,    head->index,
                              head->capacity, head->value_bytes, head->threads,
                              head->root};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        sum = nvk_mix(sum ^ words[i]) + i;
    return sum;
}

void nvk_write_entry(struct nvk_store *store, struct nvk_entry *entry, uint64_t key,
                     uint64_t record)
{
    entry->key = key;
    atomic_store_explicit(&entry->record, record + 1, memory_order_release);
    nvk_persist(store, entry, sizeof *entry);
}

/* ---- in DRAM ---- */

static const struct nvk_index_ops *ops_of(const struct nvk_config *config)
{
    return config->index == NVK_HASH ? &nvk_hash_ops : &nvk_tree_ops;
}

size_t nvk_slot_count(const struct nvk_config *config)
{
    return 1 + nvk_chunks(config) + ops_of(config)->pages(config);
}

void nvk_forget(struct nvk_store *store)
{
    if (store->index != NULL)
        store->ops->forget(store);
    free(store->chunks);
    free(store->pages);
    free(store->locks);
    free(store->free_records);
    free(store);
}

/* The DRAM of a store; NULL without memory. */
static struct nvk_store *begin(const struct nvk_config *config)
{
    struct nvk_store *store = aligned_alloc(NVD_CACHE_ALIGN, sizeof *store);
    if (store == NULL)
        return NULL;
    memset(store, 0, sizeof *store);
    store->config = *config;
    store->ops = ops_of(config);
    store->slot_size = config->adapter->slot_size;
    store->record_bytes = sizeof(struct nvk_record) + 2 * store->slot_size;
    store->chunk_count = nvk_chunks(config);
    store->page_count = store->ops->pages(config);
    store->chunks = calloc(store->chunk_count, sizeof *store->chunks);
    store->pages = calloc(store->page_count, sizeof *store->pages);
    store->locks = aligned_alloc(NVD_CACHE_ALIGN, NVK_LOCKS * sizeof *store->locks);
    store->free_records =
        malloc(store->chunk_count * NVK_RECORDS_PER_CHUNK * sizeof *store->free_records);
    if (store->chunks == NULL || store->pages == NULL || store->locks == NULL ||
        store->free_records == NULL) {
        nvk_forget(store);
        return NULL;
    }
    memset(store->locks, 0, NVK_LOCKS * sizeof *store->locks);
    return store;
}

/* The slot table, if it is long enough. */
static int find_table(struct nvk_store *store)
{
    size_t count = 0, wanted = nvk_slot_count(&store->config);
    store->table = store->config.adapter->slots(store->config.heap, &count);
    if (store->table != NULL && count >= wanted)
        return 0;
    snprintf(reason, sizeof reason, "the store needs %zu slots, the heap has %zu", wanted,
             count);
    return EINVAL;
}

/* ---- pages ---- */

static void *page_slot(const struct nvk_store *store, uint64_t number)
{
    return store->table + (1 + store->chunk_count + number) * store->slot_size;
}

static char *page_of_block(char *block)
{
    return block == NULL ? NULL : (char *)(((uintptr_t)block + 15) & ~(uintptr_t)15);
}

int nvk_page_make(struct nvk_store *store, uint64_t *number)
{
    const struct nvc_adapter *adapter = store->config.adapter;
    const size_t bytes = store->ops->page_bytes;
    nvk_take(&store->free_lock);
    while (store->next_page < store->page_count &&
           nvk_page(store, store->next_page) != NULL)
        store->next_page++;
    *number = store->next_page;
    int error = ENOMEM;
    if (*number < store->page_count)
        error =
            adapter->alloc_to(store->config.heap, page_slot(store, *number), bytes + 8);
    if (error == 0) {
        char *page = page_of_block(nvk_block(store, page_slot(store, *number)));
        memset(page, 0, bytes);
        nvk_persist(store, page, bytes);
        atomic_store_explicit(&store->pages[*number], page, memory_order_release);
    }
    nvk_unlock(&store->free_lock);
    return error;
}

int nvk_page_seen(struct nvk_store *store, uint64_t number)
{
    if (number >= store->page_count || nvk_page(store, number) == NULL)
        return nvk_broken("the index names page %llu, which there is not",
                          (unsigned long long)number);
    if (store->seen[number]++ != 0)
        return nvk_broken("the index names page %llu twice", (unsigned long long)number);
    return 0;
}

/* The addresses of all pages that there are. */
static void find_pages(struct nvk_store *store)
{
    for (size_t i = 0; i < store->page_count; i++)
        atomic_store_explicit(&store->pages[i],
                              page_of_block(nvk_block(store, page_slot(store, i))),
                              memory_order_relaxed);
}

/* Frees the pages that the index does not name. */
static int free_unseen_pages(struct nvk_store *store, uint64_t *freed)
{
    for (size_t i = 0; i < store->page_count; i++) {
        if (nvk_page(store, i) == NULL || store->seen[i] != 0)
            continue;
        int error =
            store->config.adapter->free_from(store->config.heap, page_slot(store, i));
        if (error != 0)
            return error;
        atomic_store_explicit(&store->pages[i], NULL, memory_order_relaxed);
        ++*freed;
    }
    return 0;
}

/* ---- creating ---- */

static struct head *head_of(const struct nvk_store *store)
{
    struct head *head = (struct head *)nvk_block(store, store->table);
    bool valid = head != NULL && head->magic == MAGIC && head->check == check_of(head);
    return valid ? head : NULL;
}

static int free_all_slots(const struct nvk_store *store)
{
    const size_t count = nvk_slot_count(&store->config);
    int error = 0;
    for (size_t i = 0; error == 0 && i < count; i++) {
        void *slot = store->table + i * store->slot_size;
        if (nvk_block(store, slot) != NULL)
            error = store->config.adapter->free_from(store->config.heap, slot);
    }
    return error;
}

static int write_head(struct nvk_store *store, uint64_t root)
{
    const struct nvk_config *config = &store->config;
    int error =
        config->adapter->alloc_to(config->heap, store->table, sizeof(struct head));
    if (error != 0)
        return error;
    struct head *head = (struct head *)nvk_block(store, store->table);
    *head = (struct head){
        .magic = MAGIC,
        .identity = store->identity,
        .index = config->index,
        .capacity = config->capacity,
        .value_bytes = config->value_bytes,
        .threads = config->threads,
        .root = root,
    };
    head->check = check_of(head);
    nvk_persist(store, head, sizeof *head);
    return 0;
}

/* Never the same twice, as far as clocks go; nothing is measured by it. */
static uint64_t new_identity(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return nvk_mix((uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec);
}

int nvk_create(const struct nvk_config *config, struct nvk_store **made)
{
    struct nvk_store *store = begin(config);
    if (store == NULL)
        return ENOMEM;
    uint64_t root = 0;
    int error = find_table(store);
    if (error == 0 && head_of(store) != NULL)
        error = EEXIST;
    if (error == 0)
        error = free_all_slots(store);
    store->identity = new_identity();
    if (error == 0)
        error = store->ops->create(store, &root);
    if (error == 0)
        error = write_head(store, root);
    if (error != 0)
        nvk_forget(store);
    else
        *made = store;
    return error;
}

/* ---- opening and checking ---- */

static int fits(const struct head *head, const struct nvk_config *config)
{
    if (head->index == (uint64_t)config->index && head->capacity == config->capacity &&
        head->value_bytes == config->value_bytes && head->threads == config->threads)
        return 0;
    snprintf(reason, sizeof reason, "the store was made with other parameters");
    return EINVAL;
}

/* A byte for each page, or each record. */
static int begin_seeing(struct nvk_store *store)
{
    size_t records = store->chunk_count * NVK_RECORDS_PER_CHUNK;
    store->seen = calloc(records > store->page_count ? records : store->page_count, 1);
    return store->seen == NULL ? ENOMEM : 0;
}

static void end_seeing(struct nvk_store *store)
{
    free(store->seen);
    store->seen = NULL;
}

static int check_entry(struct nvk_store *store, uint64_t key, uint64_t number)
{
    const unsigned long long which = number;
    if (number / NVK_RECORDS_PER_CHUNK >= store->chunk_count ||
        store->chunks[number / NVK_RECORDS_PER_CHUNK] == NULL)
        return nvk_broken("the index names record %llu, which there is not", which);
    const struct nvk_record *record = nvk_record_at(store, number);
    if (atomic_load_explicit(&record->current, memory_order_relaxed) == 0)
        return nvk_broken("the index names record %llu, which is free", which);
    if (record->key != key)
        return nvk_broken("the index has record %llu under key %#llx, its own is %#llx",
                          which, (unsigned long long)key,
                          (unsigned long long)record->key);
    if (store->seen[number]++ != 0)
        return nvk_broken("the index names record %llu twice", which);
    store->counted++;
    return 0;
}

static int check_entries(struct nvk_store *store)
{
    store->counted = 0;
    return store->ops->entries(store, check_entry);
}

/* Calls `each` for every live record. */
static int for_records(struct nvk_store *store,
                       int (*each)(struct nvk_store *store, uint64_t number,
                                   struct nvk_record *record, void *context),
                       void *context)
{
    const uint64_t end = store->chunk_count * NVK_RECORDS_PER_CHUNK;
    int error = 0;
    for (uint64_t i = 0; error == 0 && i < end; i++) {
        if (store->chunks[i / NVK_RECORDS_PER_CHUNK] == NULL)
            continue;
        struct nvk_record *record = nvk_record_at(store, i);
        if (atomic_load_explicit(&record->current, memory_order_relaxed) != 0)
            error = each(store, i, record, context);
    }
    return error;
}

/* A record that no entry names is an insertion cut short.  If its key has another record,
   the insertion was about to be refused. */
static int settle_if_unseen(struct nvk_store *store, uint64_t number,
                            struct nvk_record *record, void *context)
{
    struct nvk_repairs *repairs = context;
    if (store->seen[number] != 0)
        return 0;
    struct nvk_session session;
    nvk_begin(store, 0, &session);
    int error = store->ops->add(&session, record->key, number);
    if (error == EEXIST) {
        repairs->values_freed++;
        repairs->records--;
        return nvk_record_drop(&session, number);
    }
    repairs->entries_added += error == 0;
    return error;
}

static int open_parts(struct nvk_store *store, struct nvk_repairs *repairs)
{
    int error = find_table(store);
    if (error != 0)
        return error;
    const struct head *head = head_of(store);
    if (head == NULL)
        return ENOENT;
    error = fits(head, &store->config);
    if (error != 0)
        return error;
    store->identity = head->identity;
    find_pages(store);
    error = nvk_records_open(store, repairs);
    if (error == 0)
        error = begin_seeing(store);
    if (error == 0)
        error = store->ops->open(store, head->root, repairs);
    if (error == 0)
        error = free_unseen_pages(store, &repairs->pages_freed);
    end_seeing(store);
    if (error == 0)
        error = begin_seeing(store);
    if (error == 0)
        error = check_entries(store);
    if (error == 0)
        error = for_records(store, settle_if_unseen, repairs);
    end_seeing(store);
    return error;
}

int nvk_open(const struct nvk_config *config, struct nvk_store **opened,
             struct nvk_repairs *repairs)
{
    *repairs = (struct nvk_repairs){0};
    struct nvk_store *store = begin(config);
    if (store == NULL)
        return ENOMEM;
    int error = open_parts(store, repairs);
    if (error != 0)
        nvk_forget(store);
    else
        *opened = store;
    return error;
}

struct visit {
    nvk_visit_fn *visit;
    void *context;
    uint64_t count;
};

static int visit_record(struct nvk_store *store, uint64_t number,
                        struct nvk_record *record, void *context)
{
    struct visit *to = context;
    to->count++;
    if (store->seen[number] == 0)
        return nvk_broken("record %llu, key %#llx, is not in the index",
                          (unsigned long long)number, (unsigned long long)record->key);
    return to->visit == NULL
               ? 0
               : to->visit(to->context, record->key, nvk_record_value(store, record));
}

int nvk_check(struct nvk_store *store, nvk_visit_fn *visit, void *context)
{
    struct visit to = {visit, context, 0};
    int error = begin_seeing(store);
    if (error == 0)
        error = check_entries(store);
    if (error == 0)
        error = for_records(store, visit_record, &to);
    end_seeing(store);
    if (error == 0 && to.count != store->counted)
        error =
            nvk_broken("%llu records are live, the index has %llu",
                       (unsigned long long)to.count, (unsigned long long)store->counted);
    return error;
}

uint64_t nvk_bytes(const struct nvk_store *store)
{
    uint64_t bytes = sizeof(struct head), records = 0;
    for (size_t i = 0; i < store->page_count; i++)
        bytes += nvk_page(store, i) == NULL ? 0 : store->ops->page_bytes;
    for (size_t i = 0; i < store->chunk_count; i++) {
        if (store->chunks[i] == NULL)
            continue;
        bytes += NVK_RECORDS_PER_CHUNK * store->record_bytes;
        for (uint64_t r = 0; r < NVK_RECORDS_PER_CHUNK; r++) {
            const struct nvk_record *record =
                nvk_record_at(store, i * NVK_RECORDS_PER_CHUNK + r);
            records += atomic_load_explicit(&record->current, memory_order_relaxed) != 0;
        }
    }
    return bytes + records * store->config.value_bytes;
}

/* ---- operations ---- */

void nvk_begin(struct nvk_store *store, unsigned thread, struct nvk_session *session)
{
    *session = (struct nvk_session){.store = store, .thread = thread};
}

int nvk_insert(struct nvk_session *session, uint64_t key, const void *value)
{
    uint64_t number;
    int error = nvk_record_make(session, key, value, &number);
    if (error != 0)
        return error;
    error = session->store->ops->add(session, key, number);
    if (error == 0)
        return 0;
    int dropped = nvk_record_drop(session, number);
    return dropped != 0 ? dropped : error;
}

int nvk_update(struct nvk_session *session, uint64_t key, const void *value)
{
    struct nvk_lock *held;
    struct nvk_record *record = session->store->ops->find(session, key, &held);
    int error = record == NULL ? ENOENT : nvk_record_update(session, record, value);
    nvk_unlock(held);
    return error;
}

int nvk_read(struct nvk_session *session, uint64_t key, void *value)
{
    struct nvk_store *store = session->store;
    struct nvk_lock *held;
    const struct nvk_record *record = store->ops->find(session, key, &held);
    if (record != NULL)
        memcpy(value, nvk_record_value(store, record), store->config.value_bytes);
    nvk_unlock(held);
    return record == NULL ? ENOENT : 0;
}

int nvk_scan(struct nvk_session *session, uint64_t first, size_t count, void *buffer,
             nvk_visit_fn *visit, void *context)
{
    return session->store->ops->scan(session, first, count, buffer, visit, context);
}
