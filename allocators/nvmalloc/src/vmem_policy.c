/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which free segment serves a request, and where in it: the constraints and the four
 * policies. Theory: vmem.c, 4 to 6. The searches run under the arena's lock and change
 * nothing but vk_search.
 */
#include "vmem_impl.h"

unsigned vmem_floor_log2(size_t size)
{
    return 63u - (unsigned)__builtin_clzll(size);
}

/* The least x >= addr with x % align == phase, for a power of two `align`; false: none.
 */
static bool align_up(uintptr_t addr, size_t align, size_t phase, uintptr_t *x)
{
    /* Unsigned arithmetic wraps at a multiple of align, so addr < phase needs no case. */
    *x = ((addr - phase + align - 1) & ~(uintptr_t)(align - 1)) + phase;
    return *x >= addr;
}

/*
 * The lowest place in [start, end) that meets the request. A place that crosses a
 * multiple of nocross can only move up to that multiple, and need do so only once: either
 * align < nocross, and the place found there starts at offset `phase` of a block of
 * nocross, in which phase + size has room (vmem_request() saw to that); or align >=
 * nocross, and all places have the same offset in such a block.
 */
bool vmem_fit(const vmem_request_t *req, uintptr_t start, uintptr_t end, uintptr_t *where)
{
    uintptr_t at;

    if (start < req->vr_min)
        start = req->vr_min;
    if (end > req->vr_max)
        end = req->vr_max;
    if (!align_up(start, req->vr_align, req->vr_phase, &at))
        return false;
    if (at >= end || end - at < req->vr_size)
        return false;
    if (req->vr_nocross != 0) {
        uintptr_t mask = ~(uintptr_t)(req->vr_nocross - 1);
        if (((at ^ (at + req->vr_size - 1)) & mask) != 0) {
            uintptr_t boundary = (at + req->vr_size - 1) & mask;
            if (!align_up(boundary, req->vr_align, req->vr_phase, &at))
                return false;
            if (at >= end || end - at < req->vr_size)
                return false;
        }
    }
    *where = at;
    return true;
}

/*
 * How much to import so that the request fits wherever the imported span begins (at a
 * multiple of the quantum). Alignment can push the place up by align - quantum; a
 * boundary then by at most size - quantum + phase more. False: not representable.
 */
bool vmem_import_size(const vmem_t *vmp, const vmem_request_t *req, size_t *size)
{
    size_t total = req->vr_size;
    size_t round = vmp->vm_quantum;

    if (__builtin_add_overflow(total, req->vr_align - vmp->vm_quantum, &total))
        return false;
    if (req->vr_nocross > req->vr_align &&
        __builtin_add_overflow(total, req->vr_size + req->vr_phase, &total))
        return false;
    /* The source rounds up to its quantum anyway: take what it would waste. */
    if (vmp->vm_source != NULL && vmp->vm_source->vm_quantum > round)
        round = vmp->vm_source->vm_quantum;
    if (__builtin_add_overflow(total, round - 1, &total))
        return false;
    *size = total & ~(round - 1);
    return true;
}

/* The first non-empty list at or above `list`; VMEM_FREELISTS, an empty one, if none. */
static unsigned next_list(const vmem_t *vmp, unsigned list)
{
    uint64_t map = list < VMEM_FREELISTS ? vmp->vm_freemap >> list : 0;

    return map == 0 ? VMEM_FREELISTS : list + (unsigned)__builtin_ctzll(map);
}

/*
 * Any segment of a list whose every member must fit will do. Only if there is none look
 * through the lists whose members may fit, smallest first: without that an exactly
 * fitting segment one list below would be missed.
 */
static vmem_seg_t *instant_fit(vmem_t *vmp, const vmem_request_t *req, uintptr_t *where)
{
    size_t need;
    bool bounded = req->vr_min != 0 || req->vr_max != UINTPTR_MAX || req->vr_nocross != 0;

    if (!bounded &&
        !__builtin_add_overflow(req->vr_size, req->vr_align - vmp->vm_quantum, &need)) {
        unsigned list = vmem_floor_log2(need) + !vmem_is_pow2(need);
        vmem_seg_t *vsp = vmp->vm_freelist[next_list(vmp, list)];
        if (vsp != NULL && vmem_fit(req, vsp->vs_start, vsp->vs_end, where))
            return vsp;
    }
    for (unsigned list = next_list(vmp, vmem_floor_log2(req->vr_size));
         list < VMEM_FREELISTS; list = next_list(vmp, list + 1)) {
        for (vmem_seg_t *vsp = vmp->vm_freelist[list]; vsp != NULL; vsp = vsp->vs_knext) {
            vmp->vm_kstat.vk_search++;
            if (vmem_fit(req, vsp->vs_start, vsp->vs_end, where))
                return vsp;
        }
    }
    return NULL;
}

/*
 * A smallest segment in which the request fits: in the first list that has one at all.
 * `ordered`: the one at the lowest address, so an exact fit does not end the search.
 */
static vmem_seg_t *best_fit(vmem_t *vmp, const vmem_request_t *req, bool ordered,
                            uintptr_t *where)
{
    for (unsigned list = next_list(vmp, vmem_floor_log2(req->vr_size));
         list < VMEM_FREELISTS; list = next_list(vmp, list + 1)) {
        vmem_seg_t *best = NULL;
        size_t best_size = SIZE_MAX;
        for (vmem_seg_t *vsp = vmp->vm_freelist[list]; vsp != NULL; vsp = vsp->vs_knext) {
            size_t size = vsp->vs_end - vsp->vs_start;
            uintptr_t at;
            vmp->vm_kstat.vk_search++;
            bool better = size < best_size ||
                          (ordered && size == best_size && vsp->vs_start < *where);
            if (better && vmem_fit(req, vsp->vs_start, vsp->vs_end, &at)) {
                best = vsp;
                best_size = size;
                *where = at;
                if (size == req->vr_size && !ordered)
                    break;
            }
        }
        if (best != NULL)
            return best;
    }
    return NULL;
}

/* The lowest address at which the request fits. O(free segments of at least half its
 * size). */
static vmem_seg_t *first_fit(vmem_t *vmp, const vmem_request_t *req, uintptr_t *where)
{
    vmem_seg_t *first = NULL;
    uintptr_t lowest = UINTPTR_MAX;

    for (unsigned list = next_list(vmp, vmem_floor_log2(req->vr_size));
         list < VMEM_FREELISTS; list = next_list(vmp, list + 1)) {
        for (vmem_seg_t *vsp = vmp->vm_freelist[list]; vsp != NULL; vsp = vsp->vs_knext) {
            uintptr_t at;
            vmp->vm_kstat.vk_search++;
            if (vsp->vs_start < lowest &&
                vmem_fit(req, vsp->vs_start, vsp->vs_end, &at) && at < lowest) {
                first = vsp;
                lowest = at;
            }
        }
    }
    *where = lowest;
    return first;
}

/*
 * The first place at or behind the rotor in the arena's order, round the end if need be.
 * The rotor's own segment comes first with its part behind the rotor, last with all of
 * it.
 */
static vmem_seg_t *next_fit(vmem_t *vmp, const vmem_request_t *req, uintptr_t *where)
{
    vmem_seg_t *rotor = vmp->vm_rotor;

    if (next_list(vmp, vmem_floor_log2(req->vr_size)) == VMEM_FREELISTS)
        return NULL;
    if (rotor->vs_type == VMEM_FREE &&
        vmem_fit(req, vmp->vm_rotor_addr, rotor->vs_end, where))
        return rotor;
    vmem_seg_t *vsp = rotor;
    do {
        vsp = vsp->vs_anext;
        if (vsp->vs_type == VMEM_FREE) {
            vmp->vm_kstat.vk_search++;
            if (vmem_fit(req, vsp->vs_start, vsp->vs_end, where))
                return vsp;
        }
    } while (vsp != rotor);
    return NULL;
}

/* The free segment that the policy in vmflag picks, and the place in it; NULL: none fits.
 */
vmem_seg_t *vmem_search(vmem_t *vmp, const vmem_request_t *req, int vmflag,
                        uintptr_t *where)
{
    if (vmflag & VM_NEXTFIT)
        return next_fit(vmp, req, where);
    if (vmflag & VM_BESTFIT)
        return best_fit(vmp, req, (vmflag & VM_FIRSTFIT) != 0, where);
    if (vmflag & VM_FIRSTFIT)
        return first_fit(vmp, req, where);
    return instant_fit(vmp, req, where);
}
