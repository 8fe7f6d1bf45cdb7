// SPDX-License-Identifier: Apache-2.0
/*
 * kv - a durable key-value store under the requests of YCSB A to F (Cooper et al.,
 * Benchmarking Cloud Serving Systems with YCSB, SoCC 2010), on a hash table or a
 * B+-tree whose every block comes from the allocator (workloads/kv/store.h).
 *
 * What the other workloads leave out is here: slots that lie inside blocks, data that
 * is persisted before it is published, and an application's own flushes beside the
 * allocator's.  An operation is a request: a read, an update, an insertion, a
 * read-modify-write, or a whole scan.
 *
 *   mix  requests                                  which record
 *    A   50 % reads, 50 % updates                  scrambled Zipf
 *    B   95 % reads, 5 % updates                   scrambled Zipf
 *    C   reads                                     scrambled Zipf
 *    D   95 % reads, 5 % insertions                latest
 *    E   95 % scans of 1 to scan_max records, 5 % insertions (the B+-tree only)
 *    F   50 % reads, 50 % read-modify-writes       scrambled Zipf
 *
 * Thread t of T loads the records r with r % T == t, and inserts records + n T + t.
 * Where there is no room for an insertion, it becomes an update.
 *
 * A read compares the value's record number.  After each window the whole store is held
 * to its invariants (nvk_check()), every byte of every value is looked at, and there
 * must be as many records as were inserted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workload.h"
#include "store.h"
#include "ycsb.h"

enum { MIX, INDEX, RECORDS, VALUE_BYTES, SCAN_MAX };

static const struct nvd_parameter parameters[] = {
    [MIX] = {"mix", 0, 0, 5, "YCSB's A to F"},
    [INDEX] = {"index", 0, 0, 1, "0: hash table, 1: B+-tree"},
    [RECORDS] = {"records", 100000, 1, 100000000, "records loaded before the windows"},
    [VALUE_BYTES] = {"value_bytes", 1000, 8, 65536, "bytes of a value"},
    [SCAN_MAX] = {"scan_max", 100, 1, 10000, "records of the longest scan"},
};

#define MIX_E 4
#define ROOM  500000u /* for insertions */
#define THETA 0.99

/* A thread of the workload. */
struct client {
    _Alignas(NVD_CACHE_ALIGN) struct nvk_session session;
    uint64_t inserted; /* records of its own, beside those that were loaded */
    uint64_t loaded;
    char *written, *read; /* a value each */
};

struct service {
    struct nvk_store *store; /* NULL: `error` says why */
    int error;
    struct ycsb_zipf zipf;
    struct client clients[]; /* and then their values */
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[MIX] == MIX_E && values[INDEX] == NVK_HASH
               ? "mix E scans, which a hash table cannot: it wants index 1"
               : NULL;
}

static struct nvk_config config_of(const uint64_t *values, unsigned threads)
{
    return (struct nvk_config){
        .index = values[INDEX] == 0 ? NVK_HASH : NVK_TREE,
        .capacity = values[RECORDS] + ROOM,
        .value_bytes = values[VALUE_BYTES],
        .threads = threads,
    };
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    struct nvk_config config = config_of(values, threads);
    return nvk_slot_count(&config);
}

static size_t value_room(const uint64_t *values)
{
    return (values[VALUE_BYTES] + NVD_CACHE_ALIGN - 1) / NVD_CACHE_ALIGN *
           NVD_CACHE_ALIGN;
}

static size_t shared_size(const uint64_t *values, unsigned threads)
{
    return sizeof(struct service) +
           threads * (sizeof(struct client) + 2 * value_room(values));
}

/* The thread that makes the store is none of the workers. */
static void prepare(struct nvd_run *run)
{
    struct service *service = run->shared;
    const struct nvc_adapter *adapter = run->adapter;
    struct nvk_config config = config_of(run->values, run->threads);
    config.adapter = adapter;
    config.heap = run->heap;
    char *room = (char *)&service->clients[run->threads];
    for (unsigned i = 0; i < run->threads; i++) {
        service->clients[i].written = room;
        service->clients[i].read = room + value_room(run->values);
        room += 2 * value_room(run->values);
    }
    ycsb_zipf_prepare(&service->zipf, run->values[RECORDS], THETA);
    if (adapter->thread_enter != NULL)
        service->error = adapter->thread_enter(run->heap);
    if (service->error != 0)
        return;
    service->error = nvk_create(&config, &service->store);
    if (adapter->thread_leave != NULL)
        adapter->thread_leave(run->heap);
}

static void finish(struct nvd_run *run)
{
    struct service *service = run->shared;
    if (service->store != NULL)
        nvk_forget(service->store);
}

static struct client *client_of(const struct nvd_worker *worker)
{
    return &((struct service *)worker->run->shared)->clients[worker->index];
}

/* 0 to 2^32, from two numbers of the worker's generator, whose low bits are poor. */
static uint64_t draw_long(struct nvd_worker *worker)
{
    uint64_t high = nvd_draw(worker, UINT64_C(1) << 32);
    return high << 32 | nvd_draw(worker, UINT64_C(1) << 32);
}

static double draw_unit(struct nvd_worker *worker)
{
    return (double)(draw_long(worker) >> 11) * 0x1p-53;
}

/* The run has failed: the store says what it must not. */
static void refuse(struct nvd_worker *worker, const char *what, uint64_t record,
                   int error)
{
    char message[256];
    if (error == EUCLEAN || error == EINVAL)
        snprintf(message, sizeof message, "%s of record %" PRIu64 ": %s", what, record,
                 nvk_reason());
    else
        snprintf(message, sizeof message, "%s of record %" PRIu64 ": %s", what, record,
                 error == 0 ? "another record's value was found" : strerror(error));
    bool wrong = error == 0 || error == EUCLEAN || error == ENOENT || error == EEXIST;
    nvd_worker_fail(worker, wrong ? "sweep" : what, wrong ? 0 : error, message);
}

/* ---- requests ---- */

static const char *fresh_value(struct nvd_worker *worker, struct client *client,
                               uint64_t record)
{
    ycsb_value_fill(client->written, worker->values[VALUE_BYTES], record,
                    draw_long(worker) >> 24);
    return client->written;
}

static bool read_record(struct nvd_worker *worker, struct client *client, uint64_t record)
{
    int error = nvk_read(&client->session, ycsb_hash(record), client->read);
    if (error == 0 && ycsb_value_record(client->read) == record)
        return true;
    refuse(worker, "read", record, error);
    return false;
}

static bool update_record(struct nvd_worker *worker, struct client *client,
                          uint64_t record)
{
    int error = nvk_update(&client->session, ycsb_hash(record),
                           fresh_value(worker, client, record));
    if (error == ENOMEM)
        nvd_alloc_failed(worker, error);
    else if (error != 0)
        refuse(worker, "update", record, error);
    return error == 0;
}

static bool insert_record(struct nvd_worker *worker, struct client *client,
                          uint64_t record, int *error)
{
    *error = nvk_insert(&client->session, ycsb_hash(record),
                        fresh_value(worker, client, record));
    if (*error == ENOMEM)
        nvd_alloc_failed(worker, *error);
    else if (*error != 0)
        refuse(worker, "insert", record, *error);
    return *error == 0;
}

static int visit_scanned(void *context, uint64_t key, const void *value)
{
    *(uint64_t *)context = ycsb_value_record(value);
    return ycsb_hash(ycsb_value_record(value)) == key ? 0 : EUCLEAN;
}

static bool scan_from(struct nvd_worker *worker, struct client *client, uint64_t record)
{
    uint64_t last = record;
    size_t length = 1 + nvd_draw(worker, worker->values[SCAN_MAX]);
    int error = nvk_scan(&client->session, ycsb_hash(record), length, client->read,
                         visit_scanned, &last);
    if (error != 0)
        refuse(worker, "scan", last, error == EUCLEAN ? 0 : error);
    return error == 0;
}

/* A record that exists. */
static uint64_t choose(struct nvd_worker *worker, const struct client *client,
                       const struct ycsb_mix *mix)
{
    const struct service *service = worker->run->shared;
    const uint64_t records = worker->values[RECORDS];
    uint64_t rank = ycsb_zipf_rank(&service->zipf, draw_unit(worker));
    if (!mix->latest)
        return ycsb_hash(rank) % records;
    /* Back through this thread's own insertions, then through the loaded records. */
    if (rank < client->inserted)
        return records + (client->inserted - 1 - rank) * worker->run->threads +
               worker->index;
    return (records - 1 - (rank - client->inserted) % records) % records;
}

static enum ycsb_request choose_request(struct nvd_worker *worker,
                                        const struct ycsb_mix *mix)
{
    uint64_t at = nvd_draw(worker, 100);
    unsigned request = YCSB_READ;
    while (at >= mix->share[request]) {
        at -= mix->share[request];
        request++;
    }
    return request;
}

static bool serve(struct nvd_worker *worker, struct client *client,
                  const struct ycsb_mix *mix)
{
    int error = 0;
    switch (choose_request(worker, mix)) {
    case YCSB_READ:
        return read_record(worker, client, choose(worker, client, mix));
    case YCSB_UPDATE:
        return update_record(worker, client, choose(worker, client, mix));
    case YCSB_INSERT:
        if (insert_record(worker, client,
                          worker->values[RECORDS] +
                              client->inserted * worker->run->threads + worker->index,
                          &error)) {
            client->inserted++;
            return true;
        }
        return error == ENOMEM &&
               update_record(worker, client, choose(worker, client, mix));
    case YCSB_SCAN:
        return scan_from(worker, client, choose(worker, client, mix));
    case YCSB_MODIFY: {
        uint64_t record = choose(worker, client, mix);
        return read_record(worker, client, record) &&
               update_record(worker, client, record);
    }
    }
    return false;
}

/* ---- windows ---- */

/* What the store did on this worker's behalf since the last time. */
static void count(struct nvd_worker *worker, struct client *client)
{
    worker->allocs += client->session.allocs;
    worker->frees += client->session.frees;
    client->session.allocs = client->session.frees = 0;
}

static void setup(struct nvd_worker *worker)
{
    struct service *service = worker->run->shared;
    struct client *client = client_of(worker);
    if (service->store == NULL) {
        const char *why = service->error == ENOMEM
                              ? "no room for the empty store: the heap "
                                "is too small for this workload"
                              : nvk_reason();
        nvd_worker_fail(worker, "create", service->error, why);
        return;
    }
    nvk_begin(service->store, worker->index, &client->session);
    const uint64_t records = worker->values[RECORDS];
    for (uint64_t r = worker->index; r < records && nvd_running(worker);
         r += worker->run->threads) {
        int error;
        if (!insert_record(worker, client, r, &error)) {
            if (error == ENOMEM)
                nvd_worker_fail(worker, "load", ENOMEM,
                                "the records do not fit: the heap is too small for this "
                                "workload");
            return;
        }
        client->loaded++;
    }
    count(worker, client);
}

static void run(struct nvd_worker *worker)
{
    struct client *client = client_of(worker);
    const struct ycsb_mix *mix = &ycsb_mixes[worker->values[MIX]];
    while (nvd_running(worker)) {
        uint64_t begin = nvd_request_begin(worker);
        if (serve(worker, client, mix))
            nvd_request_end(worker, begin);
        else
            nvd_request_cancel(worker);
        count(worker, client);
    }
}

/* ---- between windows ---- */

struct inspection {
    const uint64_t *values;
    uint64_t records;
    uint64_t record; /* the last one looked at */
};

static int inspect_value(void *context, uint64_t key, const void *value)
{
    struct inspection *inspection = context;
    const size_t bytes = inspection->values[VALUE_BYTES];
    uint64_t record = inspection->record = ycsb_value_record(value);
    inspection->records++;
    return ycsb_hash(record) == key && ycsb_value_check(value, bytes, record) == bytes
               ? 0
               : EILSEQ;
}

static bool verify(struct nvd_worker *worker, uint64_t *bytes)
{
    struct service *service = worker->run->shared;
    struct inspection inspection = {.values = worker->values};
    uint64_t expected = 0;
    for (unsigned i = 0; i < worker->run->threads; i++)
        expected += service->clients[i].loaded + service->clients[i].inserted;
    int error = nvk_check(service->store, inspect_value, &inspection);
    *bytes = nvk_bytes(service->store);
    if (error == 0 && inspection.records == expected)
        return true;
    char message[256];
    if (error == 0)
        snprintf(message, sizeof message,
                 "the store has %" PRIu64 " records, %" PRIu64 " were inserted",
                 inspection.records, expected);
    else
        snprintf(message, sizeof message, "after record %" PRIu64 ": %s",
                 inspection.record,
                 error == EILSEQ ? "its value is not what was written" : nvk_reason());
    nvd_worker_fail(worker, "sweep", 0, message);
    return false;
}

static struct nvd_workload kv = {
    .name = "kv",
    .summary = "a durable hash table or B+-tree under YCSB A to F",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .needs = NVC_NESTED_SLOTS,
    .counts_requests = true,
    .check = check,
    .slot_count = slot_count,
    .shared_size = shared_size,
    .prepare = prepare,
    .setup = setup,
    .run = run,
    .verify = verify,
    .finish = finish,
};
NVD_WORKLOAD(kv);
