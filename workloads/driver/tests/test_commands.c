// SPDX-License-Identifier: Apache-2.0
/*
 * info, bench and calibrate as the orchestrator sees them: the driver is run as
 * a process ($NVDRIVE), on the fake adapters ($NVDRIVE_FAKES), and judged by
 * its exit code, its last JSON line and the files that it leaves.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "driver.h"

static char directory[] = P_tmpdir "/nvdrive-test-XXXXXX";
static char heap[64], fake[4096];
static const char *driver, *fakes;

struct outcome {
    int code; /* of exit, or 128 + signal */
    struct json_object *last;
};

#define ARGUMENTS_MAX 48

/* Starts the driver; its standard output goes to *output. */
static pid_t start(const char *const *arguments, int *output)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char *argv[ARGUMENTS_MAX + 2] = {(char *)"nvdrive"};
        for (int i = 0; arguments[i] != NULL && i < ARGUMENTS_MAX; i++)
            argv[i + 1] = (char *)(uintptr_t)arguments[i];
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(126);
        execv(driver, argv);
        _exit(127);
    }
    close(ends[1]);
    *output = ends[0];
    return child;
}

static struct outcome finish(pid_t child, int output)
{
    static char text[1 << 22];
    size_t length = 0;
    ssize_t got;
    while (length < sizeof text - 1 &&
           (got = read(output, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = '\0';
    close(output);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    struct outcome outcome = {.code = WIFEXITED(status) ? WEXITSTATUS(status)
                                                        : 128 + WTERMSIG(status)};
    if (length > 0) {
        assert_int_equal(text[length - 1], '\n');
        text[length - 1] = '\0';
        char *newline = strrchr(text, '\n');
        outcome.last = json_tokener_parse(newline == NULL ? text : newline + 1);
        assert_non_null(outcome.last);
    }
    return outcome;
}

static struct outcome run(const char *const *arguments)
{
    int output;
    pid_t child = start(arguments, &output);
    return finish(child, output);
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})
#define SHORT    "--warmup", "0.02", "--seconds", "0.05", "--latency-seconds", "0.05"
#define BENCH(...)                                                                       \
    RUN("bench", "--adapter", fake, "--heap", heap, SHORT, "--workload", __VA_ARGS__)

static struct json_object *field(struct json_object *of, const char *key)
{
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(of, key, &value))
        fail_msg("no '%s' in %s", key, json_object_to_json_string(of));
    return value;
}

static uint64_t number(struct json_object *of, const char *key)
{
    struct json_object *value = field(of, key);
    assert_true(json_object_is_type(value, json_type_int));
    return json_object_get_uint64(value);
}

static const char *string(struct json_object *of, const char *key)
{
    return json_object_get_string(field(of, key));
}

static bool exists(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

/* The run failed so, said why, and left no heap. */
static void expect_error(struct outcome outcome, int code, const char *where,
                         const char *words)
{
    assert_non_null(outcome.last);
    assert_string_equal(string(outcome.last, "type"), "error");
    assert_string_equal(string(outcome.last, "where"), where);
    if (strstr(string(outcome.last, "message"), words) == NULL)
        fail_msg("'%s' does not say '%s'", string(outcome.last, "message"), words);
    assert_int_equal(outcome.code, code);
    assert_false(exists(heap));
    json_object_put(outcome.last);
}

/* ---- info ---- */

/* Those that measure operations in windows, and whose operations are allocations. */
static const char *const workloads[] = {
    "cache-scratch", "cache-thrash", "dbms",    "large",      "larson",
    "mstress",       "prodcon",      "shbench", "threadtest", "xmalloc",
};
#define WORKLOADS (sizeof workloads / sizeof workloads[0])

static void info_lists_workloads(void **state)
{
    (void)state;
    struct outcome outcome = RUN("info");
    assert_int_equal(outcome.code, NVD_OK);
    struct json_object *list = field(outcome.last, "workloads");
    unsigned found = 0;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *workload = json_object_array_get_idx(list, i);
        for (size_t j = 0; j < WORKLOADS; j++)
            found += strcmp(string(workload, "name"), workloads[j]) == 0;
        struct json_object *parameters = field(workload, "parameters");
        bool reads = json_object_get_boolean(field(workload, "input"));
        assert_true(reads || json_object_array_length(parameters) > 0);
        for (size_t j = 0; j < json_object_array_length(parameters); j++) {
            struct json_object *parameter = json_object_array_get_idx(parameters, j);
            assert_true(number(parameter, "min") <= number(parameter, "default"));
            assert_true(number(parameter, "default") <= number(parameter, "max"));
        }
    }
    assert_int_equal(found, WORKLOADS);
    json_object_put(outcome.last);
}

static void info_describes_an_adapter(void **state)
{
    (void)state;
    struct outcome outcome = RUN("info", "--adapter", fake);
    assert_int_equal(outcome.code, NVD_OK);
    struct json_object *adapter = field(outcome.last, "adapter");
    assert_string_equal(string(adapter, "name"), "fake");
    assert_string_equal(string(adapter, "consistency"), "log");
    assert_string_equal(json_object_to_json_string_ext(field(adapter, "capabilities"),
                                                       JSON_C_TO_STRING_PLAIN),
                        "[\"persistent\",\"threads\",\"observable\"]");
    assert_int_equal(number(adapter, "slot_size"), 16);
    assert_int_equal(number(adapter, "min_size"), 1024);
    json_object_put(outcome.last);
}

static void bad_adapters_are_explained(void **state)
{
    (void)state;
    char path[4200];
    expect_error(RUN("info", "--adapter", "/nonexistent.so"), NVD_ENVIRONMENT, "adapter",
                 "/nonexistent.so");
    snprintf(path, sizeof path, "%s/fake_stranger.so", fakes);
    expect_error(RUN("info", "--adapter", path), NVD_ENVIRONMENT, "adapter",
                 "does not export nvc_adapter_get");
    snprintf(path, sizeof path, "%s/fake_version.so", fakes);
    expect_error(RUN("info", "--adapter", path), NVD_ENVIRONMENT, "adapter",
                 "built for version 2");
}

/* ---- bench: results ---- */

static void check_latency(struct json_object *latency)
{
    uint64_t samples = 0, largest = 0;
    struct json_object *counts = field(latency, "counts");
    for (size_t i = 0; i < json_object_array_length(counts); i++) {
        struct json_object *pair = json_object_array_get_idx(counts, i);
        largest = json_object_get_uint64(json_object_array_get_idx(pair, 0));
        samples += json_object_get_uint64(json_object_array_get_idx(pair, 1));
    }
    assert_true(samples > 0);
    assert_true(samples == number(latency, "samples"));
    uint64_t max = number(latency, "max_ns");
    assert_true(largest <= max && (max - largest) * 1000 <= max);
}

/* Every operation of the fake adapter causes the same known events.  The line
   that a thread flushes is new to the model once, which may fall into a window
   if the thread got no turn in the warm-up. */
static void check_events(struct json_object *result)
{
    uint64_t threads = number(result, "threads");
    struct json_object *events = field(result, "events");
    uint64_t ops = number(events, "ops");
    assert_true(ops ==
                number(result, "ops") + number(field(result, "latency"), "samples"));
    assert_true(number(events, "flushes") == ops);
    assert_true(number(events, "nt_lines") == ops);
    assert_true(number(events, "fences") == 3 * ops);
    assert_true(number(events, "effective_fences") == 2 * ops);
    assert_in_range(number(events, "reflushes_within_4"), ops - threads, ops);
    assert_in_range(number(events, "xpline_writes"), ops, ops + threads);
}

static void check_result(struct json_object *result, const char *workload,
                         const char *threads)
{
    assert_string_equal(string(result, "type"), "result");
    assert_string_equal(string(result, "workload"), workload);
    assert_string_equal(string(result, "adapter"), "fake");
    assert_true(number(result, "threads") == strtoull(threads, NULL, 10));
    uint64_t ops = number(result, "ops");
    assert_true(ops > 0 && number(result, "allocs") > 0 && number(result, "frees") > 0);
    assert_true(ops == number(result, "allocs") + number(result, "frees"));
    assert_int_equal(number(result, "failed_allocs"), 0);
    assert_int_equal(number(result, "setup_failed_allocs"), 0);
    double seconds = json_object_get_double(field(result, "seconds"));
    /* From the first worker's start, which on a busy machine comes late. */
    assert_true(seconds > 0 && seconds < 60);
    double rate = json_object_get_double(field(result, "ops_per_s"));
    assert_true(rate * seconds > 0.999 * (double)ops &&
                rate * seconds < 1.001 * (double)ops);
    check_latency(field(result, "latency"));
    check_events(result);
    /* The adapter's own counters saw the throughput window alone. */
    struct json_object *delta = field(result, "stats_delta");
    assert_true(number(delta, "flushes") == ops);
    assert_true(number(delta, "fences") == 3 * ops);
    assert_int_equal(number(result, "map_sync"), 0);
    assert_string_equal(string(result, "flush"), "clwb");
    assert_null(field(result, "used_bytes")); /* the fake does not know */
    assert_true(number(result, "live_bytes") ==
                number(field(result, "stats"), "live_bytes"));
}

/* So that ranges wander and batches end. */
static const char *short_rounds(const char *workload)
{
    static const struct {
        const char *workload, *parameter;
    } short_ones[] = {
        {"cache-scratch", "writes=4"}, {"cache-thrash", "writes=4"},
        {"dbms", "round=16"},          {"larson", "epoch=50"},
        {"prodcon", "ring=16"},        {"threadtest", "objects=100"},
        {"xmalloc", "batch=16"},
    };
    for (size_t i = 0; i < sizeof short_ones / sizeof short_ones[0]; i++)
        if (strcmp(short_ones[i].workload, workload) == 0)
            return short_ones[i].parameter;
    return "slots_per_thread=32";
}

static void every_workload_runs(void **state)
{
    (void)state;
    static const char *const threads[] = {"1", "2", "3"};
    for (size_t w = 0; w < WORKLOADS; w++) {
        for (size_t t = 0; t < 3; t++) {
            struct outcome outcome =
                BENCH(workloads[w], "--param", short_rounds(workloads[w]), "--threads",
                      threads[t], "--observe");
            if (outcome.code != NVD_OK)
                fail_msg("%s: %s", workloads[w],
                         json_object_to_json_string(outcome.last));
            check_result(outcome.last, workloads[w], threads[t]);
            json_object_put(outcome.last);
            assert_false(exists(heap));
        }
    }
}

static void unobserved_and_untimed_samples_say_so(void **state)
{
    (void)state;
    char cpu[16];
    snprintf(cpu, sizeof cpu, "%d", sched_getcpu()); /* one that we may use */
    struct outcome outcome =
        BENCH("larson", "--latency-seconds", "0", "--keep-heap", "--cpus", cpu);
    assert_int_equal(outcome.code, NVD_OK);
    assert_null(field(outcome.last, "latency"));
    assert_null(field(outcome.last, "events"));
    assert_true(exists(heap));
    json_object_put(outcome.last);
    assert_int_equal(unlink(heap), 0);
}

static uint64_t foreign_frees(const char *workload, const char *parameter)
{
    struct outcome outcome =
        BENCH(workload, "--threads", "2", "--param", parameter, "--options", "foreign=1");
    assert_int_equal(outcome.code, NVD_OK);
    uint64_t count = number(outcome.last, "used_bytes");
    json_object_put(outcome.last);
    return count;
}

static void blocks_die_where_the_workload_says(void **state)
{
    (void)state;
    assert_true(foreign_frees("larson", "epoch=50") > 0);
    assert_true(foreign_frees("prodcon", "ring=16") > 0);
    assert_true(foreign_frees("xmalloc", "batch=16") > 0);
    assert_true(foreign_frees("mstress", "slots_per_thread=32") > 0);
    assert_true(foreign_frees("mstress", "swap_every=1000000") == 0);
    assert_true(foreign_frees("dbms", "round=16") == 0);
    assert_true(foreign_frees("larson", "epoch=1000000000") == 0);
    assert_true(foreign_frees("threadtest", "objects=100") == 0);
}

/* The live set is fixed by the parameters and the seed alone. */
static void parameters_and_heap_size_are_obeyed(void **state)
{
    (void)state;
    struct outcome outcome =
        BENCH("large", "--param", "slots_per_thread=10", "--param", "min_size=1000",
              "--param", "max_size=1000", "--heap-size", "1M", "--seed", "9");
    assert_int_equal(outcome.code, NVD_OK);
    struct json_object *result = outcome.last;
    assert_int_equal(number(result, "heap_size"), 1 << 20);
    assert_int_equal(number(result, "seed"), 9);
    assert_int_equal(number(field(result, "parameters"), "slots_per_thread"), 10);
    /* A window may end between a free and the allocation that follows it. */
    uint64_t live = number(result, "live_bytes");
    assert_true(live == 10000 || live == 9000);
    /* What was asked for, by the blocks' own marks; too little for a ratio. */
    assert_true(number(result, "requested_bytes") == live);
    assert_null(field(result, "footprint_ratio"));
    json_object_put(result);
}

/* ---- bench: trouble ---- */

static void a_tight_heap_is_tolerated(void **state)
{
    (void)state;
    /* Half of what the live set wants. */
    struct outcome outcome =
        BENCH("larson", "--param", "slots_per_thread=100", "--param", "min_size=256",
              "--param", "max_size=256", "--heap-size", "12800", "--threads", "2");
    assert_int_equal(outcome.code, NVD_OK);
    assert_true(number(outcome.last, "setup_failed_allocs") > 0);
    assert_true(number(outcome.last, "failed_allocs") > 0);
    assert_true(number(outcome.last, "ops") > 0);
    assert_true(number(outcome.last, "live_bytes") <= 12800);
    json_object_put(outcome.last);
}

static double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void a_storm_of_failures_ends(void **state)
{
    (void)state;
    double begin = monotonic_seconds();
    static const char *const some[] = {"dbms", "larson", "mstress", "prodcon", "xmalloc"};
    for (size_t w = 0; w < sizeof some / sizeof some[0]; w++)
        expect_error(RUN("bench", "--adapter", fake, "--heap", heap, "--workload",
                         some[w], "--threads", "2", "--warmup", "30", "--options",
                         "full_from=500"),
                     NVD_ENVIRONMENT, "alloc_to", "too small");
    assert_true(monotonic_seconds() - begin < 25);
    /* A window shorter than a storm, in which nothing succeeds. */
    expect_error(BENCH("larson", "--options", "full_from=1"), NVD_ENVIRONMENT, "bench",
                 "not one operation succeeded");
}

static void other_errors_end_the_run(void **state)
{
    (void)state;
    struct outcome outcome = BENCH("shbench", "--threads", "2", "--seconds", "60",
                                   "--options", "break_at=10000");
    assert_string_equal(string(outcome.last, "error"), "EIO");
    assert_int_equal(number(outcome.last, "errno"), EIO);
    expect_error(outcome, NVD_ENVIRONMENT, "alloc_to", "asked to break");
    /* In the setup, too. */
    expect_error(BENCH("larson", "--options", "break_at=3"), NVD_ENVIRONMENT, "alloc_to",
                 "asked to break");
    expect_error(BENCH("larson", "--options", "unclosable=1"), NVD_ENVIRONMENT, "close",
                 "asked not to close");
}

static void a_block_handed_out_twice_is_noticed(void **state)
{
    (void)state;
    for (size_t w = 0; w < WORKLOADS; w++) {
        /* prodcon alone may end a window with its ring all but empty; an object of the
           cache workloads is freed before the next one is allocated. */
        if (strcmp(workloads[w], "prodcon") == 0 ||
            strncmp(workloads[w], "cache", 5) == 0)
            continue;
        expect_error(BENCH(workloads[w], "--options", "alias_from=1000"), NVD_INCORRECT,
                     "sweep", "handed out twice");
    }
}

static void heaps_are_never_overwritten(void **state)
{
    (void)state;
    FILE *file = fopen(heap, "w");
    assert_non_null(file);
    fputs("precious", file);
    fclose(file);
    struct outcome outcome = BENCH("larson");
    assert_int_equal(outcome.code, NVD_ENVIRONMENT);
    assert_string_equal(string(outcome.last, "error"), "EEXIST");
    json_object_put(outcome.last);
    struct stat status;
    assert_int_equal(lstat(heap, &status), 0);
    assert_int_equal(status.st_size, 8);
    assert_int_equal(unlink(heap), 0);
    expect_error(BENCH("larson", "--options", "refuse=1"), NVD_ENVIRONMENT, "create",
                 "asked to refuse");
}

static void a_signal_takes_the_heap_along(void **state)
{
    (void)state;
    const char *const arguments[] = {"bench", "--adapter",  fake,     "--heap",
                                     heap,    "--workload", "larson", "--seconds",
                                     "60",    NULL};
    int output;
    pid_t child = start(arguments, &output);
    double begin = monotonic_seconds();
    while (!exists(heap) && monotonic_seconds() - begin < 20)
        usleep(1000);
    assert_true(exists(heap));
    kill(child, SIGTERM);
    struct outcome outcome = finish(child, output);
    assert_int_equal(outcome.code, 128 + SIGTERM);
    assert_null(outcome.last);
    assert_false(exists(heap));
}

static void bad_arguments_are_explained(void **state)
{
    (void)state;
    expect_error(RUN("bench"), NVD_USAGE, "usage", "--adapter and --workload");
    expect_error(RUN("bench", "--nonsense"), NVD_USAGE, "usage", "--help");
    expect_error(RUN("bogus"), NVD_USAGE, "usage", "unknown command 'bogus'");
    expect_error(BENCH("nosuch"), NVD_USAGE, "usage", "no workload 'nosuch'");
    expect_error(BENCH("larson", "extra"), NVD_USAGE, "usage", "'extra'");
    expect_error(BENCH("larson", "--threads", "0"), NVD_USAGE, "usage", "--threads");
    expect_error(BENCH("larson", "--seconds", "0"), NVD_USAGE, "usage", "--seconds");
    expect_error(BENCH("larson", "--warmup", "1e300"), NVD_USAGE, "usage", "--warmup");
    expect_error(BENCH("larson", "--cpus", "x"), NVD_USAGE, "usage", "--cpus");
    expect_error(BENCH("larson", "--heap-size", "12Q"), NVD_USAGE, "usage",
                 "--heap-size");
    expect_error(BENCH("larson", "--heap-size", "1000"), NVD_USAGE, "usage", "1024");
    expect_error(BENCH("larson", "--param", "colour=3"), NVD_USAGE, "usage",
                 "no parameter 'colour'; it has: slots_per_thread");
    expect_error(BENCH("larson", "--param", "epoch"), NVD_USAGE, "usage", "from 1 to");
    expect_error(BENCH("larson", "--param", "min_size=7"), NVD_USAGE, "usage",
                 "from 8 to");
    expect_error(BENCH("larson", "--param", "min_size=300"), NVD_USAGE, "usage",
                 "min_size is above max_size");
    expect_error(BENCH("larson", "--cpus", "65000"), NVD_ENVIRONMENT, "cpus",
                 "CPU 65000");
    expect_error(RUN("bench", "--adapter", fake, "--workload", "larson"), NVD_USAGE,
                 "usage", "--heap");
    expect_error(BENCH("kv"), NVD_ENVIRONMENT, "usage", "a slot lie inside a block");
    expect_error(BENCH("kv", "--param", "mix=4"), NVD_USAGE, "usage", "index 1");
    expect_error(BENCH("larson", "--stage", "fill"), NVD_USAGE, "usage", "no stages");
    expect_error(BENCH("recovery", "--observe"), NVD_USAGE, "usage", "trial");
    expect_error(BENCH("fragmentation", "--threads", "2"), NVD_USAGE, "usage",
                 "--threads");
    expect_error(BENCH("larson", "--input", "x"), NVD_USAGE, "usage", "reads no file");
    expect_error(BENCH("replay"), NVD_USAGE, "usage", "--input");
    expect_error(BENCH("replay", "--input", "/nonexistent"), NVD_USAGE, "usage",
                 "/nonexistent");
}

/* ---- calibrate ---- */

static void calibration_is_plausible(void **state)
{
    (void)state;
    struct outcome outcome =
        RUN("calibrate", "--dir", directory, "--seconds", "0.2", "--threads", "2");
    assert_int_equal(outcome.code, NVD_OK);
    struct json_object *document = outcome.last;
    assert_string_equal(string(document, "type"), "calibration");
    double idle = json_object_get_double(field(document, "fence_idle_ns"));
    double flush = json_object_get_double(field(document, "flush_fence_ns"));
    double flush8 = json_object_get_double(field(document, "flush8_fence_ns"));
    double nt = json_object_get_double(field(document, "nt_fence_ns"));
    assert_true(idle > 0 && nt > idle && flush > idle && flush8 > flush);
    double hit = json_object_get_double(field(document, "reread_idle_ns"));
    double after_nt = json_object_get_double(field(document, "reread_nt_ns"));
    assert_true(hit > 0 &&
                json_object_get_double(field(document, "reread_flush_ns")) > 0);
    assert_true(after_nt > 2 * hit); /* a streamed line is not in the cache */
    assert_true(number(document, "map_sync") <= 1);
    assert_true(strncmp(string(document, "flush"), "cl", 2) == 0);
    assert_true(number(document, "lines") >= 256);
    struct json_object *by_threads = field(document, "by_threads");
    assert_int_equal(json_object_array_length(by_threads), 2);
    for (size_t i = 0; i < 2; i++) {
        struct json_object *of = json_object_array_get_idx(by_threads, i);
        assert_int_equal(number(of, "threads"), i + 1);
        double limit = json_object_get_double(field(of, "limit_ops_per_s"));
        double ns = json_object_get_double(field(of, "nt_fence_ns"));
        assert_true(ns > 0 && limit > 0);
        if (i == 0)
            assert_true(limit * ns > 0.999e9 && limit * ns < 1.001e9);
    }
    json_object_put(document);
    /* Nothing stays behind. */
    assert_int_equal(rmdir(directory), 0);
    assert_int_equal(mkdir(directory, 0700), 0);
}

static void calibration_errors_are_explained(void **state)
{
    (void)state;
    expect_error(RUN("calibrate"), NVD_USAGE, "usage", "--dir");
    expect_error(RUN("calibrate", "--dir", "/nonexistent"), NVD_ENVIRONMENT, "calibrate",
                 "/nonexistent");
    expect_error(RUN("calibrate", "--dir", directory, "--threads", "65"), NVD_USAGE,
                 "usage", "--threads");
    expect_error(RUN("calibrate", "--dir", directory, "--cpus", "65000"), NVD_ENVIRONMENT,
                 "calibrate", "CPU");
}

static int make_directory(void **state)
{
    (void)state;
    driver = getenv("NVDRIVE");
    fakes = getenv("NVDRIVE_FAKES");
    if (driver == NULL || fakes == NULL) {
        fputs("NVDRIVE and NVDRIVE_FAKES must name the driver and the fakes\n", stderr);
        return -1;
    }
    snprintf(fake, sizeof fake, "%s/fake_heap.so", fakes);
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(heap, sizeof heap, "%s/heap", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(heap);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_lists_workloads),
        cmocka_unit_test(info_describes_an_adapter),
        cmocka_unit_test(bad_adapters_are_explained),
        cmocka_unit_test(every_workload_runs),
        cmocka_unit_test(unobserved_and_untimed_samples_say_so),
        cmocka_unit_test(blocks_die_where_the_workload_says),
        cmocka_unit_test(parameters_and_heap_size_are_obeyed),
        cmocka_unit_test(a_tight_heap_is_tolerated),
        cmocka_unit_test(a_storm_of_failures_ends),
        cmocka_unit_test(other_errors_end_the_run),
        cmocka_unit_test(a_block_handed_out_twice_is_noticed),
        cmocka_unit_test(heaps_are_never_overwritten),
        cmocka_unit_test(a_signal_takes_the_heap_along),
        cmocka_unit_test(bad_arguments_are_explained),
        cmocka_unit_test(calibration_is_plausible),
        cmocka_unit_test(calibration_errors_are_explained),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
