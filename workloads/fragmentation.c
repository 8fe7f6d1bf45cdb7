// SPDX-License-Identifier: Apache-2.0
/*
 * fragmentation - how much of a heap is lost when the sizes that a program asks for
 * change, and survivors of the old sizes lie scattered over it.
 *
 * The mixes are those of PMDK's fragmentation test (obj_fragmentation2, w0 to w9),
 * which takes w1 to w7 from Rumble, Kejriwal and Ousterhout, Log-structured Memory
 * for DRAM-based Storage, FAST 2014, table 1.  There the live data is 1000 MB of a 3 GB
 * pool and 5000 MB are allocated in each phase; here the live data is `live_mb` (a
 * third of a 512 MB heap by default) and a phase allocates `turnover` times that.
 *
 *   mix   before           deleted   after
 *    0    100              -         -
 *    1    100              -         130
 *    2    100              90 %      130
 *    3    100-150          -         200-250
 *    4    100-150          90 %      200-250
 *    5    100-200          50 %      1000-2000
 *    6    1000-2000        90 %      1500-2500
 *    7    50-150           90 %      5000-15000
 *    8    2 MB             -         -
 *    9    5 MB * exp(-4u), u uniform in [0, 1); no level to keep: when two levels
 *         are live, or memory runs out, a random share of 10-90 % is deleted
 *
 * A phase allocates blocks of random size in [from, to); whenever more than the level
 * is live, BATCH random objects are freed (where there are few, two fifths of them).
 *
 * Four answers to "what does the heap take at the end, over what is live?":
 *   - fragmentation_ratio: what can serve no request of another size (footprint.h), and
 *     so also footprint_ratio.  On the way it is noted CURVE times, as `series`.
 *     Survivors of the old sizes keep their whole slabs in it.
 *   - defragmented_ratio: the same after the adapter's defrag() of all slots, if it has
 *     one, as PMDK's test does with pmemobj_defrag().
 *   - file_ratio: what the file system still has allocated for the file, after the
 *     adapter's trim() if it has one.
 *   - refill_ratio, after PMDK's own figure: by which share fewer blocks of 100 bytes can
 *     be had of this heap than of a fresh one, times the heap's size.  Holes of just that
 *     size in old slabs count as free here.  With `refill` set, for adapters whose slots
 *     may lie in blocks.
 *
 * Each block is written from end to end, so that memory which the kernel hands out
 * on touch is really there, and looked at again before it is freed.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"
#include "footprint.h"
#include "payload.h"
#include "resident.h"
#include "trial.h"

enum { MIX, LIVE_MB, TURNOVER, REFILL };

static const struct nvd_parameter parameters[] = {
    [MIX] = {"mix", 1, 0, 9, "PMDK's w0 to w9"},
    [LIVE_MB] = {"live_mb", 170, 1, 100000, "live data to keep, in units of 2^20 bytes"},
    [TURNOVER] = {"turnover", 5, 1, 1000, "allocated in each phase, over the live data"},
    [REFILL] = {"refill", 1, 0, 1, "fill the heap with 100-byte blocks at the end"},
};

#define MEGABYTE     (UINT64_C(1) << 20)
#define BATCH        200u
#define REFILL_BYTES 100u
#define CURVE        32u
/* Failures in a row after which nothing is to be hoped for. */
#define FAILURES 100u

/* A phase's sizes lie in [from, to), or are `from` where the two are equal. */
struct phase {
    uint64_t from, to;
};

struct mix {
    struct phase before;
    unsigned deleted; /* per cent, after the first phase */
    struct phase after;
    bool exponential;
};

static const struct mix mixes[] = {
    {.before = {100, 100}},
    {.before = {100, 100}, .after = {130, 130}},
    {.before = {100, 100}, .deleted = 90, .after = {130, 130}},
    {.before = {100, 150}, .after = {200, 250}},
    {.before = {100, 150}, .deleted = 90, .after = {200, 250}},
    {.before = {100, 200}, .deleted = 50, .after = {1000, 2000}},
    {.before = {1000, 2000}, .deleted = 90, .after = {1500, 2500}},
    {.before = {50, 150}, .deleted = 90, .after = {5000, 15000}},
    {.before = {2 * MEGABYTE, 2 * MEGABYTE}},
    {.before = {1, 5 * MEGABYTE}, .exponential = true},
};

/* The live objects: `live[0, count)` are their slots in no order, `live[count, slots)`
   the empty slots.  sizes[] is by slot. */
struct population {
    struct nvd_trial *trial;
    struct nvd_random random;
    char *table;
    size_t slots, count;
    uint32_t *live, *sizes;
    size_t bytes_of_arrays;
    uint64_t requested; /* bytes of the live objects */
    uint64_t allocated; /* bytes of all objects ever */
    uint64_t planned;   /* what `allocated` will be at the end */
    uint64_t peak;      /* of the footprint */
    uint64_t failed;    /* allocations */
    unsigned failed_in_a_row;
    uint64_t noted;             /* points of the curve */
    uint64_t blocks_when_fresh; /* of REFILL_BYTES, in a fresh heap; 0: not known */
    uint64_t resident_base;     /* before the heap was made */
};

static uint64_t level(const uint64_t *values)
{
    return values[LIVE_MB] * MEGABYTE;
}

static uint64_t mean(const struct mix *mix)
{
    /* The integral of exp(-4u) is (1 - exp(-4)) / 4. */
    if (mix->exponential)
        return (uint64_t)((double)mix->before.to * (1 - exp(-4)) / 4);
    return (mix->before.from + mix->before.to) / 2;
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    (void)threads;
    const struct mix *mix = &mixes[values[MIX]];
    /* The first phase has the smaller objects.  Should its sizes be smaller on the
       average than they are, the slots' end is the level. */
    size_t objects = (size_t)(level(values) / mean(mix)) * (mix->exponential ? 2 : 1);
    return objects + objects / 50 + 2 * BATCH;
}

static void *slot_at(const struct population *population, uint32_t slot)
{
    return population->table + slot * population->trial->adapter->slot_size;
}

/* ---- the curve ---- */

static struct nvd_footprint footprint(const struct population *population)
{
    const struct nvd_trial *trial = population->trial;
    struct nvc_stats stats;
    trial->adapter->stats(trial->heap, &stats);
    uint64_t now, peak, base = population->resident_base;
    uint64_t resident = UINT64_MAX;
    if (nvd_resident_read(&now, &peak))
        resident = now > base ? now - base : 0;
    return nvd_footprint_of(trial->adapter, &stats, resident, population->requested,
                            population->slots * trial->adapter->slot_size);
}

/* A point of the curve, when the next one is due. */
static void note(struct population *population)
{
    if (population->allocated * CURVE < (population->noted + 1) * population->planned)
        return;
    population->noted = population->allocated * CURVE / population->planned;
    struct nvd_footprint now = footprint(population);
    if (now.source == NULL)
        return;
    population->peak = now.bytes > population->peak ? now.bytes : population->peak;
    struct json_object *point = json_object_new_object();
    json_object_object_add(point, "allocated_bytes",
                           json_object_new_uint64(population->allocated));
    json_object_object_add(point, "footprint_bytes", json_object_new_uint64(now.bytes));
    json_object_object_add(point, "live_bytes", json_object_new_uint64(now.live));
    json_object_array_add(population->trial->series, point);
}

/* ---- objects ---- */

static int inspect(const struct population *population, uint32_t slot)
{
    const struct nvd_trial *trial = population->trial;
    struct nvc_block block = trial->adapter->read(trial->heap, slot_at(population, slot));
    const uint32_t size = population->sizes[slot];
    if (block.address == NULL || block.usable < size)
        return nvd_trial_incorrect(
            trial, "slot %u has a block of %zu bytes, expected %u at least", slot,
            block.address == NULL ? (size_t)0 : block.usable, size);
    struct nvd_payload_mismatch at =
        nvd_payload_check(block.address, 0, size, slot, size);
    if (at.offset < size)
        return nvd_trial_incorrect(trial,
                                   "slot %u, byte %zu of %u: found %#llx, expected %#llx",
                                   slot, at.offset, size, (unsigned long long)at.found,
                                   (unsigned long long)at.expected);
    return NVD_OK;
}

/* Frees live object i. */
static int bury(struct population *population, size_t i)
{
    const struct nvd_trial *trial = population->trial;
    uint32_t slot = population->live[i];
    int code = inspect(population, slot);
    if (code != NVD_OK)
        return code;
    int error = trial->adapter->free_from(trial->heap, slot_at(population, slot));
    if (error != 0)
        return nvd_trial_failed(trial, "free_from", error);
    population->live[i] = population->live[--population->count];
    population->live[population->count] = slot;
    population->requested -= population->sizes[slot];
    return NVD_OK;
}

static int bury_some(struct population *population, size_t number)
{
    int code = NVD_OK;
    for (; code == NVD_OK && number > 0 && population->count > 0; number--)
        code = bury(population, nvd_random_below(&population->random, population->count));
    return code;
}

/* Sets *full when there was no memory. */
static int bear(struct population *population, uint64_t size, bool *full)
{
    const struct nvd_trial *trial = population->trial;
    uint32_t slot = population->live[population->count];
    int error = trial->adapter->alloc_to(trial->heap, slot_at(population, slot), size);
    *full = error == ENOMEM;
    if (*full && ++population->failed_in_a_row < FAILURES) {
        population->failed++;
        return NVD_OK;
    }
    if (error != 0)
        return nvd_trial_failed(trial, "alloc_to", error);
    population->failed_in_a_row = 0;
    void *block = trial->adapter->read(trial->heap, slot_at(population, slot)).address;
    nvd_payload_fill(block, 0, size, slot, size);
    population->sizes[slot] = (uint32_t)size;
    population->count++;
    population->requested += size;
    population->allocated += size;
    note(population);
    return NVD_OK;
}

/* ---- phases ---- */

static int keep_level(struct population *population, const struct phase *phase,
                      uint64_t total)
{
    const uint64_t most = level(population->trial->values);
    const uint64_t until = population->allocated + total;
    int code = NVD_OK;
    while (code == NVD_OK && population->allocated < until) {
        uint64_t spread = phase->to - phase->from;
        uint64_t size = phase->from;
        if (spread > 0)
            size += nvd_random_below(&population->random, spread);
        bool full;
        code = bear(population, size, &full);
        if (code == NVD_OK && (full || population->requested > most ||
                               population->count == population->slots)) {
            size_t share = population->count * 2 / 5 + 1;
            code = bury_some(population, share < BATCH ? share : BATCH);
        }
    }
    return code;
}

static int rise_and_fall(struct population *population, const struct phase *phase,
                         uint64_t total)
{
    const uint64_t most = 2 * level(population->trial->values);
    int code = NVD_OK;
    while (code == NVD_OK && population->allocated < total) {
        double u = (double)(nvd_random_next(&population->random) >> 11) * 0x1p-53;
        uint64_t size = (uint64_t)((double)phase->to * exp(-4 * u));
        bool full;
        code = bear(population, size, &full);
        if (code == NVD_OK && (full || population->requested > most ||
                               population->count == population->slots)) {
            uint64_t share = 10 + nvd_random_below(&population->random, 81);
            code = bury_some(population, population->count * share / 100);
        }
    }
    return code;
}

static int live_through(struct population *population)
{
    const uint64_t *values = population->trial->values;
    const struct mix *mix = &mixes[values[MIX]];
    const uint64_t total = level(values) * values[TURNOVER];
    if (mix->exponential) {
        population->planned = total;
        return rise_and_fall(population, &mix->before, total);
    }
    population->planned = mix->after.from == 0 ? total : 2 * total;
    int code = keep_level(population, &mix->before, total);
    if (code == NVD_OK && mix->deleted > 0)
        code = bury_some(population, population->count * mix->deleted / 100);
    if (code == NVD_OK && mix->after.from != 0)
        code = keep_level(population, &mix->after, total);
    return code;
}

/* Fills the open heap with blocks of REFILL_BYTES, the first one in that empty slot, the
   next one in a slot at the beginning of the block before, and so on. */
static int fill_up(const struct nvd_trial *trial, void *slot, uint64_t *blocks)
{
    const struct nvc_adapter *adapter = trial->adapter;
    int error;
    *blocks = 0;
    while ((error = adapter->alloc_to(trial->heap, slot, REFILL_BYTES)) == 0) {
        slot = adapter->read(trial->heap, slot).address;
        memset(slot, 0, adapter->slot_size);
        adapter->persist(trial->heap, slot, adapter->slot_size);
        ++*blocks;
    }
    return error == ENOMEM ? NVD_OK : nvd_trial_failed(trial, "alloc_to", error);
}

static bool refills(const struct nvd_trial *trial)
{
    const uint32_t needed = NVC_PERSISTENT | NVC_NESTED_SLOTS;
    return trial->values[REFILL] && (trial->adapter->capabilities & needed) == needed;
}

static int refill(struct population *population)
{
    struct nvd_trial *trial = population->trial;
    uint64_t blocks;
    struct nvc_stats stats;
    int code = NVD_OK;
    if (population->count == population->slots)
        code = bury_some(population, 1);
    if (code == NVD_OK)
        code = fill_up(trial, slot_at(population, population->live[population->count]),
                       &blocks);
    if (code != NVD_OK)
        return code;
    trial->adapter->stats(trial->heap, &stats);
    uint64_t live = population->requested + population->slots * trial->adapter->slot_size;
    if (stats.heap_bytes != UINT64_MAX && population->blocks_when_fresh > 0) {
        double left = (double)blocks / (double)population->blocks_when_fresh;
        nvd_trial_metric(trial, "refill_ratio",
                         (double)stats.heap_bytes * (1 - left) / (double)live);
    }
    return NVD_OK;
}

/* What the file system has allocated for the heap's file. */
static int report_file(struct population *population)
{
    struct nvd_trial *trial = population->trial;
    const uint64_t table = population->slots * trial->adapter->slot_size;
    struct stat status;
    if (trial->adapter->trim != NULL) {
        int error = trial->adapter->trim(trial->heap);
        if (error != 0)
            return nvd_trial_failed(trial, "trim", error);
    }
    if (trial->heap_path != NULL && stat(trial->heap_path, &status) == 0) {
        double bytes = 512.0 * (double)status.st_blocks;
        nvd_trial_metric(trial, "file_bytes", bytes);
        nvd_trial_metric(trial, "file_ratio",
                         bytes / (double)(population->requested + table));
    }
    return NVD_OK;
}

/* The same figure once more, after the library has moved what it may. */
static int report_defragmented(struct population *population)
{
    struct nvd_trial *trial = population->trial;
    if (trial->adapter->defrag == NULL || population->count == 0)
        return NVD_OK;
    void **slots = malloc(population->count * sizeof(*slots));
    if (slots == NULL)
        return nvd_trial_failed(trial, "defrag", ENOMEM);
    for (size_t i = 0; i < population->count; i++)
        slots[i] = slot_at(population, population->live[i]);
    int error = trial->adapter->defrag(trial->heap, slots, population->count);
    free(slots);
    if (error == ENOTSUP)
        return NVD_OK;
    if (error != 0)
        return nvd_trial_failed(trial, "defrag", error);
    struct nvd_footprint now = footprint(population);
    if (now.source != NULL)
        nvd_trial_metric(trial, "defragmented_ratio", nvd_footprint_ratio(&now));
    return NVD_OK;
}

static int report(struct population *population)
{
    struct nvd_trial *trial = population->trial;
    struct nvd_footprint end = footprint(population);
    nvd_footprint_add(&end, population->requested, trial->metrics);
    if (end.source != NULL)
        nvd_trial_metric(trial, "fragmentation_ratio", nvd_footprint_ratio(&end));
    nvd_trial_metric(trial, "peak_bytes", (double)population->peak);
    nvd_trial_metric(trial, "live_objects", (double)population->count);
    nvd_trial_metric(trial, "failed_allocs", (double)population->failed);
    int code = report_defragmented(population);
    if (code == NVD_OK)
        code = report_file(population);
    if (code == NVD_OK && refills(trial))
        code = refill(population);
    for (size_t i = 0; code == NVD_OK && i < population->count; i++)
        code = inspect(population, population->live[i]);
    return code;
}

/* Anonymous pages, all touched: they are in no allocator's books, and their share of
   the resident memory is known. */
static bool make_arrays(struct population *population)
{
    size_t bytes = 2 * population->slots * sizeof(uint32_t);
    uint32_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    population->bytes_of_arrays = bytes;
    population->live = memory;
    population->sizes = memory + population->slots;
    for (size_t i = 0; i < population->slots; i++)
        population->live[i] = (uint32_t)i;
    return true;
}

/* What a fresh heap holds; it is gone afterwards. */
static int fill_fresh(struct population *population)
{
    struct nvd_trial *trial = population->trial;
    int code = nvd_trial_create(trial);
    if (code != NVD_OK)
        return code;
    size_t count = 0;
    void *slot = trial->adapter->slots(trial->heap, &count);
    if (count > 0)
        code = fill_up(trial, slot, &population->blocks_when_fresh);
    int closed = nvd_trial_close(trial);
    if (unlink(trial->heap_path) != 0 && code == NVD_OK) {
        nvd_emit_error("fragmentation", errno, "cannot remove '%s'", trial->heap_path);
        code = NVD_ENVIRONMENT;
    }
    return code != NVD_OK ? code : closed;
}

static int use_heap(struct population *population)
{
    struct nvd_trial *trial = population->trial;
    size_t count = 0;
    population->table = trial->adapter->slots(trial->heap, &count);
    if (population->table == NULL || count < population->slots)
        return nvd_trial_incorrect(trial, "%zu slots were asked for, the heap has %zu",
                                   population->slots, count);
    int code = live_through(population);
    return code == NVD_OK ? report(population) : code;
}

static int trial_run(struct nvd_trial *trial)
{
    struct population population = {.trial = trial,
                                    .slots = slot_count(trial->values, 1)};
    nvd_random_seed(&population.random, trial->seed);
    if (!make_arrays(&population)) {
        nvd_emit_error("fragmentation", errno, "no memory for the workload's state");
        return NVD_INTERNAL;
    }
    int code = refills(trial) ? fill_fresh(&population) : NVD_OK;
    uint64_t peak;
    if (!nvd_resident_read(&population.resident_base, &peak))
        population.resident_base = 0;
    if (code == NVD_OK)
        code = nvd_trial_create(trial);
    if (code == NVD_OK) {
        code = use_heap(&population);
        int closed = nvd_trial_close(trial);
        code = code == NVD_OK ? closed : code;
    }
    munmap(population.live, population.bytes_of_arrays);
    return code;
}

static struct nvd_workload fragmentation = {
    .name = "fragmentation",
    .summary = "sizes change, survivors stay: memory taken over memory asked for",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .max_threads = 1,
    .slot_count = slot_count,
    .trial = trial_run,
};
NVD_WORKLOAD(fragmentation);
