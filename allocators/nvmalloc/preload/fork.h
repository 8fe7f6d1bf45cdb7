/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.h - a forked child goes on with a heap of its own; theory in fork.c.
 */
#ifndef PRELOAD_FORK_H
#define PRELOAD_FORK_H

#include <stdint.h>

/* Before the heap is made. */
void preload_watch_forks(void);
/* Once, when the dynamic linker can be asked. */
void preload_find_functions(void);

/* What forks have cost this process. */
struct preload_fork_costs {
    uint64_t copies;
    uint64_t bytes;       /* that were copied */
    uint64_t nanoseconds; /* that copying took */
};
struct preload_fork_costs preload_fork_costs(void);

#endif
