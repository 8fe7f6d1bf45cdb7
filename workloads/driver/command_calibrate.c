// SPDX-License-Identifier: Apache-2.0
/*
 * command_calibrate.c - `nvdrive calibrate`: what flushes and fences cost here.
 *
 * A durable operation cannot be faster than the one ordered write that makes
 * it durable.  Measured in the directory that the heaps will lie in, on a
 * mapped file whose pages were all touched, so that every durable figure can
 * be shown as a multiple of what the machine allows.
 *
 * What is timed (one iteration of each; lines of 64 bytes, each thread on
 * LINES lines of its own, taken in ascending order and round and round, as a
 * log's records are):
 *   fence_idle    sfence with nothing pending
 *   flush_fence   store 8 bytes into a line, flush it, sfence
 *   flush8_fence  the same for 8 lines under one sfence; the slope
 *                 (flush8 - flush) / 7 is the price of a further flush
 *   nt_fence      write a whole line by four 16-byte non-temporal stores, sfence
 * A batch is the mean of BATCH iterations between two readings of the clock; a
 * figure is the median of its batches.  nt_fence and flush_fence are also
 * measured on 1..N threads at once: threads work until all have enough
 * batches, so that every batch that counts had company.
 *
 * What it takes to read such a line again: reread.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "driver.h"

#if defined(__x86_64__)
#include "lines.h"
#include "reread.h"

#define LINES                                                                            \
    ((size_t)512) /* a thread's: 32 KB, more than the 16 KB of Optane's buffer */
#define BATCH       1024u
#define BATCHES_MIN 20u
#define BATCHES_MAX 4096u
#define THREADS_MAX 64u
#define CPUS_MAX    4096
#define SECONDS_MAX 1e6

_Static_assert(LINES >= 256, "no line is written again within 256");
_Static_assert(LINES % 8 == 0, "flush8 takes whole groups");

#ifndef MAP_SYNC /* C libraries older than the flag */
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 0x3
#endif

static const char *const flush_names[] = {"clwb", "clflushopt", "clflush"};

/* ---- one batch of each pattern: BATCH iterations from line `at` on ---- */

typedef void pattern_fn(enum nvd_flush flush, char *lines, size_t at);

static void fence_idle(enum nvd_flush flush, char *lines, size_t at)
{
    (void)flush;
    (void)lines;
    (void)at;
    for (size_t i = 0; i < BATCH; i++)
        nvd_fence();
}

static void flush_fence(enum nvd_flush flush, char *lines, size_t at)
{
    for (size_t i = 0; i < BATCH; i++) {
        char *line = lines + (at + i) % LINES * NVD_LINE_BYTES;
        *(volatile uint64_t *)line = i;
        nvd_flush_line(flush, line);
        nvd_fence();
    }
}

static void flush8_fence(enum nvd_flush flush, char *lines, size_t at)
{
    for (size_t i = 0; i < BATCH; i++) {
        for (size_t j = 0; j < 8; j++) {
            char *line = lines + (at + i * 8 + j) % LINES * NVD_LINE_BYTES;
            *(volatile uint64_t *)line = i;
            nvd_flush_line(flush, line);
        }
        nvd_fence();
    }
}

static void nt_fence(enum nvd_flush flush, char *lines, size_t at)
{
    (void)flush;
    for (size_t i = 0; i < BATCH; i++) {
        nvd_stream_line(lines + (at + i) % LINES * NVD_LINE_BYTES, i);
        nvd_fence();
    }
}

/* ---- measuring ---- */

/* One thread's share of a measurement. */
struct gauge {
    const struct rig *rig;
    pattern_fn *pattern;
    char *lines;
    int cpu; /* -1: any */
    int error;
    unsigned batches;
    double ns[BATCHES_MAX]; /* of an iteration, by batch */
};

/* What the threads of one measurement share. */
struct rig {
    enum nvd_flush flush;
    double seconds;
    pthread_barrier_t *start;
    atomic_uint *unfinished; /* threads that want more batches */
};

static void pin(struct gauge *gauge)
{
    if (gauge->cpu < 0)
        return;
    cpu_set_t *set = CPU_ALLOC((size_t)gauge->cpu + 1);
    size_t size = CPU_ALLOC_SIZE((size_t)gauge->cpu + 1);
    if (set == NULL) {
        gauge->error = ENOMEM;
        return;
    }
    CPU_ZERO_S(size, set);
    CPU_SET_S((size_t)gauge->cpu, size, set);
    gauge->error = pthread_setaffinity_np(pthread_self(), size, set);
    CPU_FREE(set);
}

static void *gauge_main(void *argument)
{
    struct gauge *gauge = argument;
    const struct rig *rig = gauge->rig;
    pin(gauge);
    pthread_barrier_wait(rig->start);
    gauge->pattern(rig->flush, gauge->lines, 0); /* warms up; not counted */
    uint64_t begin = nvd_monotonic_ns();
    uint64_t enough = begin + (uint64_t)(rig->seconds * 1e9);
    uint64_t before = begin;
    bool finished = false;
    size_t at = 0;
    while (atomic_load_explicit(rig->unfinished, memory_order_relaxed) > 0) {
        gauge->pattern(rig->flush, gauge->lines, at);
        at = (at + BATCH) % LINES;
        uint64_t now = nvd_monotonic_ns();
        if (!finished) {
            gauge->ns[gauge->batches++] = (double)(now - before) / BATCH;
            finished = gauge->batches == BATCHES_MAX ||
                       (gauge->batches >= BATCHES_MIN && now >= enough);
            if (finished)
                atomic_fetch_sub(rig->unfinished, 1);
        }
        before = now;
    }
    return NULL;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, ascending);
    return count % 2 == 1 ? values[count / 2]
                          : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct site {
    char *memory; /* LINES lines for each thread */
    int map_sync;
    enum nvd_flush flush;
    const int *cpus;
    int cpu_count;
    struct gauge *gauges; /* THREADS_MAX */
};

/* Runs a pattern on n threads; ns[i] is thread i's median.  An errno value. */
static int gauge_threads(const struct site *site, pattern_fn *pattern, unsigned n,
                         double seconds, double *ns)
{
    pthread_t threads[THREADS_MAX];
    pthread_barrier_t start;
    atomic_uint unfinished = n;
    const struct rig rig = {site->flush, seconds, &start, &unfinished};
    int error = pthread_barrier_init(&start, NULL, n);
    if (error != 0)
        return error;
    for (unsigned i = 0; i < n; i++) {
        struct gauge *gauge = &site->gauges[i];
        gauge->rig = &rig;
        gauge->pattern = pattern;
        gauge->lines = site->memory + i * LINES * NVD_LINE_BYTES;
        gauge->cpu =
            site->cpu_count == 0 ? -1 : site->cpus[i % (unsigned)site->cpu_count];
        gauge->error = 0;
        gauge->batches = 0;
        error = pthread_create(&threads[i], NULL, gauge_main, gauge);
        if (error != 0) {
            /* Those that exist wait at a barrier that will never open. */
            nvd_emit_error("calibrate", error, "cannot start thread %u of %u", i, n);
            exit(NVD_ENVIRONMENT);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        if (error == 0)
            error = site->gauges[i].error;
        ns[i] = median(site->gauges[i].ns, site->gauges[i].batches);
    }
    pthread_barrier_destroy(&start);
    return error;
}

/* ---- the file ---- */

/* A nameless file of bytes in dir, mapped and touched; -1 after an error line. */
static int map_file(const char *dir, size_t bytes, struct site *site)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/nvdrive-calibrate-XXXXXX", dir) >=
        (int)sizeof path) {
        nvd_emit_error("calibrate", ENAMETOOLONG, "'%s' is too long", dir);
        return -1;
    }
    int file = mkostemp(path, O_CLOEXEC);
    if (file < 0) {
        nvd_emit_error("calibrate", errno, "cannot make a file in '%s': %s", dir,
                       strerror(errno));
        return -1;
    }
    unlink(path);
    int error = posix_fallocate(file, 0, (off_t)bytes);
    if (error != 0) {
        nvd_emit_error("calibrate", error, "no room for %zu bytes in '%s': %s", bytes,
                       dir, strerror(error));
        close(file);
        return -1;
    }
    site->map_sync = 1;
    site->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED_VALIDATE | MAP_SYNC, file, 0);
    if (site->memory == MAP_FAILED) {
        site->map_sync = 0;
        site->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    error = errno;
    close(file);
    if (site->memory == MAP_FAILED) {
        nvd_emit_error("calibrate", error, "cannot map a file of '%s': %s", dir,
                       strerror(error));
        return -1;
    }
    memset(site->memory, 1, bytes);
    return 0;
}

/* ---- the document ---- */

static void add_ns(struct json_object *to, const char *key, double ns)
{
    json_object_object_add(to, key, json_object_new_double(ns));
}

static const char *const reread_keys[NVD_REREADS] = {
    [NVD_REREAD_IDLE] = "reread_idle_ns",
    [NVD_REREAD_FLUSH] = "reread_flush_ns",
    [NVD_REREAD_NT] = "reread_nt_ns",
};

/* The document, or NULL after an error line. */
static struct json_object *measure(const struct site *site, const char *dir,
                                   double seconds, unsigned threads)
{
    static const struct {
        const char *key;
        pattern_fn *pattern;
    } single[] = {{"fence_idle_ns", fence_idle},
                  {"flush_fence_ns", flush_fence},
                  {"flush8_fence_ns", flush8_fence},
                  {"nt_fence_ns", nt_fence}};
    enum { SINGLES = sizeof single / sizeof single[0] };
    double each = seconds / (SINGLES + NVD_REREADS + 2.0 * threads);
    double ns[THREADS_MAX], figures[SINGLES];
    int error = 0;

    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("calibration"));
    json_object_object_add(document, "dir", json_object_new_string(dir));
    json_object_object_add(document, "map_sync", json_object_new_int(site->map_sync));
    json_object_object_add(document, "flush",
                           json_object_new_string(flush_names[site->flush]));
    json_object_object_add(document, "lines", json_object_new_uint64(LINES));
    json_object_object_add(document, "sequence",
                           json_object_new_string("cyclic, ascending, own lines"));
    json_object_object_add(document, "batch", json_object_new_int(BATCH));
    for (unsigned i = 0; i < SINGLES && error == 0; i++) {
        error = gauge_threads(site, single[i].pattern, 1, each, ns);
        figures[i] = ns[0];
        add_ns(document, single[i].key, ns[0]);
    }
    if (error == 0)
        add_ns(document, "extra_flush_ns", (figures[2] - figures[1]) / 7);
    for (unsigned i = 0; i < NVD_REREADS && error == 0; i++)
        add_ns(document, reread_keys[i], nvd_reread_ns(i, site->memory, LINES, each));

    struct json_object *by_threads = json_object_new_array();
    json_object_object_add(document, "by_threads", by_threads);
    for (unsigned n = 1; n <= threads && error == 0; n++) {
        struct json_object *of = json_object_new_object();
        json_object_array_add(by_threads, of);
        json_object_object_add(of, "threads", json_object_new_int((int)n));
        error = gauge_threads(site, flush_fence, n, each, ns);
        if (error == 0) {
            add_ns(of, "flush_fence_ns", median(ns, n));
            error = gauge_threads(site, nt_fence, n, each, ns);
        }
        double rate = 0;
        for (unsigned i = 0; i < n; i++)
            rate += 1e9 / ns[i];
        add_ns(of, "nt_fence_ns", median(ns, n));
        add_ns(of, "limit_ops_per_s", rate);
    }
    if (error != 0) {
        nvd_emit_error("calibrate", error, "cannot run on the CPUs asked for: %s",
                       strerror(error));
        json_object_put(document);
        return NULL;
    }
    return document;
}

struct arguments {
    const char *dir;
    double seconds;
    uint64_t threads;
    int cpus[CPUS_MAX], cpu_count;
};

static const char help[] =
    "usage: nvdrive calibrate --dir DIR [OPTION...]\n"
    "  --dir DIR       where the heaps will lie\n"
    "  --seconds S     2; for everything together\n"
    "  --threads N     2; the figures are taken for 1 to N threads (at most 64)\n"
    "  --cpus LIST     thread i runs on the list's i-th CPU, round and round\n";

/* NVD_OK, or NVD_USAGE after an error line. */
static int parse(int argc, char **argv, struct arguments *to)
{
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"seconds", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"cpus", required_argument, NULL, 'c'},
        {0},
    };
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        bool good = option != '?';
        if (!good) {
            nvd_emit_error("usage", 0,
                           "calibrate: bad option; see nvdrive calibrate --help");
            return NVD_USAGE;
        }
        if (option == 'd')
            to->dir = optarg;
        else if (option == 's')
            good = nvd_parse_seconds(optarg, &to->seconds) && to->seconds <= SECONDS_MAX;
        else if (option == 't')
            good = nvd_parse_u64(optarg, 1, THREADS_MAX, &to->threads);
        else
            good = (to->cpu_count = nvd_parse_cpus(optarg, to->cpus, CPUS_MAX)) > 0;
        if (!good) {
            nvd_emit_error("usage", 0, "calibrate: bad value '%s' for --%s", optarg,
                           options[index].name);
            return NVD_USAGE;
        }
    }
    if (optind != argc || to->dir == NULL) {
        nvd_emit_error("usage", 0, "calibrate: --dir DIR is needed, and nothing else");
        return NVD_USAGE;
    }
    return NVD_OK;
}

int nvd_command_calibrate(int argc, char **argv)
{
    static struct arguments arguments = {.seconds = 2, .threads = 2};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stderr);
        return NVD_OK;
    }
    if (parse(argc, argv, &arguments) != NVD_OK)
        return NVD_USAGE;
    struct site site = {
        .flush = nvd_best_flush(),
        .cpus = arguments.cpus,
        .cpu_count = arguments.cpu_count,
        .gauges = calloc(THREADS_MAX, sizeof *site.gauges),
    };
    if (site.gauges == NULL) {
        nvd_emit_error("calibrate", ENOMEM, "no memory");
        return NVD_INTERNAL;
    }
    size_t bytes = (size_t)arguments.threads * LINES * NVD_LINE_BYTES;
    int code = NVD_ENVIRONMENT;
    if (map_file(arguments.dir, bytes, &site) == 0) {
        struct json_object *document =
            measure(&site, arguments.dir, arguments.seconds, (unsigned)arguments.threads);
        if (document != NULL) {
            nvd_emit(document);
            code = NVD_OK;
        }
        munmap(site.memory, bytes);
    }
    free(site.gauges);
    return code;
}

#else /* not x86-64 */

int nvd_command_calibrate(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    nvd_emit_error("calibrate", ENOTSUP,
                   "the flush and fence instructions of this processor are not known");
    return NVD_ENVIRONMENT;
}

#endif
