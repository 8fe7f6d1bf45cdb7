// SPDX-License-Identifier: Apache-2.0
/* tracer.c - see tracer.h, and ptrace(2). */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "tracer.h"

#define ALIGNMENT    128
#define MEMORY_BYTES (64 << 10)

/* What the child wants when it stops itself. */
enum wish { WISH_NONE, WISH_STEP, WISH_GO_ON };

/* Shared by parent and child, at the same address. */
struct nvd_tracer {
    volatile enum wish wish;
    volatile bool ended; /* the stretch came to its end */
    volatile int refused;
    struct nvd_stretch stretch;
    struct nvd_steps result;
    size_t used; /* of memory */
    _Alignas(ALIGNMENT) char memory[MEMORY_BYTES];
};

struct nvd_tracer *nvd_tracer_new(void)
{
    void *memory = mmap(NULL, sizeof(struct nvd_tracer), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void nvd_tracer_free(struct nvd_tracer *tracer)
{
    munmap(tracer, sizeof *tracer);
}

void *nvd_tracer_memory(struct nvd_tracer *tracer, size_t bytes)
{
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (bytes > MEMORY_BYTES || rounded > MEMORY_BYTES - tracer->used)
        return NULL;
    char *memory = tracer->memory + tracer->used;
    tracer->used += rounded;
    return memory;
}

/* ---- the child ---- */

/* In few instructions, since stepping begins or goes on behind it.  To this very
   thread: a library may have started others, which nobody traces. */
static void stop_self(void)
{
    syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), SIGSTOP);
}

void nvd_tracer_step(struct nvd_tracer *tracer, const struct nvd_stretch *stretch)
{
    tracer->stretch = *stretch;
    tracer->result = (struct nvd_steps){0};
    tracer->ended = false;
    tracer->wish = WISH_STEP;
    stop_self();
}

bool nvd_tracer_stepped(struct nvd_tracer *tracer, struct nvd_steps *steps)
{
    if (!tracer->ended) {
        tracer->wish = WISH_GO_ON;
        stop_self();
    }
    *steps = tracer->result;
    bool ended = tracer->ended;
    tracer->ended = false;
    return ended;
}

__attribute__((noreturn)) static void be_traced(struct nvd_tracer *tracer, pid_t parent,
                                                int (*body)(void *), void *context)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* the parent died before the line above */
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        tracer->refused = errno;
        _exit(1);
    }
    stop_self();
    int code = body(context);
    fflush(NULL);
    _exit(code);
}

/* ---- the parent ---- */

static volatile sig_atomic_t caught;

static void note_signal(int number)
{
    if (number != SIGALRM)
        caught = number;
}

static const int noted[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM};
#define NOTED (sizeof noted / sizeof noted[0])

struct watch {
    struct sigaction old[NOTED];
    struct sigaction old_child;
};

/* From here on waitpid() is interrupted by a signal, and by nothing in particular
   every 100 ms; unwatch() ends it. */
static void watch(struct watch *watch)
{
    struct sigaction action = {.sa_handler = note_signal};
    struct sigaction child = {.sa_handler = SIG_DFL}; /* else exits go unreported */
    const struct itimerval often = {{0, 100000}, {0, 100000}};
    sigemptyset(&action.sa_mask);
    sigemptyset(&child.sa_mask);
    caught = 0;
    sigaction(SIGCHLD, &child, &watch->old_child);
    for (size_t i = 0; i < NOTED; i++)
        sigaction(noted[i], &action, &watch->old[i]);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void unwatch(const struct watch *watch)
{
    const struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    for (size_t i = 0; i < NOTED; i++)
        sigaction(noted[i], &watch->old[i], NULL);
    sigaction(SIGCHLD, &watch->old_child, NULL);
}

struct tracee {
    struct nvd_tracer *tracer;
    pid_t pid;
    uint64_t deadline_ns;
    int status; /* of the last wait */
    enum nvd_traced end;
    int detail;
};

static bool reap(struct tracee *tracee)
{
    pid_t pid;
    while ((pid = waitpid(tracee->pid, &tracee->status, 0)) < 0 && errno == EINTR)
        ;
    return pid == tracee->pid;
}

/* Ends the child, if it has not ended by itself; false, for callers to return. */
static bool give_up(struct tracee *tracee, enum nvd_traced end, int detail)
{
    tracee->end = end;
    tracee->detail = detail;
    kill(tracee->pid, SIGKILL);
    while (reap(tracee) && WIFSTOPPED(tracee->status))
        ;
    return false;
}

static bool note_end(struct tracee *tracee)
{
    bool exited = WIFEXITED(tracee->status);
    tracee->end = exited ? NVD_TRACED_EXITED : NVD_TRACED_KILLED;
    tracee->detail = exited ? WEXITSTATUS(tracee->status) : WTERMSIG(tracee->status);
    return false;
}

/* Until the child stops (true), or is no more. */
static bool wait_for_stop(struct tracee *tracee)
{
    for (;;) {
        pid_t pid = waitpid(tracee->pid, &tracee->status, 0);
        int error = errno;
        if (pid == tracee->pid)
            return WIFSTOPPED(tracee->status) || note_end(tracee);
        if (error != EINTR)
            return give_up(tracee, NVD_TRACED_REFUSED, error);
        if (caught != 0)
            return give_up(tracee, NVD_TRACED_INTERRUPTED, caught);
        if (nvd_monotonic_ns() >= tracee->deadline_ns)
            return give_up(tracee, NVD_TRACED_TIMEOUT, 0);
    }
}

/* Lets the stopped child go on by a ptrace request and waits for its next stop. */
static bool resume(struct tracee *tracee, enum __ptrace_request how, int signal_number)
{
    if (ptrace(how, tracee->pid, NULL, (void *)(intptr_t)signal_number) != 0) {
        int error = errno;
        /* ESRCH: it was killed while it was stopped; wait tells by what. */
        return error == ESRCH ? wait_for_stop(tracee)
                              : give_up(tracee, NVD_TRACED_REFUSED, error);
    }
    return wait_for_stop(tracee);
}

/* The signal of the child's stop that it has to get.  A stop signal would stop
   it once more for good; it stops with its tracer anyway. */
static int passed_on(const struct tracee *tracee)
{
    int number = WSTOPSIG(tracee->status);
    bool stops =
        number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
    return stops ? 0 : number;
}

#if defined(__x86_64__)
static uint64_t place(const struct tracee *tracee)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, tracee->pid,
                            (void *)offsetof(struct user, regs.rip), NULL);
}

/* The bytes of the `rep` instruction at this address; 0 if it is none.  (Intel SDM
   2, chapter 2 and REP: legacy prefixes, REX, a string opcode of one byte.) */
static size_t rep_length(const struct tracee *tracee, uint64_t at)
{
    bool rep = false;
    for (size_t i = 0; i < 15; i++) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKTEXT, tracee->pid, (void *)((at + i) & ~7ul), NULL);
        uint8_t byte = (uint8_t)((uint64_t)word >> (at + i) % 8 * 8);
        if (errno != 0)
            return 0;
        rep |= byte == 0xf2 || byte == 0xf3;
        if (byte == 0xf2 || byte == 0xf3 || (byte >= 0x64 && byte <= 0x67) ||
            byte >> 4 == 0x4)
            continue;
        bool string = (byte >= 0xa4 && byte <= 0xa7) || (byte >= 0xaa && byte <= 0xaf);
        return rep && string ? i + 1 : 0;
    }
    return 0;
}

/* A step has left the child where it was, so it is in the midst of a `rep`, perhaps
   over megabytes: lets it come to its end at full speed, by a breakpoint behind it.
   False if the child is no more; else it has stopped there, or for a signal. */
static bool end_rep(struct tracee *tracee, uint64_t at)
{
    size_t length = rep_length(tracee, at);
    if (length == 0)
        return true;
    void *where = (void *)((at + length) & ~7ul);
    unsigned shift = (at + length) % 8 * 8;
    errno = 0;
    uint64_t word = (uint64_t)ptrace(PTRACE_PEEKTEXT, tracee->pid, where, NULL);
    uint64_t broken = (word & ~(UINT64_C(0xff) << shift)) | UINT64_C(0xcc) << shift;
    if (errno != 0 || ptrace(PTRACE_POKETEXT, tracee->pid, where, (void *)broken) != 0)
        return true;
    if (!resume(tracee, PTRACE_CONT, 0))
        return false;
    ptrace(PTRACE_POKETEXT, tracee->pid, where, (void *)word);
    if (place(tracee) == at + length + 1)
        ptrace(PTRACE_POKEUSER, tracee->pid, (void *)offsetof(struct user, regs.rip),
               (void *)(at + length));
    return true;
}
#endif

/* After a step: where the child is now, and whether it has moved, that is, ended an
   instruction; elsewhere than on x86 every step does.  False if it is no more. */
static bool advance(struct tracee *tracee, uint64_t *at, bool *moved)
{
    *moved = true;
#if defined(__x86_64__)
    uint64_t before = *at;
    *at = place(tracee);
    if (*at == before) {
        if (!end_rep(tracee, before))
            return false;
        *at = place(tracee);
        *moved = *at != before;
    }
#else
    (void)tracee;
    (void)at;
#endif
    return true;
}

static uint64_t ops_done(const struct nvd_stretch *stretch)
{
    return *stretch->counts[0] + *stretch->counts[1];
}

/* Steps over the stretch; true with the child stopped behind it. */
static bool step_stretch(struct tracee *tracee)
{
    struct nvd_tracer *tracer = tracee->tracer;
    const struct nvd_stretch *stretch = &tracer->stretch;
    struct nvd_steps done = {0};
    const uint64_t at_first = ops_done(stretch);
    uint64_t begin = 0, at = 0;
    bool begun = false;
    int signal_number = 0;
    for (;;) {
        if (!resume(tracee, PTRACE_SINGLESTEP, signal_number))
            return false;
        done.steps++;
        bool moved = false;
        if (WSTOPSIG(tracee->status) == SIGTRAP && !advance(tracee, &at, &moved))
            return false;
        done.instructions += moved && begun;
        signal_number = 0;
        if (WSTOPSIG(tracee->status) != SIGTRAP) {
            if (WSTOPSIG(tracee->status) == SIGSTOP && tracer->wish == WISH_GO_ON)
                return true;
            signal_number = passed_on(tracee);
            continue;
        }
        uint64_t now = ops_done(stretch);
        if (!begun && now != at_first) {
            begun = true;
            begin = now;
        }
        const bool ended = begun && now - begin >= stretch->ops;
        done.too_long = !ended && stretch->most != 0 && done.steps >= stretch->most;
        if (ended || done.too_long) {
            tracer->result = done;
            tracer->ended = ended;
            atomic_store(stretch->stop, true);
            return true;
        }
    }
}

static void follow(struct tracee *tracee)
{
    struct nvd_tracer *tracer = tracee->tracer;
    if (!wait_for_stop(tracee))
        return;
    if (ptrace(PTRACE_SETOPTIONS, tracee->pid, NULL, (void *)PTRACE_O_EXITKILL) != 0) {
        give_up(tracee, NVD_TRACED_REFUSED, errno);
        return;
    }
    int signal_number = 0; /* its first stop is its own doing */
    while (resume(tracee, PTRACE_CONT, signal_number)) {
        signal_number = passed_on(tracee);
        if (WSTOPSIG(tracee->status) != SIGSTOP || tracer->wish != WISH_STEP)
            continue;
        tracer->wish = WISH_NONE;
        if (!step_stretch(tracee))
            return;
        tracer->wish = WISH_NONE;
        signal_number = 0;
    }
}

/* On a machine with more CPUs than a cpu_set_t holds nobody is pinned. */
static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0)
        cpu = sched_getcpu();
    if (cpu >= 0 && cpu < CPU_SETSIZE) {
        CPU_SET(cpu, &set);
        sched_setaffinity(0, sizeof set, &set); /* not allowed: then it is slower */
    }
}

enum nvd_traced nvd_tracer_run(struct nvd_tracer *tracer, int (*body)(void *context),
                               void *context, int cpu, double timeout, int *detail)
{
    struct tracee tracee = {
        .tracer = tracer,
        .deadline_ns = nvd_monotonic_ns() + (uint64_t)(timeout * 1e9),
        .end = NVD_TRACED_REFUSED,
    };
    cpu_set_t allowed;
    bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    pid_t self = getpid();
    struct watch saved;
    fflush(NULL);
    if (known)
        pin(cpu);
    watch(&saved);
    tracee.pid = fork();
    if (tracee.pid == 0) {
        unwatch(&saved);
        be_traced(tracer, self, body, context);
    }
    if (tracee.pid < 0)
        tracee.detail = errno;
    else
        follow(&tracee);
    unwatch(&saved);
    if (known)
        sched_setaffinity(0, sizeof allowed, &allowed);
    if (tracer->refused != 0) {
        tracee.end = NVD_TRACED_REFUSED;
        tracee.detail = tracer->refused;
    }
    *detail = tracee.detail;
    return tracee.end;
}
