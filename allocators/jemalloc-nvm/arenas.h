/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arenas.h - the jemalloc arenas of one heap, and the threads that work in it.
 *
 * A thread that joins gets the arena with the fewest threads and a thread cache for
 * it; mallocx() and dallocx() learn of both by their `flags`.  A thread that has not
 * joined works too, without a cache: slower, just as correct.  Nothing here ever
 * allocates from an automatic arena, whose memory would come from mmap() or brk().
 */
#ifndef JEMALLOC_NVM_ARENAS_H
#define JEMALLOC_NVM_ARENAS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jemalloc/jemalloc.h>

#define ARENAS_MAX 64

/* Where an arena keeps its own structures (extent headers, slab bitmaps, bins). */
enum metadata_place {
    METADATA_IN_DRAM,
    METADATA_IN_REGION, /* drawn through the hooks too */
};

/* Which cache a thread has. */
enum cache_kind {
    /* jemalloc's automatic one, while the thread is bound to an arena of the heap.  All
       that the thread asks of jemalloc without naming an arena then comes from the heap
       and ends with it: so only where jemalloc is not the process's malloc. */
    CACHES_BOUND,
    /* One more, made for this heap ("tcache.create").  Disturbs nobody; each call takes
       some 30 instructions longer. */
    CACHES_OWN,
};

struct arenas_options {
    extent_hooks_t *hooks;
    enum metadata_place metadata;
    enum cache_kind caches;
    unsigned limit;    /* arenas at most; 1 <= limit <= ARENAS_MAX */
    size_t grow_limit; /* bytes: of an extent that an arena asks for without need */
};

struct arena {
    unsigned index; /* jemalloc's */
    unsigned threads;
};

struct member; /* a thread that joined */

struct arenas {
    struct arenas_options options;
    pthread_mutex_t lock; /* guards all below; taken before any of jemalloc's */
    unsigned count;       /* >= 1 */
    struct arena arena[ARENAS_MAX];
    struct member *members;
};

/* The flags of one thread. */
struct arenas_flags {
    int alloc; /* for mallocx() */
    int free;  /* for dallocx() */
};

/* Makes the first arena; further ones come with the threads.  0 or an errno value. */
int arenas_open(struct arenas *arenas, const struct arenas_options *options);
/* Ends all caches and arenas, and so every block that is still allocated; their extents
   go back through the hooks.  No thread may be working, and none but the caller may
   still be joined and alive: else EBUSY, and the hooks must go on working. */
int arenas_close(struct arenas *arenas);

/* The calling thread joins (again: no change) or leaves (its cache is given back). */
int arenas_join(struct arenas *arenas);
void arenas_leave(struct arenas *arenas);
/* The calling thread's flags, until it joins or leaves or calls this for other arenas.
   With CACHES_BOUND, binds a thread that joined to its arena here. */
struct arenas_flags arenas_flags_of_caller(struct arenas *arenas);
/* Whether CACHES_BOUND may be had: jemalloc is not what malloc() calls. */
bool arenas_can_bind(void);

/* Gives back what the arenas and the caller's cache hold unused. */
void arenas_trim(struct arenas *arenas);

/* Bytes that can't serve another size: pages in use, and metadata in the region.
   UINT64_MAX: not known. */
uint64_t arenas_used_bytes(struct arenas *arenas);

#endif
