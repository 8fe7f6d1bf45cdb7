/* SPDX-License-Identifier: Apache-2.0 */
/* The slab layer of the object caches. Theory: objcache.c, 3. */
#include "objcache_impl.h"

#include "vmem_impl.h"

#include <string.h>

#define SLAB_MIN_OBJECTS 8
#define SLAB_MAX_WASTE   8 /* at most 1/8 of a slab behind its last object */
#define TAG_CHUNK        ((size_t)16384)

pthread_mutex_t objslab_pool_lock = PTHREAD_MUTEX_INITIALIZER;
static objslab_t *pool; /* unused tags; their chunks are kept for ever, like vmem's */

static objslab_t *tag_get(void)
{
    pthread_mutex_lock(&objslab_pool_lock);
    objslab_t *tag = pool;
    if (tag != NULL)
        pool = tag->sl_next;
    pthread_mutex_unlock(&objslab_pool_lock);
    if (tag != NULL)
        return tag;

    objslab_t *chunk =
        vmem_xalloc(vmem_internal_arena, TAG_CHUNK, 0, 0, 0, NULL, NULL, VM_NOSLEEP);
    if (chunk == NULL)
        return NULL;
    size_t n = TAG_CHUNK / sizeof(*chunk);
    for (size_t i = 1; i + 1 < n; i++)
        chunk[i].sl_next = &chunk[i + 1];
    pthread_mutex_lock(&objslab_pool_lock);
    chunk[n - 1].sl_next = pool;
    pool = &chunk[1];
    pthread_mutex_unlock(&objslab_pool_lock);
    return &chunk[0];
}

static void tag_put(objslab_t *tag)
{
    pthread_mutex_lock(&objslab_pool_lock);
    tag->sl_next = pool;
    pool = tag;
    pthread_mutex_unlock(&objslab_pool_lock);
}

/*
 * Stride, slab size and objects a slab for objects of `size` at multiples of `align`.
 * slabsize 0: the least power of two of the source's quanta that holds SLAB_MIN_OBJECTS
 * or wastes at most 1/SLAB_MAX_WASTE. False: not representable.
 */
bool objslab_geometry(objcache_t *cp, size_t size, size_t align, size_t slabsize)
{
    size_t quantum = vmem_quantum(cp->oc_source);

    if (size == 0 || size > SIZE_MAX / 4 || align > SIZE_MAX / 4)
        return false;
    if (slabsize == 0 && size < quantum / SLAB_MAX_OBJECTS)
        size =
            quantum / SLAB_MAX_OBJECTS; /* a slab can't have more objects than tag bits */
    size = (size + align - 1) & ~(align - 1);
    if (slabsize == 0) {
        slabsize = quantum;
        while (slabsize < size || (slabsize / size < SLAB_MIN_OBJECTS &&
                                   slabsize % size > slabsize / SLAB_MAX_WASTE))
            slabsize <<= 1;
    }
    cp->oc_objsize = size;
    cp->oc_align = align;
    cp->oc_slabsize = slabsize;
    cp->oc_slabshift = vmem_floor_log2(slabsize);
    cp->oc_per_slab = (unsigned)(slabsize / size < SLAB_MAX_OBJECTS ? slabsize / size
                                                                    : SLAB_MAX_OBJECTS);
    cp->oc_hash = cp->oc_hash0;
    cp->oc_hash_shift = 3;
    return cp->oc_per_slab > 0;
}

static objslab_t **hash_chain(objslab_t **table, unsigned shift, uintptr_t window)
{
    return &table[(uint64_t)window * UINT64_C(0x9E3779B97F4A7C15) >> (64 - shift)];
}

/*
 * The slab in which addr lies; NULL if in none. A slab is as large as a window of
 * 2^oc_slabshift addresses but need not be aligned to one, and is hashed by the window in
 * which it begins: that of addr, or the one before.
 */
static objslab_t *slab_of(objcache_t *cp, uintptr_t addr)
{
    uintptr_t window = addr >> cp->oc_slabshift;

    for (unsigned back = 0; back <= 1; back++) {
        objslab_t *sl = *hash_chain(cp->oc_hash, cp->oc_hash_shift, window - back);
        for (; sl != NULL; sl = sl->sl_hnext)
            if (addr - sl->sl_base < cp->oc_slabsize)
                return sl;
    }
    return NULL;
}

static void hash_insert(objcache_t *cp, objslab_t *sl)
{
    objslab_t **chain =
        hash_chain(cp->oc_hash, cp->oc_hash_shift, sl->sl_base >> cp->oc_slabshift);

    sl->sl_hnext = *chain;
    *chain = sl;
}

static void hash_remove(objcache_t *cp, objslab_t *sl)
{
    objslab_t **link =
        hash_chain(cp->oc_hash, cp->oc_hash_shift, sl->sl_base >> cp->oc_slabshift);

    while (*link != sl)
        link = &(*link)->sl_hnext;
    *link = sl->sl_hnext;
}

/* Double the hash table when it has less than a bucket for every two slabs. */
static void hash_grow(objcache_t *cp)
{
    unsigned shift = cp->oc_hash_shift + 1;
    size_t old_bytes = sizeof(objslab_t *) << cp->oc_hash_shift;
    objslab_t **table = vmem_xalloc(vmem_hash_arena, sizeof(*table) << shift, 0, 0, 0,
                                    NULL, NULL, VM_NOSLEEP);
    if (table == NULL)
        return; /* longer chains are no error */
    memset(table, 0, sizeof(*table) << shift);

    pthread_mutex_lock(&cp->oc_slab_lock);
    objslab_t **old = cp->oc_hash;
    bool wanted = cp->oc_hash_shift + 1 == shift;
    if (wanted) {
        for (size_t i = 0; i < (size_t)1 << cp->oc_hash_shift; i++) {
            for (objslab_t *sl = old[i], *next; sl != NULL; sl = next) {
                next = sl->sl_hnext;
                objslab_t **chain =
                    hash_chain(table, shift, sl->sl_base >> cp->oc_slabshift);
                sl->sl_hnext = *chain;
                *chain = sl;
            }
        }
        cp->oc_hash = table;
        cp->oc_hash_shift = shift;
    }
    pthread_mutex_unlock(&cp->oc_slab_lock);
    if (!wanted)
        vmem_xfree(vmem_hash_arena, table, sizeof(*table) << shift);
    else if (old != cp->oc_hash0)
        vmem_xfree(vmem_hash_arena, old, old_bytes);
}

static void partial_insert(objcache_t *cp, objslab_t *sl)
{
    sl->sl_prev = NULL;
    sl->sl_next = cp->oc_partial;
    if (sl->sl_next != NULL)
        sl->sl_next->sl_prev = sl;
    cp->oc_partial = sl;
}

static void partial_remove(objcache_t *cp, objslab_t *sl)
{
    if (sl->sl_next != NULL)
        sl->sl_next->sl_prev = sl->sl_prev;
    if (sl->sl_prev != NULL)
        sl->sl_prev->sl_next = sl->sl_next;
    else
        cp->oc_partial = sl->sl_next;
}

static void *slab_memory(objcache_t *cp)
{
    size_t quantum = vmem_quantum(cp->oc_source);
    size_t align = cp->oc_align > quantum ? cp->oc_align : quantum;

    if (cp->oc_cflags & OBJCACHE_QCACHE)
        return vmem_try_alloc(cp->oc_source, cp->oc_slabsize, align);
    return vmem_xalloc(cp->oc_source, cp->oc_slabsize, align, 0, 0, NULL, NULL,
                       VM_NOSLEEP);
}

/* A new slab, on no list yet; NULL: no memory. No lock is held. */
static objslab_t *slab_create(objcache_t *cp)
{
    objslab_t *sl = tag_get();
    if (sl == NULL)
        return NULL;
    void *base = slab_memory(cp);
    if (base == NULL) {
        tag_put(sl);
        return NULL;
    }
    memset(sl, 0, sizeof(*sl));
    sl->sl_base = (uintptr_t)base;
    for (unsigned i = 0; i < cp->oc_per_slab; i++)
        sl->sl_free[i / 64] |= UINT64_C(1) << (i % 64);
    return sl;
}

static void slab_destroy(objcache_t *cp, objslab_t *sl)
{
    void *base = (void *)sl->sl_base;

    tag_put(sl);
    vmem_xfree(cp->oc_source, base, cp->oc_slabsize);
}

/* The first free object of a slab that has one. */
static void *take_object(objcache_t *cp, objslab_t *sl)
{
    unsigned word = 0;

    while (sl->sl_free[word] == 0)
        word++;
    unsigned bit = (unsigned)__builtin_ctzll(sl->sl_free[word]);
    sl->sl_free[word] &= sl->sl_free[word] - 1;
    if (++sl->sl_inuse == cp->oc_per_slab)
        partial_remove(cp, sl);
    cp->oc_slab_inuse++;
    cp->oc_slab_allocs++;
    return (void *)(sl->sl_base + (word * 64 + bit) * cp->oc_objsize);
}

/* A raw object; NULL: neither a slab nor, for a quantum cache, a single one is to be had.
 */
void *objslab_alloc(objcache_t *cp)
{
    void *obj = NULL;
    bool grow = false;

    pthread_mutex_lock(&cp->oc_slab_lock);
    if (cp->oc_partial == NULL) {
        pthread_mutex_unlock(&cp->oc_slab_lock);
        objslab_t *sl = slab_create(cp);
        pthread_mutex_lock(&cp->oc_slab_lock);
        if (sl != NULL) {
            hash_insert(cp, sl);
            partial_insert(cp, sl);
            cp->oc_slab_creates++;
            grow = ++cp->oc_slabs > (uint64_t)2 << cp->oc_hash_shift;
        }
    }
    if (cp->oc_partial != NULL)
        obj = take_object(cp, cp->oc_partial);
    pthread_mutex_unlock(&cp->oc_slab_lock);
    if (grow)
        hash_grow(cp);
    return obj;
}

/* A quantum cache's source may have served the size directly: then it has to take it
 * back. */
static void free_outside(objcache_t *cp, void *obj)
{
    pthread_mutex_unlock(&cp->oc_slab_lock);
    if (!(cp->oc_cflags & OBJCACHE_QCACHE))
        vmem_panic(
            "cache \"%s\": free(%p): found in none of its slabs, expected an object of "
            "%zu",
            cp->oc_name, obj, cp->oc_objsize);
    vmem_xfree(cp->oc_source, obj, cp->oc_objsize);
}

/* Return a raw object; an empty slab goes back to the arena at once. */
void objslab_free(objcache_t *cp, void *obj)
{
    pthread_mutex_lock(&cp->oc_slab_lock);
    objslab_t *sl = slab_of(cp, (uintptr_t)obj);
    if (sl == NULL) {
        free_outside(cp, obj);
        return;
    }
    size_t offset = (uintptr_t)obj - sl->sl_base;
    size_t i = offset / cp->oc_objsize;
    if (offset % cp->oc_objsize != 0 || i >= cp->oc_per_slab)
        vmem_panic("cache \"%s\": free(%p): found the inside of an object of %zu at %p, "
                   "expected its start",
                   cp->oc_name, obj, cp->oc_objsize,
                   (void *)(sl->sl_base + i * cp->oc_objsize));
    if (sl->sl_free[i / 64] >> (i % 64) & 1)
        vmem_panic("cache \"%s\": free(%p): found a free object, expected one in use",
                   cp->oc_name, obj);
    sl->sl_free[i / 64] |= UINT64_C(1) << (i % 64);
    cp->oc_slab_inuse--;
    cp->oc_slab_frees++;
    if (sl->sl_inuse-- == cp->oc_per_slab)
        partial_insert(cp, sl);
    bool empty = sl->sl_inuse == 0;
    if (empty) {
        partial_remove(cp, sl);
        hash_remove(cp, sl);
        cp->oc_slabs--;
        cp->oc_slab_destroys++;
    }
    pthread_mutex_unlock(&cp->oc_slab_lock);
    if (empty)
        slab_destroy(cp, sl);
}

/* Return all slabs of a cache that is no longer used. How many objects were in use. */
uint64_t objslab_fini(objcache_t *cp)
{
    uint64_t leaked = cp->oc_slab_inuse;

    for (size_t i = 0; i < (size_t)1 << cp->oc_hash_shift; i++) {
        for (objslab_t *sl = cp->oc_hash[i], *next; sl != NULL; sl = next) {
            next = sl->sl_hnext;
            slab_destroy(cp, sl);
        }
    }
    if (cp->oc_hash != cp->oc_hash0)
        vmem_xfree(vmem_hash_arena, cp->oc_hash,
                   sizeof(*cp->oc_hash) << cp->oc_hash_shift);
    return leaked;
}
