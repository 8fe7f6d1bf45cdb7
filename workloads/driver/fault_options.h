// SPDX-License-Identifier: Apache-2.0
/*
 * fault_options.h - the arguments of fill, churn, verify and history.
 *
 * One table says for every option what it is and which commands take it, so
 * that the four commands agree on names, defaults and errors, and one of them
 * can write the command line of another.
 */
#ifndef NVD_FAULT_OPTIONS_H
#define NVD_FAULT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Which commands take an option. */
#define NVD_TAKES_FILL    1u
#define NVD_TAKES_CHURN   2u
#define NVD_TAKES_VERIFY  4u
#define NVD_TAKES_HISTORY 8u

struct nvd_fault_options {
    const char *adapter; /* path of the shared object; required */
    const char *extra;   /* the adapter's own options; "" */
    const char *heap;    /* required where taken */
    const char *journal; /* required where taken */
    const char *dir;     /* history: in the NVM; required */
    const char *work;    /* history: outside of it; required */
    const char *cpus;    /* NULL: all */
    const char *ending;  /* churn: "close" or "abandon" */
    uint64_t heap_size;
    uint64_t slots;
    uint64_t threads;
    uint64_t seed;
    uint64_t ops;
    uint64_t kill_at_event; /* 0: never */
    uint64_t generations;
    uint64_t fill_baseline; /* 0: unknown */
    double fill_tolerance;
    double timeout; /* seconds of wall clock, of one step */
    bool from_open;
    bool final;
    bool worker; /* verify: be the child */
};

/* Parses argv for the command named by `takes`, pins the process to --cpus.
   -1, or the exit code with which the command has to end now (after --help, or
   after an error line). */
int nvd_fault_options_parse(struct nvd_fault_options *options, unsigned takes, int argc,
                            char **argv);

#endif
