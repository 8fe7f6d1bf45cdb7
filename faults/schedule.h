// SPDX-License-Identifier: Apache-2.0
/*
 * schedule.h - runs the threads of a recorded history one at a time, by a seed.
 *
 * One thread has the *turn*.  At a point (each access to memory that the compiled lens
 * sees, each persistence event) the turn may pass to another one; how long a thread
 * keeps it is drawn from the seed, so an interleaving repeats exactly.  A thread that
 * would wait for a mutex passes the turn on instead (lens_wrap.c), so whoever has the
 * turn can run.  All other waiting in an allocator must be a loop of loads.
 *
 * Lock order: the schedule's mutex is the last one; no other is taken under it.
 */
#ifndef NVL_SCHEDULE_H
#define NVL_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct nvl_schedule {
    bool running; /* more than one thread, and points matter */
    uint32_t countdown;
};

extern struct nvl_schedule nvl_schedule;

/* Runs work(context, 0 .. threads - 1) in that many threads to their end. */
void nvl_schedule_run(uint32_t threads, uint64_t seed,
                      void (*work)(void *context, uint32_t thread), void *context);

/* Passes the turn on, now. */
void nvl_schedule_yield(void);

/* A point where the turn may pass. */
static inline void nvl_schedule_point(void)
{
    if (nvl_schedule.countdown == 0)
        nvl_schedule_yield();
    else
        nvl_schedule.countdown--;
}

#endif
