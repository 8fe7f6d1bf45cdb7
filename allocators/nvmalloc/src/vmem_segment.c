/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boundary tags: the arena's list of segments, the free lists, and how segments split,
 * merge and vanish. Theory: vmem.c, 2 to 4. Everything here runs under the arena's lock
 * with enough segment structures in its reserve (vmem_populate_locked()), so none can
 * fail.
 */
#include "vmem_impl.h"

/* A segment of size s is on the list floor(log2(s)), newest first. */
static void freelist_insert(vmem_t *vmp, vmem_seg_t *vsp)
{
    unsigned list = vmem_floor_log2(vsp->vs_end - vsp->vs_start);
    vmem_seg_t *head = vmp->vm_freelist[list];

    vsp->vs_type = VMEM_FREE;
    vsp->vs_kprev = NULL;
    vsp->vs_knext = head;
    if (head != NULL)
        head->vs_kprev = vsp;
    vmp->vm_freelist[list] = vsp;
    vmp->vm_freemap |= UINT64_C(1) << list;
}

static void freelist_delete(vmem_t *vmp, vmem_seg_t *vsp)
{
    unsigned list = vmem_floor_log2(vsp->vs_end - vsp->vs_start);

    if (vsp->vs_knext != NULL)
        vsp->vs_knext->vs_kprev = vsp->vs_kprev;
    if (vsp->vs_kprev != NULL)
        vsp->vs_kprev->vs_knext = vsp->vs_knext;
    else
        vmp->vm_freelist[list] = vsp->vs_knext;
    if (vmp->vm_freelist[list] == NULL)
        vmp->vm_freemap &= ~(UINT64_C(1) << list);
}

static vmem_seg_t *seg_create_after(vmem_t *vmp, vmem_seg_t *prev, uintptr_t start,
                                    uintptr_t end)
{
    vmem_seg_t *vsp = vmem_getseg(vmp);

    vsp->vs_start = start;
    vsp->vs_end = end;
    vsp->vs_import = 0;
    vsp->vs_aprev = prev;
    vsp->vs_anext = prev->vs_anext;
    prev->vs_anext->vs_aprev = vsp;
    prev->vs_anext = vsp;
    return vsp;
}

/*
 * Take a segment, already off its kin list, out of the arena. The rotor moves to `heir`,
 * a walk in progress to the successor: so neither keeps a segment alive [6].
 */
static void seg_destroy(vmem_t *vmp, vmem_seg_t *vsp, vmem_seg_t *heir)
{
    if (vmp->vm_rotor == vsp)
        vmp->vm_rotor = heir;
    for (vmem_cursor_t *c = vmp->vm_cursors; c != NULL; c = c->vc_link)
        if (c->vc_next == vsp)
            c->vc_next = vsp->vs_anext;
    vsp->vs_anext->vs_aprev = vsp->vs_aprev;
    vsp->vs_aprev->vs_anext = vsp->vs_anext;
    vmem_putseg(vmp, vsp);
}

void vmem_seglist_init(vmem_t *vmp)
{
    vmem_seg_t *seg0 = &vmp->vm_seg0;

    seg0->vs_type = VMEM_SPAN;
    seg0->vs_anext = seg0->vs_aprev = seg0;
    seg0->vs_knext = seg0->vs_kprev = seg0;
    vmp->vm_rotor = seg0;
}

/* Add a span behind the others and return its one free segment. Takes 2 structures. */
vmem_seg_t *vmem_span_create(vmem_t *vmp, uintptr_t start, size_t size, bool import)
{
    vmem_seg_t *seg0 = &vmp->vm_seg0;
    vmem_seg_t *span = seg_create_after(vmp, seg0->vs_aprev, start, start + size);
    vmem_seg_t *vsp = seg_create_after(vmp, span, start, start + size);

    span->vs_type = VMEM_SPAN;
    span->vs_import = import;
    span->vs_knext = seg0;
    span->vs_kprev = seg0->vs_kprev;
    seg0->vs_kprev->vs_knext = span;
    seg0->vs_kprev = span;
    freelist_insert(vmp, vsp);

    vmp->vm_kstat.vk_mem_total += size;
    if (import)
        vmp->vm_kstat.vk_mem_import += size;
    return vsp;
}

/*
 * Lengthen a span; what is new is free, and one segment with a free end of the span.
 * Takes up to 1 structure.
 */
void vmem_span_extend(vmem_t *vmp, vmem_seg_t *span, size_t size)
{
    vmem_seg_t *last = span->vs_knext->vs_aprev; /* spans are in the arena's order */

    if (last->vs_type == VMEM_FREE) {
        freelist_delete(vmp, last);
        last->vs_end += size;
    } else {
        last = seg_create_after(vmp, last, span->vs_end, span->vs_end + size);
    }
    freelist_insert(vmp, last);
    span->vs_end += size;
    vmp->vm_kstat.vk_mem_total += size;
}

/* The part [start, end) of the free segment vsp, on no list of kin; what is left of vsp
   on either side stays free. Takes up to 2 structures. */
static vmem_seg_t *isolate(vmem_t *vmp, vmem_seg_t *vsp, uintptr_t start, uintptr_t end)
{
    freelist_delete(vmp, vsp);
    if (end < vsp->vs_end) {
        vmem_seg_t *tail = seg_create_after(vmp, vsp, end, vsp->vs_end);
        vsp->vs_end = end;
        freelist_insert(vmp, tail);
        if (vmp->vm_rotor == vsp && vmp->vm_rotor_addr > end)
            vmp->vm_rotor = tail;
    }
    if (start > vsp->vs_start) {
        vmem_seg_t *head = vsp;
        vsp = seg_create_after(vmp, head, start, end);
        head->vs_end = start;
        freelist_insert(vmp, head);
        if (vmp->vm_rotor == head && vmp->vm_rotor_addr > start)
            vmp->vm_rotor = vsp;
    }
    return vsp;
}

/*
 * Take [start, end), free and a part of vsp, out of an imported span of which it is not
 * the whole: the span gets shorter, or becomes two. A rotor that was in it is then at
 * what follows. Takes up to 2 structures.
 */
void vmem_span_cut(vmem_t *vmp, vmem_seg_t *span, vmem_seg_t *vsp, uintptr_t start,
                   uintptr_t end)
{
    vsp = isolate(vmp, vsp, start, end);
    vmem_seg_t *after = vsp->vs_anext;
    vmp->vm_kstat.vk_mem_total -= end - start;
    vmp->vm_kstat.vk_mem_import -= end - start;
    if (start > span->vs_start && end < span->vs_end) {
        vsp->vs_type = VMEM_SPAN;
        vsp->vs_import = 1;
        vsp->vs_start = end;
        vsp->vs_end = span->vs_end;
        vsp->vs_kprev = span;
        vsp->vs_knext = span->vs_knext;
        span->vs_knext->vs_kprev = vsp;
        span->vs_knext = vsp;
        span->vs_end = start;
        if (vmp->vm_rotor == vsp)
            vmp->vm_rotor_addr = end;
        return;
    }
    if (vmp->vm_rotor == vsp || (vmp->vm_rotor == span && start == span->vs_start)) {
        vmp->vm_rotor = after;
        vmp->vm_rotor_addr = after->vs_start;
    }
    if (start == span->vs_start)
        span->vs_start = end;
    else
        span->vs_end = start;
    seg_destroy(vmp, vsp, after);
}

/*
 * Make [start, end), a part of the allocated segment vsp that is in the hash, an
 * allocated segment of its own, and what is left of vsp on either side others. Takes up
 * to 2 structures.
 */
void vmem_seg_split(vmem_t *vmp, vmem_seg_t *vsp, uintptr_t start, uintptr_t end)
{
    const uintptr_t cuts[] = {end, start};

    for (size_t i = 0; i < 2; i++) {
        if (cuts[i] == vsp->vs_start || cuts[i] == vsp->vs_end)
            continue;
        vmem_seg_t *right = seg_create_after(vmp, vsp, cuts[i], vsp->vs_end);
        right->vs_type = VMEM_ALLOC;
        vsp->vs_end = cuts[i];
        if (vmp->vm_rotor == vsp && vmp->vm_rotor_addr > cuts[i])
            vmp->vm_rotor = right;
        vmem_hash_insert(vmp, right);
        vmp->vm_nalloc++;
        vmp->vm_kstat.vk_alloc++;
    }
}

/* Remove a span that is one free segment. */
void vmem_span_destroy(vmem_t *vmp, vmem_seg_t *span)
{
    vmem_seg_t *vsp = span->vs_anext;
    vmem_seg_t *after = vsp->vs_anext;
    size_t size = span->vs_end - span->vs_start;

    vmp->vm_kstat.vk_mem_total -= size;
    if (span->vs_import)
        vmp->vm_kstat.vk_mem_import -= size;
    if (vmp->vm_rotor == span || vmp->vm_rotor == vsp)
        vmp->vm_rotor_addr = after->vs_start;
    freelist_delete(vmp, vsp);
    seg_destroy(vmp, vsp, after);
    span->vs_kprev->vs_knext = span->vs_knext;
    span->vs_knext->vs_kprev = span->vs_kprev;
    seg_destroy(vmp, span, after);
}

/*
 * Cut [start, start + size) out of the free segment vsp, which contains it, and return it
 * as an allocated segment that is not yet in the hash. What is left of vsp on either side
 * stays free. Takes up to 2 structures.
 */
vmem_seg_t *vmem_seg_take(vmem_t *vmp, vmem_seg_t *vsp, uintptr_t start, size_t size)
{
    vsp = isolate(vmp, vsp, start, start + size);
    vsp->vs_type = VMEM_ALLOC;
    vmp->vm_nalloc++;
    vmp->vm_kstat.vk_mem_inuse += size;
    return vsp;
}

/*
 * Make an allocated segment, already out of the hash, free and merge it with its free
 * neighbours. Returns the merged segment.
 */
vmem_seg_t *vmem_seg_release(vmem_t *vmp, vmem_seg_t *vsp)
{
    vmem_seg_t *next = vsp->vs_anext;
    vmem_seg_t *prev = vsp->vs_aprev;

    vmp->vm_nalloc--;
    vmp->vm_kstat.vk_mem_inuse -= vsp->vs_end - vsp->vs_start;
    if (next->vs_type == VMEM_FREE) {
        freelist_delete(vmp, next);
        vsp->vs_end = next->vs_end;
        seg_destroy(vmp, next, vsp);
    }
    if (prev->vs_type == VMEM_FREE) {
        freelist_delete(vmp, prev);
        prev->vs_end = vsp->vs_end;
        seg_destroy(vmp, vsp, prev);
        vsp = prev;
    }
    freelist_insert(vmp, vsp);
    return vsp;
}
