// SPDX-License-Identifier: Apache-2.0
/*
 * stepping.c - see stepping.h.
 *
 * How a place is reached at full speed: the worker calls the allocator through
 * pointers of its own.  Until the place, they lead to hooked_alloc() and
 * hooked_free() below, which count; the one that completes the last operation
 * before it puts the allocator's own functions back and asks to be stepped.  A
 * few instructions later the worker counts that operation as done, which is the
 * boundary where the tracer begins.  At the end of the burst the tracer raises the
 * stop flag, run() returns, and the next search begins.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "driver.h"
#include "stepping.h"

#define STRATA       4u
#define BURST        8u /* operations of a burst in the first pass */
#define PASSES       40u
#define SPAN_MIN     1024u
#define SPAN_DEFAULT 16384u
#define WARMUP       100000u /* operations, or one span if that is more */
/* Who needs more CPU time at full speed before the first burst is too slow to be stepped
   over: a microsecond an operation makes a tenth of it, with a large live set half. */
#define PATIENCE_NS      UINT64_C(4000000000)
#define PATIENCE_EVERY   64u     /* operations between two looks at the clock */
#define FIRST_BURST_MOST 100000u /* steps; more, if twice the budget is more */
/* The loop's own cost varies little: this share of the budget tells it. */
#define DRIVER_SHARE 8

/* What the hooks look at; the adapter's functions get no context of ours. */
static struct {
    struct nvd_worker *worker;
    struct nvd_tracer *tracer; /* NULL: end the run instead of stepping */
    struct nvd_stretch stretch;
    int (*alloc_to)(struct nvc_heap *, void *, size_t);
    int (*free_from)(struct nvc_heap *, void *);
    uint64_t place;            /* in operations since the worker began */
    uint64_t patience_ends_ns; /* CPU time of this thread; 0: never */
} hook;

static uint64_t position(const struct nvd_worker *worker)
{
    return worker->allocs + worker->frees;
}

static void unhook(void)
{
    hook.worker->alloc_to = hook.alloc_to;
    hook.worker->free_from = hook.free_from;
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Fails the worker, and says so, when it has used up its CPU time. */
static bool too_slow(void)
{
    struct nvd_worker *worker = hook.worker;
    if (hook.patience_ends_ns == 0 || position(worker) % PATIENCE_EVERY != 0 ||
        cpu_ns() < hook.patience_ends_ns)
        return false;
    char message[160];
    snprintf(message, sizeof message,
             "too slow to be stepped over: %" PRIu64 " operations, of those that come "
             "before, took %g s of CPU time at full speed",
             position(worker), (double)PATIENCE_NS / 1e9);
    nvd_worker_fail(worker, NVD_STEPPING_TOO_SLOW, 0, message);
    return true;
}

/* An operation has succeeded, which its caller has not counted yet. */
static void one_more(void)
{
    if (position(hook.worker) + 1 < hook.place)
        return;
    unhook();
    if (hook.tracer == NULL)
        atomic_store(hook.stretch.stop, true);
    else
        nvd_tracer_step(hook.tracer, &hook.stretch);
}

static int hooked_alloc(struct nvc_heap *heap, void *slot, size_t size)
{
    if (too_slow())
        return ECANCELED;
    int error = hook.alloc_to(heap, slot, size);
    if (error == 0)
        one_more();
    return error;
}

static int hooked_free(struct nvc_heap *heap, void *slot)
{
    if (too_slow())
        return ECANCELED;
    int error = hook.free_from(heap, slot);
    if (error == 0)
        one_more();
    return error;
}

/* Runs a part of the workload to `place` and, with a tracer, through a burst of `ops` of
   at most so many steps from there.  False if the worker has failed. */
static bool run_to(void (*part)(struct nvd_worker *), struct nvd_worker *worker,
                   struct nvd_tracer *tracer, uint64_t place, uint64_t ops, uint64_t most)
{
    atomic_bool *stop = &worker->run->signals.stop;
    hook.worker = worker;
    hook.tracer = tracer;
    hook.stretch = (struct nvd_stretch){
        .counts = {&worker->allocs, &worker->frees},
        .ops = ops,
        .most = most,
        .stop = stop,
    };
    hook.alloc_to = worker->alloc_to;
    hook.free_from = worker->free_from;
    hook.place = place;
    worker->alloc_to = hooked_alloc;
    worker->free_from = hooked_free;
    atomic_store(stop, false);
    part(worker);
    unhook();
    return worker->where == NULL;
}

/* ---- passes ---- */

struct plan {
    const struct nvd_stepping_request *request;
    const struct nvd_workload *workload;
    struct nvd_worker *worker;
    struct nvd_random random;
    uint64_t base; /* operation at which the next span begins */
    uint64_t steps;
    double dearest; /* steps an operation of the dearest pass */
    unsigned passes;
    struct {
        uint64_t ops, instructions;
    } bursts[PASSES][STRATA];
};

/* Whole cycles in which bursts of so many operations fit into the strata, also if
   run() looks at the stop flag a little late. */
static uint64_t span_for(const struct plan *plan, uint64_t burst)
{
    const struct nvd_workload *workload = plan->workload;
    uint64_t cycle =
        workload->cycle == NULL ? SPAN_DEFAULT : workload->cycle(plan->worker->values);
    uint64_t least = 4 * STRATA * burst > SPAN_MIN ? 4 * STRATA * burst : SPAN_MIN;
    return (least + cycle - 1) / cycle * cycle;
}

/* The live set, and from there whole spans to the beginning of the first pass. */
static bool warm_up(struct plan *plan, struct nvd_stepped *result)
{
    struct nvd_worker *worker = plan->worker;
    const struct nvd_workload *workload = plan->workload;
    const uint64_t span = span_for(plan, BURST);
    hook.patience_ends_ns = cpu_ns() + PATIENCE_NS;
    bool well = workload->setup == NULL ||
                run_to(workload->setup, worker, NULL, UINT64_MAX, 0, 0);
    result->setup_failed_allocs = worker->failed_allocs;
    plan->base = position(worker) + (WARMUP + span - 1) / span * span;
    well = well && run_to(workload->run, worker, NULL, plan->base, 0, 0);
    hook.patience_ends_ns = 0;
    return well;
}

/* Fails the worker whose first burst was given up. */
static bool fail_as_dear(struct plan *plan, const struct nvd_steps *steps, uint64_t burst)
{
    char message[160];
    snprintf(message, sizeof message,
             "too slow to be stepped over: %" PRIu64 " steps were not enough for %" PRIu64
             " operations",
             steps->steps, burst);
    nvd_worker_fail(plan->worker, NVD_STEPPING_TOO_SLOW, 0, message);
    return false;
}

static bool pass(struct plan *plan, uint64_t burst)
{
    const uint64_t span = span_for(plan, burst);
    const uint64_t most = 2 * plan->request->budget > FIRST_BURST_MOST
                              ? 2 * plan->request->budget
                              : FIRST_BURST_MOST;
    uint64_t before = plan->steps;
    for (uint64_t i = 0; i < STRATA; i++) {
        uint64_t begin = span * i / STRATA, end = span * (i + 1) / STRATA;
        uint64_t at = begin + nvd_random_below(&plan->random, end - begin - 2 * burst);
        struct nvd_steps steps;
        bool well = run_to(plan->workload->run, plan->worker, plan->request->tracer,
                           plan->base + at, burst, plan->passes == 0 ? most : 0);
        bool stepped = nvd_tracer_stepped(plan->request->tracer, &steps);
        if (well && steps.too_long)
            return fail_as_dear(plan, &steps, burst);
        if (!stepped || !well)
            return false;
        plan->steps += steps.steps;
        plan->bursts[plan->passes][i].ops = burst;
        plan->bursts[plan->passes][i].instructions = steps.instructions;
    }
    plan->passes++;
    plan->base += span;
    double cost = (double)(plan->steps - before) / (double)(STRATA * burst);
    plan->dearest = cost > plan->dearest ? cost : plan->dearest;
    return true;
}

static bool make_passes(struct plan *plan, uint64_t budget)
{
    const uint64_t since = nvd_monotonic_ns();
    uint64_t burst = BURST;
    do {
        if (!pass(plan, burst))
            return false;
        double left = budget > plan->steps ? (double)(budget - plan->steps) : 0;
        uint64_t affordable = (uint64_t)(left / (plan->dearest * STRATA));
        burst = affordable < 2 * burst ? affordable : 2 * burst;
    } while (burst >= BURST && plan->passes < PASSES &&
             (double)(nvd_monotonic_ns() - since) < plan->request->seconds * 1e9);
    return true;
}

static void sum_up(const struct plan *plan, uint64_t *instructions, uint64_t *ops)
{
    *instructions = *ops = 0;
    for (unsigned p = 0; p < plan->passes; p++)
        for (unsigned i = 0; i < STRATA; i++) {
            *instructions += plan->bursts[p][i].instructions;
            *ops += plan->bursts[p][i].ops;
        }
}

/* The standard error of the ratio of the sums (Cochran, Sampling Techniques, 6.4 and
   6.11): from the bursts' distances from their stratum's mean; after one pass only,
   from the mean of all. */
static double deviation(const struct plan *plan)
{
    uint64_t instructions, ops;
    sum_up(plan, &instructions, &ops);
    double squares = 0, mean = (double)instructions / (double)ops;
    for (unsigned i = 0; i < STRATA; i++) {
        double of_stratum = 0, in_stratum = 0;
        for (unsigned p = 0; p < plan->passes; p++) {
            of_stratum += (double)plan->bursts[p][i].instructions;
            in_stratum += (double)plan->bursts[p][i].ops;
        }
        if (plan->passes > 1)
            mean = of_stratum / in_stratum;
        for (unsigned p = 0; p < plan->passes; p++) {
            double distance = (double)plan->bursts[p][i].instructions -
                              mean * (double)plan->bursts[p][i].ops;
            squares += distance * distance;
        }
    }
    double bursts = plan->passes * STRATA;
    double freedom = plan->passes > 1 ? bursts - STRATA : bursts - 1;
    return sqrt(squares * bursts / freedom) / (double)ops;
}

bool nvd_stepping_sample(const struct nvd_stepping_request *request,
                         const struct nvd_workload *workload, struct nvd_worker *worker,
                         struct nvd_stepped *result)
{
    struct plan plan = {.request = request, .workload = workload, .worker = worker};
    nvd_random_seed(&plan.random, request->seed);
    if (!warm_up(&plan, result) ||
        !make_passes(&plan, request->budget - request->budget / DRIVER_SHARE))
        return false;
    sum_up(&plan, &result->instructions, &result->ops);
    result->deviation = deviation(&plan);
    return true;
}

/* ---- the allocator that does nothing ----
 *
 * Nothing but remember which slots are full: workloads ask, and look at their marks.  It
 * has a slot table of its own, and a block of 8 bytes for each slot, at the same distance
 * from all of them.
 */

static size_t empty_distance; /* from a slot to its block */

static int empty_alloc(struct nvc_heap *heap, void *slot, size_t size)
{
    (void)heap;
    (void)size;
    *(uint64_t *)slot = 1;
    return 0;
}

static int empty_free(struct nvc_heap *heap, void *slot)
{
    (void)heap;
    *(uint64_t *)slot = 0;
    return 0;
}

static void *empty_address(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    return *(const uint64_t *)slot == 0 ? NULL : (char *)(uintptr_t)slot + empty_distance;
}

static struct nvc_block empty_read(struct nvc_heap *heap, const void *slot)
{
    void *block = empty_address(heap, slot);
    return (struct nvc_block){block, block == NULL ? 0 : sizeof(uint64_t)};
}

/* The worker's slots, full and marked where the real ones are full; NULL without memory.
 */
static char *empty_table(const struct nvd_worker *worker)
{
    const struct nvd_run *run = worker->run;
    empty_distance = run->slot_count * run->slot_size;
    char *table = calloc(2, empty_distance);
    for (size_t i = 0; table != NULL && i < run->slot_count; i++) {
        void *slot = table + i * run->slot_size;
        if (nvd_block(worker, nvd_slot(worker, i)) == NULL)
            continue;
        empty_alloc(NULL, slot, 0);
        *(uint64_t *)empty_address(NULL, slot) = nvd_mark(slot, 0);
    }
    return table;
}

bool nvd_stepping_driver(const struct nvd_stepping_request *request,
                         const struct nvd_workload *workload, struct nvd_worker *worker,
                         struct nvd_stepped *result)
{
    struct plan plan = {.request = request, .workload = workload, .worker = worker};
    nvd_random_seed(&plan.random, request->seed);
    plan.base = position(worker);
    char *table = empty_table(worker);
    if (table == NULL) {
        nvd_worker_fail(worker, "stepping", ENOMEM, "no memory for an empty slot table");
        return false;
    }
    worker->slots = table;
    worker->alloc_to = empty_alloc;
    worker->free_from = empty_free;
    worker->read = empty_read;
    if (worker->address != NULL) /* else the driver reads, here too */
        worker->address = empty_address;
    bool done = make_passes(&plan, request->budget / DRIVER_SHARE);
    worker->slots = worker->run->slots;
    free(table);
    if (done)
        sum_up(&plan, &result->driver_instructions, &result->driver_ops);
    return done;
}
