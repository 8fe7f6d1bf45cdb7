/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - processes that use the Daisy heap of a test, one after the other.
 *
 * The interface has one heap a process, and what is tested is what the next process
 * finds: so each step of a test is a process of its own.  The test itself never opens the
 * heap.
 */
#ifndef DAISY_TEST_PROCESS_H
#define DAISY_TEST_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* In a step: the condition holds, or the step fails with its text and p_error(). */
#define NEED(condition)                                                                  \
    ((condition) ? (void)0 : step_failed(__FILE__, __LINE__, #condition))

void step_failed(const char *file, int line, const char *condition)
    __attribute__((noreturn));

/* Makes a folder for heaps and points P_HEAP at a file in it; takes both away. */
int heap_setup(void **state);
int heap_teardown(void **state);
const char *heap_path(void);

typedef void step_fn(void *context);

/* Runs a step in a process of its own and requires that it ends by returning.
   After a step its process ends as any does, without p_close(). */
void run_step(step_fn *step, void *context);

/* The same, but the step may be killed just before the Nth persistence event after it
   called arm_kill(), N counted from 1. Returns false if it ended before. */
bool run_killed(step_fn *step, void *context, uint64_t event);
void arm_kill(void);

/* splitmix64 */
uint64_t next_random(uint64_t *state);

#endif
