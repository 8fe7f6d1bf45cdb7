// SPDX-License-Identifier: Apache-2.0
/*
 * workload.c - the registry of workloads, and the rare paths of their
 * operations: timing one, and coping with one that failed.
 *
 * When memory runs out a workload goes on, as a program would that frees
 * something and tries again.  It must not go on for ever without getting
 * anywhere: STORM_LENGTH failures in a row, over STORM_NS, without one success
 * of the thread between them, end the run with an error.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "workload.h"

/* Rounds of nvd_pause() before the CPU is given away. */
#define SPINS        128u
#define STORM_LENGTH 1000u
#define STORM_NS     UINT64_C(1000000000)

static struct nvd_workload *registry;

void nvd_workload_register(struct nvd_workload *workload)
{
    if (workload->parameter_count > NVD_PARAMETERS_MAX) {
        fprintf(stderr, "nvdrive: workload %s has %zu parameters, at most %d fit\n",
                workload->name, workload->parameter_count, NVD_PARAMETERS_MAX);
        abort();
    }
    struct nvd_workload **link = &registry;
    while (*link != NULL && strcmp((*link)->name, workload->name) < 0)
        link = &(*link)->next;
    workload->next = *link;
    *link = workload;
}

const struct nvd_workload *nvd_workload_first(void)
{
    return registry;
}

const struct nvd_workload *nvd_workload_find(const char *name)
{
    for (const struct nvd_workload *at = registry; at != NULL; at = at->next)
        if (strcmp(at->name, name) == 0)
            return at;
    return NULL;
}

const char *nvd_workload_set(const struct nvd_workload *workload, uint64_t *values,
                             const char *assignment)
{
    static _Thread_local char complaint[320];
    const char *equals = strchr(assignment, '=');
    size_t length = equals == NULL ? strlen(assignment) : (size_t)(equals - assignment);
    for (size_t i = 0; i < workload->parameter_count; i++) {
        const struct nvd_parameter *parameter = &workload->parameters[i];
        if (strlen(parameter->name) != length ||
            strncmp(parameter->name, assignment, length) != 0)
            continue;
        if (equals != NULL &&
            nvd_parse_u64(equals + 1, parameter->min, parameter->max, &values[i]))
            return NULL;
        snprintf(complaint, sizeof complaint,
                 "'%.100s': parameter '%s' of '%s' takes an integer from %" PRIu64
                 " to %" PRIu64,
                 assignment, parameter->name, workload->name, parameter->min,
                 parameter->max);
        return complaint;
    }
    int used = snprintf(complaint, sizeof complaint,
                        "workload '%s' has no parameter '%.*s'; it has:", workload->name,
                        (int)(length < 60 ? length : 60), assignment);
    for (size_t i = 0; i < workload->parameter_count; i++)
        if (used > 0 && (size_t)used < sizeof complaint)
            used += snprintf(complaint + used, sizeof complaint - (size_t)used, " %s",
                             workload->parameters[i].name);
    return complaint;
}

int nvd_alloc_timed(struct nvd_worker *worker, void *slot, size_t size)
{
    const struct nvd_clock *clock = worker->latency->clock;
    uint64_t begin = nvd_clock_ticks(clock);
    int error = worker->alloc_to(worker->heap, slot, size);
    uint64_t ticks = nvd_clock_ticks(clock) - begin;
    if (error == 0)
        nvd_latency_record(worker->latency, nvd_clock_ns(clock, ticks));
    return error;
}

int nvd_free_timed(struct nvd_worker *worker, void *slot)
{
    const struct nvd_clock *clock = worker->latency->clock;
    uint64_t begin = nvd_clock_ticks(clock);
    int error = worker->free_from(worker->heap, slot);
    uint64_t ticks = nvd_clock_ticks(clock) - begin;
    if (error == 0)
        nvd_latency_record(worker->latency, nvd_clock_ns(clock, ticks));
    return error;
}

void nvd_pause(unsigned *spins)
{
    if (++*spins < SPINS) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    } else {
        *spins = 0;
        sched_yield();
    }
}

uint64_t nvd_request_begin_timed(struct nvd_worker *worker)
{
    worker->request_latency = worker->latency;
    worker->latency = NULL;
    return nvd_clock_ticks(worker->request_latency->clock);
}

void nvd_request_end_timed(struct nvd_worker *worker, uint64_t begin)
{
    const struct nvd_clock *clock = worker->request_latency->clock;
    uint64_t ticks = nvd_clock_ticks(clock) - begin;
    worker->latency = worker->request_latency;
    worker->request_latency = NULL;
    nvd_latency_record(worker->latency, nvd_clock_ns(clock, ticks));
}

void nvd_block_spoilt(struct nvd_worker *worker, const void *slot, uint64_t found)
{
    char message[200];
    size_t index = (size_t)((const char *)slot - worker->slots) / worker->slot_size;
    snprintf(message, sizeof message,
             "the block of slot %zu was overwritten: found %#" PRIx64
             ", expected %#" PRIx64 " in its low half; it may have been handed out twice",
             index, found, nvd_mark(slot, 0));
    nvd_worker_fail(worker, "sweep", 0, message);
}

void nvd_worker_fail(struct nvd_worker *worker, const char *where, int error,
                     const char *message)
{
    if (worker->where == NULL) {
        if (message == NULL)
            message = worker->run->adapter->last_error();
        worker->where = where;
        worker->error = error;
        snprintf(worker->message, sizeof worker->message, "%s",
                 message == NULL ? "the adapter gives no reason" : message);
    }
    atomic_store_explicit(&worker->run->signals.failed, true, memory_order_relaxed);
    atomic_store_explicit(&worker->run->signals.stop, true, memory_order_relaxed);
    sem_post(&worker->run->wake);
}

void nvd_alloc_failed(struct nvd_worker *worker, int error)
{
    if (error != ENOMEM) {
        nvd_worker_fail(worker, "alloc_to", error, NULL);
        return;
    }
    worker->failed_allocs++;
    atomic_store_explicit(&worker->run->signals.holes, true, memory_order_relaxed);
    uint64_t done = worker->allocs + worker->frees;
    if (worker->storm_length == 0 || worker->storm_ops != done) {
        worker->storm_ops = done;
        worker->storm_length = 0;
        worker->storm_since = nvd_monotonic_ns();
    }
    worker->storm_length++;
    if (worker->storm_length >= STORM_LENGTH &&
        nvd_monotonic_ns() - worker->storm_since >= STORM_NS)
        nvd_worker_fail(worker, "alloc_to", ENOMEM,
                        "no memory, time after time, and nothing left to free: "
                        "the heap is too small for this workload");
}
