/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_heap.h - the heap that is this process's malloc.
 *
 * The environment names it:
 *   NVM_MALLOC_HEAP    path prefix of the heap file, on the NVM's file system
 *   NVM_MALLOC_SIZE    to how many bytes it may grow (suffixes K, M, G, T);
 *                      without it, as large as the file system is, at most
 *                      PRELOAD_SIZE_DEFAULT
 *   NVM_MALLOC_REPORT  1: a line on the NVM used, on stderr at exit; a path: a
 *                      line of JSON at the end of that file
 *
 * Every process has a file of its own, PREFIX.PID.N, which loses its name as
 * soon as it is made: its storage returns to the file system when the process
 * ends, however it ends.  No descriptor of it stays open either (region.h,
 * detached): programs close, number and inherit descriptors as they like.
 *
 * A process that cannot have its heap does not run: it says why and exits with
 * PRELOAD_EXIT.  Nothing is ever taken from another malloc instead.
 */
#ifndef PRELOAD_PROCESS_HEAP_H
#define PRELOAD_PROCESS_HEAP_H

#include <stdbool.h>

#include "heap.h"

#define PRELOAD_EXIT         125 /* as env(1) and timeout(1): the tool itself failed */
#define PRELOAD_SIZE_DEFAULT ((uint64_t)64 << 30)

/* The heap; before it is made, one that has nothing and that no thread has a cache of.
   A program has one malloc, so here, and only here, is a heap that all share. */
extern struct nvm_heap *preload_heap;

/* Whether the calling thread is where a request for memory cannot be served by the heap:
   it is making the heap, or its own cache. */
extern _Thread_local bool preload_inside __attribute__((tls_model("initial-exec")));

static inline bool preload_is_made(void)
{
    return preload_heap->base != NULL;
}

/* Makes the heap, or ends the process.  The first call comes before there is a second
   thread: making one takes memory. */
void preload_make_heap(void);

/* A new file beside the heap's, without a name and `size` bytes long, nothing of which is
   allocated; the descriptor, or -1 with errno.  Async-signal-safe. */
int preload_make_file(uint64_t size);

/* NVM_MALLOC_HEAP as it was at the start, absolute. */
const char *preload_prefix(void);

/* Write a line to stderr; the second ends the process. */
void preload_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void preload_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
