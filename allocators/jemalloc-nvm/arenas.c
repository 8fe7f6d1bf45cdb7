/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arenas.c - making, sharing and ending jemalloc arenas whose memory is a region.
 *
 * Metadata, in or out.  "arenas.create" with hooks draws the arena's own structures
 * through them, in base blocks of 2 MiB.  "arenas.create" without hooks draws them
 * from mmap; hooks that are installed afterwards ("arena.<i>.extent_hooks") serve the
 * arena's extents only.  That is safe for as long as the arena has no extent, and it
 * has none before its first allocation, which is ours to make.  What jemalloc keeps for
 * all arenas together (the radix tree from address to extent, thread caches) is in DRAM
 * either way: it belongs to arena 0.
 *
 * The growth limit.  jemalloc would like to ask for more than it needs, each time a
 * quarter more than the last, and to retain the rest.  hooks.c declines that; the limit
 * keeps the requests small all the same.  (The first is for 2 MiB whatever the limit.)
 *
 * Bound caches.  The automatic cache of a thread holds what the thread freed last,
 * wherever that came from, and hands it out again.  So it is emptied whenever the
 * thread is bound to another arena: into a heap, from heap to heap, and out.  While
 * bound, a thread allocates from and frees into this heap alone, so all that is in the
 * cache belongs to it.
 *
 * Ending.  An arena can be destroyed when no thread is bound to it.  Those of threads
 * that have exited are not: jemalloc saw to that.  Caches go first, for they hold blocks
 * of the arenas.
 */
#include "arenas.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct member {
    struct member *next;
    pthread_t thread;
    struct arena *arena;
    unsigned cache; /* jemalloc's index; with CACHES_OWN */
};

/* With CACHES_BOUND: in how many heaps the thread is, and where it was before. */
static _Thread_local unsigned memberships;
static _Thread_local unsigned home;

/* --- mallctl by "arena.<i>.name" --------------------------------------------- */

static void name_of(char *name, size_t size, const char *prefix, unsigned index,
                    const char *what)
{
    snprintf(name, size, "%s.%u.%s", prefix, index, what);
}

static int set_of_arena(unsigned index, const char *what, void *value, size_t size)
{
    char name[64];
    name_of(name, sizeof name, "arena", index, what);
    return mallctl(name, NULL, NULL, value, size);
}

static uint64_t stat_of_arena(unsigned index, const char *what)
{
    char name[64];
    size_t value, size = sizeof value;
    name_of(name, sizeof name, "stats.arenas", index, what);
    return mallctl(name, &value, &size, NULL, 0) == 0 ? value : UINT64_MAX;
}

/* --- arenas ------------------------------------------------------------------ */

static int make_arena(const struct arenas_options *options, unsigned *index)
{
    extent_hooks_t *hooks = options->hooks;
    size_t size = sizeof *index;
    bool in_region = options->metadata == METADATA_IN_REGION;
    int error = mallctl("arenas.create", index, &size, in_region ? (void *)&hooks : NULL,
                        in_region ? sizeof hooks : 0);
    if (error != 0)
        return error == EAGAIN ? ENOMEM : error; /* jemalloc's word for "no memory" */
    if (!in_region)
        error = set_of_arena(*index, "extent_hooks", &hooks, sizeof hooks);
    size_t limit = options->grow_limit;
    if (error == 0)
        error = set_of_arena(*index, "retain_grow_limit", &limit, sizeof limit);
    if (error != 0)
        set_of_arena(*index, "destroy", NULL, 0);
    return error;
}

int arenas_open(struct arenas *arenas, const struct arenas_options *options)
{
    *arenas = (struct arenas){.options = *options};
    int error = make_arena(options, &arenas->arena[0].index);
    if (error != 0)
        return error;
    arenas->count = 1;
    error = pthread_mutex_init(&arenas->lock, NULL);
    if (error != 0)
        set_of_arena(arenas->arena[0].index, "destroy", NULL, 0);
    return error;
}

/* Makes one more arena if each has a thread already and there may be more.  Where the
   region has no room for one, threads share those that there are. */
static struct arena *least_loaded(struct arenas *arenas)
{
    struct arena *best = &arenas->arena[0];
    for (unsigned i = 1; i < arenas->count; i++)
        if (arenas->arena[i].threads < best->threads)
            best = &arenas->arena[i];
    if (best->threads == 0 || arenas->count == arenas->options.limit)
        return best;
    struct arena *added = &arenas->arena[arenas->count];
    if (make_arena(&arenas->options, &added->index) != 0)
        return best;
    arenas->count++;
    return added;
}

/* --- threads ----------------------------------------------------------------- */

static unsigned bound_to(void)
{
    unsigned index = 0;
    size_t size = sizeof index;
    mallctl("thread.arena", &index, &size, NULL, 0);
    return index;
}

static int bind_to(unsigned index)
{
    if (bound_to() == index)
        return 0;
    int error = mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    return error != 0 ? error : mallctl("thread.arena", NULL, NULL, &index, sizeof index);
}

/* Which file a function is in. */
static const void *file_of(const void *function)
{
    Dl_info info;
    return function != NULL && dladdr(function, &info) != 0 ? info.dli_fbase : NULL;
}

bool arenas_can_bind(void)
{
    /* POSIX lets a function pointer pass through void *; ISO C wants the copy. */
    void *(*function)(size_t, int) = mallocx;
    void *address;
    _Static_assert(sizeof address == sizeof function, "pointers are of one size");
    memcpy(&address, &function, sizeof address);
    return file_of(address) != file_of(dlsym(RTLD_DEFAULT, "malloc"));
}

static struct member **find_caller(struct arenas *arenas)
{
    struct member **place = &arenas->members;
    while (*place != NULL && !pthread_equal((*place)->thread, pthread_self()))
        place = &(*place)->next;
    return place;
}

static int equip(const struct arenas *arenas, struct member *member)
{
    size_t size = sizeof member->cache;
    if (arenas->options.caches == CACHES_OWN)
        return mallctl("tcache.create", &member->cache, &size, NULL, 0);
    if (memberships == 0)
        home = bound_to();
    int error = bind_to(member->arena->index);
    memberships += error == 0;
    return error;
}

int arenas_join(struct arenas *arenas)
{
    struct member *made = malloc(sizeof *made);
    if (made == NULL)
        return ENOMEM;
    int error = 0;
    pthread_mutex_lock(&arenas->lock);
    bool known = *find_caller(arenas) != NULL;
    if (!known) {
        *made = (struct member){.next = arenas->members,
                                .thread = pthread_self(),
                                .arena = least_loaded(arenas)};
        error = equip(arenas, made);
    }
    if (!known && error == 0) {
        made->arena->threads++;
        arenas->members = made;
    } else {
        free(made);
    }
    pthread_mutex_unlock(&arenas->lock);
    return error;
}

/* Under the lock. */
static void dismiss(struct arenas *arenas, struct member **place)
{
    struct member *member = *place;
    *place = member->next;
    member->arena->threads--;
    if (arenas->options.caches == CACHES_OWN) {
        mallctl("tcache.destroy", NULL, NULL, &member->cache, sizeof member->cache);
    } else if (pthread_equal(member->thread, pthread_self())) {
        memberships--;
        if (bound_to() == member->arena->index)
            bind_to(home);
    }
    free(member);
}

void arenas_leave(struct arenas *arenas)
{
    pthread_mutex_lock(&arenas->lock);
    struct member **place = find_caller(arenas);
    if (*place != NULL)
        dismiss(arenas, place);
    pthread_mutex_unlock(&arenas->lock);
}

struct arenas_flags arenas_flags_of_caller(struct arenas *arenas)
{
    pthread_mutex_lock(&arenas->lock);
    const struct member *member = *find_caller(arenas);
    const struct arena *arena = member != NULL ? member->arena : &arenas->arena[0];
    struct arenas_flags flags = {MALLOCX_ARENA(arena->index) | MALLOCX_TCACHE_NONE,
                                 MALLOCX_TCACHE_NONE};
    if (member != NULL && arenas->options.caches == CACHES_OWN) {
        flags.free = MALLOCX_TCACHE(member->cache);
        flags.alloc = MALLOCX_ARENA(arena->index) | flags.free;
    } else if (member != NULL && bind_to(arena->index) == 0) {
        flags = (struct arenas_flags){0, 0};
    }
    pthread_mutex_unlock(&arenas->lock);
    return flags;
}

void arenas_trim(struct arenas *arenas)
{
    pthread_mutex_lock(&arenas->lock);
    struct member *member = *find_caller(arenas);
    if (member != NULL && arenas->options.caches == CACHES_OWN)
        mallctl("tcache.flush", NULL, NULL, &member->cache, sizeof member->cache);
    else if (member != NULL)
        mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    for (unsigned i = 0; i < arenas->count; i++)
        set_of_arena(arenas->arena[i].index, "purge", NULL, 0);
    pthread_mutex_unlock(&arenas->lock);
}

int arenas_close(struct arenas *arenas)
{
    arenas_leave(arenas); /* while we know who the caller is */
    while (arenas->members != NULL)
        dismiss(arenas, &arenas->members);
    int error = 0;
    for (unsigned i = 0; i < arenas->count; i++)
        if (set_of_arena(arenas->arena[i].index, "destroy", NULL, 0) != 0)
            error = EBUSY;
    if (error == 0)
        pthread_mutex_destroy(&arenas->lock);
    return error;
}

uint64_t arenas_used_bytes(struct arenas *arenas)
{
    uint64_t epoch = 1; /* any value: the write is what refreshes the figures */
    size_t page, size = sizeof page;
    if (mallctl("epoch", NULL, NULL, &epoch, sizeof epoch) != 0 ||
        mallctl("arenas.page", &page, &size, NULL, 0) != 0)
        return UINT64_MAX;
    uint64_t used = 0;
    pthread_mutex_lock(&arenas->lock);
    for (unsigned i = 0; i < arenas->count; i++) {
        unsigned index = arenas->arena[i].index;
        uint64_t active = stat_of_arena(index, "pactive");
        uint64_t base = arenas->options.metadata == METADATA_IN_REGION
                            ? stat_of_arena(index, "base")
                            : 0;
        if (active == UINT64_MAX || base == UINT64_MAX) {
            used = UINT64_MAX;
            break;
        }
        used += active * page + base;
    }
    pthread_mutex_unlock(&arenas->lock);
    return used;
}
