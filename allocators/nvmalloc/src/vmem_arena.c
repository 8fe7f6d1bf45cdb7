/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an arena, its spans, and what can be asked about it. Theory: vmem.c. */
#include "vmem_impl.h"

#include "objcache_impl.h"

#include <errno.h>
#include <string.h>
#include <time.h>

pthread_mutex_t vmem_list_lock = PTHREAD_MUTEX_INITIALIZER;
vmem_t *vmem_list;
static uint32_t vmem_last_id; /* under vmem_list_lock */

/* Sleepers measure their patience on the monotonic clock. */
void vmem_cond_init(pthread_cond_t *cv)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cv, &attr);
    pthread_condattr_destroy(&attr);
}

static void list_insert(vmem_t *vmp)
{
    pthread_mutex_lock(&vmem_list_lock);
    vmp->vm_id = ++vmem_last_id;
    vmp->vm_next = vmem_list;
    vmem_list = vmp;
    pthread_mutex_unlock(&vmem_list_lock);
}

static void list_remove(vmem_t *vmp)
{
    pthread_mutex_lock(&vmem_list_lock);
    vmem_t **link = &vmem_list;
    while (*link != NULL && *link != vmp)
        link = &(*link)->vm_next;
    if (*link == NULL)
        vmem_panic("destroy of %p: found no such arena", (void *)vmp);
    *link = vmp->vm_next;
    pthread_mutex_unlock(&vmem_list_lock);
}

/* Slabs of all of an arena's quantum caches are equal, so that freed ones fit each other.
 */
static bool create_qcaches(vmem_t *vmp, size_t qcache_max)
{
    size_t n = qcache_max >> vmp->vm_qshift;
    size_t slab = vmp->vm_quantum;

    if (n > VMEM_NQCACHE_MAX)
        n = VMEM_NQCACHE_MAX;
    while (slab < 3 * n * vmp->vm_quantum)
        slab <<= 1;
    for (size_t i = 0; i < n; i++) {
        char name[OBJCACHE_NAMELEN];
        size_t size = (i + 1) << vmp->vm_qshift;
        snprintf(name, sizeof(name), "%.*s_%zu", VMEM_NAMELEN - 1, vmp->vm_name, size);
        vmp->vm_qcache[i] = objcache_create_qcache(name, size, slab, vmp);
        if (vmp->vm_qcache[i] == NULL)
            return false;
    }
    vmp->vm_qcache_max = n << vmp->vm_qshift;
    return true;
}

static bool args_ok(const char *name, size_t quantum, bool imports, vmem_free_t *ffunc)
{
    /* Larger quanta would overflow the arithmetic of quantum caches; none makes sense. */
    return name != NULL && vmem_is_pow2(quantum) && quantum <= SIZE_MAX >> 8 &&
           imports == (ffunc != NULL);
}

static void struct_init(vmem_t *vmp, const char *name, size_t quantum, int vmflag)
{
    memset(vmp, 0, sizeof(*vmp));
    strncpy(vmp->vm_name, name, sizeof(vmp->vm_name) - 1);
    pthread_mutex_init(&vmp->vm_lock, NULL);
    vmem_cond_init(&vmp->vm_cv);
    vmp->vm_cflags = vmflag & (VMC_POPULATOR | VMC_NO_QCACHE | VMC_IDENTIFIER);
    vmp->vm_quantum = quantum;
    vmp->vm_qshift = (int)vmem_floor_log2(quantum);
    vmem_hash_init(vmp);
    vmem_seglist_init(vmp);
}

vmem_t *vmem_create_common(const char *name, void *base, size_t size, size_t quantum,
                           vmem_alloc_t *afunc, vmem_ximport_t *xfunc, vmem_free_t *ffunc,
                           vmem_t *source, size_t qcache_max, int vmflag)
{
    if (!args_ok(name, quantum, afunc != NULL || xfunc != NULL, ffunc)) {
        errno = EINVAL;
        return NULL;
    }
    vmem_t *vmp = vmem_struct_get();
    if (vmp == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    struct_init(vmp, name, quantum, vmflag);
    vmp->vm_source_alloc = afunc;
    vmp->vm_source_ximport = xfunc;
    vmp->vm_source_free = ffunc;
    vmp->vm_source = source;
    vmp->vm_kstat.vk_source_id = source != NULL ? source->vm_id : 0;
    list_insert(vmp);

    int error = 0;
    if ((vmflag & VMC_POPULATOR) && !vmem_populate(vmp, vmflag))
        error = ENOMEM;
    else if ((size != 0 && vmem_add(vmp, base, size, vmflag) == NULL) ||
             (qcache_max >= quantum && !(vmflag & VMC_NO_QCACHE) &&
              !create_qcaches(vmp, qcache_max)))
        error = errno;
    if (error != 0) {
        vmem_destroy(vmp);
        errno = error;
        return NULL;
    }
    return vmp;
}

vmem_t *vmem_create(const char *name, void *base, size_t size, size_t quantum,
                    vmem_alloc_t *afunc, vmem_free_t *ffunc, vmem_t *source,
                    size_t qcache_max, int vmflag)
{
    if (!vmem_ready())
        return NULL;
    return vmem_create_common(name, base, size, quantum, afunc, NULL, ffunc, source,
                              qcache_max, vmflag);
}

vmem_t *vmem_xcreate(const char *name, void *base, size_t size, size_t quantum,
                     vmem_ximport_t *afunc, vmem_free_t *ffunc, vmem_t *source,
                     size_t qcache_max, int vmflag)
{
    if (!vmem_ready())
        return NULL;
    return vmem_create_common(name, base, size, quantum, NULL, afunc, ffunc, source,
                              qcache_max, vmflag);
}

size_t vmem_destroy(vmem_t *vmp)
{
    size_t leaked = 0;

    for (size_t i = 0; i < VMEM_NQCACHE_MAX; i++)
        if (vmp->vm_qcache[i] != NULL)
            leaked += objcache_destroy(vmp->vm_qcache[i]) * ((i + 1) << vmp->vm_qshift);
    list_remove(vmp);
    /* Nobody else can see the arena now. */
    leaked += vmp->vm_kstat.vk_mem_inuse;
    vmem_hash_fini(vmp);
    vmem_seg_t *seg0 = &vmp->vm_seg0;
    for (vmem_seg_t *vsp = seg0->vs_anext, *next; vsp != seg0; vsp = next) {
        next = vsp->vs_anext;
        if (vsp->vs_type == VMEM_SPAN && vsp->vs_import)
            vmp->vm_source_free(vmp->vm_source, (void *)vsp->vs_start,
                                vsp->vs_end - vsp->vs_start);
        vmem_putseg(vmp, vsp);
    }
    vmem_drain_segs(vmp);
    pthread_cond_destroy(&vmp->vm_cv);
    pthread_mutex_destroy(&vmp->vm_lock);
    vmem_struct_put(vmp);
    return leaked;
}

/* O(spans): the price of refusing an overlap by hand. Imports are not checked. */
static bool overlaps_span(const vmem_t *vmp, uintptr_t start, uintptr_t end)
{
    const vmem_seg_t *seg0 = &vmp->vm_seg0;

    for (const vmem_seg_t *span = seg0->vs_knext; span != seg0; span = span->vs_knext)
        if (start < span->vs_end && span->vs_start < end)
            return true;
    return false;
}

/* The added span that ends at addr. */
static vmem_seg_t *span_before(vmem_t *vmp, uintptr_t addr)
{
    vmem_seg_t *seg0 = &vmp->vm_seg0;

    for (vmem_seg_t *span = seg0->vs_knext; span != seg0; span = span->vs_knext)
        if (span->vs_end == addr && !span->vs_import)
            return span;
    return NULL;
}

static void *add(vmem_t *vmp, void *addr, size_t size, bool extend, int vmflag)
{
    uintptr_t start = (uintptr_t)addr, end;
    int error = 0;

    if (start == 0 || size == 0 || ((start | size) & (vmp->vm_quantum - 1)) != 0 ||
        __builtin_add_overflow(start, size, &end)) {
        errno = EINVAL;
        return NULL;
    }
    if (!vmem_populate(vmp, vmflag))
        return NULL;
    vmem_lock(vmp);
    if (!vmem_populate_locked(vmp)) {
        error = ENOMEM;
    } else if (overlaps_span(vmp, start, end)) {
        error = EEXIST;
    } else {
        vmem_seg_t *before = extend ? span_before(vmp, start) : NULL;
        if (before != NULL)
            vmem_span_extend(vmp, before, size);
        else
            vmem_span_create(vmp, start, size, false);
        vmem_wake(vmp);
    }
    vmem_unlock(vmp);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return addr;
}

void *vmem_add(vmem_t *vmp, void *addr, size_t size, int vmflag)
{
    return add(vmp, addr, size, false, vmflag);
}

void *vmem_extend(vmem_t *vmp, void *addr, size_t size, int vmflag)
{
    return add(vmp, addr, size, true, vmflag);
}

bool vmem_contains(vmem_t *vmp, const void *addr, size_t size)
{
    uintptr_t at = (uintptr_t)addr, end;
    const vmem_seg_t *seg0 = &vmp->vm_seg0;
    bool found = !__builtin_add_overflow(at, size, &end) && size != 0;

    vmem_lock(vmp);
    vmp->vm_kstat.vk_contains++;
    while (found && at < end) {
        /* Spans don't merge, so the range may go on in another one, anywhere on the list.
         */
        const vmem_seg_t *span = seg0->vs_knext;
        while (span != seg0 && (at < span->vs_start || at >= span->vs_end)) {
            vmp->vm_kstat.vk_contains_search++;
            span = span->vs_knext;
        }
        vmp->vm_kstat.vk_contains_search += span != seg0;
        found = span != seg0;
        at = span->vs_end;
    }
    vmem_unlock(vmp);
    return found;
}

void vmem_walk(vmem_t *vmp, int typemask, vmem_walker_t *func, void *arg)
{
    vmem_seg_t *seg0 = &vmp->vm_seg0;

    vmem_lock(vmp);
    vmem_cursor_t cursor = {.vc_next = seg0->vs_anext, .vc_link = vmp->vm_cursors};
    vmp->vm_cursors = &cursor;
    while (cursor.vc_next != seg0) {
        vmem_seg_t *vsp = cursor.vc_next;
        cursor.vc_next = vsp->vs_anext;
        if (!(vsp->vs_type & typemask))
            continue;
        void *start = (void *)vsp->vs_start;
        size_t size = vsp->vs_end - vsp->vs_start;
        if (typemask & VMEM_REENTRANT)
            vmem_unlock(vmp);
        func(arg, start, size);
        if (typemask & VMEM_REENTRANT)
            vmem_lock(vmp);
    }
    vmem_cursor_t **link = &vmp->vm_cursors;
    while (*link != &cursor)
        link = &(*link)->vc_link;
    *link = cursor.vc_link;
    vmem_unlock(vmp);
}

size_t vmem_size(vmem_t *vmp, int typemask)
{
    size_t size = 0;

    vmem_lock(vmp);
    if (typemask & VMEM_SPAN)
        typemask |= VMEM_ALLOC | VMEM_FREE;
    if (typemask & VMEM_ALLOC)
        size += vmp->vm_kstat.vk_mem_inuse;
    if (typemask & VMEM_FREE)
        size += vmp->vm_kstat.vk_mem_total - vmp->vm_kstat.vk_mem_inuse;
    vmem_unlock(vmp);
    return size;
}

bool vmem_populate(vmem_t *vmp, int vmflag)
{
    for (;;) {
        vmem_lock(vmp);
        bool full = vmem_populate_locked(vmp);
        if (!full && !(vmflag & (VM_NOSLEEP | VM_PANIC)))
            vmp->vm_kstat.vk_populate_wait++;
        vmem_unlock(vmp);
        if (full)
            return true;
        if (vmflag & VM_PANIC)
            vmem_panic("arena \"%s\": no memory for segment structures", vmp->vm_name);
        if (vmflag & VM_NOSLEEP) {
            errno = ENOMEM;
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
}

static void refresh(vmem_t *vmp)
{
    vmem_hash_rescale(vmp);
    vmem_lock(vmp);
    vmem_wake(vmp);
    vmem_unlock(vmp);
}

static void reap_qcaches(vmem_t *vmp)
{
    for (size_t i = 0; i < VMEM_NQCACHE_MAX && vmp->vm_qcache[i] != NULL; i++)
        objcache_purge(vmp->vm_qcache[i]);
}

static void for_each(void (*func)(vmem_t *))
{
    pthread_mutex_lock(&vmem_list_lock);
    for (vmem_t *vmp = vmem_list; vmp != NULL; vmp = vmp->vm_next)
        func(vmp);
    pthread_mutex_unlock(&vmem_list_lock);
}

void vmem_update(vmem_t *vmp)
{
    if (vmp == NULL) {
        objcache_update(NULL);
        objcache_reap(NULL);
        for_each(refresh);
        return;
    }
    for (size_t i = 0; i < VMEM_NQCACHE_MAX && vmp->vm_qcache[i] != NULL; i++) {
        objcache_update(vmp->vm_qcache[i]);
        objcache_reap(vmp->vm_qcache[i]);
    }
    refresh(vmp);
}

void vmem_reap(vmem_t *vmp)
{
    if (vmp != NULL)
        reap_qcaches(vmp);
    else
        for_each(reap_qcaches);
}

const char *vmem_name(const vmem_t *vmp)
{
    return vmp->vm_name;
}

uint32_t vmem_id(const vmem_t *vmp)
{
    return vmp->vm_id;
}

size_t vmem_quantum(const vmem_t *vmp)
{
    return vmp->vm_quantum;
}

vmem_t *vmem_source(const vmem_t *vmp)
{
    return vmp->vm_source;
}

void vmem_kstat(vmem_t *vmp, vmem_kstat_t *ks)
{
    vmem_lock(vmp);
    *ks = vmp->vm_kstat;
    vmem_unlock(vmp);
}

void vmem_set_mtbf(vmem_t *vmp, uint32_t mtbf, uint64_t seed)
{
    vmem_lock(vmp);
    vmp->vm_mtbf_state = seed;
    vmem_unlock(vmp);
    atomic_store_explicit(&vmp->vm_mtbf, mtbf, memory_order_relaxed);
}
