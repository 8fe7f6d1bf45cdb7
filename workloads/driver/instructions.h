/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instructions.h - counts the calling thread's user-space instructions.
 *
 * A count does not change with the machine's other load, which makes it the
 * steadiest figure of a run.  Kernels refuse it in most containers
 * (perf_event_paranoid, seccomp) and many virtual machines have no counters:
 * then there is simply none.
 */
#ifndef NVD_INSTRUCTIONS_H
#define NVD_INSTRUCTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* A stopped counter of this thread, or -1 if the kernel gives none. */
int nvd_instructions_open(void);
void nvd_instructions_start(int counter);
/* Stops and reads it; false if it never ran or could not be read.  Scaled up
   if the kernel shared the hardware counter with others meanwhile. */
bool nvd_instructions_stop(int counter, uint64_t *count);
void nvd_instructions_close(int counter);

#endif
