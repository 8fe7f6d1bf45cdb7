/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hooks.h - jemalloc's extent hooks over a region: where an arena with these hooks
 * gets its memory, and the only place from which it does.
 */
#ifndef JEMALLOC_NVM_HOOKS_H
#define JEMALLOC_NVM_HOOKS_H

#include <jemalloc/jemalloc.h>

#include "region.h"

struct region_hooks {
    extent_hooks_t table; /* first: a hook is told of this by the table's address */
    struct region *region;
};

/* Hooks that draw from `region`; both must outlive the arenas that use them. */
void region_hooks_init(struct region_hooks *hooks, struct region *region);

#endif
