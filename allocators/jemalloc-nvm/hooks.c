/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hooks.c - what each hook answers, and why that is the truth.
 *
 * A hook that returns bool returns true for "no, I did not".  jemalloc acts on the
 * answers: on "yes, purged" it counts the pages as given back to the system, on "yes,
 * committed" and "yes, purged by force" as zero.  An NVM region whose space is
 * allocated once and for all has no page to give back and none that turns to zero by
 * itself, so:
 *
 *   alloc         pages of the region, or NULL.  Never memory from elsewhere: a heap
 *                 that is full must say so.  *commit: in, whether memory is needed,
 *                 or address space will do: see below.  *zero: true where asked for (then
 * pages that were used before are cleared) and where the pages are fresh. dalloc the
 * pages are free for all arenas of the heap.  Any range is taken back, so splits and
 * merges need no permission.  Refused only when vmem has no memory for its own
 * structures; jemalloc retains the extent then, and nothing is lost. destroy       dalloc
 * without the right to refuse: at an arena's end. commit        refused.  Nothing is ever
 * uncommitted, so jemalloc does not ask; if it did, "committed" would promise zeros that
 * are not there. decommit      refused.  PROT_NONE would save nothing: the file keeps its
 * space. purge_lazy    refused.  MADV_FREE is for anonymous memory, the kernel refuses it
 *                 on a file.  A "yes" that does nothing would be allowed by the letter
 *                 (the content may stay), but it moves extents to the muzzy list as
 *                 if they cost nothing, where they would still be missing to others.
 *   purge_forced  refused.  MADV_DONTNEED on a shared file mapping drops page table
 *                 entries and keeps the content, so the pages would not read as zero,
 *                 which a "yes" promises.  A hole in the file would; but its space is
 *                 then anybody's, and a later store may die of SIGBUS.
 *   split, merge  granted, always.  It is one mapping, so neighbours may be one extent
 *                 wherever they came from, and region_give() takes any range.
 *
 * purge refused on all paths means that a decayed extent goes to dalloc: back to the
 * region, where other arenas find it.  That is what decay is for here.
 *
 * Growing.  When an arena needs an extent, jemalloc first tries to get more: the next
 * size in a series that grows by a quarter each time.  It takes its piece and retains
 * the rest, for ever: retained extents do not decay.  That saves system calls where
 * address space is free of charge.  Here it would cost up to half of the region (two
 * blocks of 1 MiB, each with the page that jemalloc adds, do not fit into 2 MiB), and the
 * retained pieces would lie between free ones and keep large blocks out for good.  Such a
 * request can be told by its not asking for committed memory.  It is declined; jemalloc
 * then asks for what it needs, committed.  (arenas.c limits the series as well, for a
 * jemalloc that would ask otherwise.)
 *
 * The hooks run under some of jemalloc's locks; they call no allocator.
 */
#include "hooks.h"

#include <stdio.h>
#include <stdlib.h>

static struct region *region_of(extent_hooks_t *table)
{
    return ((struct region_hooks *)(void *)table)->region;
}

static void *hook_alloc(extent_hooks_t *table, void *at, size_t size, size_t align,
                        bool *zero, bool *commit, unsigned arena)
{
    (void)arena;
    if (!*commit)
        return NULL;
    return region_take(region_of(table), at, size, align, zero);
}

static bool hook_dalloc(extent_hooks_t *table, void *address, size_t size, bool committed,
                        unsigned arena)
{
    (void)committed;
    (void)arena;
    return !region_give(region_of(table), address, size);
}

static void hook_destroy(extent_hooks_t *table, void *address, size_t size,
                         bool committed, unsigned arena)
{
    /* If vmem can't now, the pages stay taken until the heap is closed. */
    (void)hook_dalloc(table, address, size, committed, arena);
}

static bool hook_commit(extent_hooks_t *table, void *address, size_t size, size_t offset,
                        size_t length, unsigned arena)
{
    (void)table, (void)address, (void)size, (void)offset, (void)length, (void)arena;
    return true;
}

static bool hook_decommit(extent_hooks_t *table, void *address, size_t size,
                          size_t offset, size_t length, unsigned arena)
{
    (void)table, (void)address, (void)size, (void)offset, (void)length, (void)arena;
    return true;
}

static bool hook_purge(extent_hooks_t *table, void *address, size_t size, size_t offset,
                       size_t length, unsigned arena)
{
    (void)table, (void)address, (void)size, (void)offset, (void)length, (void)arena;
    return true;
}

static bool hook_split(extent_hooks_t *table, void *address, size_t size, size_t size_a,
                       size_t size_b, bool committed, unsigned arena)
{
    (void)table, (void)address, (void)size, (void)size_a, (void)size_b, (void)committed;
    (void)arena;
    return false;
}

static bool hook_merge(extent_hooks_t *table, void *a, size_t size_a, void *b,
                       size_t size_b, bool committed, unsigned arena)
{
    (void)table, (void)a, (void)size_a, (void)b, (void)size_b, (void)committed,
        (void)arena;
    return false;
}

void region_hooks_init(struct region_hooks *hooks, struct region *region)
{
    *hooks = (struct region_hooks){
        .table = {.alloc = hook_alloc,
                  .dalloc = hook_dalloc,
                  .destroy = hook_destroy,
                  .commit = hook_commit,
                  .decommit = hook_decommit,
                  .purge_lazy = hook_purge,
                  .purge_forced = hook_purge,
                  .split = hook_split,
                  .merge = hook_merge},
        .region = region,
    };
}
