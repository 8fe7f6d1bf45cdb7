// SPDX-License-Identifier: Apache-2.0
/*
 * Stepping: the tracer on loops whose instructions are known, and on children
 * that die, hang or are told to end; then whole samples of `nvdrive bench
 * --step-instructions` ($NVDRIVE) on the fake adapter ($NVDRIVE_FAKES).
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "clock.h"
#include "driver.h"
#include "tracer.h"

#define PATIENCE 60.0 /* seconds; a step may take long on a busy machine */

/* ---- the tracer ---- */

/* In shared memory. */
struct loop {
    uint64_t counts[2];
    atomic_bool stop;
    pid_t pid;
    bool ended;
    struct nvd_steps steps;
    int seen; /* what a signal handler saw */
};

struct setting {
    struct nvd_tracer *tracer;
    struct loop *loop;
    void (*round)(struct loop *); /* one operation */
    uint64_t ops;
    uint64_t give_up_at; /* operations; 0: never */
    uint64_t most;       /* steps; 0: any number */
};

static struct setting make(void (*round)(struct loop *), uint64_t ops)
{
    struct setting setting = {.tracer = nvd_tracer_new(), .round = round, .ops = ops};
    assert_non_null(setting.tracer);
    setting.loop = nvd_tracer_memory(setting.tracer, sizeof *setting.loop);
    assert_non_null(setting.loop);
    return setting;
}

static int step_loop(void *context)
{
    const struct setting *setting = context;
    struct loop *loop = setting->loop;
    const struct nvd_stretch stretch = {
        .counts = {&loop->counts[0], &loop->counts[1]},
        .ops = setting->ops,
        .most = setting->most,
        .stop = &loop->stop,
    };
    loop->pid = getpid();
    nvd_tracer_step(setting->tracer, &stretch);
    for (uint64_t i = 0; !atomic_load(&loop->stop); i++) {
        if (setting->give_up_at != 0 && i == setting->give_up_at)
            break;
        setting->round(loop);
    }
    loop->ended = nvd_tracer_stepped(setting->tracer, &loop->steps);
    return 7;
}

static int trace(struct setting *setting, double timeout, int *detail)
{
    return (int)nvd_tracer_run(setting->tracer, step_loop, setting, -1, timeout, detail);
}

/* Instructions of a stretch of so many rounds. */
static struct nvd_steps traced(void (*round)(struct loop *), uint64_t ops)
{
    struct setting setting = make(round, ops);
    int detail;
    assert_int_equal(trace(&setting, PATIENCE, &detail), NVD_TRACED_EXITED);
    assert_int_equal(detail, 7);
    assert_true(setting.loop->ended);
    struct nvd_steps steps = setting.loop->steps;
    nvd_tracer_free(setting.tracer);
    return steps;
}

static void plain_round(struct loop *loop)
{
    loop->counts[0]++;
}

#if defined(__x86_64__)
/* These never return: the tracer's flag is looked at in assembler too, so that
   the instructions from count to count are the ones that stand here. */
static void known_round(struct loop *loop)
{
    __asm__ volatile("1:\tnop\n\t"
                     "nop\n\t"
                     "incq %0\n\t" /* the boundary is behind it */
                     "cmpb $0, %1\n\t"
                     "je 1b"
                     : "+m"(loop->counts[0])
                     : "m"(loop->stop)
                     : "cc", "memory");
}

static char zeros[3000];

/* A locked instruction, a system call (getppid) and a `rep` over 3000 bytes. */
static void odd_round(struct loop *loop)
{
    __asm__ volatile("1:\tleaq %2, %%rdi\n\t"
                     "movl $3000, %%ecx\n\t"
                     "xorl %%eax, %%eax\n\t"
                     "rep stosb\n\t"
                     "movl $110, %%eax\n\t"
                     "syscall\n\t"
                     "lock incq %0\n\t"
                     "cmpb $0, %1\n\t"
                     "je 1b"
                     : "+m"(loop->counts[1])
                     : "m"(loop->stop), "m"(zeros)
                     : "cc", "memory", "rax", "rcx", "rdi", "r11");
}

static void known_loops_are_counted_exactly(void **state)
{
    (void)state;
    struct nvd_steps steps = traced(known_round, 100);
    assert_int_equal(steps.instructions, 100 * 5);
    assert_true(steps.steps >= steps.instructions);
    assert_int_equal(traced(known_round, 1).instructions, 5);
}

static void a_rep_a_system_call_and_a_locked_instruction_are_one_each(void **state)
{
    (void)state;
    struct nvd_steps steps = traced(odd_round, 2);
    assert_int_equal(steps.instructions, 2 * 9);
    assert_true(steps.steps < 100); /* the rest of a `rep` is not stepped */
}
#endif

static void counts_are_proportional(void **state)
{
    (void)state;
    uint64_t once = traced(plain_round, 50).instructions;
    assert_true(once >= 50 * 2);
    assert_int_equal(traced(plain_round, 100).instructions, 2 * once);
    assert_int_equal(traced(plain_round, 100).instructions, 2 * once);
}

static void a_stretch_that_is_given_up_goes_on_at_full_speed(void **state)
{
    (void)state;
    struct setting setting = make(plain_round, 1000);
    setting.give_up_at = 10;
    int detail;
    assert_int_equal(trace(&setting, PATIENCE, &detail), NVD_TRACED_EXITED);
    assert_int_equal(detail, 7);
    assert_false(setting.loop->ended);
    assert_false(atomic_load(&setting.loop->stop));
    nvd_tracer_free(setting.tracer);
}

static struct loop *seen_by_handler;

static void see(int number)
{
    seen_by_handler->seen = number;
}

static void signalling_round(struct loop *loop)
{
    if (loop->counts[0] == 5 && loop->seen == 0) {
        seen_by_handler = loop;
        signal(SIGUSR1, see);
        raise(SIGUSR1);
        raise(SIGTSTP); /* must not leave it stopped */
    }
    loop->counts[0]++;
}

static void a_stretch_ends_at_its_limit(void **state)
{
    (void)state;
    struct setting setting = make(plain_round, 1000);
    setting.most = 500;
    int detail;
    assert_int_equal(trace(&setting, PATIENCE, &detail), NVD_TRACED_EXITED);
    assert_int_equal(detail, 7);
    assert_false(setting.loop->ended);
    assert_true(atomic_load(&setting.loop->stop));
    assert_true(setting.loop->steps.too_long);
    assert_int_equal(setting.loop->steps.steps, 500);
    nvd_tracer_free(setting.tracer);
    struct nvd_steps within = traced(plain_round, 100);
    assert_false(within.too_long);
}

static void signals_reach_the_child(void **state)
{
    (void)state;
    struct setting setting = make(signalling_round, 20);
    int detail;
    assert_int_equal(trace(&setting, PATIENCE, &detail), NVD_TRACED_EXITED);
    assert_int_equal(setting.loop->seen, SIGUSR1);
    assert_true(setting.loop->ended);
    nvd_tracer_free(setting.tracer);
}

static void dying_round(struct loop *loop)
{
    signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on with the tests */
    if (++loop->counts[0] == 10)
        raise(SIGSEGV);
}

static void hanging_round(struct loop *loop)
{
    (void)loop;
    pause();
}

static void interrupting_round(struct loop *loop)
{
    if (++loop->counts[0] == 10)
        kill(getppid(), SIGTERM);
}

static void the_end_of_the_child_is_reported(void **state)
{
    (void)state;
    const struct {
        void (*round)(struct loop *);
        double timeout;
        enum nvd_traced end;
        int detail;
    } cases[] = {
        {dying_round, PATIENCE, NVD_TRACED_KILLED, SIGSEGV},
        {hanging_round, 0.3, NVD_TRACED_TIMEOUT, 0},
        {plain_round, 0.3, NVD_TRACED_TIMEOUT, 0}, /* while it is stepped */
        {interrupting_round, PATIENCE, NVD_TRACED_INTERRUPTED, SIGTERM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct setting setting = make(cases[i].round, UINT64_MAX);
        int detail;
        assert_int_equal(trace(&setting, cases[i].timeout, &detail), cases[i].end);
        assert_int_equal(detail, cases[i].detail);
        assert_int_equal(kill(setting.loop->pid, 0), -1); /* reaped, too */
        assert_int_equal(errno, ESRCH);
        nvd_tracer_free(setting.tracer);
    }
}

static void the_child_dies_with_its_tracer(void **state)
{
    (void)state;
    struct setting setting = make(plain_round, UINT64_MAX);
    pid_t tracer = fork();
    assert_true(tracer >= 0);
    if (tracer == 0) {
        int detail;
        trace(&setting, PATIENCE, &detail);
        _exit(0);
    }
    const volatile uint64_t *counts = setting.loop->counts;
    for (int i = 0; i < 6000 && counts[0] < 10; i++)
        usleep(10000);
    assert_true(counts[0] >= 10);
    kill(tracer, SIGKILL);
    assert_int_equal(waitpid(tracer, NULL, 0), tracer);
    /* It is init's to reap; it makes no progress at any rate. */
    usleep(50000);
    uint64_t before = counts[0];
    usleep(200000);
    assert_true(counts[0] == before);
    nvd_tracer_free(setting.tracer);
}

static void shared_memory_runs_out_politely(void **state)
{
    (void)state;
    struct nvd_tracer *tracer = nvd_tracer_new();
    char *first = nvd_tracer_memory(tracer, 1);
    char *second = nvd_tracer_memory(tracer, 1000);
    assert_true(first != NULL && second - first >= 128 && (uintptr_t)second % 128 == 0);
    assert_null(nvd_tracer_memory(tracer, SIZE_MAX));
    assert_null(nvd_tracer_memory(tracer, 1 << 20));
    while (nvd_tracer_memory(tracer, 4096) != NULL)
        ;
    nvd_tracer_free(tracer);
}

/* ---- samples ---- */

static char directory[] = P_tmpdir "/nvdrive-step-XXXXXX";
static char heap[64], fake[4096];
static const char *driver;
static void (*before_exec)(void); /* in the child */

struct outcome {
    int code;
    struct json_object *last;
};

/* What `nvdrive bench` says, with one more option and its value. */
static struct outcome bench(const char *workload, const char *options, const char *budget,
                            const char *extra, const char *value)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        if (before_exec != NULL)
            before_exec();
        execl(driver, "nvdrive", "bench", "--adapter", fake, "--heap", heap, "--workload",
              workload, "--options", options, "--step-instructions", budget, extra, value,
              (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    static char text[1 << 16];
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    /* One document, and nothing of the heap, however it ended. */
    struct stat exists;
    assert_int_equal(lstat(heap, &exists), -1);
    struct outcome outcome = {WEXITSTATUS(status), json_tokener_parse(text)};
    assert_non_null(outcome.last);
    assert_ptr_equal(strchr(text, '\n'), text + length - 1);
    return outcome;
}

static struct json_object *field(struct json_object *of, const char *key)
{
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(of, key, &value))
        fail_msg("no '%s' in %s", key, json_object_to_json_string(of));
    return value;
}

struct figures {
    uint64_t instructions, ops;
    double per_op, deviation, driver;
};

static struct figures sample(const char *workload, const char *options,
                             const char *budget, const char *seed)
{
    struct outcome outcome = bench(workload, options, budget, "--seed", seed);
    struct json_object *result = outcome.last;
    if (outcome.code != NVD_OK)
        fail_msg("%s: %s", workload, json_object_to_json_string(result));
    static const char *const nulls[] = {
        "seconds",   "cpu_seconds",  "ops",          "allocs",  "frees",  "failed_allocs",
        "ops_per_s", "minor_faults", "major_faults", "latency", "events", "stats_delta",
    };
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        assert_null(field(result, nulls[i]));
    assert_string_equal(json_object_get_string(field(result, "instructions_source")),
                        "stepped");
    assert_string_equal(json_object_get_string(field(result, "adapter")), "fake");
    struct figures figures = {
        .instructions = json_object_get_uint64(field(result, "instructions")),
        .ops = json_object_get_uint64(field(result, "stepped_ops")),
        .deviation = json_object_get_double(field(result, "stepped_deviation")),
        .driver = json_object_get_double(field(result, "driver_instructions_per_op")),
    };
    assert_true(figures.ops >= 32 && figures.ops % 4 == 0); /* whole passes */
    figures.per_op = (double)figures.instructions / (double)figures.ops;
    json_object_put(result);
    return figures;
}

static const char *const workloads[] = {
    "cache-scratch", "cache-thrash", "dbms",    "large",      "larson",
    "mstress",       "prodcon",      "shbench", "threadtest", "xmalloc",
};
#define WORKLOADS (sizeof workloads / sizeof workloads[0])

static void every_workload_can_be_stepped(void **state)
{
    (void)state;
    for (size_t w = 0; w < WORKLOADS; w++) {
        struct figures once = sample(workloads[w], "", "1", "1");
        assert_int_equal(once.ops, 32); /* one pass, though the budget is less */
        /* The loop costs something, and less than the loop and the fake. */
        assert_true(once.driver >= 5 && once.per_op > once.driver);
        assert_true(once.deviation >= 0 && isfinite(once.deviation));
    }
}

static void a_second_run_gives_the_same_count(void **state)
{
    (void)state;
    struct figures first = sample("shbench", "", "20000", "9");
    struct figures second = sample("shbench", "", "20000", "9");
    assert_int_equal(first.instructions, second.instructions);
    assert_int_equal(first.ops, second.ops);
    assert_true(first.driver == second.driver);
    /* Another seed is another sample. */
    assert_int_not_equal(sample("shbench", "", "20000", "10").instructions,
                         first.instructions);
}

#if defined(__x86_64__)
static void more_work_is_counted_to_the_instruction(void **state)
{
    (void)state;
    struct figures base = sample("larson", "work=2", "1", "3");
    struct figures more = sample("larson", "work=102", "1", "3");
    assert_int_equal(more.ops, base.ops);
    assert_int_equal(more.instructions, base.instructions + 100 * base.ops);
    assert_true(more.driver == base.driver);
}
#endif

static void a_budget_buys_passes(void **state)
{
    (void)state;
    struct figures small = sample("prodcon", "", "1", "1");
    char budget[32];
    snprintf(budget, sizeof budget, "%" PRIu64, 6 * small.instructions);
    struct figures large = sample("prodcon", "", budget, "1");
    assert_true(large.ops > small.ops);
    assert_true(large.instructions <= 6 * small.instructions);
    /* The sample's error tells how far apart two samples may be. */
    double allowed = 6 * (small.deviation + large.deviation) + 1e-9;
    assert_true(fabs(small.per_op - large.per_op) <= allowed);
}

static void expect_error(struct outcome outcome, int code, const char *where,
                         const char *words)
{
    const char *message = json_object_get_string(field(outcome.last, "message"));
    assert_string_equal(json_object_get_string(field(outcome.last, "where")), where);
    if (strstr(message, words) == NULL)
        fail_msg("'%s' does not say '%s'", message, words);
    assert_int_equal(outcome.code, code);
    json_object_put(outcome.last);
}

static void trouble_is_told_and_cleared_up(void **state)
{
    (void)state;
    expect_error(bench("larson", "die_at=3000", "1000", "--seed", "1"), NVD_ENVIRONMENT,
                 "stepping", "signal 9");
    expect_error(bench("larson", "hang_at=3000", "1000", "--timeout", "0.5"),
                 NVD_ENVIRONMENT, "stepping", "--timeout");
    expect_error(bench("larson", "break_at=3", "1000", "--seed", "1"), NVD_ENVIRONMENT,
                 "alloc_to", "asked to break");
    expect_error(bench("larson", "break_at=60000", "1000", "--seed", "1"),
                 NVD_ENVIRONMENT, "alloc_to", "asked to break");
    expect_error(bench("larson", "alias_from=1000", "1000", "--seed", "1"), NVD_INCORRECT,
                 "sweep", "handed out twice");
    expect_error(bench("larson", "unclosable=1", "1000", "--seed", "1"), NVD_ENVIRONMENT,
                 "close", "asked not to close");
    expect_error(bench("larson", "full_from=1", "1000", "--seed", "1"), NVD_ENVIRONMENT,
                 "alloc_to", "no memory");
    expect_error(bench("larson", "", "0", "--seed", "1"), NVD_USAGE, "usage",
                 "--step-instructions");
    expect_error(bench("larson", "", "1000", "--threads", "2"), NVD_USAGE, "usage",
                 "one thread");
    expect_error(bench("larson", "", "1000", "--timeout", "0"), NVD_USAGE, "usage",
                 "--timeout");
}

#if defined(__x86_64__)
/* A list of 100,000 chunks that is walked at every allocation: told soon, and as what it
   is, be it in the burst or long before it. */
static void what_is_too_slow_is_told_apart(void **state)
{
    (void)state;
    const struct {
        const char *options, *words;
    } cases[] = {
        {"work=20000", "steps were not enough for 8 operations"},
        {"work=2000000", "of CPU time at full speed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t begin = nvd_monotonic_ns();
        expect_error(bench("larson", cases[i].options, "1000", "--timeout", "60"),
                     NVD_ENVIRONMENT, "too-slow", cases[i].words);
        assert_true(nvd_monotonic_ns() - begin < UINT64_C(40000000000));
    }
}

/* As a container's filter may do; for this process and its children. */
static void forbid_ptrace(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        /* Not others: LeakSanitizer traces, too. */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PTRACE_TRACEME, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof code / sizeof code[0], code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        _exit(125);
}

static void a_kernel_that_refuses_is_told_apart(void **state)
{
    (void)state;
    before_exec = forbid_ptrace;
    struct outcome outcome = bench("larson", "", "1000", "--seed", "1");
    before_exec = NULL;
    assert_int_equal(json_object_get_int(field(outcome.last, "errno")), EPERM);
    expect_error(outcome, NVD_ENVIRONMENT, "ptrace", "seccomp");
}
#endif

/* The file of somebody else's heap is neither overwritten nor removed. */
static void foreign_files_are_left_alone(void **state)
{
    (void)state;
    FILE *file = fopen(heap, "w");
    assert_non_null(file);
    fclose(file);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execl(driver, "nvdrive", "bench", "--adapter", fake, "--heap", heap, "--workload",
              "larson", "--step-instructions", "1000", (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), NVD_ENVIRONMENT);
    assert_int_equal(unlink(heap), 0);
}

static void a_signal_takes_child_and_heap_along(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl(driver, "nvdrive", "bench", "--adapter", fake, "--heap", heap, "--workload",
              "larson", "--options", "hang_at=2000", "--step-instructions", "1000",
              (char *)NULL);
        _exit(127);
    }
    struct stat exists;
    for (int i = 0; i < 6000 && lstat(heap, &exists) != 0; i++)
        usleep(10000);
    assert_int_equal(lstat(heap, &exists), 0);
    kill(child, SIGTERM);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGTERM);
    assert_int_equal(lstat(heap, &exists), -1);
}

static int make_directory(void **state)
{
    (void)state;
    driver = getenv("NVDRIVE");
    const char *fakes = getenv("NVDRIVE_FAKES");
    if (driver == NULL || fakes == NULL) {
        fputs("NVDRIVE and NVDRIVE_FAKES must name the driver and the fakes\n", stderr);
        return -1;
    }
    unsetenv("MALLOC_PERTURB_"); /* meson's; the fake's blocks are large */
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
#if defined(__x86_64__)
        cmocka_unit_test(known_loops_are_counted_exactly),
        cmocka_unit_test(a_rep_a_system_call_and_a_locked_instruction_are_one_each),
        cmocka_unit_test(more_work_is_counted_to_the_instruction),
        cmocka_unit_test(what_is_too_slow_is_told_apart),
        cmocka_unit_test(a_kernel_that_refuses_is_told_apart),
#endif
        cmocka_unit_test(counts_are_proportional),
        cmocka_unit_test(a_stretch_that_is_given_up_goes_on_at_full_speed),
        cmocka_unit_test(a_stretch_ends_at_its_limit),
        cmocka_unit_test(signals_reach_the_child),
        cmocka_unit_test(the_end_of_the_child_is_reported),
        cmocka_unit_test(the_child_dies_with_its_tracer),
        cmocka_unit_test(shared_memory_runs_out_politely),
        cmocka_unit_test(every_workload_can_be_stepped),
        cmocka_unit_test(a_second_run_gives_the_same_count),
        cmocka_unit_test(a_budget_buys_passes),
        cmocka_unit_test(trouble_is_told_and_cleared_up),
        cmocka_unit_test(foreign_files_are_left_alone),
        cmocka_unit_test(a_signal_takes_child_and_heap_along),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
