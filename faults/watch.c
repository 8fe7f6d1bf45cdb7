// SPDX-License-Identifier: Apache-2.0
/*
 * watch.c - fork, wait, judge how the worker ended.
 */
#include "watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "driver.h"
#include "lens.h"

enum fate { FATE_DONE, FATE_FAILED, FATE_CRASHED, FATE_HUNG, FATE_BROKEN };

static void *shared(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

struct nvl_tally *nvl_tally_new(void)
{
    struct nvl_tally *tally = shared(sizeof *tally);
    tally->lens_error_offset = UINT64_MAX;
    return tally;
}

void nvl_tally_free(struct nvl_tally *tally)
{
    munmap(tally, sizeof *tally);
}

struct nvl_trail *nvl_trail_new(void)
{
    return shared(sizeof(struct nvl_trail));
}

void nvl_trail_free(struct nvl_trail *trail)
{
    munmap(trail, sizeof *trail);
}

/* ---- in the worker ---- */

static struct nvl_tally *worker_tally;

static void on_fault(int number, siginfo_t *info, void *context)
{
    const ucontext_t *user = context;
    (void)info;
#if defined(__x86_64__)
    worker_tally->fault_frames[0] = (uintptr_t)user->uc_mcontext.gregs[REG_RIP] + 1;
#endif
    worker_tally->fault_frames[1] = nvl_lens.last_access;
    signal(number, SIG_DFL);
    raise(number);
}

/* SIGTERM is the watcher's: where are you? */
static void on_question(int number, siginfo_t *info, void *context)
{
    (void)number;
    on_fault(SIGKILL, info, context);
}

static void prepare_worker(struct nvl_tally *tally)
{
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_fault,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK};
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    worker_tally = tally;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigaction(faults[i], &action, NULL);
    action.sa_sigaction = on_question;
    sigaction(SIGTERM, &action, NULL);
}

/* ---- the watcher ---- */

static double wall(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double cpu_of(pid_t worker)
{
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(worker, &clock) != 0 || clock_gettime(clock, &time) != 0)
        return 0;
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void end(pid_t worker, int *status)
{
    kill(worker, SIGTERM); /* it notes where it is, and dies */
    for (int i = 0; i < 100; i++) {
        if (waitpid(worker, status, WNOHANG) == worker)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    kill(worker, SIGKILL);
    waitpid(worker, status, 0);
}

/* A state hangs when the worker has spent `timeout` seconds of CPU time on it, or ten
   times that by the clock (then it waits for something that never comes). */
static enum fate await(pid_t worker, struct nvl_tally *tally, double timeout, int *status)
{
    uint64_t progress = atomic_load(&tally->progress);
    double since = wall(), cpu = cpu_of(worker);
    long pause = 200000;
    for (;;) {
        pid_t ended = waitpid(worker, status, WNOHANG);
        if (ended == worker)
            break;
        nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
        if (pause < 20000000)
            pause += pause / 4;
        uint64_t seen = atomic_load(&tally->progress);
        if (seen != progress) {
            progress = seen;
            since = wall();
            cpu = cpu_of(worker);
        } else if (cpu_of(worker) - cpu > timeout || wall() - since > 10 * timeout) {
            end(worker, status);
            return FATE_HUNG;
        }
    }
    if (WIFSIGNALED(*status))
        return FATE_CRASHED;
    if (WEXITSTATUS(*status) == 0)
        return FATE_DONE;
    return WEXITSTATUS(*status) == NVL_WORKER_FAILED ? FATE_FAILED : FATE_BROKEN;
}

static void remove_image(const struct nvl_explore_options *options, pid_t worker)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/image-%ld", options->folder, (long)worker);
    unlink(path);
}

static void describe_fate(struct nvd_finding *finding, enum fate fate, int status,
                          double timeout)
{
    if (fate == FATE_HUNG)
        nvd_accuse(finding, NVD_VERDICT_HANG, "no end within %g s of CPU time", timeout);
    else
        nvd_accuse(finding, NVD_VERDICT_CRASH, "the process died of signal %d (%s)",
                   WTERMSIG(status), strsignal(WTERMSIG(status)));
}

static void write_down(struct nvl_tally *tally, enum fate fate, int status,
                       double timeout)
{
    struct nvd_finding finding;
    describe_fate(&finding, fate, status, timeout);
    if (tally->failure_count < NVL_FAILURES_MAX) {
        struct nvl_failure *failure = &tally->failures[tally->failure_count];
        failure->finding = finding;
        failure->phase = (enum nvd_phase)atomic_load(&tally->phase);
        failure->state = tally->now;
        memcpy(failure->fault_frames, tally->fault_frames, sizeof tally->fault_frames);
    }
    tally->by_kind[finding.verdict]++;
    tally->failure_count++;
}

static bool broken(const struct nvl_tally *tally, int status)
{
    if (tally->lens_error_offset != UINT64_MAX)
        nvd_emit_error("lens", 0,
                       "an image, or memory that was unmapped, was not put back after "
                       "a state: the allocator stores with code that is not compiled for "
                       "the lens "
                       "(`nvlab flags`)");
    else
        nvd_emit_error("worker", 0, "a worker ended with exit code %d before its time",
                       WEXITSTATUS(status));
    return false;
}

bool nvl_watch_explore(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                       const struct nvl_explore_options *options, double timeout,
                       struct nvl_tally *tally)
{
    double began = wall();
    uint64_t from = 0;
    fflush(stdout);
    while (!tally->finished && tally->failure_count < options->max_failures) {
        int status = 0;
        struct nvl_explore_options mine = *options;
        if (options->budget > 0) {
            mine.budget = options->budget - (wall() - began);
            if (mine.budget <= 0)
                break;
        }
        pid_t worker = fork();
        if (worker < 0) {
            nvd_emit_error("fork", errno, "no worker: %s", strerror(errno));
            return false;
        }
        if (worker == 0) {
            prepare_worker(tally);
            nvl_explore(trace, adapter, &mine, tally, from);
            _exit(0);
        }
        enum fate fate = await(worker, tally, timeout, &status);
        remove_image(options, worker);
        if (fate == FATE_BROKEN)
            return broken(tally, status);
        if (fate == FATE_CRASHED || fate == FATE_HUNG)
            write_down(tally, fate, status, timeout);
        from = tally->next_event;
    }
    return true;
}

bool nvl_watch_state(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                     const struct nvl_explore_options *options, double timeout,
                     const struct nvl_state *state, struct nvl_trail *trail)
{
    struct nvl_tally *tally = nvl_tally_new();
    int status = 0;
    memset(trail, 0, sizeof *trail);
    fflush(stdout);
    pid_t worker = fork();
    if (worker == 0) {
        prepare_worker(tally);
        nvl_explore_state(trace, adapter, options, state, tally, trail);
        _exit(0);
    }
    enum fate fate = worker > 0 ? await(worker, tally, timeout, &status) : FATE_BROKEN;
    if (worker > 0)
        remove_image(options, worker);
    if (fate == FATE_CRASHED || fate == FATE_HUNG) {
        trail->sound = false;
        describe_fate(&trail->finding, fate, status, timeout);
        trail->phase = (enum nvd_phase)atomic_load(&tally->phase);
        uint32_t count = atomic_load(&trail->count);
        struct nvl_trail_step *step = &trail->step[count % NVL_TRAIL_MAX];
        *step = (struct nvl_trail_step){
            .kind = NVL_EVENT_END,
            .frame_count = 2,
            .frames = {tally->fault_frames[0], tally->fault_frames[1]}};
        atomic_store(&trail->count, count + 1);
    }
    bool done = fate != FATE_BROKEN || broken(tally, status);
    nvl_tally_free(tally);
    return done;
}
