/* SPDX-License-Identifier: Apache-2.0 */
/*
 * objcache: caches of equal objects, in two layers after J. Bonwick and J. Adams,
 * "Magazines and Vmem", USENIX 2001: magazines per CPU with a depot behind them, over
 * slabs that come from a vmem arena. The theory opens src/objcache.c.
 *
 * A cache never reads or writes its objects: all its bookkeeping lies outside of them. So
 * a cache works over an arena of integers that are no memory (the quantum caches of vmem
 * do); only a constructor or destructor touches objects.
 *
 * Thread safe; calls no malloc.
 */
#ifndef NVMALLOC_OBJCACHE_H
#define NVMALLOC_OBJCACHE_H

#include "vmem.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct objcache objcache_t;

/*
 * Construct an object that comes fresh from a slab; 0, or an errno value: the allocation
 * then fails with it. A free object stays constructed as long as it is in a magazine.
 */
typedef int objcache_ctor_t(void *obj, void *arg, int vmflag);
/*
 * Undo that, before the object goes back to its slab. Like the other two may not create
 * or destroy caches or arenas; called under no lock of the cache itself.
 */
typedef void objcache_dtor_t(void *obj, void *arg);
/* Memory is short: the owner frees to the cache what it can spare. */
typedef void objcache_reclaim_t(void *arg);

#define OBJCACHE_NOMAGAZINE 0x1 /* slab layer only */

#define OBJCACHE_NAMELEN 40

typedef struct objcache_stat {
    size_t os_objsize;  /* bytes from one object of a slab to the next */
    size_t os_slabsize; /* bytes of a slab */
    size_t os_magsize;  /* rounds of a new magazine, 0: no magazines */
    uint64_t os_slabs;  /* slabs held now */
    uint64_t
        os_slab_inuse; /* objects out of the slab layer now (in use or in magazines) */
    uint64_t os_slab_creates; /* slabs taken from the arena so far */
    uint64_t os_slab_destroys;
    uint64_t os_slab_allocs; /* objects taken from slabs so far */
    uint64_t os_slab_frees;
    uint64_t os_depot_full; /* full magazines in the depot now */
    uint64_t os_depot_empty;
    uint64_t os_depot_contention; /* times the depot's lock was taken by another */
    uint64_t os_allocs;           /* successful allocations, from all layers */
    uint64_t os_frees;
    uint64_t os_fails;
    uint64_t os_magazine_resizes;
} objcache_stat_t;

/*
 * Create a cache of objects of `size` bytes at multiples of `align` (0: 8, or the
 * source's quantum if that is less; a power of two, at most the slab size) from `source`
 * (NULL: the heap of vmem_init()). ctor, dtor, reclaim may be NULL; cflags: OBJCACHE_*.
 * NULL with EINVAL or ENOMEM.
 */
VMEM_API objcache_t *objcache_create(const char *name, size_t size, size_t align,
                                     objcache_ctor_t *ctor, objcache_dtor_t *dtor,
                                     objcache_reclaim_t *reclaim, void *arg,
                                     vmem_t *source, int cflags);

/*
 * Destroy a cache and return its slabs. Returns how many objects were still in use (their
 * destructors do not run). No other thread may be using it.
 */
VMEM_API uint64_t objcache_destroy(objcache_t *cp);

/* An object, constructed. vmflag: VM_SLEEP, VM_NOSLEEP (NULL, ENOMEM), VM_PANIC. */
VMEM_API void *objcache_alloc(objcache_t *cp, int vmflag);
/* Return an object in its constructed state. */
VMEM_API void objcache_free(objcache_t *cp, void *obj);

/*
 * Reap: ask the owner (reclaim), then return the magazines that the depot did not need
 * since the last objcache_update(). Purge: return all that is unused, per-CPU magazines
 * too. NULL: all caches.
 */
VMEM_API void objcache_reap(objcache_t *cp);
VMEM_API void objcache_purge(objcache_t *cp);

/*
 * End an interval of measurement: fixes the depot's working set, enlarges the magazines
 * if the depot's lock was contended. NULL: all caches. vmem_update() includes it.
 */
VMEM_API void objcache_update(objcache_t *cp);

VMEM_API void objcache_stat(objcache_t *cp, objcache_stat_t *st);

#ifdef __cplusplus
}
#endif
#endif
