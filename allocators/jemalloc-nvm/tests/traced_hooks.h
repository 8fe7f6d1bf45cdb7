/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traced_hooks.h - extent hooks that pass each call on to others, and keep a book of
 * which pages of the region jemalloc owns by what was said in those calls.
 *
 * The book is the referee: it knows nothing of vmem.  A call whose address is not in the
 * region, or that hands out a page twice, or that gives back, cuts or joins what was
 * never handed out, is counted in `wrong` and explained on stderr.
 */
#ifndef TRACED_HOOKS_H
#define TRACED_HOOKS_H

#include <pthread.h>
#include <stdint.h>

#include "hooks.h"

enum hook {
    HOOK_ALLOC,
    HOOK_DALLOC,
    HOOK_DESTROY,
    HOOK_COMMIT,
    HOOK_DECOMMIT,
    HOOK_PURGE_LAZY,
    HOOK_PURGE_FORCED,
    HOOK_SPLIT,
    HOOK_MERGE,
    HOOKS,
};

struct traced_hooks {
    extent_hooks_t table; /* first */
    extent_hooks_t *inner;
    struct region *region;
    pthread_mutex_t lock;
    unsigned char *owned; /* a page: 1 if jemalloc has it */
    size_t owned_pages;
    size_t calls[HOOKS];
    size_t refused[HOOKS];
    bool grant_growth;    /* ask the inner hook as if growth were need */
    size_t largest_alloc; /* bytes */
    size_t largest_align;
    size_t wrong;
};

void traced_hooks_init(struct traced_hooks *traced, struct region_hooks *hooks);
void traced_hooks_free(struct traced_hooks *traced);

#endif
