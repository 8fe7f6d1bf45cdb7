/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of allocated segments by start address, so that a free finds its segment and
 * proves its size. Theory: vmem.c, 5. Chains are singly linked through vs_knext.
 */
#include "vmem_impl.h"

#include <string.h>

/* Rescale when outside 1/8 .. 1 segments a bucket; afterwards there is 1/2 .. 1. */
#define HASH_MAX_LOAD 1
#define HASH_MIN_LOAD 8
#define HASH_SMALL                                                                       \
    1024               /* buckets: not worth giving back by the way; vmem_update() does */
#define HASH_REST 4096 /* operations before trying again when there was no memory */

static size_t bucket_of(uintptr_t addr, int qshift, unsigned hash_shift)
{
    /* Fibonacci hashing: the high bits of a product with 2^64 / golden ratio. */
    return (size_t)(((uint64_t)addr >> qshift) * UINT64_C(0x9E3779B97F4A7C15) >>
                    (64 - hash_shift));
}

void vmem_hash_init(vmem_t *vmp)
{
    vmp->vm_hash_table = vmp->vm_hash0;
    vmp->vm_hash_mask = VMEM_HASH_INITIAL - 1;
    vmp->vm_hash_shift = vmem_floor_log2(VMEM_HASH_INITIAL);
}

size_t vmem_hash_bucket(const vmem_t *vmp, uintptr_t addr)
{
    return bucket_of(addr, vmp->vm_qshift, vmp->vm_hash_shift);
}

void vmem_hash_insert(vmem_t *vmp, vmem_seg_t *vsp)
{
    vmem_seg_t **bucket = &vmp->vm_hash_table[vmem_hash_bucket(vmp, vsp->vs_start)];

    vsp->vs_knext = *bucket;
    *bucket = vsp;
}

/* Unlink and return the allocated segment that starts at addr; NULL if there is none. */
vmem_seg_t *vmem_hash_remove(vmem_t *vmp, uintptr_t addr)
{
    vmem_seg_t **link = &vmp->vm_hash_table[vmem_hash_bucket(vmp, addr)];

    vmp->vm_kstat.vk_lookup++;
    while (*link != NULL && (*link)->vs_start != addr)
        link = &(*link)->vs_knext;
    vmem_seg_t *vsp = *link;
    if (vsp != NULL)
        *link = vsp->vs_knext;
    return vsp;
}

/* The allocated segment that starts at addr, left where it is; NULL if there is none. */
vmem_seg_t *vmem_hash_find(vmem_t *vmp, uintptr_t addr)
{
    vmem_seg_t *vsp = vmp->vm_hash_table[vmem_hash_bucket(vmp, addr)];

    vmp->vm_kstat.vk_lookup++;
    while (vsp != NULL && vsp->vs_start != addr)
        vsp = vsp->vs_knext;
    return vsp;
}

/*
 * Should the caller rescale once it has dropped the lock? Not during a refill: the tables
 * would eat into the segment structures that are counted out for it.
 */
bool vmem_hash_unfit(vmem_t *vmp)
{
    size_t buckets = vmp->vm_hash_mask + 1;

    if (vmp->vm_nalloc <= buckets * HASH_MAX_LOAD &&
        (buckets <= HASH_SMALL || vmp->vm_nalloc * HASH_MIN_LOAD >= buckets))
        return false;
    if (vmp->vm_hash_rest > 0) {
        vmp->vm_hash_rest--;
        return false;
    }
    return !vmp->vm_hash_busy && !vmem_is_refilling();
}

static void hash_swap(vmem_t *vmp, vmem_seg_t **table, unsigned shift)
{
    for (size_t i = 0; i <= vmp->vm_hash_mask; i++) {
        vmem_seg_t *vsp = vmp->vm_hash_table[i];
        while (vsp != NULL) {
            vmem_seg_t *next = vsp->vs_knext;
            size_t bucket = bucket_of(vsp->vs_start, vmp->vm_qshift, shift);
            vsp->vs_knext = table[bucket];
            table[bucket] = vsp;
            vsp = next;
        }
    }
    vmp->vm_hash_table = table;
    vmp->vm_hash_shift = shift;
    vmp->vm_hash_mask = ((size_t)1 << shift) - 1;
}

static void table_free(vmem_t *vmp, vmem_seg_t **table, size_t buckets)
{
    if (table != vmp->vm_hash0)
        vmem_free(vmem_hash_arena, table, buckets * sizeof(*table));
}

/*
 * Give the table about one bucket a segment. Called without the lock, since the new table
 * is an allocation; the flag vm_hash_busy keeps others, and this thread if it comes by
 * again while allocating, from rescaling the same table meanwhile.
 */
void vmem_hash_rescale(vmem_t *vmp)
{
    unsigned shift = vmem_floor_log2(VMEM_HASH_INITIAL);
    vmem_seg_t **table = vmp->vm_hash0;

    vmem_lock(vmp);
    while (((size_t)1 << shift) < vmp->vm_nalloc)
        shift++;
    bool wanted =
        !vmp->vm_hash_busy && shift != vmp->vm_hash_shift && vmem_hash_arena != NULL;
    vmp->vm_hash_busy |= wanted;
    vmem_unlock(vmp);
    if (!wanted)
        return;

    size_t bytes = ((size_t)1 << shift) * sizeof(*table);
    if (shift != vmem_floor_log2(VMEM_HASH_INITIAL))
        table = vmem_xalloc(vmem_hash_arena, bytes, 0, 0, 0, NULL, NULL, VM_NOSLEEP);
    if (table != NULL)
        memset(table, 0, bytes);

    vmem_lock(vmp);
    vmem_seg_t **old = vmp->vm_hash_table;
    size_t old_buckets = vmp->vm_hash_mask + 1;
    if (table != NULL)
        hash_swap(vmp, table, shift);
    else
        vmp->vm_hash_rest = HASH_REST;
    vmp->vm_hash_busy = false;
    vmem_unlock(vmp);
    if (table != NULL)
        table_free(vmp, old, old_buckets);
}

/* Of an arena that nobody uses any more. */
void vmem_hash_fini(vmem_t *vmp)
{
    table_free(vmp, vmp->vm_hash_table, vmp->vm_hash_mask + 1);
}
