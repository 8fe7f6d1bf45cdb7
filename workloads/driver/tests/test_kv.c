// SPDX-License-Identifier: Apache-2.0
/*
 * The store of the workload kv, held to a model through power failures.
 *
 * The adapter of this test keeps its heap in two arrays: `live`, where the store works,
 * and `durable`, which a line reaches when persist() names it.  Its own operations are
 * durable and atomic, as adapter.h demands; the content of a fresh block is garbage,
 * another one in each array.  At a power failure every line of `live` that differs is
 * lost or kept by chance (the cache may have evicted it), and `durable` becomes the heap.
 * So a persist() that the store forgets, or puts in the wrong order, shows: what was
 * acknowledged is gone, or an entry names what is not there.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver.h"
#include "fences.h"
#include "store.h"
#include "ycsb.h"

#define HEAP_BYTES (8u << 20)
#define LINE       64u

struct nvc_heap {
    size_t bytes;
    unsigned char *live, *durable;
    size_t table;         /* offset of the slots */
    unsigned char *taken; /* by unit of 16 bytes: 1 a block's first unit, 2 another */
    size_t next;          /* where the next search begins */
    struct nvd_random random;
    uint64_t events;  /* persists, allocs and frees so far */
    uint64_t fail_at; /* the power fails before this one */
    jmp_buf power_failure;
};

static void event(struct nvc_heap *heap)
{
    if (++heap->events == heap->fail_at)
        longjmp(heap->power_failure, 1);
}

static void persist(struct nvc_heap *heap, const void *address, size_t length)
{
    event(heap);
    size_t from = (size_t)((const unsigned char *)address - heap->live) / LINE * LINE;
    size_t end = (size_t)((const unsigned char *)address - heap->live) + length;
    assert_true(end <= heap->bytes);
    for (size_t at = from; at < end; at += LINE)
        memcpy(heap->durable + at, heap->live + at, LINE);
}

static size_t units(size_t size)
{
    return (size + 15) / 16;
}

/* Slots hold offsets, durable at once. */
static void set_slot(struct nvc_heap *heap, void *slot, uint64_t offset)
{
    size_t at = (size_t)((unsigned char *)slot - heap->live);
    memcpy(heap->live + at, &offset, sizeof offset);
    memcpy(heap->durable + at, &offset, sizeof offset);
}

static uint64_t get_slot(const void *slot)
{
    uint64_t offset;
    memcpy(&offset, slot, sizeof offset);
    return offset;
}

static void scribble(struct nvc_heap *heap, unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)nvd_random_next(&heap->random);
}

static int alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    event(heap);
    if (get_slot(slot) != 0)
        return EINVAL;
    const size_t wanted = units(size), all = heap->bytes / 16;
    for (size_t tried = 0, run = 0; tried < 2 * all; tried++) {
        size_t at = heap->next++ % all;
        run = heap->taken[at] == 0 && at != 0 ? run + 1 : 0;
        if (run < wanted)
            continue;
        size_t first = at + 1 - wanted;
        memset(heap->taken + first, 2, wanted);
        heap->taken[first] = 1;
        scribble(heap, heap->live + first * 16, wanted * 16);
        scribble(heap, heap->durable + first * 16, wanted * 16);
        set_slot(heap, slot, first * 16);
        return 0;
    }
    return ENOMEM;
}

static int free_from(struct nvc_heap *heap, void *slot)
{
    event(heap);
    size_t unit = (size_t)get_slot(slot) / 16;
    if (unit == 0)
        return EINVAL;
    assert_int_equal(heap->taken[unit], 1); /* else freed twice */
    do
        heap->taken[unit++] = 0;
    while (heap->taken[unit] == 2);
    set_slot(heap, slot, 0);
    return 0;
}

static struct nvc_block read_slot(struct nvc_heap *heap, const void *slot)
{
    uint64_t offset = get_slot(slot);
    return (struct nvc_block){offset == 0 ? NULL : heap->live + offset, 0};
}

static void *slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->bytes / 8 / 8;
    return heap->live + heap->table;
}

static const char *last_error(void)
{
    return "the adapter of the test";
}

static const struct nvc_adapter adapter = {
    .name = "model",
    .slot_size = 8,
    .slots = slots,
    .alloc_to = alloc_to,
    .free_from = free_from,
    .read = read_slot,
    .persist = persist,
    .last_error = last_error,
};

/* An eighth of the heap are slots. */
static struct nvc_heap *new_heap(uint64_t seed, size_t bytes)
{
    struct nvc_heap *heap = calloc(1, sizeof *heap);
    heap->bytes = bytes;
    heap->live = aligned_alloc(4096, bytes);
    heap->durable = aligned_alloc(4096, bytes);
    heap->taken = calloc(bytes / 16 + 1, 1);
    nvd_random_seed(&heap->random, seed);
    memset(heap->live, 0, bytes);
    memset(heap->durable, 0, bytes);
    heap->table = bytes - bytes / 8;
    memset(heap->taken + heap->table / 16, 2, bytes / 8 / 16);
    return heap;
}

static void free_heap(struct nvc_heap *heap)
{
    free(heap->live);
    free(heap->durable);
    free(heap->taken);
    free(heap);
}

/* What the cache has evicted is durable, too; the rest is gone. */
static void power_fails(struct nvc_heap *heap)
{
    for (size_t at = 0; at < heap->bytes; at += LINE)
        if (memcmp(heap->live + at, heap->durable + at, LINE) != 0 &&
            nvd_random_below(&heap->random, 3) == 0)
            memcpy(heap->durable + at, heap->live + at, LINE);
    memcpy(heap->live, heap->durable, heap->bytes);
}

static size_t blocks_of(const struct nvc_heap *heap)
{
    size_t count = 0;
    for (size_t i = 0; i < heap->table / 16; i++)
        count += heap->taken[i] == 1;
    return count;
}

/* ---- the model ---- */

enum { RECORDS = 1500, VALUE = 72 };

struct model {
    struct nvk_config config;
    struct nvk_store *store;
    struct nvk_session session;
    uint64_t versions[RECORDS]; /* 0: not there */
    uint64_t version;           /* of the last operation that began */
    uint64_t record;            /* its record */
    uint64_t records;           /* there */
    uint64_t limit;             /* records that are used */
};

static void write_record(struct model *model, uint64_t record, bool there)
{
    char value[VALUE];
    model->record = record;
    ycsb_value_fill(value, sizeof value, record, ++model->version);
    int error = there ? nvk_update(&model->session, ycsb_hash(record), value)
                      : nvk_insert(&model->session, ycsb_hash(record), value);
    assert_int_equal(error, 0);
    model->versions[record] = model->version;
    model->records += !there;
}

static void operate(struct model *model, struct nvd_random *random)
{
    uint64_t record = nvd_random_below(random, model->limit);
    if (model->versions[record] != 0 && nvd_random_below(random, 8) == 0) {
        /* Refused, and nothing remains of it. */
        char value[VALUE];
        ycsb_value_fill(value, sizeof value, record, 0);
        model->record = RECORDS;
        assert_int_equal(nvk_insert(&model->session, ycsb_hash(record), value), EEXIST);
    } else {
        write_record(model, record, model->versions[record] != 0);
    }
}

static void expect_record(struct model *model, uint64_t record, bool under_way)
{
    char value[VALUE];
    int error = nvk_read(&model->session, ycsb_hash(record), value);
    uint64_t found = 0;
    if (error == 0) {
        assert_int_equal(ycsb_value_check(value, VALUE, record), VALUE);
        found = ycsb_value_version(value, VALUE);
    } else {
        assert_int_equal(error, ENOENT);
    }
    if (found == model->versions[record])
        return;
    /* Only what was under way may have happened, and then wholly. */
    if (!under_way || record != model->record || found != model->version)
        fail_msg("record %llu: version %llu, expected %llu", (unsigned long long)record,
                 (unsigned long long)found, (unsigned long long)model->versions[record]);
    model->records += model->versions[record] == 0;
    model->versions[record] = found;
}

/* Nothing is leaked: head, chunks, pages and a value for each record are all there is. */
static void expect_no_leak(const struct model *model)
{
    size_t count = 0, slot_count = nvk_slot_count(&model->config);
    const struct nvc_heap *heap = model->config.heap;
    for (size_t i = 0; i < slot_count; i++)
        count += get_slot(heap->live + heap->table + i * 8) != 0;
    assert_int_equal(blocks_of(heap), count + model->records);
}

static void reopen(struct model *model, struct nvk_repairs *total)
{
    struct nvk_repairs repairs;
    int error = nvk_open(&model->config, &model->store, &repairs);
    if (error != 0)
        fail_msg("open: %d, %s", error, nvk_reason());
    nvk_begin(model->store, 0, &model->session);
    /* One operation at most was under way. */
    assert_true(repairs.entries_added <= 1 && repairs.chunks_freed <= 1);
    assert_true(repairs.values_freed <= 1 && repairs.pages_freed <= 1);
    total->values_freed += repairs.values_freed;
    total->pages_freed += repairs.pages_freed;
    total->chunks_freed += repairs.chunks_freed;
    total->entries_added += repairs.entries_added;
    total->entries_dropped += repairs.entries_dropped;
}

static void expect_model(struct model *model, bool under_way)
{
    for (uint64_t record = 0; record < RECORDS; record++)
        expect_record(model, record, under_way);
    int error = nvk_check(model->store, NULL, NULL);
    if (error != 0)
        fail_msg("check: %s", nvk_reason());
    expect_no_leak(model);
}

/* Works until the power fails, or for so many operations. */
static bool fails_at_work(struct model *model, struct nvd_random *random, unsigned ops)
{
    if (setjmp(model->config.heap->power_failure) != 0)
        return true;
    for (unsigned i = 0; i < ops; i++)
        operate(model, random);
    return false;
}

static bool fails_at_opening(struct model *model)
{
    struct nvk_repairs repairs;
    if (setjmp(model->config.heap->power_failure) != 0)
        return true; /* what nvk_open() had in DRAM is leaked, as a dead process leaks it
                      */
    assert_int_equal(nvk_open(&model->config, &model->store, &repairs), 0);
    nvk_forget(model->store);
    return false;
}

static struct model *new_model(enum nvk_index index, uint64_t capacity, uint64_t limit,
                               uint64_t seed, size_t heap_bytes)
{
    struct model *model = calloc(1, sizeof *model);
    struct nvc_heap *heap = new_heap(seed, heap_bytes);
    model->config = (struct nvk_config){&adapter, heap, index, capacity, VALUE, 1};
    model->limit = limit;
    assert_int_equal(nvk_create(&model->config, &model->store), 0);
    nvk_begin(model->store, 0, &model->session);
    return model;
}

static void free_model(struct model *model)
{
    nvk_forget(model->store);
    free_heap(model->config.heap);
    free(model);
}

/* Works until the power fails, before event fail_at, or for a while; then recovers, and
   compares. */
static void survive(struct model *model, struct nvd_random *random, uint64_t fail_at,
                    struct nvk_repairs *total)
{
    struct nvc_heap *heap = model->config.heap;
    heap->fail_at = heap->events + fail_at;
    bool failed = fails_at_work(model, random, 100);
    heap->fail_at = 0;
    if (failed)
        power_fails(heap);
    nvk_forget(model->store);
    if (failed && nvd_random_below(random, 3) == 0) {
        heap->fail_at = heap->events + 1 + nvd_random_below(random, 4);
        if (fails_at_opening(model))
            power_fails(heap);
        heap->fail_at = 0;
    }
    reopen(model, total);
    expect_model(model, failed);
}

#if defined(__SANITIZE_ADDRESS__)
#define LEAKS_ARE_REPORTED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAKS_ARE_REPORTED 1
#endif
#endif

/* A power failure in nvk_open() or nvk_create() leaks their DRAM, as it must. */
static void let_crashes_leak(void)
{
#ifdef LEAKS_ARE_REPORTED
    extern void __lsan_disable(void);
    __lsan_disable();
#endif
}

static void power_failures(enum nvk_index index)
{
    struct nvk_repairs total = {0};
    let_crashes_leak();
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct model *model = new_model(index, RECORDS, RECORDS, seed, HEAP_BYTES);
        struct nvd_random random;
        nvd_random_seed(&random, seed);
        for (unsigned round = 0; round < 60; round++)
            survive(model, &random, 1 + nvd_random_below(&random, 400), &total);
        assert_true(model->records > RECORDS / 2);
        free_model(model);
    }
    /* The failures hit what they must hit, or the test shows nothing. */
    assert_true(total.values_freed > 20);
    assert_true(total.entries_added > 5);
    assert_true(total.chunks_freed > 0);
    if (index == NVK_TREE)
        assert_true(total.pages_freed + total.entries_dropped > 0);
}

static void the_hash_survives_power_failures(void **state)
{
    (void)state;
    power_failures(NVK_HASH);
}

/* Six times as many records as the table was made for, so that buckets take several
   pages; and a failure before each of the first events. */
static void so_do_crowded_buckets(void **state)
{
    (void)state;
    struct nvk_repairs total = {0};
    let_crashes_leak();
    for (uint64_t at = 1; at < 330; at++) {
        struct model *model = new_model(NVK_HASH, 8, 50, 1, 64 << 10);
        struct nvd_random random;
        nvd_random_seed(&random, 1);
        survive(model, &random, at, &total);
        free_model(model);
    }
    assert_true(total.pages_freed > 0);
}

static void the_tree_survives_power_failures(void **state)
{
    (void)state;
    power_failures(NVK_TREE);
}

static bool fails_at_creating(const struct nvk_config *config, struct nvk_store **store)
{
    if (setjmp(config->heap->power_failure) != 0)
        return true;
    assert_int_equal(nvk_create(config, store), 0);
    return false;
}

/* A creation that is cut short leaves no store, and the next one works. */
static void fail_in_creation(enum nvk_index index, uint64_t at)
{
    struct nvc_heap *heap = new_heap(at, HEAP_BYTES);
    const struct nvk_config config = {&adapter, heap, index, 8, VALUE, 1};
    struct nvk_store *store = NULL;
    struct nvk_repairs repairs;
    heap->fail_at = at;
    bool failed = fails_at_creating(&config, &store);
    heap->fail_at = 0;
    power_fails(heap);
    if (!failed)
        nvk_forget(store);
    int error = nvk_open(&config, &store, &repairs);
    assert_true(error == 0 || (error == ENOENT && failed));
    if (error == ENOENT) {
        assert_int_equal(nvk_create(&config, &store), 0);
    } else {
        struct nvk_store *second;
        assert_int_equal(nvk_create(&config, &second), EEXIST);
    }
    nvk_forget(store);
    free_heap(heap);
}

static void creation_may_fail_anywhere(void **state)
{
    (void)state;
    let_crashes_leak();
    for (uint64_t at = 1; at < 12; at++) {
        fail_in_creation(NVK_HASH, at);
        fail_in_creation(NVK_TREE, at);
    }
}

/* ---- without crashes ---- */

static int compare_keys(const void *left, const void *right)
{
    const uint64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

struct scan {
    uint64_t keys[RECORDS];
    size_t count;
};

static int note_key(void *context, uint64_t key, const void *value)
{
    struct scan *scan = context;
    assert_true(ycsb_hash(ycsb_value_record(value)) == key);
    scan->keys[scan->count++] = key;
    return 0;
}

static void scans_are_in_order_and_miss_nothing(void **state)
{
    (void)state;
    static uint64_t keys[RECORDS];
    static struct scan scan;
    struct nvc_heap *heap = new_heap(3, HEAP_BYTES);
    struct model *model = calloc(1, sizeof *model);
    char buffer[VALUE];
    model->config = (struct nvk_config){&adapter, heap, NVK_TREE, RECORDS, VALUE, 1};
    assert_int_equal(nvk_create(&model->config, &model->store), 0);
    nvk_begin(model->store, 0, &model->session);
    for (uint64_t record = 0; record < RECORDS; record++) {
        write_record(model, record, false);
        keys[record] = ycsb_hash(record);
    }
    qsort(keys, RECORDS, sizeof keys[0], compare_keys);
    for (size_t from = 0; from < RECORDS; from += 37) {
        for (int beside = -1; beside <= 1; beside++) {
            scan.count = 0;
            uint64_t first = keys[from] + (uint64_t)(int64_t)beside;
            assert_int_equal(
                nvk_scan(&model->session, first, 100, buffer, note_key, &scan), 0);
            size_t begin = beside == 1 ? from + 1 : from;
            size_t length = RECORDS - begin < 100 ? RECORDS - begin : 100;
            assert_int_equal(scan.count, length);
            assert_memory_equal(scan.keys, keys + begin, length * sizeof keys[0]);
        }
    }
    char value[VALUE] = {0};
    assert_int_equal(nvk_insert(&model->session, ycsb_hash(7), value), EEXIST);
    assert_int_equal(nvk_update(&model->session, 12345, value), ENOENT);
    assert_int_equal(nvk_read(&model->session, 12345, value), ENOENT);
    expect_model(model, false);
    nvk_forget(model->store);
    free(model);
    free_heap(heap);
}

/* A full heap refuses, and what is there stays. */
static void a_full_heap_loses_nothing(void **state)
{
    (void)state;
    for (int index = NVK_HASH; index <= NVK_TREE; index++) {
        struct nvc_heap *heap = new_heap(4, HEAP_BYTES);
        struct model *model = calloc(1, sizeof *model);
        char value[VALUE];
        model->config =
            (struct nvk_config){&adapter, heap, (enum nvk_index)index, RECORDS, VALUE, 1};
        assert_int_equal(nvk_create(&model->config, &model->store), 0);
        nvk_begin(model->store, 0, &model->session);
        for (uint64_t record = 0; record < 100; record++)
            write_record(model, record, false);
        /* One hole is left: an insertion wants a chunk or a value, whichever is due. */
        for (size_t i = 1; i < heap->table / 16; i++)
            if (heap->taken[i] == 0)
                heap->taken[i] = 3;
        ycsb_value_fill(value, VALUE, 5, 999);
        assert_int_equal(nvk_update(&model->session, ycsb_hash(5), value), ENOMEM);
        ycsb_value_fill(value, VALUE, 500, 999);
        assert_int_equal(nvk_insert(&model->session, ycsb_hash(500), value), ENOMEM);
        expect_model(model, false);
        nvk_forget(model->store);
        free(model);
        free_heap(heap);
    }
}

static void fences_are_searched_as_a_list_would_be(void **state)
{
    (void)state;
    enum { FENCES = 5000 };
    static uint64_t fences[FENCES];
    struct nvd_random random;
    nvd_random_seed(&random, 5);
    struct nvk_fences *of = nvk_fences_new();
    for (size_t i = 0; i < FENCES; i++) {
        fences[i] = i == 0 ? 0 : nvd_random_next(&random) >> (i % 60);
        int error = nvk_fences_add(of, fences[i], fences[i] ^ 0x5555);
        assert_true(error == 0 || (error == EEXIST && i > 0));
    }
    qsort(fences, FENCES, sizeof fences[0], compare_keys);
    for (size_t i = 0; i < 20000; i++) {
        uint64_t key = nvd_random_next(&random) >> (i % 64);
        size_t at = 0;
        for (size_t low = 0, high = FENCES; low < high;) {
            size_t middle = (low + high) / 2;
            if (fences[middle] <= key)
                at = middle, low = middle + 1;
            else
                high = middle;
        }
        assert_true(nvk_fences_find(of, key) == (fences[at] ^ 0x5555));
    }
    nvk_fences_free(of);
}

/* Rank i of Zipf's law has the share 1 / (i + 1)^theta / zeta; Gray's method is exact
   for the first two ranks, and near it for the rest. */
static void ranks_follow_zipf(void **state)
{
    (void)state;
    enum { ITEMS = 1000, DRAWS = 400000 };
    static unsigned counts[ITEMS];
    struct ycsb_zipf zipf;
    struct nvd_random random;
    ycsb_zipf_prepare(&zipf, ITEMS, 0.99);
    nvd_random_seed(&random, 6);
    memset(counts, 0, sizeof counts);
    for (unsigned i = 0; i < DRAWS; i++) {
        double u = (double)(nvd_random_next(&random) >> 11) * 0x1p-53;
        uint64_t rank = ycsb_zipf_rank(&zipf, u);
        assert_true(rank < ITEMS);
        counts[rank]++;
    }
    double zeta = 0, below_10 = 0, below_100 = 0;
    for (unsigned i = 0; i < ITEMS; i++)
        zeta += 1 / pow(i + 1, 0.99);
    for (unsigned i = 0; i < 100; i++) {
        below_10 += i < 10 ? counts[i] : 0;
        below_100 += counts[i];
    }
    double expected_10 = 0, expected_100 = 0;
    for (unsigned i = 0; i < 100; i++) {
        expected_10 += i < 10 ? 1 / pow(i + 1, 0.99) / zeta : 0;
        expected_100 += 1 / pow(i + 1, 0.99) / zeta;
    }
    assert_true(fabs(counts[0] / (double)DRAWS - 1 / zeta) < 0.005);
    assert_true(fabs(counts[1] / (double)DRAWS - pow(0.5, 0.99) / zeta) < 0.005);
    assert_true(fabs(below_10 / DRAWS - expected_10) < 0.02);
    assert_true(fabs(below_100 / DRAWS - expected_100) < 0.02);
    /* FNV-1a of eight zero bytes, computed apart. */
    assert_true(ycsb_hash(0) == UINT64_C(0xa8c7f832281a39c5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_survives_power_failures),
        cmocka_unit_test(so_do_crowded_buckets),
        cmocka_unit_test(the_tree_survives_power_failures),
        cmocka_unit_test(creation_may_fail_anywhere),
        cmocka_unit_test(scans_are_in_order_and_miss_nothing),
        cmocka_unit_test(a_full_heap_loses_nothing),
        cmocka_unit_test(fences_are_searched_as_a_list_would_be),
        cmocka_unit_test(ranks_follow_zipf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
