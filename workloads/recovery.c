// SPDX-License-Identifier: Apache-2.0
/*
 * recovery - a heap with many live objects is killed, and a fresh process wants to
 * use it: how soon is the first operation done, and how soon is everything rebuilt?
 * (The question of Schwalb et al., nvm_malloc, ADMS 2015, figure 9, and of Cai et
 * al., Ralloc, ISMM 2020, figure 6.)
 *
 * Three processes:
 *   fill     makes the heap, allocates `live` objects into slots, replaces some at
 *            random so that there are holes among them, writes and persists the
 *            content of each; says "filled"; and then goes on allocating and freeing
 *            in slots of their own until it is killed.
 *   (the first process) kills it with SIGKILL, some milliseconds later, at work.
 *   measure  has the adapter loaded, then starts the clock, opens the heap and
 *            allocates: that is `first_op_ms`.
 *
 * The page cache is warm: a SIGKILL takes nothing from it, and the file was written a
 * moment ago.  So the figures hold the page faults of a fresh mapping and no disk.
 *
 * `rebuilt_ms` ends when open(), the first operation and the adapter's rebuild(), if
 * it has one, are over.  A library that rebuilds on demand and offers no call for
 * it (rebuild is NULL) may still have work left then: its figure is a lower bound.
 * `objects_per_s` is live objects over that time, the figure of recoveries that
 * visit each object.
 *
 * Then the data: some thousand fresh blocks are allocated and written all over,
 * and after it every object must hold what was persisted in it, to the last byte.
 *
 * Slots: [0, live) objects; then PROBES that are empty until the measuring process
 * fills them; then WORKING, those of the process that is killed.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "driver.h"
#include "payload.h"
#include "trial.h"

enum { LIVE, MIN_SIZE, MAX_SIZE, REPLACED };

static const struct nvd_parameter parameters[] = {
    [LIVE] = {"live", 1000000, 1, 10000000, "live objects"},
    [MIN_SIZE] = {"min_size", 64, 8, 1 << 20, "bytes of the smallest object"},
    [MAX_SIZE] = {"max_size", 256, 8, 1 << 20, "bytes of the largest object"},
    [REPLACED] = {"replaced", 25, 0, 1000,
                  "per cent of the objects that are freed and allocated anew"},
};

#define PROBES      4096u
#define PROBE_BYTES 128u
#define WORKING     1024u
/* Sequence numbers of payloads (payload.h) that are not of objects. */
#define PROBE_SEQ 1u

/* A process of the trial at work on the open heap. */
struct shop {
    struct nvd_trial *trial;
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap; /* trial->heap */
    char *slots;
    struct nvd_random random;
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[MIN_SIZE] <= values[MAX_SIZE] ? NULL : "min_size is above max_size";
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[LIVE] + PROBES + WORKING;
}

static void *slot_at(const struct shop *shop, size_t index)
{
    return shop->slots + index * shop->adapter->slot_size;
}

static double milliseconds(uint64_t since, uint64_t until)
{
    return (double)(until - since) / 1e6;
}

/* Finds the slots of the heap that was made or opened. */
static int find_slots(struct shop *shop)
{
    size_t count = 0;
    shop->heap = shop->trial->heap;
    shop->slots = shop->adapter->slots(shop->heap, &count);
    size_t wanted = slot_count(shop->trial->values, 1);
    return shop->slots != NULL && count >= wanted
               ? NVD_OK
               : nvd_trial_incorrect(shop->trial,
                                     "%zu slots were asked for, the heap has %zu", wanted,
                                     count);
}

/* ---- fill ---- */

/* An object's content: its size in the first 8 bytes, its payload in the rest. */
static int place(struct shop *shop, size_t index)
{
    const uint64_t *values = shop->trial->values;
    uint64_t size =
        values[MIN_SIZE] +
        nvd_random_below(&shop->random, values[MAX_SIZE] - values[MIN_SIZE] + 1);
    int error = shop->adapter->alloc_to(shop->heap, slot_at(shop, index), size);
    if (error != 0)
        return nvd_trial_failed(shop->trial, "alloc_to", error);
    char *block = shop->adapter->read(shop->heap, slot_at(shop, index)).address;
    memcpy(block, &size, sizeof size);
    nvd_payload_fill(block, sizeof size, size, (uint32_t)index, 0);
    shop->adapter->persist(shop->heap, block, size);
    return NVD_OK;
}

static int replace(struct shop *shop, size_t index)
{
    int error = shop->adapter->free_from(shop->heap, slot_at(shop, index));
    return error == 0 ? place(shop, index)
                      : nvd_trial_failed(shop->trial, "free_from", error);
}

/* Until it is killed. */
static int work_on(struct shop *shop)
{
    const size_t base = shop->trial->values[LIVE] + PROBES;
    for (;;) {
        void *slot = slot_at(shop, base + nvd_random_below(&shop->random, WORKING));
        bool full = shop->adapter->read(shop->heap, slot).address != NULL;
        int error =
            full ? shop->adapter->free_from(shop->heap, slot)
                 : shop->adapter->alloc_to(shop->heap, slot,
                                           16 + nvd_random_below(&shop->random, 500));
        if (error != 0)
            return nvd_trial_failed(shop->trial, full ? "free_from" : "alloc_to", error);
    }
}

static int fill(struct shop *shop)
{
    struct nvd_trial *trial = shop->trial;
    const size_t live = trial->values[LIVE];
    int code = nvd_trial_create(trial);
    if (code == NVD_OK)
        code = find_slots(shop);
    for (size_t i = 0; code == NVD_OK && i < live; i++)
        code = place(shop, i);
    for (uint64_t i = live * trial->values[REPLACED] / 100; code == NVD_OK && i > 0; i--)
        code = replace(shop, nvd_random_below(&shop->random, live));
    if (code != NVD_OK)
        return code;
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("filled"));
    nvd_emit(document);
    return work_on(shop);
}

/* ---- measure ---- */

static int probe(struct shop *shop, size_t index)
{
    void *slot = slot_at(shop, shop->trial->values[LIVE] + index);
    int error = shop->adapter->alloc_to(shop->heap, slot, PROBE_BYTES);
    return error == 0 ? NVD_OK : nvd_trial_failed(shop->trial, "alloc_to", error);
}

static int inspect_object(struct shop *shop, size_t index, uint64_t *bytes)
{
    const uint64_t *values = shop->trial->values;
    struct nvc_block block = shop->adapter->read(shop->heap, slot_at(shop, index));
    if (block.address == NULL)
        return nvd_trial_incorrect(shop->trial,
                                   "object %zu of %" PRIu64 " is gone after the crash",
                                   index, values[LIVE]);
    uint64_t size;
    memcpy(&size, block.address, sizeof size);
    if (size < values[MIN_SIZE] || size > values[MAX_SIZE] || size > block.usable)
        return nvd_trial_incorrect(shop->trial,
                                   "object %zu says that it has %" PRIu64
                                   " bytes, its block has %zu",
                                   index, size, block.usable);
    struct nvd_payload_mismatch at =
        nvd_payload_check(block.address, sizeof size, size, (uint32_t)index, 0);
    if (at.offset < size)
        return nvd_trial_incorrect(
            shop->trial, "object %zu, byte %zu: found %#" PRIx64 ", expected %#" PRIx64,
            index, at.offset, at.found, at.expected);
    *bytes += size;
    return NVD_OK;
}

/* New blocks must lie in free memory: written all over, they leave the objects as
   they were. */
static int inspect(struct shop *shop, uint64_t *bytes)
{
    const size_t live = shop->trial->values[LIVE];
    int code = NVD_OK;
    for (size_t i = 1; code == NVD_OK && i < PROBES; i++)
        code = probe(shop, i);
    for (size_t i = 0; code == NVD_OK && i < PROBES; i++) {
        void *block = shop->adapter->read(shop->heap, slot_at(shop, live + i)).address;
        nvd_payload_fill(block, 0, PROBE_BYTES, (uint32_t)(live + i), PROBE_SEQ);
    }
    for (size_t i = 0; code == NVD_OK && i < live; i++)
        code = inspect_object(shop, i, bytes);
    for (size_t i = 0; code == NVD_OK && i < WORKING; i++) {
        void *slot = slot_at(shop, live + PROBES + i);
        if (shop->adapter->read(shop->heap, slot).address == NULL)
            continue;
        int error = shop->adapter->free_from(shop->heap, slot);
        if (error != 0)
            code = nvd_trial_failed(shop->trial, "free_from", error);
    }
    for (size_t i = 0; code == NVD_OK && i < PROBES; i++) {
        const void *block =
            shop->adapter->read(shop->heap, slot_at(shop, live + i)).address;
        size_t end =
            nvd_payload_check(block, 0, PROBE_BYTES, (uint32_t)(live + i), PROBE_SEQ)
                .offset;
        if (end != PROBE_BYTES)
            code = nvd_trial_incorrect(
                shop->trial, "a block allocated after the crash was overwritten");
    }
    return code;
}

static int measure(struct shop *shop)
{
    struct nvd_trial *trial = shop->trial;
    const struct nvc_adapter *adapter = shop->adapter;
    uint64_t begin = nvd_monotonic_ns();
    int code = nvd_trial_open(trial);
    if (code != NVD_OK)
        return code;
    uint64_t opened = nvd_monotonic_ns();
    code = find_slots(shop);
    if (code == NVD_OK)
        code = probe(shop, 0);
    uint64_t first_op = nvd_monotonic_ns();
    if (code == NVD_OK && adapter->rebuild != NULL) {
        int error = adapter->rebuild(shop->heap);
        code = error == 0 ? NVD_OK : nvd_trial_failed(trial, "rebuild", error);
    }
    uint64_t rebuilt = nvd_monotonic_ns();
    uint64_t bytes = 0;
    if (code == NVD_OK)
        code = inspect(shop, &bytes);
    int closed = nvd_trial_close(trial);
    if (code != NVD_OK || closed != NVD_OK)
        return code != NVD_OK ? code : closed;
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("measured"));
    const double live = (double)trial->values[LIVE];
    nvd_trial_metric(trial, "live_objects", live);
    nvd_trial_metric(trial, "requested_bytes", (double)bytes);
    nvd_trial_metric(trial, "open_ms", milliseconds(begin, opened));
    nvd_trial_metric(trial, "first_op_ms", milliseconds(begin, first_op));
    nvd_trial_metric(trial, "rebuilt_ms", milliseconds(begin, rebuilt));
    nvd_trial_metric(trial, "objects_per_s", live * 1e9 / (double)(rebuilt - begin));
    json_object_object_add(document, "metrics", json_object_get(trial->metrics));
    nvd_emit(document);
    return NVD_OK;
}

/* ---- the first process ---- */

static int conduct(struct nvd_trial *trial)
{
    struct nvd_random random;
    struct nvd_child child;
    struct json_object *document;
    nvd_random_seed(&random, trial->seed);
    int code = nvd_trial_start(trial, "fill", &child);
    if (code == NVD_OK)
        code = nvd_trial_expect(trial, &child, "fill", "filled", &document);
    if (code != NVD_OK)
        return code;
    json_object_put(document);
    const struct timespec meanwhile = {0, 1000000L +
                                              (long)nvd_random_below(&random, 20000000)};
    nanosleep(&meanwhile, NULL);
    nvd_child_finish(&child, true);
    code = nvd_trial_start(trial, "measure", &child);
    if (code == NVD_OK)
        code = nvd_trial_expect(trial, &child, "measure", "measured", &document);
    if (code != NVD_OK)
        return code;
    struct json_object *metrics = json_object_object_get(document, "metrics");
    json_object_object_foreach(metrics, name, value)
    {
        nvd_trial_metric(trial, name, json_object_get_double(value));
    }
    json_object_put(document);
    nvd_child_finish(&child, false);
    return NVD_OK;
}

static int trial_run(struct nvd_trial *trial)
{
    if (trial->stage == NULL)
        return conduct(trial);
    struct shop shop = {.trial = trial, .adapter = trial->adapter};
    nvd_random_seed(&shop.random, trial->seed);
    return strcmp(trial->stage, "fill") == 0 ? fill(&shop) : measure(&shop);
}

static struct nvd_workload recovery = {
    .name = "recovery",
    .summary = "many live objects, SIGKILL, a fresh process: how soon is the heap ready?",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .needs = NVC_PERSISTENT,
    .check = check,
    .slot_count = slot_count,
    .trial = trial_run,
};
NVD_WORKLOAD(recovery);
