// SPDX-License-Identifier: Apache-2.0
/* bench_result.c - see bench_result.h, and docs/driver-protocol.md for each key. */
#include <stdlib.h>
#include <string.h>

#include "bench_result.h"
#include "device.h"
#include "driver.h"
#include "footprint.h"

static struct json_object *number_or_null(uint64_t value)
{
    return value == UINT64_MAX ? NULL : json_object_new_uint64(value);
}

static void add_number(struct json_object *to, const char *key, uint64_t value)
{
    json_object_object_add(to, key, json_object_new_uint64(value));
}

static void add_text(struct json_object *to, const char *key, const char *value)
{
    json_object_object_add(to, key, value == NULL ? NULL : json_object_new_string(value));
}

static void add_double(struct json_object *to, const char *key, double value)
{
    json_object_object_add(to, key, json_object_new_double(value));
}

/* The keys that only the windows have an answer for, and only stepping has. */
static const char *const window_keys[] = {
    "seconds",       "cpu_seconds", "ops",          "allocs",       "frees",
    "failed_allocs", "ops_per_s",   "minor_faults", "major_faults", "latency",
    "events",        "device",      "stats_delta",  NULL,
};
static const char *const step_keys[] = {
    "stepped_ops",
    "stepped_deviation",
    "driver_instructions_per_op",
    NULL,
};

static void add_nulls(struct json_object *to, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        json_object_object_add(to, *keys, NULL);
}

static struct json_object *stats_json(const struct nvc_stats *stats)
{
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "live_bytes", number_or_null(stats->live_bytes));
    json_object_object_add(of, "heap_bytes", number_or_null(stats->heap_bytes));
    json_object_object_add(of, "used_bytes", number_or_null(stats->used_bytes));
    json_object_object_add(of, "flushes", number_or_null(stats->flushes));
    json_object_object_add(of, "fences", number_or_null(stats->fences));
    json_object_object_add(of, "nt_lines", number_or_null(stats->nt_lines));
    return of;
}

static struct json_object *difference(uint64_t before, uint64_t after)
{
    bool known = before != UINT64_MAX && after != UINT64_MAX && before <= after;
    return known ? json_object_new_uint64(after - before) : NULL;
}

static struct json_object *delta_json(const struct nvd_bench_result *result)
{
    const struct nvc_stats *before = &result->stats_before, *after = &result->stats;
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "flushes", difference(before->flushes, after->flushes));
    json_object_object_add(of, "fences", difference(before->fences, after->fences));
    json_object_object_add(of, "nt_lines", difference(before->nt_lines, after->nt_lines));
    return of;
}

static struct json_object *events_json(const struct nvd_bench_result *result)
{
    const struct nvd_event_counts *events = &result->events;
    struct json_object *of = json_object_new_object();
    add_number(of, "flushes", events->flushes);
    add_number(of, "fences", events->fences);
    add_number(of, "effective_fences", events->effective_fences);
    add_number(of, "nt_lines", events->nt_lines);
    add_number(of, "reflushes_within_4", events->reflushes_within_4);
    add_number(of, "xpline_writes", events->xpline_writes);
    add_number(of, "ops", result->event_ops);
    return of;
}

static void add_question(struct json_object *to, const struct nvd_bench_request *request,
                         size_t heap_bytes)
{
    const struct nvd_workload *workload = request->workload;
    const struct nvc_adapter *adapter = request->adapter;
    struct json_object *parameters = json_object_new_object();
    for (size_t i = 0; i < workload->parameter_count; i++)
        add_number(parameters, workload->parameters[i].name, request->values[i]);
    add_text(to, "adapter", adapter->name);
    add_text(to, "library_version",
             adapter->library_version == NULL ? NULL : adapter->library_version());
    add_text(to, "workload", workload->name);
    json_object_object_add(to, "parameters", parameters);
    add_number(to, "threads", request->threads);
    add_number(to, "seed", request->seed);
    add_number(to, "heap_size", heap_bytes);
    struct json_object *cpus = json_object_new_array();
    for (int i = 0; i < request->cpu_count; i++)
        json_object_array_add(cpus, json_object_new_int(request->cpus[i]));
    json_object_object_add(to, "cpus", cpus);
}

/* What the windows measured. */
static void add_windows(struct json_object *to, const struct nvd_bench_request *request,
                        const struct nvd_bench_result *result)
{
    add_double(to, "seconds", result->seconds);
    add_double(to, "cpu_seconds", result->cpu_seconds);
    add_number(to, "ops", result->ops);
    add_number(to, "allocs", result->allocs);
    add_number(to, "frees", result->frees);
    add_number(to, "failed_allocs", result->failed_allocs);
    add_double(to, "ops_per_s", (double)result->ops / result->seconds);
    bool counted = result->has_instructions;
    json_object_object_add(to, "instructions",
                           counted ? json_object_new_uint64(result->instructions) : NULL);
    add_text(to, "instructions_source", counted ? "perf" : NULL);
    add_nulls(to, step_keys);
    add_number(to, "minor_faults", result->minor_faults);
    add_number(to, "major_faults", result->major_faults);
    struct json_object *latency = NULL;
    if (result->latency != NULL) {
        latency = nvd_latency_json(result->latency);
        add_number(latency, "clock_overhead_ns", result->clock_overhead_ns);
    }
    json_object_object_add(to, "latency", latency);
    json_object_object_add(to, "events", request->observed ? events_json(result) : NULL);
    json_object_object_add(to, "device",
                           request->delayed ? nvd_device_json(result->event_ops) : NULL);
    json_object_object_add(to, "stats_delta", delta_json(result));
}

/* What stepping measured; nothing that has to do with time. */
static void add_steps(struct json_object *to, const struct nvd_stepped *stepped)
{
    add_nulls(to, window_keys);
    add_number(to, "instructions", stepped->instructions);
    add_text(to, "instructions_source", "stepped");
    add_number(to, "stepped_ops", stepped->ops);
    add_double(to, "stepped_deviation", stepped->deviation);
    add_double(to, "driver_instructions_per_op",
               (double)stepped->driver_instructions / (double)stepped->driver_ops);
}

static void add_footprint(struct json_object *to, const struct nvd_bench_request *request,
                          const struct nvd_bench_result *result)
{
    const struct nvc_adapter *adapter = request->adapter;
    size_t slots = request->workload->slot_count(request->values, request->threads);
    struct nvd_footprint footprint = nvd_footprint_of(
        adapter, &result->stats, result->has_resident ? result->resident : UINT64_MAX,
        result->requested_bytes, slots * adapter->slot_size);
    nvd_footprint_add(&footprint, result->requested_bytes, to);
}

static void add_answer(struct json_object *to, const struct nvd_bench_request *request,
                       const struct nvd_bench_result *result)
{
    const struct nvc_stats *stats = &result->stats;
    if (request->tracer == NULL)
        add_windows(to, request, result);
    else
        add_steps(to, &result->stepped);
    json_object_object_add(
        to, "observable",
        json_object_new_boolean((request->adapter->capabilities & NVC_OBSERVABLE) != 0));
    add_number(to, "setup_failed_allocs", result->setup_failed_allocs);
    json_object_object_add(to, "stats", stats_json(stats));
    uint64_t resident = result->has_resident ? result->resident_peak : UINT64_MAX;
    json_object_object_add(
        to, "peak_bytes",
        number_or_null(result->used_peak != UINT64_MAX ? result->used_peak : resident));
    json_object_object_add(to, "rss_peak_bytes", number_or_null(resident));
    json_object_object_add(to, "live_bytes",
                           number_or_null(stats->live_bytes != UINT64_MAX
                                              ? stats->live_bytes
                                              : result->slot_bytes));
    json_object_object_add(to, "used_bytes", number_or_null(stats->used_bytes));
    add_footprint(to, request, result);
    json_object_object_add(to, "map_sync",
                           nvd_adapter_in_file(request->adapter)
                               ? json_object_new_int((int)stats->map_sync)
                               : NULL);
    char flush[sizeof stats->flush + 1] = "";
    memcpy(flush, stats->flush, sizeof stats->flush);
    add_text(to, "flush", flush);
}

struct json_object *nvd_bench_document(const struct nvd_bench_request *request,
                                       const struct nvd_bench_result *result,
                                       size_t heap_bytes)
{
    struct json_object *document = json_object_new_object();
    add_text(document, "type", "result");
    add_question(document, request, heap_bytes);
    add_answer(document, request, result);
    return document;
}

struct json_object *nvd_trial_document(const struct nvd_bench_request *request,
                                       const struct nvd_trial *trial)
{
    struct json_object *document = json_object_new_object();
    add_text(document, "type", "result");
    add_question(document, request, trial->options->size);
    add_nulls(document, window_keys);
    add_nulls(document, step_keys);
    json_object_object_add(document, "metrics", json_object_get(trial->metrics));
    bool curve = json_object_array_length(trial->series) > 0;
    json_object_object_add(document, "series",
                           curve ? json_object_get(trial->series) : NULL);
    return document;
}
