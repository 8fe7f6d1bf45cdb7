/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the object caches share. Theory: objcache.c.
 */
#ifndef NVMALLOC_OBJCACHE_IMPL_H
#define NVMALLOC_OBJCACHE_IMPL_H

#include "objcache.h"

#include <pthread.h>
#include <stdatomic.h>

#define OBJCACHE_QCACHE 0x10000 /* internal: quantum cache of its source arena */

#define SLAB_MAX_OBJECTS 1024
#define SLAB_WORDS       (SLAB_MAX_OBJECTS / 64)

/* The tag of a slab, outside of it. free + inuse = objects of a slab of this cache. */
typedef struct objslab objslab_t;
struct objslab {
    uintptr_t sl_base;
    unsigned sl_inuse;
    objslab_t *sl_next; /* list of slabs with a free object; also the pool of tags */
    objslab_t *sl_prev;
    objslab_t *sl_hnext;          /* hash chain */
    uint64_t sl_free[SLAB_WORDS]; /* bit set: object is free */
};

/* Magazines of one size and the cache that they come from. */
typedef struct magtype {
    unsigned mt_rounds;
    objcache_t *mt_cache;
} magtype_t;

typedef struct magazine magazine_t;
struct magazine {
    magazine_t *mg_next; /* in the depot */
    const magtype_t *mg_type;
    void *mg_round[];
};

/* mag_list_t is one of the depot's two lists. */
typedef struct mag_list {
    magazine_t *ml_first;
    uint64_t ml_count;
    uint64_t ml_min;  /* least ml_count in this interval */
    uint64_t ml_idle; /* ml_min of the interval before: what it could have done without */
} mag_list_t;

/*
 * The lock of a CPU's layer. Hardly ever contended (only when a thread is preempted while
 * it holds it, or a purge comes by), taken twice a malloc-free pair, and then a mutex's
 * second atomic operation is a good part of the cost. A waiter spins, then yields, then
 * sleeps, so that the holder gets to run whatever the scheduling classes of the two.
 */
typedef struct cpu_lock {
    atomic_bool cl_held;
} cpu_lock_t;

void cpu_lock_slow(cpu_lock_t *lock);

static inline void cpu_lock(cpu_lock_t *lock)
{
    if (atomic_exchange_explicit(&lock->cl_held, true, memory_order_acquire))
        cpu_lock_slow(lock);
}

static inline void cpu_unlock(cpu_lock_t *lock)
{
    atomic_store_explicit(&lock->cl_held, false, memory_order_release);
}

/*
 * A CPU's layer: 0 <= oc_rounds <= capacity of oc_loaded; oc_prev is full or empty, that
 * is oc_prev_rounds is its capacity or 0. Aligned to 256 bytes: at 128 the prefetchers
 * still pull in the neighbour's line, and two CPUs reach 1.1 times the throughput of one,
 * not 1.6.
 */
typedef struct objcpu {
    _Alignas(256) cpu_lock_t oc_lock;
    magazine_t *oc_loaded;
    magazine_t *oc_prev;
    unsigned oc_rounds;
    unsigned oc_prev_rounds;
    uint64_t oc_allocs;
    uint64_t oc_frees;
} objcpu_t;

struct objcache {
    char oc_name[OBJCACHE_NAMELEN];
    objcache_t *oc_next; /* list of all caches */
    objcache_t *oc_prev_cache;
    vmem_t *oc_source;
    int oc_cflags;
    size_t oc_objsize; /* stride, multiple of the alignment */
    size_t oc_align;
    size_t oc_slabsize; /* a power of two */
    unsigned oc_slabshift;
    unsigned oc_per_slab;
    objcache_ctor_t *oc_ctor;
    objcache_dtor_t *oc_dtor;
    objcache_reclaim_t *oc_reclaim;
    void *oc_arg;

    pthread_mutex_t oc_slab_lock; /* the slab layer, down to oc_fails */
    objslab_t *oc_partial;        /* slabs with a free object */
    objslab_t **oc_hash;
    unsigned oc_hash_shift;
    uint64_t oc_slabs;
    uint64_t oc_slab_inuse;
    uint64_t oc_slab_creates;
    uint64_t oc_slab_destroys;
    uint64_t oc_slab_allocs;
    uint64_t oc_slab_frees;
    uint64_t oc_direct; /* allocated so far in no slab, for a quantum cache */
    uint64_t oc_ctor_fails;
    uint64_t oc_layer_frees; /* freed past the magazines */
    uint64_t oc_fails;
    objslab_t *oc_hash0[8];

    pthread_mutex_t oc_depot_lock; /* the depot, down to oc_resizes */
    mag_list_t oc_full;
    mag_list_t oc_empty;
    const magtype_t *oc_magtype; /* of new magazines; NULL: none are used */
    uint64_t oc_contention;
    uint64_t oc_contention_seen; /* at the last update */
    uint64_t oc_resizes;

    size_t oc_bytes; /* of this struct with its CPUs */
    unsigned oc_cpu_mask;
    objcpu_t oc_cpu[];
};

/* objcache.c */
extern pthread_mutex_t objcache_list_lock;
extern objcache_t *objcache_list;
bool objcache_start(void);
objcache_t *objcache_create_qcache(const char *name, size_t size, size_t slabsize,
                                   vmem_t *vmp);
void *objcache_try_alloc(objcache_t *cp);
void objcache_note_direct(objcache_t *cp);
void objcache_lock_all(void);
void objcache_unlock_all(void);

/* objcache_slab.c */
extern pthread_mutex_t objslab_pool_lock;
bool objslab_geometry(objcache_t *cp, size_t size, size_t align, size_t slabsize);
void *objslab_alloc(objcache_t *cp);
void objslab_free(objcache_t *cp, void *obj);
uint64_t objslab_fini(objcache_t *cp);

/* objcache_magazine.c */
bool magazine_start(void);
const magtype_t *magazine_type(size_t objsize);
void *magazine_alloc(objcache_t *cp);
bool magazine_free(objcache_t *cp, void *obj);
void magazine_reap(objcache_t *cp);
void magazine_purge(objcache_t *cp);
void magazine_update(objcache_t *cp);

#endif
