// SPDX-License-Identifier: Apache-2.0
/*
 * vmem - the standalone workload `vmem`: what an operation of an arena costs
 * against the number of its segments, and what several threads reach together,
 * with quantum caches and without.  docs/standalone-workloads.md is the
 * contract, workloads/vmem.yaml names cases and figures.
 *
 * Case segments-N: N segments of 1 to 16 quanta live in a fragmented arena; a
 * step frees one of them and allocates another size.  The rate is that of a
 * window in which only `touched` of the N are ever replaced: what is touched
 * stays in the processor's caches, and the time is that of the algorithm.  The
 * figure scattered_ns_per_op is of a window in which all N are replaced, in
 * random order: the same algorithm plus the misses of the memory.
 *
 * Cases small-sizes and mixed-sizes: all threads on one arena, each in batches
 * of 32 allocations, freed in order.
 *
 * A wrong answer (an arena that breaks an invariant, or has something
 * allocated when all was freed) is exit code 4.  Times of one thread are CPU
 * time, so that others' work on the machine does not count.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "driver.h"
#include "instructions.h"
#include "vmem.h"

#define CPUS_MAX     4096
#define THREADS_MAX  1024
#define QUANTUM      64u
#define QCACHE_MAX   (VMEM_NQCACHE_MAX * QUANTUM)
#define BATCH        32u
#define CHECK_EVERY  500 /* steps between two looks at the clock */
#define SEGMENTS_MAX 100000000u

struct options {
    const char *workload_case, *subject;
    bool cached; /* the subject has quantum caches */
    uint64_t threads, seed;
    double warmup, seconds, timeout;
    int cpus[CPUS_MAX], cpu_count;
    uint64_t segments, touched, largest; /* parameters; 0: not given */
};

struct outcome {
    uint64_t ops;
    double seconds, cpu_seconds;
    bool has_instructions;
    uint64_t instructions;
    double scattered_ns; /* < 0: not measured */
    uint64_t searched;   /* free segments examined beyond an instant fit */
};

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static vmem_t *new_arena(const struct options *options, size_t quanta)
{
    vmem_t *arena = vmem_create(
        options->workload_case, (void *)(uintptr_t)QUANTUM, quanta * QUANTUM, QUANTUM,
        NULL, NULL, NULL, options->cached ? QCACHE_MAX : 0, VM_NOSLEEP | VMC_IDENTIFIER);
    if (arena == NULL)
        nvd_emit_error("vmem_create", errno, "no memory for an arena of %zu quanta",
                       quanta);
    return arena;
}

static uint64_t searched(vmem_t *arena)
{
    vmem_kstat_t counters;
    vmem_kstat(arena, &counters);
    return counters.vk_search;
}

/* NVD_OK, or NVD_INCORRECT after saying what is wrong.  Destroys the arena. */
static int judge(vmem_t *arena)
{
    char why[256];
    bool sound = vmem_check(arena, why, sizeof why);
    size_t left = vmem_destroy(arena);
    if (!sound)
        nvd_emit_error("check", 0, "the arena breaks an invariant: %s", why);
    else if (left != 0)
        nvd_emit_error("destroy", 0,
                       "all was freed, and the arena has %zu still allocated", left);
    return sound && left == 0 ? NVD_OK : NVD_INCORRECT;
}

/* ---- segments-N ---- */

struct piece {
    void *address;
    size_t size;
};

static bool replace(vmem_t *arena, struct piece *piece, struct nvd_random *random)
{
    vmem_free(arena, piece->address, piece->size);
    piece->size = (1 + nvd_random_below(random, 16)) * QUANTUM;
    piece->address = vmem_alloc(arena, piece->size, VM_NOSLEEP);
    return piece->address != NULL;
}

static bool fill(vmem_t *arena, struct piece *pieces, size_t count,
                 struct nvd_random *random)
{
    for (size_t i = 0; i < count; i++) {
        pieces[i].size = (1 + nvd_random_below(random, 16)) * QUANTUM;
        pieces[i].address = vmem_alloc(arena, pieces[i].size, VM_NOSLEEP);
        if (pieces[i].address == NULL)
            return false;
    }
    for (size_t i = 0; i < count; i++) /* so that what is free is fragmented */
        if (!replace(arena, &pieces[nvd_random_below(random, count)], random))
            return false;
    return true;
}

/* Replaces some of the first `touched` pieces for so long; false: no memory. */
static bool churn(vmem_t *arena, struct piece *pieces, size_t touched, double seconds,
                  struct nvd_random *random, struct outcome *outcome)
{
    double begin = cpu_seconds(), now = begin;
    uint64_t began = nvd_monotonic_ns(), ops = 0;
    while (now - begin < seconds) {
        for (int i = 0; i < CHECK_EVERY; i++)
            if (!replace(arena, &pieces[nvd_random_below(random, touched)], random))
                return false;
        ops += 2 * CHECK_EVERY;
        now = cpu_seconds();
    }
    outcome->ops = ops;
    outcome->cpu_seconds = now - begin;
    outcome->seconds = (double)(nvd_monotonic_ns() - began) * 1e-9;
    return true;
}

static bool measure_segments(const struct options *options, vmem_t *arena,
                             struct piece *pieces, struct outcome *outcome)
{
    struct nvd_random random;
    struct outcome scattered;
    size_t count = options->segments;
    size_t touched = options->touched < count ? options->touched : count;
    nvd_random_seed(&random, options->seed);
    if (!fill(arena, pieces, count, &random) ||
        !churn(arena, pieces, touched, options->warmup, &random, outcome))
        return false;
    int counter = nvd_instructions_open();
    uint64_t before = searched(arena);
    nvd_instructions_start(counter);
    bool done = churn(arena, pieces, touched, options->seconds, &random, outcome);
    outcome->has_instructions = nvd_instructions_stop(counter, &outcome->instructions);
    nvd_instructions_close(counter);
    outcome->searched = searched(arena) - before;
    if (!done || !churn(arena, pieces, count, options->seconds, &random, &scattered))
        return false;
    outcome->scattered_ns = scattered.cpu_seconds * 1e9 / (double)scattered.ops;
    /* CPU time: one thread alone needs no wall clock. */
    outcome->seconds = outcome->cpu_seconds;
    return true;
}

static int run_segments(const struct options *options, struct outcome *outcome)
{
    size_t count = options->segments;
    /* 8.5 quanta a segment on average, in slabs or single: four times the room. */
    vmem_t *arena = new_arena(options, 32 * count + 16384);
    struct piece *pieces = calloc(count, sizeof *pieces);
    if (arena == NULL || pieces == NULL) {
        free(pieces);
        return NVD_ENVIRONMENT;
    }
    bool measured = measure_segments(options, arena, pieces, outcome);
    if (!measured)
        nvd_emit_error("alloc", ENOMEM, "no memory with %zu segments live", count);
    for (size_t i = 0; i < count; i++)
        if (pieces[i].address != NULL)
            vmem_free(arena, pieces[i].address, pieces[i].size);
    free(pieces);
    int verdict = judge(arena);
    return measured ? verdict : NVD_ENVIRONMENT;
}

/* ---- small-sizes, mixed-sizes ---- */

struct crew {
    const struct options *options;
    vmem_t *arena;
    pthread_barrier_t barrier;
    atomic_bool stop, failed;
};

struct hand {
    struct crew *crew;
    unsigned index;
    pthread_t thread;
    uint64_t ops;
    double cpu_seconds;
    bool has_instructions;
    uint64_t instructions;
};

static void pin(const struct options *options, unsigned index)
{
    cpu_set_t set;
    if (options->cpu_count == 0)
        return;
    int cpu = options->cpus[index % (unsigned)options->cpu_count];
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set); /* a wish */
}

static uint64_t work(struct crew *crew)
{
    void *address[BATCH];
    size_t largest = crew->options->largest;
    uint64_t ops = 0;
    while (!atomic_load_explicit(&crew->stop, memory_order_relaxed)) {
        for (size_t i = 0; i < BATCH; i++) {
            address[i] = vmem_alloc(crew->arena, QUANTUM * (1 + i % largest), VM_NOSLEEP);
            if (address[i] == NULL)
                atomic_store(&crew->failed, true);
        }
        for (size_t i = 0; i < BATCH; i++)
            if (address[i] != NULL)
                vmem_free(crew->arena, address[i], QUANTUM * (1 + i % largest));
        ops += (uint64_t)2 * BATCH;
    }
    return ops;
}

static void *hand_main(void *argument)
{
    struct hand *hand = argument;
    struct crew *crew = hand->crew;
    pin(crew->options, hand->index);
    int counter = nvd_instructions_open();
    for (int window = 0; window < 2; window++) {
        pthread_barrier_wait(&crew->barrier);
        double begin = cpu_seconds();
        nvd_instructions_start(counter);
        hand->ops = work(crew);
        hand->has_instructions = nvd_instructions_stop(counter, &hand->instructions);
        hand->cpu_seconds = cpu_seconds() - begin;
        pthread_barrier_wait(&crew->barrier);
    }
    nvd_instructions_close(counter);
    return NULL;
}

static void sleep_for(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds};
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

/* Both windows; the second one's wall clock. */
static double conduct(struct crew *crew)
{
    double seconds = 0;
    for (int window = 0; window < 2; window++) {
        atomic_store(&crew->stop, false);
        pthread_barrier_wait(&crew->barrier);
        uint64_t began = nvd_monotonic_ns();
        sleep_for(window == 0 ? crew->options->warmup : crew->options->seconds);
        atomic_store(&crew->stop, true);
        pthread_barrier_wait(&crew->barrier);
        seconds = (double)(nvd_monotonic_ns() - began) * 1e-9;
    }
    return seconds;
}

static void sum_up(const struct hand *hands, size_t count, struct outcome *outcome)
{
    outcome->has_instructions = true;
    for (size_t i = 0; i < count; i++) {
        outcome->ops += hands[i].ops;
        outcome->cpu_seconds += hands[i].cpu_seconds;
        outcome->instructions += hands[i].instructions;
        outcome->has_instructions &= hands[i].has_instructions;
    }
}

static int run_contention(const struct options *options, struct outcome *outcome)
{
    size_t count = options->threads;
    struct crew crew = {.options = options};
    crew.arena = new_arena(options, (size_t)4096 * (count + 1));
    struct hand *hands = calloc(count, sizeof *hands);
    if (crew.arena == NULL || hands == NULL) {
        free(hands);
        return NVD_ENVIRONMENT;
    }
    pthread_barrier_init(&crew.barrier, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        hands[i] = (struct hand){.crew = &crew, .index = (unsigned)i};
        int error = pthread_create(&hands[i].thread, NULL, hand_main, &hands[i]);
        if (error != 0) {
            nvd_emit_error("threads", error, "thread %zu can't be started", i);
            exit(NVD_ENVIRONMENT); /* the others wait at the barrier */
        }
    }
    outcome->seconds = conduct(&crew);
    for (size_t i = 0; i < count; i++)
        pthread_join(hands[i].thread, NULL);
    sum_up(hands, count, outcome);
    outcome->searched = searched(crew.arena);
    outcome->scattered_ns = -1;
    free(hands);
    int verdict = judge(crew.arena);
    if (verdict == NVD_OK && atomic_load(&crew.failed)) {
        nvd_emit_error("alloc", ENOMEM, "an allocation failed although most is free");
        return NVD_INCORRECT;
    }
    return verdict;
}

/* ---- the protocol ---- */

static void add_real(struct json_object *object, const char *key, double value)
{
    json_object_object_add(object, key, json_object_new_double(value));
}

static void report(const struct options *options, const struct outcome *outcome)
{
    struct json_object *document = json_object_new_object();
    struct json_object *figures = json_object_new_object();
    double ops = (double)outcome->ops;
    json_object_object_add(document, "type", json_object_new_string("result"));
    json_object_object_add(document, "workload", json_object_new_string("vmem"));
    json_object_object_add(document, "case",
                           json_object_new_string(options->workload_case));
    json_object_object_add(document, "subject", json_object_new_string(options->subject));
    json_object_object_add(document, "threads",
                           json_object_new_int64((int64_t)options->threads));
    add_real(document, "seconds", outcome->seconds);
    add_real(document, "cpu_seconds", outcome->cpu_seconds);
    json_object_object_add(document, "ops", json_object_new_uint64(outcome->ops));
    add_real(document, "ops_per_s", ops / outcome->seconds);
    json_object_object_add(
        document, "instructions",
        outcome->has_instructions ? json_object_new_uint64(outcome->instructions) : NULL);
    add_real(figures, "cpu_ns_per_op", outcome->cpu_seconds * 1e9 / ops);
    if (outcome->scattered_ns >= 0)
        add_real(figures, "scattered_ns_per_op", outcome->scattered_ns);
    add_real(figures, "searched_per_op", (double)outcome->searched / ops);
    json_object_object_add(document, "figures", figures);
    nvd_emit(document);
}

static bool parse_parameter(struct options *options, const char *text)
{
    static const char *const names[] = {"segments", "touched", "largest"};
    uint64_t *const values[] = {&options->segments, &options->touched, &options->largest};
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals != NULL && i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == (size_t)(equals - text) &&
            strncmp(text, names[i], strlen(names[i])) == 0)
            return nvd_parse_u64(equals + 1, 1, SEGMENTS_MAX, values[i]);
    return false;
}

static bool parse_option(struct options *options, int letter)
{
    switch (letter) {
    case 'c':
        options->workload_case = optarg;
        return true;
    case 's':
        options->subject = optarg;
        options->cached = strcmp(optarg, "vmem-cached") == 0;
        return options->cached || strcmp(optarg, "vmem") == 0;
    case 't':
        return nvd_parse_u64(optarg, 1, THREADS_MAX, &options->threads);
    case 'r':
        return nvd_parse_u64(optarg, 0, UINT64_MAX, &options->seed);
    case 'p':
        options->cpu_count = nvd_parse_cpus(optarg, options->cpus, CPUS_MAX);
        return options->cpu_count > 0;
    case 'w':
        return nvd_parse_seconds(optarg, &options->warmup);
    case 'l':
        return nvd_parse_seconds(optarg, &options->seconds) && options->seconds > 0;
    case 'o':
        return nvd_parse_seconds(optarg, &options->timeout);
    case 'd':
    case 'k':
        return true; /* it needs neither a heap file nor other files */
    case 'm':
        return parse_parameter(options, optarg);
    default:
        return false;
    }
}

static bool parse(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {
        {"case", required_argument, NULL, 'c'},
        {"subject", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 'r'},
        {"cpus", required_argument, NULL, 'p'},
        {"warmup", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 'l'},
        {"timeout", required_argument, NULL, 'o'},
        {"dir", required_argument, NULL, 'd'},
        {"work", required_argument, NULL, 'k'},
        {"param", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int letter, index = 0;
    while ((letter = getopt_long(argc, argv, "", known, &index)) != -1) {
        if (letter == '?' || !parse_option(options, letter)) {
            nvd_emit_error("arguments", 0, "--%s: found '%s', which it can't be",
                           letter == '?' ? "?" : known[index].name,
                           optarg != NULL ? optarg : "");
            return false;
        }
    }
    bool whole = optind == argc && options->workload_case != NULL &&
                 options->subject != NULL && options->seconds > 0 &&
                 (options->segments > 0) != (options->largest > 0) &&
                 (options->segments == 0 || options->threads == 1);
    if (!whole)
        nvd_emit_error("arguments", 0,
                       "expected bench --case C --subject S --seconds S and either "
                       "--param segments=N with one thread or --param largest=N");
    return whole;
}

int main(int argc, char **argv)
{
    static struct options options = {.threads = 1, .seed = 1, .touched = 10};
    struct outcome outcome = {0};
    if (argc < 2 || strcmp(argv[1], "bench") != 0) {
        nvd_emit_error("arguments", 0, "expected the command 'bench'");
        return NVD_USAGE;
    }
    if (!parse(argc - 1, argv + 1, &options))
        return NVD_USAGE;
    pin(&options, 0);
    int code = options.segments > 0 ? run_segments(&options, &outcome)
                                    : run_contention(&options, &outcome);
    if (code == NVD_OK)
        report(&options, &outcome);
    return code;
}
