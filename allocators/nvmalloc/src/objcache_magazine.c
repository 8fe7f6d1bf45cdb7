/* SPDX-License-Identifier: Apache-2.0 */
/* The magazine layer of the object caches: CPUs and depot. Theory: objcache.c, 4. */
#include "objcache_impl.h"

#include "vmem_impl.h"

#include <sched.h>
#include <time.h>

/* Magazines of 2^k words, two of which are the header. */
static magtype_t types[] = {
    {.mt_rounds = 14},  {.mt_rounds = 30},  {.mt_rounds = 62},
    {.mt_rounds = 126}, {.mt_rounds = 254},
};
#define NTYPES (sizeof(types) / sizeof(types[0]))

/* Contended depot exchanges between two updates that call for larger magazines. */
#define RESIZE_CONTENTION 3

#define LOCK_SPINS  64
#define LOCK_YIELDS 64

void cpu_lock_slow(cpu_lock_t *lock)
{
    for (unsigned i = 0;; i++) {
        if (!atomic_load_explicit(&lock->cl_held, memory_order_relaxed) &&
            !atomic_exchange_explicit(&lock->cl_held, true, memory_order_acquire))
            return;
        if (i < LOCK_SPINS)
            atomic_signal_fence(memory_order_seq_cst);
        else if (i < LOCK_SPINS + LOCK_YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 50 * 1000}, NULL);
    }
}

bool magazine_start(void)
{
    for (size_t i = 0; i < NTYPES; i++) {
        char name[OBJCACHE_NAMELEN];
        size_t bytes = sizeof(magazine_t) + types[i].mt_rounds * sizeof(void *);
        snprintf(name, sizeof(name), "magazine_%u", types[i].mt_rounds);
        types[i].mt_cache = objcache_create(name, bytes, 0, NULL, NULL, NULL, NULL,
                                            vmem_internal_arena, OBJCACHE_NOMAGAZINE);
        if (types[i].mt_cache == NULL)
            return false;
    }
    return true;
}

/* To begin with: the larger the objects, the fewer of them should lie idle. */
const magtype_t *magazine_type(size_t objsize)
{
    return objsize <= 1024 ? &types[1] : &types[0];
}

static magazine_t *mag_create(const magtype_t *type)
{
    magazine_t *mag = objslab_alloc(type->mt_cache);

    if (mag != NULL)
        mag->mg_type = type;
    return mag;
}

static void mag_destroy(magazine_t *mag)
{
    objslab_free(mag->mg_type->mt_cache, mag);
}

/* Destruct the rounds, return them to their slabs, and the magazine to its cache. */
static void mag_unload(objcache_t *cp, magazine_t *mag, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        if (cp->oc_dtor != NULL)
            cp->oc_dtor(mag->mg_round[i], cp->oc_arg);
        objslab_free(cp, mag->mg_round[i]);
    }
    mag_destroy(mag);
}

static void depot_lock(objcache_t *cp)
{
    if (pthread_mutex_trylock(&cp->oc_depot_lock) == 0)
        return;
    pthread_mutex_lock(&cp->oc_depot_lock);
    cp->oc_contention++;
}

static void list_put(mag_list_t *ml, magazine_t *mag)
{
    mag->mg_next = ml->ml_first;
    ml->ml_first = mag;
    ml->ml_count++;
}

static magazine_t *list_get(mag_list_t *ml)
{
    magazine_t *mag = ml->ml_first;

    if (mag != NULL) {
        ml->ml_first = mag->mg_next;
        if (--ml->ml_count < ml->ml_min)
            ml->ml_min = ml->ml_count;
    }
    return mag;
}

static objcpu_t *cpu_of(objcache_t *cp)
{
    return &cp->oc_cpu[(unsigned)sched_getcpu() & cp->oc_cpu_mask];
}

static void swap_loaded(objcpu_t *cpu)
{
    magazine_t *mag = cpu->oc_loaded;
    unsigned rounds = cpu->oc_rounds;

    cpu->oc_loaded = cpu->oc_prev;
    cpu->oc_rounds = cpu->oc_prev_rounds;
    cpu->oc_prev = mag;
    cpu->oc_prev_rounds = rounds;
}

/*
 * Under the CPU's lock, both magazines empty or missing: load a full one from the depot.
 * The empty one that is left over stays there, or is destroyed if it has an old size.
 */
static bool load_full(objcache_t *cp, objcpu_t *cpu)
{
    magazine_t *empty = NULL;

    depot_lock(cp);
    magazine_t *full = list_get(&cp->oc_full);
    if (full != NULL && cpu->oc_prev != NULL) {
        if (cpu->oc_prev->mg_type == cp->oc_magtype)
            list_put(&cp->oc_empty, cpu->oc_prev);
        else
            empty = cpu->oc_prev;
    }
    pthread_mutex_unlock(&cp->oc_depot_lock);
    if (empty != NULL)
        mag_destroy(empty);
    if (full == NULL)
        return false;
    cpu->oc_prev = cpu->oc_loaded;
    cpu->oc_prev_rounds = 0;
    cpu->oc_loaded = full;
    cpu->oc_rounds = full->mg_type->mt_rounds;
    return true;
}

/*
 * Under the CPU's lock, both magazines full or missing: load an empty one, from the depot
 * or *spare (which is then NULL), and leave the full one to the depot. False: there is
 * none.
 */
static bool load_empty(objcache_t *cp, objcpu_t *cpu, magazine_t **spare)
{
    depot_lock(cp);
    magazine_t *empty = list_get(&cp->oc_empty);
    if (empty == NULL) {
        empty = *spare;
        *spare = NULL;
    }
    if (empty != NULL && cpu->oc_prev != NULL)
        list_put(&cp->oc_full, cpu->oc_prev);
    pthread_mutex_unlock(&cp->oc_depot_lock);
    if (empty == NULL)
        return false;
    cpu->oc_prev = cpu->oc_loaded;
    cpu->oc_prev_rounds = cpu->oc_rounds;
    cpu->oc_loaded = empty;
    cpu->oc_rounds = 0;
    return true;
}

/* A constructed object from a magazine; NULL: none there. */
void *magazine_alloc(objcache_t *cp)
{
    objcpu_t *cpu = cpu_of(cp);
    void *obj = NULL;

    cpu_lock(&cpu->oc_lock);
    if (cpu->oc_rounds == 0) {
        if (cpu->oc_prev_rounds > 0)
            swap_loaded(cpu);
        else
            load_full(cp, cpu);
    }
    if (cpu->oc_rounds > 0) {
        obj = cpu->oc_loaded->mg_round[--cpu->oc_rounds];
        cpu->oc_allocs++;
    }
    cpu_unlock(&cpu->oc_lock);
    return obj;
}

static bool has_room(const magazine_t *mag, unsigned rounds)
{
    return mag != NULL && rounds < mag->mg_type->mt_rounds;
}

static bool put_round(objcache_t *cp, objcpu_t *cpu, void *obj, magazine_t **spare)
{
    if (!has_room(cpu->oc_loaded, cpu->oc_rounds)) {
        if (has_room(cpu->oc_prev, cpu->oc_prev_rounds))
            swap_loaded(cpu);
        else if (!load_empty(cp, cpu, spare))
            return false;
    }
    cpu->oc_loaded->mg_round[cpu->oc_rounds++] = obj;
    cpu->oc_frees++;
    return true;
}

/* A new magazine of the size that is in use now; NULL: no memory. Under no lock. */
static magazine_t *new_magazine(objcache_t *cp)
{
    depot_lock(cp);
    const magtype_t *type = cp->oc_magtype;
    pthread_mutex_unlock(&cp->oc_depot_lock);
    return mag_create(type);
}

/* Put a constructed object in a magazine; false: no room and no memory for a magazine. */
bool magazine_free(objcache_t *cp, void *obj)
{
    magazine_t *spare = NULL;
    bool done;

    for (;;) {
        objcpu_t *cpu = cpu_of(cp);
        cpu_lock(&cpu->oc_lock);
        done = put_round(cp, cpu, obj, &spare);
        cpu_unlock(&cpu->oc_lock);
        if (done || spare != NULL)
            break;
        spare = new_magazine(cp);
        if (spare == NULL)
            return false;
    }
    if (spare != NULL) /* room was made while this one was being made */
        mag_destroy(spare);
    return done;
}

/* Take up to `n` magazines off a depot list and unload them. */
static void drain(objcache_t *cp, mag_list_t *ml, uint64_t n, bool full)
{
    while (n-- > 0) {
        depot_lock(cp);
        magazine_t *mag = list_get(ml);
        pthread_mutex_unlock(&cp->oc_depot_lock);
        if (mag == NULL)
            return;
        mag_unload(cp, mag, full ? mag->mg_type->mt_rounds : 0);
    }
}

static uint64_t count_now(objcache_t *cp, const mag_list_t *ml)
{
    depot_lock(cp);
    uint64_t n = ml->ml_count;
    pthread_mutex_unlock(&cp->oc_depot_lock);
    return n;
}

static uint64_t idle_now(objcache_t *cp, mag_list_t *ml)
{
    depot_lock(cp);
    uint64_t n = ml->ml_idle < ml->ml_min ? ml->ml_idle : ml->ml_min;
    ml->ml_idle = 0;
    pthread_mutex_unlock(&cp->oc_depot_lock);
    return n;
}

void magazine_reap(objcache_t *cp)
{
    drain(cp, &cp->oc_full, idle_now(cp, &cp->oc_full), true);
    drain(cp, &cp->oc_empty, idle_now(cp, &cp->oc_empty), false);
}

void magazine_purge(objcache_t *cp)
{
    for (unsigned i = 0; i <= cp->oc_cpu_mask; i++) {
        objcpu_t *cpu = &cp->oc_cpu[i];
        cpu_lock(&cpu->oc_lock);
        magazine_t *loaded = cpu->oc_loaded, *prev = cpu->oc_prev;
        unsigned rounds = cpu->oc_rounds, prev_rounds = cpu->oc_prev_rounds;
        cpu->oc_loaded = cpu->oc_prev = NULL;
        cpu->oc_rounds = cpu->oc_prev_rounds = 0;
        cpu_unlock(&cpu->oc_lock);
        if (loaded != NULL)
            mag_unload(cp, loaded, rounds);
        if (prev != NULL)
            mag_unload(cp, prev, prev_rounds);
    }
    drain(cp, &cp->oc_full, count_now(cp, &cp->oc_full), true);
    drain(cp, &cp->oc_empty, count_now(cp, &cp->oc_empty), false);
}

static void end_interval(mag_list_t *ml)
{
    ml->ml_idle = ml->ml_min;
    ml->ml_min = ml->ml_count;
}

/*
 * A contended depot means that CPUs exchange magazines often: larger ones halve that. Old
 * ones die out as they pass the depot empty; all code takes the size from the magazine.
 */
void magazine_update(objcache_t *cp)
{
    depot_lock(cp);
    end_interval(&cp->oc_full);
    end_interval(&cp->oc_empty);
    uint64_t contended = cp->oc_contention - cp->oc_contention_seen;
    cp->oc_contention_seen = cp->oc_contention;
    bool resize = contended > RESIZE_CONTENTION && cp->oc_magtype != &types[NTYPES - 1];
    if (resize) {
        cp->oc_magtype++;
        cp->oc_resizes++;
    }
    pthread_mutex_unlock(&cp->oc_depot_lock);
    if (resize)
        drain(cp, &cp->oc_empty, count_now(cp, &cp->oc_empty), false);
}
