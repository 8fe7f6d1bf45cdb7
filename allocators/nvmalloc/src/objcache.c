/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Object caches: the theory, and the public functions.
 *
 * After J. Bonwick and J. Adams, "Magazines and Vmem", USENIX 2001. Written from the
 * concept.
 *
 * 1. What for
 *
 *    Programs allocate few sizes often. A cache of equal objects answers in constant
 *    time, mostly without touching memory that other CPUs touch; and keeps objects
 *    constructed while they are free. Two layers:
 *
 *      objcache_alloc/free -> CPU: loaded, previous magazine
 *                          -> depot: full, empty magazines
 *                          -> slabs -> vmem arena
 *
 * 2. Objects are never touched
 *
 *    Nothing is stored in an object or in its slab: no links, no tags, no fill pattern.
 *    So objects may be ranges of integers, as in vmem's quantum caches, or of NVM whose
 *    content is none of our business. (In-place tags would save the look-up in 3, in a
 *    layer that the magazines leave idle.)
 *
 * 3. Slab layer
 *
 *    A slab is a range of the arena, a power of two of its quanta, cut into equal
 *    objects. A tag outside of it has one bit for each free object. Slabs with a free
 *    object are on a list, newest change first; a slab without objects in use goes back
 *    to the arena at once, so that the arena's spans become whole again (the depot
 *    dampens that). A tag is found from an address by a hash; slabs need not be
 *    aligned: slab_of().
 *
 *      inuse = sum of sl_inuse; sl_inuse + set bits of sl_free = objects of a slab;
 *      a slab is on the list if and only if sl_inuse < objects of a slab; sl_inuse > 0.
 *
 *    Objects of the slab layer are raw: the constructor runs behind it, the destructor
 *    before it.
 *
 * 4. Magazine layer
 *
 *    A magazine is a stack of M constructed objects ("rounds"). Each CPU has a loaded
 *    one, in any state, and the previous one, which is full or empty. An allocation
 *    pops from the loaded one, a free pushes; if that can't be, they swap; if that
 *    doesn't help, one is exchanged at the depot. So between two visits at the depot
 *    lie at least M operations, and a thread that alternates at a boundary doesn't
 *    visit it at all. An object freed is found by any CPU: by its own in the magazine,
 *    by the others when the magazine has gone to the depot, and by all when the slab
 *    layer fails (everything is purged before an allocation fails).
 *
 *    M is not constant: when the depot's lock was contended since the last update, new
 *    magazines get larger. A magazine knows its size, so sizes may mix.
 *
 *    Working set: in an interval between updates the depot never had fewer than
 *    `ml_min` magazines; so many it could have done without, and so many a reap may
 *    return.
 *
 *    "CPU" is only a hint from sched_getcpu(): the lock of the CPU's layer makes a
 *    thread that is moved meanwhile correct, if slower. (Layers per thread would have
 *    to be emptied when threads end, and be as many as there are threads.)
 *
 * 5. Magazines are objects
 *
 *    of caches without magazines, over vmem_internal. There the recursion ends.
 *
 * 6. Locks: vmem.c, 9. Constructors, destructors, reclaim functions and calls to an arena
 *    for a slab run under none of a cache's locks. Magazines are returned to their cache
 *    under a CPU's lock.
 */
#include "objcache_impl.h"

#include "vmem_impl.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CPUS_MAX      64
#define WAIT_FIRST_NS (1000 * 1000)
#define WAIT_MAX_NS   (32 * WAIT_FIRST_NS)

pthread_mutex_t objcache_list_lock = PTHREAD_MUTEX_INITIALIZER;
objcache_t *objcache_list;
static unsigned ncpus; /* a power of two; set before the first cache exists */

static void list_insert(objcache_t *cp)
{
    pthread_mutex_lock(&objcache_list_lock);
    cp->oc_next = objcache_list;
    if (cp->oc_next != NULL)
        cp->oc_next->oc_prev_cache = cp;
    objcache_list = cp;
    pthread_mutex_unlock(&objcache_list_lock);
}

static void list_remove(objcache_t *cp)
{
    pthread_mutex_lock(&objcache_list_lock);
    if (cp->oc_next != NULL)
        cp->oc_next->oc_prev_cache = cp->oc_prev_cache;
    if (cp->oc_prev_cache != NULL)
        cp->oc_prev_cache->oc_next = cp->oc_next;
    else
        objcache_list = cp->oc_next;
    pthread_mutex_unlock(&objcache_list_lock);
}

static void locks_init(objcache_t *cp)
{
    pthread_mutex_init(&cp->oc_slab_lock, NULL);
    pthread_mutex_init(&cp->oc_depot_lock, NULL);
}

static void locks_fini(objcache_t *cp)
{
    pthread_mutex_destroy(&cp->oc_slab_lock);
    pthread_mutex_destroy(&cp->oc_depot_lock);
}

/* A cache without constructor, on the list of caches. slabsize 0: what suits the size. */
static objcache_t *create(const char *name, size_t size, size_t align, size_t slabsize,
                          vmem_t *source, int cflags)
{
    unsigned cpus = cflags & OBJCACHE_NOMAGAZINE ? 1 : ncpus;
    size_t bytes = sizeof(objcache_t) + cpus * sizeof(objcpu_t);
    objcache_t geometry = {.oc_source = source, .oc_cflags = cflags};

    if (!objslab_geometry(&geometry, size, align, slabsize)) {
        errno = EINVAL;
        return NULL;
    }
    objcache_t *cp = vmem_xalloc(vmem_meta_arena, bytes, _Alignof(objcpu_t), 0, 0, NULL,
                                 NULL, VM_NOSLEEP);
    if (cp == NULL)
        return NULL;
    memset(cp, 0, bytes);
    cp->oc_source = source;
    cp->oc_cflags = cflags;
    objslab_geometry(cp, size, align, slabsize);
    strncpy(cp->oc_name, name, sizeof(cp->oc_name) - 1);
    cp->oc_bytes = bytes;
    cp->oc_cpu_mask = cpus - 1;
    cp->oc_magtype = cflags & OBJCACHE_NOMAGAZINE ? NULL : magazine_type(cp->oc_objsize);
    locks_init(cp);
    list_insert(cp);
    return cp;
}

objcache_t *objcache_create(const char *name, size_t size, size_t align,
                            objcache_ctor_t *ctor, objcache_dtor_t *dtor,
                            objcache_reclaim_t *reclaim, void *arg, vmem_t *source,
                            int cflags)
{
    /* vmem's start makes the caches of magazines: it must not wait for itself here. */
    if (source == NULL && vmem_ready())
        source = vmem_heap_arena;
    if (source == NULL)
        return NULL;
    if (align == 0)
        align = vmem_quantum(source) < 8 ? vmem_quantum(source) : 8;
    if (name == NULL || !vmem_is_pow2(align) || (cflags & ~OBJCACHE_NOMAGAZINE) != 0) {
        errno = EINVAL;
        return NULL;
    }
    objcache_t *cp = create(name, size, align, 0, source, cflags);
    if (cp != NULL) {
        cp->oc_ctor = ctor;
        cp->oc_dtor = dtor;
        cp->oc_reclaim = reclaim;
        cp->oc_arg = arg;
    }
    return cp;
}

objcache_t *objcache_create_qcache(const char *name, size_t size, size_t slabsize,
                                   vmem_t *vmp)
{
    return create(name, size, vmem_quantum(vmp), slabsize, vmp, OBJCACHE_QCACHE);
}

/* Part of vmem's start: when its arenas exist. */
bool objcache_start(void)
{
    long conf = sysconf(_SC_NPROCESSORS_CONF);

    ncpus = 1;
    while (ncpus < CPUS_MAX && (long)ncpus < conf)
        ncpus <<= 1;
    return magazine_start();
}

uint64_t objcache_destroy(objcache_t *cp)
{
    list_remove(cp);
    if (!(cp->oc_cflags & OBJCACHE_NOMAGAZINE))
        magazine_purge(cp);
    uint64_t leaked = objslab_fini(cp);
    locks_fini(cp);
    vmem_xfree(vmem_meta_arena, cp, cp->oc_bytes);
    return leaked;
}

/*
 * One attempt, without purge or sleep; NULL with errno: ENOMEM, or the constructor's
 * error in *ctor_error (else 0).
 */
static void *try_alloc(objcache_t *cp, int vmflag, int *ctor_error)
{
    void *obj = NULL;

    *ctor_error = 0;
    if (!(cp->oc_cflags & OBJCACHE_NOMAGAZINE))
        obj = magazine_alloc(cp);
    if (obj != NULL)
        return obj;
    obj = objslab_alloc(cp);
    if (obj == NULL || cp->oc_ctor == NULL)
        return obj;
    *ctor_error = cp->oc_ctor(obj, cp->oc_arg, vmflag);
    if (*ctor_error == 0)
        return obj;
    pthread_mutex_lock(&cp->oc_slab_lock);
    cp->oc_ctor_fails++;
    pthread_mutex_unlock(&cp->oc_slab_lock);
    objslab_free(cp, obj);
    return NULL;
}

void *objcache_try_alloc(objcache_t *cp)
{
    int ctor_error;

    return try_alloc(cp, VM_NOSLEEP, &ctor_error);
}

/* vmem served a quantum cache's size past it: the object will come back here. */
void objcache_note_direct(objcache_t *cp)
{
    pthread_mutex_lock(&cp->oc_slab_lock);
    cp->oc_direct++;
    pthread_mutex_unlock(&cp->oc_slab_lock);
}

static void *fail(objcache_t *cp, int error, int vmflag)
{
    pthread_mutex_lock(&cp->oc_slab_lock);
    cp->oc_fails++;
    pthread_mutex_unlock(&cp->oc_slab_lock);
    if (vmflag & VM_PANIC)
        vmem_panic(
            "cache \"%s\": cannot allocate an object of %zu with VM_PANIC: errno %d",
            cp->oc_name, cp->oc_objsize, error);
    errno = error;
    return NULL;
}

/*
 * A sleeper looks again after 1, 2, ... 32 ms: objects come free in magazines, which
 * don't tell, and in arenas that know nothing of this cache.
 */
void *objcache_alloc(objcache_t *cp, int vmflag)
{
    long wait = WAIT_FIRST_NS;

    for (unsigned attempt = 0;; attempt++) {
        int ctor_error;
        void *obj = try_alloc(cp, vmflag, &ctor_error);
        if (obj != NULL)
            return obj;
        if (ctor_error != 0)
            return fail(cp, ctor_error, vmflag);
        if (attempt > 0) {
            if (vmflag & (VM_NOSLEEP | VM_PANIC))
                return fail(cp, ENOMEM, vmflag);
            nanosleep(&(struct timespec){.tv_nsec = wait}, NULL);
            if (wait < WAIT_MAX_NS)
                wait *= 2;
        }
        if (cp->oc_reclaim != NULL)
            cp->oc_reclaim(cp->oc_arg);
        objcache_purge(cp);
    }
}

void objcache_free(objcache_t *cp, void *obj)
{
    if (!(cp->oc_cflags & OBJCACHE_NOMAGAZINE) && magazine_free(cp, obj))
        return;
    if (cp->oc_dtor != NULL)
        cp->oc_dtor(obj, cp->oc_arg);
    pthread_mutex_lock(&cp->oc_slab_lock);
    cp->oc_layer_frees++;
    pthread_mutex_unlock(&cp->oc_slab_lock);
    objslab_free(cp, obj);
}

static void reap_one(objcache_t *cp)
{
    if (cp->oc_reclaim != NULL)
        cp->oc_reclaim(cp->oc_arg);
    if (!(cp->oc_cflags & OBJCACHE_NOMAGAZINE))
        magazine_reap(cp);
}

static void purge_one(objcache_t *cp)
{
    if (!(cp->oc_cflags & OBJCACHE_NOMAGAZINE))
        magazine_purge(cp);
}

static void update_one(objcache_t *cp)
{
    if (!(cp->oc_cflags & OBJCACHE_NOMAGAZINE))
        magazine_update(cp);
}

static void apply(objcache_t *cp, void (*func)(objcache_t *))
{
    if (cp != NULL) {
        func(cp);
        return;
    }
    pthread_mutex_lock(&objcache_list_lock);
    for (cp = objcache_list; cp != NULL; cp = cp->oc_next)
        func(cp);
    pthread_mutex_unlock(&objcache_list_lock);
}

void objcache_reap(objcache_t *cp)
{
    apply(cp, reap_one);
}

void objcache_purge(objcache_t *cp)
{
    apply(cp, purge_one);
}

void objcache_update(objcache_t *cp)
{
    apply(cp, update_one);
}

void objcache_stat(objcache_t *cp, objcache_stat_t *st)
{
    *st = (objcache_stat_t){.os_objsize = cp->oc_objsize, .os_slabsize = cp->oc_slabsize};
    for (unsigned i = 0; i <= cp->oc_cpu_mask; i++) {
        cpu_lock(&cp->oc_cpu[i].oc_lock);
        st->os_allocs += cp->oc_cpu[i].oc_allocs;
        st->os_frees += cp->oc_cpu[i].oc_frees;
        cpu_unlock(&cp->oc_cpu[i].oc_lock);
    }
    pthread_mutex_lock(&cp->oc_depot_lock);
    st->os_magsize = cp->oc_magtype != NULL ? cp->oc_magtype->mt_rounds : 0;
    st->os_depot_full = cp->oc_full.ml_count;
    st->os_depot_empty = cp->oc_empty.ml_count;
    st->os_depot_contention = cp->oc_contention;
    st->os_magazine_resizes = cp->oc_resizes;
    pthread_mutex_unlock(&cp->oc_depot_lock);
    pthread_mutex_lock(&cp->oc_slab_lock);
    st->os_allocs += cp->oc_slab_allocs - cp->oc_ctor_fails + cp->oc_direct;
    st->os_frees += cp->oc_layer_frees;
    st->os_slabs = cp->oc_slabs;
    st->os_slab_inuse = cp->oc_slab_inuse;
    st->os_slab_creates = cp->oc_slab_creates;
    st->os_slab_destroys = cp->oc_slab_destroys;
    st->os_slab_allocs = cp->oc_slab_allocs;
    st->os_slab_frees = cp->oc_slab_frees;
    st->os_fails = cp->oc_fails;
    pthread_mutex_unlock(&cp->oc_slab_lock);
}

/* All CPU locks before all others: a CPU's lock may be followed by another cache's slab
 * lock. */
void objcache_lock_all(void)
{
    objcache_t *cp;

    for (cp = objcache_list; cp != NULL; cp = cp->oc_next)
        for (unsigned i = 0; i <= cp->oc_cpu_mask; i++)
            cpu_lock(&cp->oc_cpu[i].oc_lock);
    for (cp = objcache_list; cp != NULL; cp = cp->oc_next)
        pthread_mutex_lock(&cp->oc_depot_lock);
    for (cp = objcache_list; cp != NULL; cp = cp->oc_next)
        pthread_mutex_lock(&cp->oc_slab_lock);
    pthread_mutex_lock(&objslab_pool_lock);
}

void objcache_unlock_all(void)
{
    pthread_mutex_unlock(&objslab_pool_lock);
    for (objcache_t *cp = objcache_list; cp != NULL; cp = cp->oc_next) {
        pthread_mutex_unlock(&cp->oc_slab_lock);
        pthread_mutex_unlock(&cp->oc_depot_lock);
        for (unsigned i = 0; i <= cp->oc_cpu_mask; i++)
            cpu_unlock(&cp->oc_cpu[i].oc_lock);
    }
}
