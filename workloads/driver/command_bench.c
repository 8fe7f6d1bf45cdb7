// SPDX-License-Identifier: Apache-2.0
/*
 * command_bench.c - `nvdrive bench`: one sample of one workload on a fresh heap.
 *
 * The heap file must not exist before, and is gone afterwards however the run
 * ends (Ctrl-C included; a SIGKILL leaves it to whoever sent that), unless
 * --keep-heap.
 *
 * With --step-instructions the sample is taken by a traced child, which does all
 * that this process does otherwise, from loading the adapter to printing the
 * result.  Its tracer, this process, only steps it, says so if it does not come
 * back, and removes the heap that a dead child leaves.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "driver.h"
#include "resident.h"

#define THREADS_MAX     1024
#define ASSIGNMENTS_MAX 64
#define CPUS_MAX        4096
#define SECONDS_MAX     1e6 /* of a window */
#define STEPS_MAX       UINT64_C(1000000000000)
/* No new stepping pass begins after this share of --timeout. */
#define STEPPING_SHARE 0.5

_Static_assert(THREADS_MAX < NVD_EVENT_THREADS, "every worker gets a tracker");

struct arguments {
    const char *adapter, *workload, *heap, *extra;
    uint64_t heap_size; /* 0: the workload's */
    uint64_t seed, threads;
    double warmup, seconds, latency_seconds;
    uint64_t step_budget; /* 0: don't step */
    double timeout;       /* of stepping */
    bool observe, keep_heap;
    int cpus[CPUS_MAX], cpu_count;
    const char *assignments[ASSIGNMENTS_MAX];
    size_t assignment_count;
};

static const char help[] =
    "usage: nvdrive bench --adapter SO --workload W [OPTION...]\n"
    "  --heap PATH             the heap file to make; not needed by volatile adapters\n"
    "  --heap-size BYTES       its size (K, M, G); default: the workload's\n"
    "  --options EXTRA         the adapter's key=value,...\n"
    "  --param KEY=VALUE       of the workload; may be repeated\n"
    "  --threads N             1\n"
    "  --cpus LIST             thread i runs on the list's i-th CPU, round and round\n"
    "  --seed N                1\n"
    "  --warmup S              0.5\n"
    "  --seconds S             1\n"
    "  --latency-seconds S     0.5; 0: no latency window\n"
    "  --observe               count persistence events\n"
    "  --step-instructions N   no windows: step over some operations and count their\n"
    "                          instructions; N steps, if one pass takes no more\n"
    "  --timeout S             120; of --step-instructions\n"
    "  --keep-heap             leave the heap file\n";

enum option_id {
    OPTION_ADAPTER = 256,
    OPTION_WORKLOAD,
    OPTION_HEAP,
    OPTION_HEAP_SIZE,
    OPTION_EXTRA,
    OPTION_PARAM,
    OPTION_THREADS,
    OPTION_CPUS,
    OPTION_SEED,
    OPTION_WARMUP,
    OPTION_SECONDS,
    OPTION_LATENCY,
    OPTION_OBSERVE,
    OPTION_KEEP,
    OPTION_STEP,
    OPTION_TIMEOUT,
    OPTION_HELP,
};

static const struct option options[] = {
    {"adapter", required_argument, NULL, OPTION_ADAPTER},
    {"workload", required_argument, NULL, OPTION_WORKLOAD},
    {"heap", required_argument, NULL, OPTION_HEAP},
    {"heap-size", required_argument, NULL, OPTION_HEAP_SIZE},
    {"options", required_argument, NULL, OPTION_EXTRA},
    {"param", required_argument, NULL, OPTION_PARAM},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"cpus", required_argument, NULL, OPTION_CPUS},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"latency-seconds", required_argument, NULL, OPTION_LATENCY},
    {"observe", no_argument, NULL, OPTION_OBSERVE},
    {"keep-heap", no_argument, NULL, OPTION_KEEP},
    {"step-instructions", required_argument, NULL, OPTION_STEP},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

static bool take_seconds(const char *text, double *seconds)
{
    return nvd_parse_seconds(text, seconds) && *seconds <= SECONDS_MAX;
}

/* Whether the option's value could be taken. */
static bool take_option(struct arguments *to, int option, const char *value)
{
    switch (option) {
    case OPTION_ADAPTER:
        to->adapter = value;
        return true;
    case OPTION_WORKLOAD:
        to->workload = value;
        return true;
    case OPTION_HEAP:
        to->heap = value;
        return true;
    case OPTION_HEAP_SIZE:
        return nvd_parse_size(value, &to->heap_size) && to->heap_size > 0;
    case OPTION_EXTRA:
        to->extra = value;
        return true;
    case OPTION_PARAM:
        if (to->assignment_count == ASSIGNMENTS_MAX)
            return false;
        to->assignments[to->assignment_count++] = value;
        return true;
    case OPTION_THREADS:
        return nvd_parse_u64(value, 1, THREADS_MAX, &to->threads);
    case OPTION_CPUS:
        return (to->cpu_count = nvd_parse_cpus(value, to->cpus, CPUS_MAX)) > 0;
    case OPTION_SEED:
        return nvd_parse_u64(value, 0, UINT64_MAX, &to->seed);
    case OPTION_WARMUP:
        return take_seconds(value, &to->warmup);
    case OPTION_SECONDS:
        return take_seconds(value, &to->seconds) && to->seconds > 0;
    case OPTION_LATENCY:
        return take_seconds(value, &to->latency_seconds);
    case OPTION_OBSERVE:
        return to->observe = true;
    case OPTION_KEEP:
        return to->keep_heap = true;
    case OPTION_STEP:
        return nvd_parse_u64(value, 1, STEPS_MAX, &to->step_budget);
    case OPTION_TIMEOUT:
        return take_seconds(value, &to->timeout) && to->timeout > 0;
    default:
        return false;
    }
}

/* False after an error line. */
static bool parse(int argc, char **argv, struct arguments *to)
{
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?') {
            nvd_emit_error("usage", 0, "bench: bad option; see nvdrive bench --help");
            return false;
        }
        if (!take_option(to, option, optarg)) {
            nvd_emit_error("usage", 0, "bench: bad value '%s' for --%s", optarg,
                           options[index].name);
            return false;
        }
    }
    if (optind != argc) {
        nvd_emit_error("usage", 0, "bench: unexpected argument '%s'", argv[optind]);
        return false;
    }
    if (to->adapter == NULL || to->workload == NULL) {
        nvd_emit_error("usage", 0, "bench: --adapter and --workload are needed");
        return false;
    }
    if (to->step_budget != 0 && (to->threads > 1 || to->observe)) {
        nvd_emit_error("usage", 0,
                       "bench: --step-instructions is for one thread, unobserved");
        return false;
    }
    return true;
}

/* The workload with its parameters set, or NULL after an error line. */
static const struct nvd_workload *choose_workload(const struct arguments *arguments,
                                                  uint64_t *values)
{
    const struct nvd_workload *workload = nvd_workload_find(arguments->workload);
    if (workload == NULL) {
        nvd_emit_error("usage", 0, "no workload '%s'; nvdrive info lists them",
                       arguments->workload);
        return NULL;
    }
    for (size_t i = 0; i < workload->parameter_count; i++)
        values[i] = workload->parameters[i].initial;
    const char *complaint = NULL;
    for (size_t i = 0; i < arguments->assignment_count && complaint == NULL; i++)
        complaint = nvd_workload_set(workload, values, arguments->assignments[i]);
    if (complaint == NULL && workload->check != NULL)
        complaint = workload->check(values, (unsigned)arguments->threads);
    if (complaint != NULL) {
        nvd_emit_error("usage", 0, "%s", complaint);
        return NULL;
    }
    return workload;
}

/* ---- the heap ---- */

/* The file to remove when a signal ends us; NULL: none. */
static const char *volatile own_doomed_heap;
/* Where that stands: in memory that a tracer shares, if there is one. */
static const char *volatile *doomed_heap = &own_doomed_heap;

static void on_signal(int signal_number)
{
    const char *path = *doomed_heap;
    if (path != NULL)
        unlink(path);
    _exit(128 + signal_number);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
}

static int emit_adapter_error(const struct nvc_adapter *adapter, const char *where,
                              int error)
{
    const char *reason = adapter->last_error();
    nvd_emit_error(where, error, "%s: %s", adapter->name,
                   reason == NULL || *reason == '\0' ? strerror(error) : reason);
    return NVD_ENVIRONMENT;
}

/* NVD_OK and a heap, or an exit code after an error line. */
static int make_heap(const struct arguments *arguments, const struct nvc_adapter *adapter,
                     const struct nvc_options *wanted, struct nvc_heap **heap)
{
    bool persistent = adapter->capabilities & NVC_PERSISTENT;
    if (persistent) {
        struct stat status;
        if (arguments->heap == NULL) {
            nvd_emit_error("usage", 0, "'%s' is persistent: give --heap PATH",
                           adapter->name);
            return NVD_USAGE;
        }
        if (lstat(arguments->heap, &status) == 0) {
            nvd_emit_error("create", EEXIST,
                           "'%s' exists; bench makes a fresh heap and will not "
                           "overwrite anything",
                           arguments->heap);
            return NVD_ENVIRONMENT;
        }
        if (wanted->size < adapter->min_size) {
            nvd_emit_error("usage", EINVAL,
                           "--heap-size %zu: '%s' needs at least %zu bytes", wanted->size,
                           adapter->name, adapter->min_size);
            return NVD_USAGE;
        }
        if (!arguments->keep_heap)
            *doomed_heap = arguments->heap;
    }
    int error = adapter->create(persistent ? arguments->heap : "", wanted, heap);
    if (error == EEXIST)
        *doomed_heap = NULL; /* somebody else's, made since we looked */
    return error == 0 ? NVD_OK : emit_adapter_error(adapter, "create", error);
}

static void remove_heap(void)
{
    const char *path = *doomed_heap;
    *doomed_heap = NULL;
    if (path != NULL && unlink(path) != 0 && errno != ENOENT)
        fprintf(stderr, "nvdrive: cannot remove %s: %s\n", path, strerror(errno));
}

/* ---- the result document ---- */

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
    "events",        "stats_delta", NULL,
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
                         const struct arguments *arguments,
                         const struct nvc_options *wanted)
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
    add_number(to, "heap_size", wanted->size);
    struct json_object *cpus = json_object_new_array();
    for (int i = 0; i < arguments->cpu_count; i++)
        json_object_array_add(cpus, json_object_new_int(arguments->cpus[i]));
    json_object_object_add(to, "cpus", cpus);
}

/* What the windows measured. */
static void add_windows(struct json_object *to, const struct nvd_bench_request *request,
                        const struct nvd_bench_result *result)
{
    uint64_t ops = result->allocs + result->frees;
    add_double(to, "seconds", result->seconds);
    add_double(to, "cpu_seconds", result->cpu_seconds);
    add_number(to, "ops", ops);
    add_number(to, "allocs", result->allocs);
    add_number(to, "frees", result->frees);
    add_number(to, "failed_allocs", result->failed_allocs);
    add_double(to, "ops_per_s", (double)ops / result->seconds);
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

static void add_answer(struct json_object *to, const struct nvd_bench_request *request,
                       const struct nvd_bench_result *result)
{
    bool persistent = request->adapter->capabilities & NVC_PERSISTENT;
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
    add_number(to, "live_bytes",
               stats->live_bytes != UINT64_MAX ? stats->live_bytes : result->slot_bytes);
    json_object_object_add(to, "used_bytes", number_or_null(stats->used_bytes));
    json_object_object_add(to, "map_sync",
                           persistent ? json_object_new_int((int)stats->map_sync) : NULL);
    char flush[sizeof stats->flush + 1] = "";
    memcpy(flush, stats->flush, sizeof stats->flush);
    add_text(to, "flush", flush);
}

/* ---- the command ---- */

static int run(const struct arguments *arguments, const struct nvc_adapter *adapter,
               struct nvd_bench_request *request)
{
    const struct nvd_workload *workload = request->workload;
    struct nvc_options wanted = {
        .size = arguments->heap_size != 0 ? arguments->heap_size : workload->heap_bytes,
        .slots = workload->slot_count(request->values, request->threads),
        .extra = arguments->extra,
    };
    uint64_t peak;
    nvd_resident_reset_peak();
    if (!nvd_resident_read(&request->resident_base, &peak))
        request->resident_base = 0;
    int code = make_heap(arguments, adapter, &wanted, &request->heap);
    if (code != NVD_OK)
        return code;

    struct nvd_bench_result result;
    code = nvd_bench_run(request, &result);
    struct json_object *document = NULL;
    if (code == NVD_OK) {
        document = json_object_new_object();
        add_text(document, "type", "result");
        add_question(document, request, arguments, &wanted);
        add_answer(document, request, &result);
        free(result.latency);
    }
    int error = adapter->close(request->heap);
    if (code == NVD_OK && error != 0) {
        json_object_put(document);
        return emit_adapter_error(adapter, "close", error);
    }
    if (code == NVD_OK)
        nvd_emit(document);
    return code;
}

/* A sample, from loading the adapter to removing the heap. */
struct job {
    const struct arguments *arguments;
    const struct nvd_workload *workload;
    const uint64_t *values;
    struct nvd_tracer *tracer; /* NULL: don't step */
};

static int sample(void *context)
{
    const struct job *job = context;
    const struct arguments *arguments = job->arguments;
    const struct nvc_adapter *adapter = nvd_adapter_load(arguments->adapter);
    if (adapter == NULL)
        return NVD_ENVIRONMENT;
    if (arguments->threads > 1 && !(adapter->capabilities & NVC_THREADS)) {
        nvd_emit_error("usage", 0, "'%s' is for one thread only", adapter->name);
        return NVD_USAGE;
    }
    struct nvd_bench_request request = {
        .adapter = adapter,
        .workload = job->workload,
        .values = job->values,
        .threads = (unsigned)arguments->threads,
        .seed = arguments->seed,
        .cpus = arguments->cpus,
        .cpu_count = arguments->cpu_count,
        .warmup_seconds = arguments->warmup,
        .seconds = arguments->seconds,
        .latency_seconds = arguments->latency_seconds,
        .tracer = job->tracer,
        .step_budget = arguments->step_budget,
        .step_seconds = STEPPING_SHARE * arguments->timeout,
    };
    if (arguments->observe && (adapter->capabilities & NVC_OBSERVABLE))
        request.observed = adapter->observe(nvd_events_observe, NULL) == 0;
    catch_signals();
    int code = run(arguments, adapter, &request);
    if (request.observed)
        adapter->observe(NULL, NULL);
    remove_heap();
    return code;
}

/* The exit code of a traced sample, after an error line if the child had no
   chance to print one. */
static int end_of(enum nvd_traced end, int detail, const struct arguments *arguments)
{
    switch (end) {
    case NVD_TRACED_EXITED:
        return detail;
    case NVD_TRACED_INTERRUPTED:
        return 128 + detail;
    case NVD_TRACED_KILLED:
        nvd_emit_error("stepping", 0, "the stepped process was killed by signal %d (%s)",
                       detail, strsignal(detail));
        break;
    case NVD_TRACED_TIMEOUT:
        nvd_emit_error("stepping", ETIMEDOUT,
                       "not one pass was done in %g s; give a longer --timeout",
                       arguments->timeout);
        break;
    case NVD_TRACED_REFUSED:
        nvd_emit_error("ptrace", detail,
                       "the kernel does not let a process trace its child (a container's "
                       "seccomp profile, or kernel.yama.ptrace_scope = 3): %s",
                       strerror(detail));
        break;
    }
    return NVD_ENVIRONMENT;
}

static int trace(struct job *job)
{
    const struct arguments *arguments = job->arguments;
    job->tracer = nvd_tracer_new();
    if (job->tracer == NULL) {
        nvd_emit_error("stepping", ENOMEM, "no memory");
        return NVD_INTERNAL;
    }
    doomed_heap = nvd_tracer_memory(job->tracer, sizeof *doomed_heap);
    int cpu = arguments->cpu_count > 0 ? arguments->cpus[0] : -1;
    int detail;
    enum nvd_traced end =
        nvd_tracer_run(job->tracer, sample, job, cpu, arguments->timeout, &detail);
    remove_heap();
    doomed_heap = &own_doomed_heap;
    nvd_tracer_free(job->tracer);
    return end_of(end, detail, arguments);
}

int nvd_command_bench(int argc, char **argv)
{
    static struct arguments arguments = {
        .extra = "",
        .seed = 1,
        .threads = 1,
        .warmup = 0.5,
        .seconds = 1,
        .latency_seconds = 0.5,
        .timeout = 120,
    };
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stderr);
        return NVD_OK;
    }
    uint64_t values[NVD_PARAMETERS_MAX];
    if (!parse(argc, argv, &arguments))
        return NVD_USAGE;
    const struct nvd_workload *workload = choose_workload(&arguments, values);
    if (workload == NULL)
        return NVD_USAGE;
    struct job job = {&arguments, workload, values, NULL};
    return arguments.step_budget == 0 ? sample(&job) : trace(&job);
}
