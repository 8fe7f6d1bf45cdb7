// SPDX-License-Identifier: Apache-2.0
/*
 * bench.c - see bench.h.
 *
 * Who may touch what: between the start and the end barrier of a window a
 * worker owns its seat, and the coordinator touches nothing but the stop signal;
 * outside it the coordinator owns all.  The barriers order the two.
 *
 *   worker:       enter | E S window | E S window | ... E S leave
 *   coordinator:        | E S  sleep | E S  sleep | ... E S join
 *
 * where E is the barrier that ends a window and S the one that starts the next.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench.h"
#include "clock.h"
#include "driver.h"
#include "instructions.h"
#include "resident.h"

enum window {
    WINDOW_SETUP,
    WINDOW_WARMUP,
    WINDOW_THROUGHPUT,
    WINDOW_SWEEP, /* worker 0 looks at every slot */
    WINDOW_LATENCY,
    WINDOW_DONE,
};

/* A thread and what it measured in the last window. */
struct seat {
    struct nvd_worker worker;
    struct crew *crew;
    pthread_t thread;
    uint64_t begin_ns, end_ns;
    uint64_t cpu_ns;
    uint64_t minor_faults, major_faults;
    bool has_instructions;
    uint64_t instructions;
    uint64_t slot_bytes;      /* of a sweep: usable bytes of the slots' blocks */
    uint64_t requested_bytes; /* of a sweep: what was asked for and is live */
};

struct crew {
    struct nvd_run run;
    const struct nvd_bench_request *request;
    struct nvd_clock clock;
    pthread_barrier_t barrier; /* workers and the coordinator */
    struct seat *seats;
    unsigned hands; /* threads that exist */
    enum window window;
    sem_t hired; /* posted once for each thread when all exist, or none shall */
    bool dismissed;
};

static uint64_t thread_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- the worker ---- */

static void enter(struct seat *seat)
{
    const struct nvd_bench_request *request = seat->crew->request;
    struct nvd_worker *worker = &seat->worker;
    if (request->cpu_count > 0) {
        int cpu = request->cpus[worker->index % (unsigned)request->cpu_count];
        cpu_set_t *set = CPU_ALLOC((size_t)cpu + 1);
        size_t size = CPU_ALLOC_SIZE((size_t)cpu + 1);
        int error = ENOMEM;
        if (set != NULL) {
            CPU_ZERO_S(size, set);
            CPU_SET_S((size_t)cpu, size, set);
            error = pthread_setaffinity_np(pthread_self(), size, set);
            CPU_FREE(set);
        }
        if (error != 0) {
            char message[128];
            snprintf(message, sizeof message,
                     "cannot run on CPU %d: it is offline or not allowed here", cpu);
            nvd_worker_fail(worker, "cpus", error, message);
            return;
        }
    }
    if (request->adapter->thread_enter != NULL) {
        int error = request->adapter->thread_enter(request->heap);
        if (error != 0)
            nvd_worker_fail(worker, "thread_enter", error, NULL);
    }
}

/* Every full slot's block must hold what nvd_touch() put there last: the mark of
   this very slot.  If not, two slots share memory. */
static void sweep(struct seat *seat)
{
    struct nvd_worker *worker = &seat->worker;
    const struct nvd_workload *workload = seat->crew->request->workload;
    seat->slot_bytes = seat->requested_bytes = 0;
    if (workload->verify != NULL) {
        seat->slot_bytes = UINT64_MAX;
        workload->verify(worker, &seat->requested_bytes);
        return;
    }
    for (size_t i = 0; i < worker->run->slot_count; i++) {
        const void *slot = nvd_slot(worker, i);
        struct nvc_block block = worker->read(worker->heap, slot);
        if (block.address == NULL)
            continue;
        seat->slot_bytes += block.usable;
        uint64_t found = *(const uint64_t *)block.address;
        size_t size = (size_t)(found >> 32);
        uint64_t expected = nvd_mark(slot, size);
        seat->requested_bytes += size;
        if (found != expected || size > block.usable) {
            char message[160];
            snprintf(
                message, sizeof message,
                "the block of slot %zu was overwritten: found %#llx, expected %#llx in "
                "its low half; it may have been handed out twice",
                i, (unsigned long long)found, (unsigned long long)expected & UINT32_MAX);
            nvd_worker_fail(worker, "sweep", 0, message);
            return;
        }
    }
}

static void measure(struct seat *seat, int counter)
{
    const struct nvd_workload *workload = seat->crew->request->workload;
    struct rusage before, after;
    getrusage(RUSAGE_THREAD, &before);
    uint64_t cpu = thread_cpu_ns();
    seat->begin_ns = nvd_monotonic_ns();
    nvd_instructions_start(counter);
    workload->run(&seat->worker);
    seat->has_instructions = nvd_instructions_stop(counter, &seat->instructions);
    seat->end_ns = nvd_monotonic_ns();
    seat->cpu_ns = thread_cpu_ns() - cpu;
    getrusage(RUSAGE_THREAD, &after);
    seat->minor_faults = (uint64_t)(after.ru_minflt - before.ru_minflt);
    seat->major_faults = (uint64_t)(after.ru_majflt - before.ru_majflt);
}

static void work(struct seat *seat, int counter)
{
    const struct nvd_workload *workload = seat->crew->request->workload;
    struct nvd_worker *worker = &seat->worker;
    worker->allocs = worker->frees = worker->requests = worker->failed_allocs = 0;
    worker->storm_length = 0;
    switch (seat->crew->window) {
    case WINDOW_SETUP:
        if (workload->setup != NULL)
            workload->setup(worker);
        break;
    case WINDOW_WARMUP:
    case WINDOW_LATENCY:
        workload->run(worker);
        break;
    case WINDOW_THROUGHPUT:
        measure(seat, counter);
        break;
    case WINDOW_SWEEP:
        if (worker->index == 0)
            sweep(seat);
        break;
    case WINDOW_DONE:
        break;
    }
}

static void *worker_main(void *argument)
{
    struct seat *seat = argument;
    struct crew *crew = seat->crew;
    while (sem_wait(&crew->hired) != 0)
        ;
    if (crew->dismissed)
        return NULL;
    enter(seat);
    bool entered = seat->worker.where == NULL;
    int counter = nvd_instructions_open();
    for (;;) {
        pthread_barrier_wait(&crew->barrier); /* E */
        pthread_barrier_wait(&crew->barrier); /* S */
        if (crew->window == WINDOW_DONE)
            break;
        work(seat, counter);
    }
    nvd_instructions_close(counter);
    const struct nvc_adapter *adapter = crew->request->adapter;
    if (entered && adapter->thread_leave != NULL)
        adapter->thread_leave(crew->request->heap);
    return NULL;
}

/* ---- the coordinator ---- */

/* Emits the first failure of a worker; NVD_OK if there is none. */
static int failure(const struct crew *crew)
{
    for (unsigned i = 0; i < crew->hands; i++) {
        const struct nvd_worker *worker = &crew->seats[i].worker;
        if (worker->where == NULL)
            continue;
        nvd_emit_error(worker->where, worker->error, "%s, thread %u of %u: %s",
                       crew->request->workload->name, i, crew->hands, worker->message);
        return strcmp(worker->where, "sweep") == 0 ? NVD_INCORRECT : NVD_ENVIRONMENT;
    }
    return NVD_OK;
}

/* Returns when the time is over or a worker has failed. */
static void sleep_for(struct crew *crew, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double whole = (double)(time_t)seconds;
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - whole) * 1e9);
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    while (sem_clockwait(&crew->run.wake, CLOCK_MONOTONIC, &until) != 0 && errno == EINTR)
        ;
}

/* Runs one window; seconds < 0: until every worker has returned by itself. */
static int hold(struct crew *crew, enum window window, double seconds)
{
    crew->window = window;
    atomic_store(&crew->run.signals.stop, false);
    nvd_events_count(window == WINDOW_THROUGHPUT || window == WINDOW_LATENCY);
    pthread_barrier_wait(&crew->barrier); /* S */
    if (seconds >= 0) {
        sleep_for(crew, seconds);
        atomic_store(&crew->run.signals.stop, true);
    }
    pthread_barrier_wait(&crew->barrier); /* E */
    nvd_events_count(false);
    return failure(crew);
}

static void note_used(struct nvd_bench_result *result, const struct nvc_stats *stats)
{
    if (stats->used_bytes != UINT64_MAX &&
        (result->used_peak == UINT64_MAX || stats->used_bytes > result->used_peak))
        result->used_peak = stats->used_bytes;
}

static void sum_throughput(const struct crew *crew, struct nvd_bench_result *result)
{
    uint64_t begin = UINT64_MAX, end = 0, cpu = 0;
    result->has_instructions = true;
    for (unsigned i = 0; i < crew->hands; i++) {
        const struct seat *seat = &crew->seats[i];
        begin = seat->begin_ns < begin ? seat->begin_ns : begin;
        end = seat->end_ns > end ? seat->end_ns : end;
        cpu += seat->cpu_ns;
        result->allocs += seat->worker.allocs;
        result->frees += seat->worker.frees;
        result->requests += seat->worker.requests;
        result->failed_allocs += seat->worker.failed_allocs;
        result->has_instructions &= seat->has_instructions;
        result->instructions += seat->instructions;
        result->minor_faults += seat->minor_faults;
        result->major_faults += seat->major_faults;
    }
    result->seconds = (double)(end - begin) / 1e9;
    result->cpu_seconds = (double)cpu / 1e9;
    result->ops = crew->request->workload->counts_requests
                      ? result->requests
                      : result->allocs + result->frees;
    result->event_ops += result->ops;
}

static int throughput(struct crew *crew, struct nvd_bench_result *result)
{
    const struct nvd_bench_request *request = crew->request;
    request->adapter->stats(request->heap, &result->stats_before);
    note_used(result, &result->stats_before);
    int code = hold(crew, WINDOW_THROUGHPUT, request->seconds);
    if (code != NVD_OK)
        return code;
    request->adapter->stats(request->heap, &result->stats);
    note_used(result, &result->stats);
    uint64_t now, peak;
    result->has_resident = nvd_resident_read(&now, &peak);
    if (result->has_resident) {
        const uint64_t base = request->resident_base;
        result->resident_peak = peak > base ? peak - base : 0;
        result->resident = now > base ? now - base : 0;
    }
    sum_throughput(crew, result);
    if (result->ops == 0) {
        bool full = result->failed_allocs > 0;
        nvd_emit_error("bench", full ? ENOMEM : 0,
                       full
                           ? "%s: not one operation succeeded in the window: the heap is "
                             "too small for this workload"
                           : "%s: not one operation ended in the window: it is too short",
                       request->workload->name);
        return NVD_ENVIRONMENT;
    }
    code = hold(crew, WINDOW_SWEEP, -1);
    result->slot_bytes = crew->seats[0].slot_bytes;
    result->requested_bytes = crew->seats[0].requested_bytes;
    return code;
}

static int latency(struct crew *crew, struct nvd_bench_result *result)
{
    nvd_clock_settle(&crew->clock);
    result->clock_overhead_ns = nvd_clock_overhead_ns(&crew->clock);
    bool enough = (result->latency = nvd_latency_new(&crew->clock)) != NULL;
    for (unsigned i = 0; i < crew->hands; i++)
        enough &= (crew->seats[i].worker.latency = nvd_latency_new(&crew->clock)) != NULL;
    int code = NVD_OK;
    if (!enough) {
        nvd_emit_error("bench", ENOMEM, "no memory for the latency histograms");
        code = NVD_INTERNAL;
    } else {
        code = hold(crew, WINDOW_LATENCY, crew->request->latency_seconds);
    }
    for (unsigned i = 0; i < crew->hands; i++) {
        struct nvd_worker *worker = &crew->seats[i].worker;
        if (code == NVD_OK)
            nvd_latency_add(result->latency, worker->latency);
        result->event_ops += crew->request->workload->counts_requests
                                 ? worker->requests
                                 : worker->allocs + worker->frees;
        free(worker->latency);
        worker->latency = NULL;
    }
    return code == NVD_OK ? hold(crew, WINDOW_SWEEP, -1) : code;
}

static int all_windows(struct crew *crew, struct nvd_bench_result *result)
{
    int code = failure(crew); /* of enter() */
    if (code == NVD_OK)
        code = hold(crew, WINDOW_SETUP, -1);
    for (unsigned i = 0; i < crew->hands; i++)
        result->setup_failed_allocs += crew->seats[i].worker.failed_allocs;
    if (code == NVD_OK)
        code = hold(crew, WINDOW_WARMUP, crew->request->warmup_seconds);
    if (code == NVD_OK)
        code = throughput(crew, result);
    if (code == NVD_OK && crew->request->latency_seconds > 0)
        code = latency(crew, result);
    if (code == NVD_OK && crew->request->observed && !nvd_events_total(&result->events)) {
        nvd_emit_error("observe", 0, "events came from more than %u threads",
                       NVD_EVENT_THREADS);
        code = NVD_INTERNAL;
    }
    return code;
}

static struct seat *take_seat(struct crew *crew, unsigned index,
                              struct nvd_random *random)
{
    const struct nvd_bench_request *request = crew->request;
    struct seat *seat = &crew->seats[index];
    void *state = seat->worker.state;
    seat->crew = crew;
    seat->worker = (struct nvd_worker){
        .alloc_to = request->adapter->alloc_to,
        .free_from = request->adapter->free_from,
        .address = request->adapter->address,
        .read = request->adapter->read,
        .heap = request->heap,
        .signals = &crew->run.signals,
        .draw_state = nvd_random_next(random),
        .slot_size = crew->run.slot_size,
        .slots = crew->run.slots,
        .run = &crew->run,
        .values = request->values,
        .state = state,
        .index = index,
    };
    return seat;
}

/* Starts the threads; the number that exist is crew->hands. */
static int hire(struct crew *crew)
{
    const struct nvd_bench_request *request = crew->request;
    struct nvd_random random;
    nvd_random_seed(&random, request->seed);
    int error = 0;
    for (unsigned i = 0; i < request->threads && error == 0; i++) {
        struct seat *seat = take_seat(crew, i, &random);
        error = pthread_create(&seat->thread, NULL, worker_main, seat);
        crew->hands += error == 0;
    }
    if (error != 0)
        nvd_emit_error("bench", error, "cannot start thread %u of %u", crew->hands,
                       request->threads);
    return error;
}

/* Zeroed memory that shares no cache line; bytes 0 gives memory too. */
static void *zeroed(size_t bytes)
{
    size_t rounded = (bytes + NVD_CACHE_ALIGN) / NVD_CACHE_ALIGN * NVD_CACHE_ALIGN;
    void *memory = aligned_alloc(NVD_CACHE_ALIGN, rounded);
    return memory == NULL ? NULL : memset(memory, 0, rounded);
}

/* For what a tracer looks at. */
static void *get_memory(const struct nvd_bench_request *request, size_t bytes)
{
    return request->tracer == NULL ? zeroed(bytes)
                                   : nvd_tracer_memory(request->tracer, bytes);
}

static void put_memory(const struct nvd_bench_request *request, void *memory)
{
    if (request->tracer == NULL)
        free(memory); /* else it is the tracer's */
}

static int prepare(struct crew *crew)
{
    const struct nvd_bench_request *request = crew->request;
    const struct nvd_workload *workload = request->workload;
    struct nvd_run *run = &crew->run;
    size_t count = 0;
    run->adapter = request->adapter;
    run->heap = request->heap;
    run->slots = request->adapter->slots(request->heap, &count);
    run->slot_size = request->adapter->slot_size;
    run->slot_count = workload->slot_count(request->values, request->threads);
    run->threads = request->threads;
    run->values = request->values;
    if (run->slots == NULL || count < run->slot_count) {
        nvd_emit_error("slots", 0, "%s: asked for %zu slots, the heap has %zu",
                       request->adapter->name, run->slot_count, count);
        return NVD_ENVIRONMENT;
    }
    size_t bytes = request->threads * sizeof *crew->seats;
    bool enough = (crew->seats = get_memory(request, bytes)) != NULL;
    if (workload->shared_size != NULL)
        enough &= (run->shared = zeroed(
                       workload->shared_size(request->values, request->threads))) != NULL;
    for (unsigned i = 0; enough && i < request->threads; i++)
        enough &= (crew->seats[i].worker.state = zeroed(workload->state_size)) != NULL;
    if (!enough) {
        nvd_emit_error("bench", ENOMEM, "no memory for the workload's state");
        return NVD_INTERNAL;
    }
    if (workload->prepare != NULL)
        workload->prepare(run);
    return NVD_OK;
}

static int conduct(struct crew *crew, struct nvd_bench_result *result)
{
    const unsigned threads = crew->request->threads;
    int error = sem_init(&crew->run.wake, 0, 0) | sem_init(&crew->hired, 0, 0);
    if (error == 0)
        error = pthread_barrier_init(&crew->barrier, NULL, threads + 1);
    if (error != 0) {
        nvd_emit_error("bench", 0, "cannot make a semaphore or a barrier");
        return NVD_INTERNAL;
    }
    crew->dismissed = hire(crew) != 0;
    for (unsigned i = 0; i < crew->hands; i++)
        sem_post(&crew->hired);
    int code = NVD_ENVIRONMENT;
    if (!crew->dismissed) {
        pthread_barrier_wait(&crew->barrier); /* E of enter() */
        code = all_windows(crew, result);
        crew->window = WINDOW_DONE;
        pthread_barrier_wait(&crew->barrier); /* S */
    }
    for (unsigned i = 0; i < crew->hands; i++)
        pthread_join(crew->seats[i].thread, NULL);
    pthread_barrier_destroy(&crew->barrier);
    sem_destroy(&crew->hired);
    sem_destroy(&crew->run.wake);
    return code;
}

/* The only seat is the caller's; there is no coordinator. */
static int step(struct crew *crew, struct seat *seat, struct nvd_bench_result *result)
{
    const struct nvd_bench_request *request = crew->request;
    const struct nvd_workload *workload = request->workload;
    struct nvd_worker *worker = &seat->worker;
    const struct nvd_stepping_request how = {
        .tracer = request->tracer,
        .budget = request->step_budget,
        .seed = request->seed,
        .seconds = request->step_seconds,
    };
    if (nvd_stepping_sample(&how, workload, worker, &result->stepped)) {
        result->setup_failed_allocs = result->stepped.setup_failed_allocs;
        request->adapter->stats(request->heap, &result->stats);
        sweep(seat);
        result->slot_bytes = seat->slot_bytes;
        result->requested_bytes = seat->requested_bytes;
    }
    if (worker->where == NULL)
        nvd_stepping_driver(&how, workload, worker, &result->stepped);
    int code = failure(crew);
    if (code == NVD_OK && result->stepped.driver_ops == 0) {
        nvd_emit_error("stepping", 0, "%s returned by itself, before it was told to",
                       workload->name);
        code = NVD_INTERNAL;
    }
    return code;
}

static int conduct_alone(struct crew *crew, struct nvd_bench_result *result)
{
    const struct nvd_bench_request *request = crew->request;
    struct nvd_random random;
    nvd_random_seed(&random, request->seed);
    if (sem_init(&crew->run.wake, 0, 0) != 0) {
        nvd_emit_error("bench", 0, "cannot make a semaphore");
        return NVD_INTERNAL;
    }
    struct seat *seat = take_seat(crew, 0, &random);
    crew->hands = 1;
    enter(seat);
    int code = failure(crew);
    if (code == NVD_OK) {
        code = step(crew, seat, result);
        if (request->adapter->thread_leave != NULL)
            request->adapter->thread_leave(request->heap);
    }
    sem_destroy(&crew->run.wake);
    return code;
}

int nvd_bench_run(const struct nvd_bench_request *request,
                  struct nvd_bench_result *result)
{
    *result = (struct nvd_bench_result){.used_peak = UINT64_MAX};
    struct crew *crew = get_memory(request, sizeof *crew);
    if (crew == NULL) {
        nvd_emit_error("bench", ENOMEM, "no memory");
        return NVD_INTERNAL;
    }
    crew->request = request;
    nvd_clock_start(&crew->clock);
    int code = prepare(crew);
    if (code == NVD_OK)
        code =
            request->tracer == NULL ? conduct(crew, result) : conduct_alone(crew, result);
    if (code != NVD_OK) {
        free(result->latency);
        result->latency = NULL;
    }
    for (unsigned i = 0; crew->seats != NULL && i < request->threads; i++)
        free(crew->seats[i].worker.state);
    if (request->workload->finish != NULL && crew->run.shared != NULL)
        request->workload->finish(&crew->run);
    free(crew->run.shared);
    put_memory(request, crew->seats);
    put_memory(request, crew);
    return code;
}
