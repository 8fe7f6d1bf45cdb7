/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracer.h - runs a part of a child process one instruction at a time, and
 * counts.
 *
 * The child is a fork of the caller.  It runs at full speed until it asks, with
 * nvd_tracer_step(), for a stretch: from the next change of a sum of two
 * counters in shared memory (the boundary between two operations) until the sum
 * has grown by so many more.  The parent, its tracer, single-steps it over the
 * stretch (PTRACE_SINGLESTEP), then raises a flag of the child's choice, and the
 * child goes on at full speed.  So the count holds whole operations, and nothing
 * that the child does in order to be counted.
 *
 * What a step is: one user-space instruction.  A system call is one; what the
 * kernel does in it is none.  On x86 every iteration of a `rep` instruction traps
 * by itself, and the instruction pointer stays where it is until the last.  A step
 * that does not move it is not counted, and the rest of such an instruction runs
 * at full speed: it may be megabytes.  So `instructions` means what a hardware
 * counter's "instructions retired" in user mode means, and `steps` what it took.
 * On other processors there is no such instruction, but one trap more: a loop of
 * load-exclusive and store-exclusive never ends under single-step, and the timeout
 * ends the child.
 *
 * Invariants
 *   - The child never outlives its tracer: PR_SET_PDEATHSIG until tracing has
 *     begun, PTRACE_O_EXITKILL from then on.
 *   - nvd_tracer_run() returns with the child reaped, whatever happens.
 *   - The parent's signal handlers only note; it waits in waitpid() alone, and a
 *     timer interrupts it ten times a second, so that no note stays unread.
 *   - What the child shares with its tracer is written by one of the two only
 *     while the other is stopped, but for `stop`, which is atomic.
 *
 * It needs no privilege: a child may always ask its parent to trace it, also
 * without any capability and under Docker's default seccomp profile (from Linux
 * 4.8 on), unless the administrator has switched ptrace off altogether (Yama's
 * ptrace_scope 3).  Other threads of the child are not traced and not counted.
 *
 * A step costs two context switches and a debug exception.  Measured: 20 us in a
 * virtual machine, of which 16 are the exception, which the hypervisor intercepts;
 * without that, a few.  On a busy machine both processes also wait for their CPU.
 */
#ifndef NVD_TRACER_H
#define NVD_TRACER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nvd_tracer;

struct nvd_stretch {
    const volatile uint64_t *counts[2]; /* in nvd_tracer_memory() */
    uint64_t ops;                       /* growth of their sum; > 0 */
    uint64_t most;                      /* steps, then it is given up; 0: no limit */
    atomic_bool *stop;                  /* raised at the end; likewise */
};

struct nvd_steps {
    uint64_t instructions; /* in the stretch */
    uint64_t steps;        /* taken for it, also before its beginning */
    bool too_long;         /* it was given up after so many, with `stop` raised */
};

enum nvd_traced {
    NVD_TRACED_EXITED,      /* detail: its exit code */
    NVD_TRACED_KILLED,      /* detail: the signal that killed it */
    NVD_TRACED_TIMEOUT,     /* we killed it */
    NVD_TRACED_INTERRUPTED, /* detail: the SIGINT, SIGTERM or SIGHUP that we got */
    NVD_TRACED_REFUSED,     /* detail: errno; the kernel does not let us trace */
};

/* NULL if there is no memory. */
struct nvd_tracer *nvd_tracer_new(void);
void nvd_tracer_free(struct nvd_tracer *tracer);
/* Zeroed bytes that parent and child share, aligned to 128; NULL when the few
   tens of KB of it are used up.  Gone with the tracer. */
void *nvd_tracer_memory(struct nvd_tracer *tracer, size_t bytes);

/* Runs body(context) in a traced child, whose exit code is what it returns; the
   child flushes stdio and runs no exit handlers.  Both run on the CPU given, -1:
   on the caller's, since two processes that wait for each other at every step
   are fastest there.  After `timeout` seconds the child is killed. */
enum nvd_traced nvd_tracer_run(struct nvd_tracer *tracer, int (*body)(void *context),
                               void *context, int cpu, double timeout, int *detail);

/* The child's side.  From here on, up to the end of the stretch, it is stepped. */
void nvd_tracer_step(struct nvd_tracer *tracer, const struct nvd_stretch *stretch);
/* Whether the stretch came to its end, and its steps.  If it did not (the child
   gave up before), it is off, and the child runs at full speed. */
bool nvd_tracer_stepped(struct nvd_tracer *tracer, struct nvd_steps *steps);

#endif
