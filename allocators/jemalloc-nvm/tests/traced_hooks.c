/* SPDX-License-Identifier: Apache-2.0 */
#include "traced_hooks.h"

#include <stdio.h>
#include <stdlib.h>

static struct traced_hooks *traced_of(extent_hooks_t *table)
{
    return (struct traced_hooks *)(void *)table;
}

static void complain(struct traced_hooks *traced, enum hook hook, const void *address,
                     size_t size, const char *what)
{
    traced->wrong++;
    fprintf(stderr, "hook %d of [%p, +%zu): %s\n", hook, address, size, what);
}

/* Whether the pages of a call are ones that it can be about. */
static bool owns(struct traced_hooks *traced, enum hook hook, const void *address,
                 size_t size)
{
    struct region *region = traced->region;
    if (size == 0 || size % REGION_PAGE != 0 || (uintptr_t)address % REGION_PAGE != 0 ||
        !region_holds(region, address, size)) {
        complain(traced, hook, address, size, "not pages of the region");
        return false;
    }
    size_t first = (size_t)((const char *)address - region->base) / REGION_PAGE;
    for (size_t i = 0; i < size / REGION_PAGE; i++) {
        if (!traced->owned[first + i]) {
            complain(traced, hook, address, size, "a page that was not handed out");
            return false;
        }
    }
    return true;
}

static void set_owned(struct traced_hooks *traced, const void *address, size_t size,
                      unsigned char owned)
{
    size_t first = (size_t)((const char *)address - traced->region->base) / REGION_PAGE;
    for (size_t i = 0; i < size / REGION_PAGE; i++)
        traced->owned[first + i] = owned;
    traced->owned_pages += owned ? size / REGION_PAGE : -(size / REGION_PAGE);
}

static void count(struct traced_hooks *traced, enum hook hook, bool refused)
{
    traced->calls[hook]++;
    traced->refused[hook] += refused;
}

static bool zeros(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 64)
        if (bytes[i] != 0)
            return false;
    return true;
}

static void check_alloc(struct traced_hooks *traced, char *taken, void *at, size_t size,
                        size_t align, bool zero, bool commit)
{
    if (!region_holds(traced->region, taken, size)) {
        complain(traced, HOOK_ALLOC, taken, size, "outside the region");
        return;
    }
    size_t first = (size_t)(taken - traced->region->base) / REGION_PAGE;
    for (size_t i = 0; i < size / REGION_PAGE; i++)
        if (traced->owned[first + i])
            complain(traced, HOOK_ALLOC, taken, size, "a page is handed out twice");
    if ((uintptr_t)taken % align != 0 || (at != NULL && taken != at))
        complain(traced, HOOK_ALLOC, taken, size, "not where it was wanted");
    if (zero && !zeros(taken, size))
        complain(traced, HOOK_ALLOC, taken, size, "said to be zero, is not");
    if (!commit)
        complain(traced, HOOK_ALLOC, taken, size, "not committed");
    set_owned(traced, taken, size, 1);
}

static void *trace_alloc(extent_hooks_t *table, void *at, size_t size, size_t align,
                         bool *zero, bool *commit, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    pthread_mutex_lock(&traced->lock);
    bool wanted = *zero;
    *commit |= traced->grant_growth;
    void *taken =
        traced->inner->alloc(traced->inner, at, size, align, zero, commit, arena);
    count(traced, HOOK_ALLOC, taken == NULL);
    if (taken != NULL) {
        if (wanted && !*zero)
            complain(traced, HOOK_ALLOC, taken, size, "zeros were wanted");
        check_alloc(traced, taken, at, size, align, *zero, *commit);
        if (size > traced->largest_alloc)
            traced->largest_alloc = size;
        if (align > traced->largest_align)
            traced->largest_align = align;
    }
    pthread_mutex_unlock(&traced->lock);
    return taken;
}

static bool trace_dalloc(extent_hooks_t *table, void *address, size_t size,
                         bool committed, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    pthread_mutex_lock(&traced->lock);
    bool mine = owns(traced, HOOK_DALLOC, address, size);
    bool refused = traced->inner->dalloc(traced->inner, address, size, committed, arena);
    count(traced, HOOK_DALLOC, refused);
    if (mine && !refused)
        set_owned(traced, address, size, 0);
    pthread_mutex_unlock(&traced->lock);
    return refused;
}

static void trace_destroy(extent_hooks_t *table, void *address, size_t size,
                          bool committed, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    pthread_mutex_lock(&traced->lock);
    bool mine = owns(traced, HOOK_DESTROY, address, size);
    traced->inner->destroy(traced->inner, address, size, committed, arena);
    count(traced, HOOK_DESTROY, false);
    if (mine)
        set_owned(traced, address, size, 0);
    pthread_mutex_unlock(&traced->lock);
}

/* The four hooks about a part of an extent differ in name only. */
static bool trace_part(struct traced_hooks *traced, enum hook hook,
                       extent_purge_t *function, void *address, size_t size,
                       size_t offset, size_t length, unsigned arena)
{
    pthread_mutex_lock(&traced->lock);
    owns(traced, hook, address, size);
    bool refused = function(traced->inner, address, size, offset, length, arena);
    count(traced, hook, refused);
    pthread_mutex_unlock(&traced->lock);
    return refused;
}

static bool trace_commit(extent_hooks_t *table, void *address, size_t size, size_t offset,
                         size_t length, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    return trace_part(traced, HOOK_COMMIT, traced->inner->commit, address, size, offset,
                      length, arena);
}

static bool trace_decommit(extent_hooks_t *table, void *address, size_t size,
                           size_t offset, size_t length, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    return trace_part(traced, HOOK_DECOMMIT, traced->inner->decommit, address, size,
                      offset, length, arena);
}

static bool trace_purge_lazy(extent_hooks_t *table, void *address, size_t size,
                             size_t offset, size_t length, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    return trace_part(traced, HOOK_PURGE_LAZY, traced->inner->purge_lazy, address, size,
                      offset, length, arena);
}

static bool trace_purge_forced(extent_hooks_t *table, void *address, size_t size,
                               size_t offset, size_t length, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    return trace_part(traced, HOOK_PURGE_FORCED, traced->inner->purge_forced, address,
                      size, offset, length, arena);
}

static bool trace_split(extent_hooks_t *table, void *address, size_t size, size_t size_a,
                        size_t size_b, bool committed, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    pthread_mutex_lock(&traced->lock);
    owns(traced, HOOK_SPLIT, address, size);
    if (size_a + size_b != size)
        complain(traced, HOOK_SPLIT, address, size, "the parts are not the whole");
    bool refused = traced->inner->split(traced->inner, address, size, size_a, size_b,
                                        committed, arena);
    count(traced, HOOK_SPLIT, refused);
    pthread_mutex_unlock(&traced->lock);
    return refused;
}

static bool trace_merge(extent_hooks_t *table, void *a, size_t size_a, void *b,
                        size_t size_b, bool committed, unsigned arena)
{
    struct traced_hooks *traced = traced_of(table);
    pthread_mutex_lock(&traced->lock);
    owns(traced, HOOK_MERGE, a, size_a);
    owns(traced, HOOK_MERGE, b, size_b);
    if ((char *)a + size_a != b)
        complain(traced, HOOK_MERGE, a, size_a, "no neighbours");
    bool refused =
        traced->inner->merge(traced->inner, a, size_a, b, size_b, committed, arena);
    count(traced, HOOK_MERGE, refused);
    pthread_mutex_unlock(&traced->lock);
    return refused;
}

void traced_hooks_init(struct traced_hooks *traced, struct region_hooks *hooks)
{
    *traced = (struct traced_hooks){
        .table = {.alloc = trace_alloc,
                  .dalloc = trace_dalloc,
                  .destroy = trace_destroy,
                  .commit = trace_commit,
                  .decommit = trace_decommit,
                  .purge_lazy = trace_purge_lazy,
                  .purge_forced = trace_purge_forced,
                  .split = trace_split,
                  .merge = trace_merge},
        .inner = &hooks->table,
        .region = hooks->region,
    };
    pthread_mutex_init(&traced->lock, NULL);
    traced->owned = calloc(hooks->region->size / REGION_PAGE, 1);
    if (traced->owned == NULL)
        abort();
}

void traced_hooks_free(struct traced_hooks *traced)
{
    pthread_mutex_destroy(&traced->lock);
    free(traced->owned);
}
