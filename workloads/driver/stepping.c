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
#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "driver.h"
#include "stepping.h"

#define STRATA       16u
#define BURST        2u
#define SPAN_MIN     1024u
#define SPAN_DEFAULT 16384u
#define WARMUP       100000u /* operations, or one span if that is more */
/* The loop's own cost varies little: this share of the budget tells it. */
#define DRIVER_SHARE 8

_Static_assert(SPAN_MIN / STRATA >= 4 * BURST, "bursts don't run into each other");

/* What the hooks look at; the adapter's functions get no context of ours. */
static struct {
    struct nvd_worker *worker;
    struct nvd_tracer *tracer; /* NULL: end the run instead of stepping */
    struct nvd_stretch stretch;
    int (*alloc_to)(struct nvc_heap *, void *, size_t);
    int (*free_from)(struct nvc_heap *, void *);
    uint64_t place; /* in operations since the worker began */
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
    int error = hook.alloc_to(heap, slot, size);
    if (error == 0)
        one_more();
    return error;
}

static int hooked_free(struct nvc_heap *heap, void *slot)
{
    int error = hook.free_from(heap, slot);
    if (error == 0)
        one_more();
    return error;
}

/* Runs the workload to `place` and, with a tracer, through a burst from there.
   False if the worker has failed. */
static bool run_to(const struct nvd_workload *workload, struct nvd_worker *worker,
                   struct nvd_tracer *tracer, uint64_t place)
{
    atomic_bool *stop = &worker->run->signals.stop;
    hook.worker = worker;
    hook.tracer = tracer;
    hook.stretch = (struct nvd_stretch){
        .counts = {&worker->allocs, &worker->frees},
        .ops = BURST,
        .stop = stop,
    };
    hook.alloc_to = worker->alloc_to;
    hook.free_from = worker->free_from;
    hook.place = place;
    worker->alloc_to = hooked_alloc;
    worker->free_from = hooked_free;
    atomic_store(stop, false);
    workload->run(worker);
    unhook();
    return worker->where == NULL;
}

/* Sums over bursts. */
struct tally {
    uint64_t bursts, steps, instructions;
    double squares; /* of a burst's instructions */
};

static uint64_t span_of(const struct nvd_workload *workload,
                        const struct nvd_worker *worker)
{
    uint64_t cycle = workload->cycle == NULL ? 0 : workload->cycle(worker->values);
    if (cycle == 0)
        return SPAN_DEFAULT;
    return cycle >= SPAN_MIN ? cycle : (SPAN_MIN + cycle - 1) / cycle * cycle;
}

/* One pass over the span that begins at operation `base`. */
static bool pass(const struct nvd_stepping_request *request,
                 const struct nvd_workload *workload, struct nvd_worker *worker,
                 struct nvd_random *random, uint64_t base, uint64_t span,
                 struct tally *tally)
{
    for (uint64_t i = 0; i < STRATA; i++) {
        uint64_t begin = span * i / STRATA, end = span * (i + 1) / STRATA;
        uint64_t place = begin + nvd_random_below(random, end - begin - 2 * BURST);
        struct nvd_steps steps;
        bool well = run_to(workload, worker, request->tracer, base + place);
        if (!nvd_tracer_stepped(request->tracer, &steps) || !well)
            return false;
        tally->bursts++;
        tally->steps += steps.steps;
        tally->instructions += steps.instructions;
        tally->squares += (double)steps.instructions * (double)steps.instructions;
    }
    return true;
}

static bool measure(const struct nvd_stepping_request *request,
                    const struct nvd_workload *workload, struct nvd_worker *worker,
                    uint64_t budget, uint64_t warmup, struct tally *tally)
{
    const uint64_t since = nvd_monotonic_ns();
    const uint64_t span = span_of(workload, worker);
    uint64_t base = position(worker), dearest = 0;
    struct nvd_random random;
    nvd_random_seed(&random, request->seed);
    *tally = (struct tally){0};
    if (warmup > 0) {
        base = warmup > span ? (warmup + span - 1) / span * span : span;
        if (!run_to(workload, worker, NULL, base))
            return false;
    }
    do {
        uint64_t before = tally->steps;
        if (!pass(request, workload, worker, &random, base, span, tally))
            return false;
        base += span;
        if (tally->steps - before > dearest)
            dearest = tally->steps - before;
    } while (tally->steps + dearest <= budget &&
             (double)(nvd_monotonic_ns() - since) < request->seconds * 1e9);
    return true;
}

bool nvd_stepping_sample(const struct nvd_stepping_request *request,
                         const struct nvd_workload *workload, struct nvd_worker *worker,
                         struct nvd_stepped *result)
{
    struct tally tally;
    uint64_t budget = request->budget - request->budget / DRIVER_SHARE;
    if (!measure(request, workload, worker, budget, WARMUP, &tally))
        return false;
    double n = (double)tally.bursts;
    double mean = (double)tally.instructions / n;
    double variance = (tally.squares - n * mean * mean) / (n - 1);
    result->instructions = tally.instructions;
    result->ops = tally.bursts * BURST;
    result->deviation = variance > 0 ? sqrt(variance / n) / BURST : 0;
    return true;
}

/* ---- the allocator that does nothing ---- */

static uint64_t scratch[16];

static int empty_alloc(struct nvc_heap *heap, void *slot, size_t size)
{
    (void)heap;
    (void)slot;
    (void)size;
    return 0;
}

static int empty_free(struct nvc_heap *heap, void *slot)
{
    (void)heap;
    (void)slot;
    return 0;
}

static void *empty_address(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    (void)slot;
    return scratch;
}

static struct nvc_block empty_read(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    (void)slot;
    return (struct nvc_block){scratch, sizeof scratch};
}

bool nvd_stepping_driver(const struct nvd_stepping_request *request,
                         const struct nvd_workload *workload, struct nvd_worker *worker,
                         struct nvd_stepped *result)
{
    struct tally tally;
    worker->alloc_to = empty_alloc;
    worker->free_from = empty_free;
    worker->read = empty_read;
    if (worker->address != NULL) /* else the driver reads, here too */
        worker->address = empty_address;
    if (!measure(request, workload, worker, request->budget / DRIVER_SHARE, 0, &tally))
        return false;
    result->driver_instructions = tally.instructions;
    result->driver_ops = tally.bursts * BURST;
    return true;
}
