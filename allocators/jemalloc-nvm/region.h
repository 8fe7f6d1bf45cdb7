/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.h - a file on the NVM, mapped once, and which pages of it are taken.
 *
 * The pages are handed out by a vmem arena whose integers are their addresses.
 * What is taken in one piece may be given back in others: any range of taken
 * pages, whatever the pieces in which they were taken (region.c says how).
 * All functions but region_create() and region_close() are thread safe.
 */
#ifndef JEMALLOC_NVM_REGION_H
#define JEMALLOC_NVM_REGION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmem.h>

#define REGION_PAGE ((size_t)4096)

struct region {
    char *base;  /* a multiple of 2 MiB, so that huge pages can map it */
    size_t size; /* bytes, a multiple of REGION_PAGE */
    bool map_sync;
    vmem_t *vmem;
    pthread_mutex_t lock; /* orders changes of vmem and of the bitmaps */
    size_t words;         /* of each bitmap, which have one bit a page */
    uint64_t *first;      /* an allocated segment of vmem begins with this page */
    uint64_t *last;       /* ... ends with it */
    uint64_t *written;    /* the page was taken before: it need not read as zero */
};

/*
 * Makes the file (EEXIST if there is one), 0600, with all its space allocated, so
 * that no store can fail for want of it; maps it, with MAP_SYNC where that can be
 * had; with `prefault`, touches every page.  0, or an errno value, and then there
 * is no file.  Takes `size` rounded down to pages.
 */
int region_create(const char *path, size_t size, bool prefault, struct region *region);
/* Unmaps it.  The file stays: its name belongs to the caller. */
void region_close(struct region *region);

/*
 * Takes `size` bytes at a multiple of `align` (a power of two), or, with `at`, right
 * there; NULL if they are not free.  *zero: in, whether the pages must read as zero;
 * out, whether they do.
 */
void *region_take(struct region *region, void *at, size_t size, size_t align, bool *zero);
/*
 * Gives taken pages back.  False if it can't be done now, for want of memory: nothing
 * has changed then.  Aborts if one of the pages is not taken.
 */
bool region_give(struct region *region, void *address, size_t size);

bool region_holds(const struct region *region, const void *address, size_t size);
/* Bytes that are taken. */
size_t region_taken(struct region *region);
/* Whether vmem and the bitmaps are consistent; if not, `why` says what is not. */
bool region_check(struct region *region, char *why, size_t length);

#endif
