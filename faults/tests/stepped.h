/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stepped.h - counts the persistence instructions that a stretch of code really runs,
 * by single-stepping it: the truth that observers are held to.  Needs no debugger and
 * no cooperation but two marks.
 */
#ifndef STEPPED_H
#define STEPPED_H

#include <stdint.h>
#include <sys/types.h>

/* In the traced program: before and after what is to be counted. */
#define STEPPED_MARK() __asm__ volatile("int3")

struct stepped_counts {
    uint64_t instructions;
    uint64_t flushes;  /* clwb, clflushopt, clflush */
    uint64_t fences;   /* sfence, mfence */
    uint64_t nt_bytes; /* written by non-temporal stores */
};

/* Runs program (argv, environment as for execve) to its end, counting between its
   marks.  0, or an errno value: EPERM where tracing is not allowed, EPROTO if the
   program ended without both marks. */
int stepped_run(char *const argv[], char *const environment[],
                struct stepped_counts *counts);

#endif
