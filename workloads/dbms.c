// SPDX-License-Identifier: Apache-2.0
/*
 * dbms - a query engine's memory: rounds of allocations of all sizes, most of which die
 * with their query while some stay (Durner, Leis and Neumann, On the Impact of Memory
 * Allocation on High-Performance Query Processing, DaMoN 2019; as DBMStest in Dang et
 * al., NVAlloc, ASPLOS 2022, which frees 90 % of each round).
 *
 * A round allocates `round` blocks and then frees them in order, but for a tenth of
 * them, picked at random; each of those takes the place of a random block among the
 * `kept` that live long, which is freed instead.  So the survivors of many rounds lie
 * scattered between the short-lived blocks of the present one.
 *
 * Sizes are spread evenly over the octaves from min_size to max_size, 32 bytes to 512 KB,
 * and evenly within an octave: as many small blocks as a tuple buffer has, and a few
 * big ones that make up the bytes.
 *
 * A block's mark is looked at before it is freed.
 */
#include "workload.h"

enum { ROUND, KEPT, MIN_SIZE, MAX_SIZE, SURVIVING };

static const struct nvd_parameter parameters[] = {
    [ROUND] = {"round", 500, 1, 1000000, "blocks allocated in a round"},
    [KEPT] = {"kept", 500, 1, 1000000, "long-lived blocks of a thread"},
    [MIN_SIZE] = {"min_size", 32, NVD_MIN_BLOCK, 1 << 30, "bytes of the smallest block"},
    [MAX_SIZE] = {"max_size", 512 << 10, NVD_MIN_BLOCK, 1 << 30,
                  "bytes of the largest block"},
    [SURVIVING] = {"surviving", 10, 0, 100, "per cent of a round that stay"},
};

/* A thread's slots: `round` + `kept`, whose roles change; which slot has which is in
   run->shared, thread by thread: first the round's, then the kept ones. */
struct query {
    size_t at, filled; /* [0, at) are done: allocated, or freed, [at, filled) are not */
    bool ending;
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)threads;
    return values[MIN_SIZE] <= values[MAX_SIZE] ? NULL : "min_size is above max_size";
}

static size_t slots_each(const uint64_t *values)
{
    return values[ROUND] + values[KEPT];
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    return slots_each(values) * threads;
}

static size_t shared_size(const uint64_t *values, unsigned threads)
{
    return slot_count(values, threads) * sizeof(uint32_t);
}

static uint32_t *roles(const struct nvd_worker *worker)
{
    return (uint32_t *)worker->run->shared + worker->index * slots_each(worker->values);
}

/* The octave that begins at min_size << i is cut off at max_size. */
static uint64_t draw_size(struct nvd_worker *worker)
{
    const uint64_t min = worker->values[MIN_SIZE], max = worker->values[MAX_SIZE];
    unsigned octaves = 1;
    while (min << octaves <= max)
        octaves++;
    uint64_t first = min << nvd_draw(worker, octaves);
    uint64_t end = 2 * first - 1 < max ? 2 * first : max + 1;
    return first + nvd_draw(worker, end - first);
}

static bool place(struct nvd_worker *worker, uint32_t index)
{
    void *slot = nvd_slot(worker, index);
    const uint64_t size = draw_size(worker);
    if (!nvd_alloc(worker, slot, size))
        return false;
    nvd_touch(worker, slot, size);
    return true;
}

static void prepare(struct nvd_run *run)
{
    uint32_t *all = run->shared;
    for (size_t i = 0; i < run->slot_count; i++)
        all[i] = (uint32_t)i;
}

static void setup(struct nvd_worker *worker)
{
    const uint64_t *values = worker->values;
    for (size_t i = 0; i < values[KEPT] && nvd_running(worker); i++)
        if (!place(worker, roles(worker)[values[ROUND] + i]))
            return;
}

static void begin(struct nvd_worker *worker, struct query *query)
{
    const size_t blocks = worker->values[ROUND];
    bool room = true;
    while (room && query->at < blocks && nvd_running(worker)) {
        room = place(worker, roles(worker)[query->at]);
        query->at += room;
    }
    query->ending = !room || query->at == blocks;
    if (query->ending)
        *query = (struct query){.filled = query->at, .ending = true};
}

/* False when the run has failed. */
static bool settle(struct nvd_worker *worker, uint32_t *mine)
{
    const uint64_t *values = worker->values;
    if (nvd_draw(worker, 100) < values[SURVIVING]) {
        uint32_t *kept = &roles(worker)[values[ROUND] + nvd_draw(worker, values[KEPT])];
        uint32_t old = *kept;
        *kept = *mine;
        *mine = old;
    }
    void *slot = nvd_slot(worker, *mine);
    return !nvd_kept_full(worker, slot) || nvd_free_checked(worker, slot);
}

static void end(struct nvd_worker *worker, struct query *query)
{
    while (query->at < query->filled && nvd_running(worker)) {
        if (!settle(worker, &roles(worker)[query->at]))
            return;
        query->at++;
    }
    if (query->at == query->filled)
        *query = (struct query){0};
}

static void run(struct nvd_worker *worker)
{
    struct query *query = worker->state;
    while (nvd_running(worker)) {
        if (query->ending)
            end(worker, query);
        else
            begin(worker, query);
    }
}

static uint64_t cycle(const uint64_t *values)
{
    return 2 * values[ROUND];
}

static struct nvd_workload dbms = {
    .name = "dbms",
    .summary = "rounds of blocks of 32 bytes to 512 KB; a tenth of each stays",
    .heap_bytes = UINT64_C(512) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .state_size = sizeof(struct query),
    .check = check,
    .slot_count = slot_count,
    .shared_size = shared_size,
    .prepare = prepare,
    .setup = setup,
    .run = run,
    .cycle = cycle,
};
NVD_WORKLOAD(dbms);
