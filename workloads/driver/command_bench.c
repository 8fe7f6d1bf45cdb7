// SPDX-License-Identifier: Apache-2.0
/*
 * command_bench.c - `nvdrive bench`: one sample of one workload on a fresh heap.
 *
 * The heap file must not exist before, and is gone afterwards however the run
 * ends (Ctrl-C included; a SIGKILL leaves it to whoever sent that), unless
 * --keep-heap.
 *
 * A workload that is a trial (trial.h) has no windows: it is called once, and may start
 * this command again for its stages (--stage, for its own use).
 *
 * With --step-instructions the sample is taken by a traced child, which does all
 * that this process does otherwise, from loading the adapter to printing the
 * result.  Its tracer, this process, only steps it, says so if it does not come
 * back, and removes the heap that a dead child leaves.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "bench_result.h"
#include "device.h"
#include "driver.h"
#include "resident.h"
#include "trial.h"

#define THREADS_MAX     1024
#define ASSIGNMENTS_MAX 64
#define CPUS_MAX        4096
#define SECONDS_MAX     1e6 /* of a window */
#define STEPS_MAX       UINT64_C(1000000000000)
/* No new stepping pass begins after this share of --timeout. */
#define STEPPING_SHARE 0.5

_Static_assert(THREADS_MAX < NVD_EVENT_THREADS, "every worker gets a tracker");

struct arguments {
    const char *adapter, *workload, *heap, *extra, *stage, *input;
    const char *const *words; /* all of them, as they came */
    int word_count;
    uint64_t heap_size; /* 0: the workload's */
    uint64_t seed, threads;
    double warmup, seconds, latency_seconds;
    uint64_t step_budget; /* 0: don't step */
    double timeout;       /* of stepping */
    bool observe, keep_heap, has_device;
    struct nvd_device_figures device;
    int cpus[CPUS_MAX], cpu_count;
    const char *assignments[ASSIGNMENTS_MAX];
    size_t assignment_count;
};

static const char help[] =
    "usage: nvdrive bench --adapter SO --workload W [OPTION...]\n"
    "  --heap PATH             the heap file to make; not needed by adapters of DRAM\n"
    "  --heap-size BYTES       its size (K, M, G); default: the workload's\n"
    "  --options EXTRA         the adapter's key=value,...\n"
    "  --param KEY=VALUE       of the workload; may be repeated\n"
    "  --input FILE            what the workload reads (replay: a trace)\n"
    "  --threads N             1\n"
    "  --cpus LIST             thread i runs on the list's i-th CPU, round and round\n"
    "  --seed N                1\n"
    "  --warmup S              0.5\n"
    "  --seconds S             1\n"
    "  --latency-seconds S     0.5; 0: no latency window\n"
    "  --observe               count persistence events\n"
    "  --device FIGURES        delay persistence events as that device would (device.h)\n"
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
    OPTION_STAGE,
    OPTION_INPUT,
    OPTION_DEVICE,
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
    {"stage", required_argument, NULL, OPTION_STAGE},
    {"input", required_argument, NULL, OPTION_INPUT},
    {"device", required_argument, NULL, OPTION_DEVICE},
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
    case OPTION_STAGE:
        to->stage = value;
        return true;
    case OPTION_INPUT:
        to->input = value;
        return true;
    case OPTION_DEVICE:
        to->has_device = true;
        return nvd_device_parse(value, &to->device) == NULL;
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
    if (to->step_budget != 0 && (to->threads > 1 || to->observe || to->has_device)) {
        nvd_emit_error(
            "usage", 0,
            "bench: --step-instructions is for one thread, unobserved, no device");
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
    if (workload->trial != NULL &&
        (arguments->step_budget != 0 || arguments->observe || arguments->has_device))
        complaint = "this workload is a trial: it is neither stepped nor observed";
    if (workload->counts_requests && arguments->step_budget != 0)
        complaint = "--step-instructions: it steps over allocations, and this workload "
                    "counts something else";
    if (workload->trial == NULL && arguments->stage != NULL)
        complaint = "this workload has no stages";
    if ((workload->input == NULL) != (arguments->input == NULL))
        complaint = workload->input == NULL
                        ? "--input: this workload reads no file"
                        : "this workload reads a file: give --input FILE";
    if (complaint == NULL && workload->input != NULL)
        complaint = workload->input(arguments->input);
    if (complaint == NULL && workload->max_threads != 0 &&
        arguments->threads > workload->max_threads)
        complaint = "--threads: more than this workload has use for";
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

/* NVD_OK if a heap can be made; its file, if it has one, is ours to remove from now
   on.  Else an exit code after an error line. */
static int claim_heap(const struct arguments *arguments,
                      const struct nvc_adapter *adapter, const struct nvc_options *wanted)
{
    struct stat status;
    if (!nvd_adapter_in_file(adapter))
        return NVD_OK;
    if (arguments->heap == NULL) {
        nvd_emit_error("usage", 0, "'%s' keeps its heap in a file: give --heap PATH",
                       adapter->name);
        return NVD_USAGE;
    }
    if (lstat(arguments->heap, &status) == 0) {
        nvd_emit_error("create", EEXIST,
                       "'%s' exists; bench makes a fresh heap and will not overwrite "
                       "anything",
                       arguments->heap);
        return NVD_ENVIRONMENT;
    }
    if (wanted->size < adapter->min_size) {
        nvd_emit_error("usage", EINVAL, "--heap-size %zu: '%s' needs at least %zu bytes",
                       wanted->size, adapter->name, adapter->min_size);
        return NVD_USAGE;
    }
    if (!arguments->keep_heap)
        *doomed_heap = arguments->heap;
    return NVD_OK;
}

/* NVD_OK and a heap, or an exit code after an error line. */
static int make_heap(const struct arguments *arguments, const struct nvc_adapter *adapter,
                     const struct nvc_options *wanted, struct nvc_heap **heap)
{
    int error = adapter->create(nvd_adapter_in_file(adapter) ? arguments->heap : "",
                                wanted, heap);
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

/* ---- the command ---- */

static struct nvc_options wanted_heap(const struct arguments *arguments,
                                      const struct nvd_bench_request *request)
{
    const struct nvd_workload *workload = request->workload;
    return (struct nvc_options){
        .size = arguments->heap_size != 0 ? arguments->heap_size : workload->heap_bytes,
        .slots = workload->slot_count(request->values, request->threads),
        .extra = arguments->extra,
    };
}

/* A trial, and the threads that a library may start for it, run on all CPUs given. */
static int confine(const struct arguments *arguments)
{
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    const size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    int error = set == NULL ? ENOMEM : 0;
    if (error == 0) {
        CPU_ZERO_S(size, set);
        for (int i = 0; i < arguments->cpu_count; i++)
            CPU_SET_S((size_t)arguments->cpus[i], size, set);
        error = sched_setaffinity(0, size, set) == 0 ? 0 : errno;
        CPU_FREE(set);
    }
    if (error != 0)
        nvd_emit_error("cpus", error,
                       "cannot run on the CPUs of --cpus: one is offline or "
                       "not allowed here");
    return error == 0 ? NVD_OK : NVD_ENVIRONMENT;
}

static int run_trial(const struct arguments *arguments, struct nvd_bench_request *request)
{
    const struct nvd_workload *workload = request->workload;
    const struct nvc_options wanted = wanted_heap(arguments, request);
    struct nvd_trial trial = {
        .workload = workload,
        .values = request->values,
        .adapter = request->adapter,
        .heap_path = arguments->heap,
        .options = &wanted,
        .threads = request->threads,
        .seed = request->seed,
        .stage = arguments->stage,
        .arguments = arguments->words,
        .argument_count = arguments->word_count,
        .metrics = json_object_new_object(),
        .series = json_object_new_array(),
    };
    int code = arguments->cpu_count > 0 ? confine(arguments) : NVD_OK;
    if (code == NVD_OK && arguments->stage == NULL)
        code = claim_heap(arguments, request->adapter, &wanted);
    if (code == NVD_OK)
        code = workload->trial(&trial);
    if (code == NVD_OK && arguments->stage == NULL)
        nvd_emit(nvd_trial_document(request, &trial));
    json_object_put(trial.metrics);
    json_object_put(trial.series);
    return code;
}

static int run(const struct arguments *arguments, const struct nvc_adapter *adapter,
               struct nvd_bench_request *request)
{
    struct nvc_options wanted = wanted_heap(arguments, request);
    uint64_t peak;
    nvd_resident_reset_peak();
    if (!nvd_resident_read(&request->resident_base, &peak))
        request->resident_base = 0;
    if (request->workload->trial != NULL)
        return run_trial(arguments, request);
    int code = claim_heap(arguments, adapter, &wanted);
    if (code == NVD_OK)
        code = make_heap(arguments, adapter, &wanted, &request->heap);
    if (code != NVD_OK)
        return code;

    struct nvd_bench_result result;
    code = nvd_bench_run(request, &result);
    struct json_object *document = NULL;
    if (code == NVD_OK) {
        document = nvd_bench_document(request, &result, wanted.size);
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

/* What the first capability that is needed and not there means; NULL: none. */
static const char *lacks(const struct nvc_adapter *adapter, uint32_t needs)
{
    const uint32_t missing = needs & ~adapter->capabilities;
    return missing & NVC_PERSISTENT     ? "is persistent"
           : missing & NVC_NESTED_SLOTS ? "lets a slot lie inside a block"
           : missing & NVC_WALK         ? "walks over its blocks"
           : missing & NVC_THREADS      ? "serves several threads"
           : missing != 0               ? "has another capability"
                                        : NULL;
}

/* Puts the observers in place that were asked for.  That nothing can be counted is
   for the caller to know; that nothing can be delayed is an error, or the sample
   would pass for one of the device. */
static int observe(const struct arguments *arguments, struct nvd_bench_request *request)
{
    const struct nvc_adapter *adapter = request->adapter;
    bool observable = adapter->capabilities & NVC_OBSERVABLE;
    if (!arguments->has_device) {
        request->observed = arguments->observe && observable &&
                            adapter->observe(nvd_events_observe, NULL) == 0;
        return NVD_OK;
    }
    if (!nvd_adapter_in_file(adapter))
        return NVD_OK; /* its blocks lie in DRAM, on any machine */
    nvd_device_start(&arguments->device, arguments->observe);
    if (!observable || adapter->observe(nvd_device_observe, NULL) != 0) {
        nvd_emit_error("device", ENOTSUP,
                       "'%s' can't be observed here, so nobody knows when it would have "
                       "waited for a device",
                       adapter->name);
        return NVD_ENVIRONMENT;
    }
    request->delayed = true;
    request->observed = arguments->observe;
    return NVD_OK;
}

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
    const char *lacking = lacks(adapter, job->workload->needs);
    if (lacking != NULL) {
        nvd_emit_error("usage", ENOTSUP,
                       "workload '%s' needs an allocator that %s, and "
                       "'%s' does not say so of itself",
                       job->workload->name, lacking, adapter->name);
        return NVD_ENVIRONMENT;
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
    int code = observe(arguments, &request);
    if (code != NVD_OK)
        return code;
    if (arguments->stage == NULL)
        catch_signals();
    code = run(arguments, adapter, &request);
    if (request.observed || request.delayed)
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
    arguments.words = (const char *const *)argv;
    arguments.word_count = argc;
    if (!parse(argc, argv, &arguments))
        return NVD_USAGE;
    const struct nvd_workload *workload = choose_workload(&arguments, values);
    if (workload == NULL)
        return NVD_USAGE;
    struct job job = {&arguments, workload, values, NULL};
    return arguments.step_budget == 0 ? sample(&job) : trace(&job);
}
