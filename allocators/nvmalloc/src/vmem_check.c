/* SPDX-License-Identifier: Apache-2.0 */
/* The executable twin of the invariants I1 to I8 (vmem.c, 3). */
#include "vmem_impl.h"

#include <stdarg.h>
#include <sys/mman.h>

typedef struct check {
    vmem_t *ck_vmp;
    char *ck_why;
    size_t ck_len;
    size_t ck_spans, ck_allocs, ck_frees; /* counted on the arena's list */
    uint64_t ck_total, ck_import, ck_inuse;
    bool ck_rotor_seen;
} check_t;

__attribute__((format(printf, 2, 3))) static bool broken(check_t *ck, const char *fmt,
                                                         ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(ck->ck_why, ck->ck_len, fmt, ap);
    va_end(ap);
    return false;
}

static bool check_range(check_t *ck, const vmem_seg_t *vsp)
{
    if (vsp->vs_start == 0 || vsp->vs_start >= vsp->vs_end)
        return broken(ck, "I6: segment [%#zx, %#zx)", vsp->vs_start, vsp->vs_end);
    if (((vsp->vs_start | vsp->vs_end) & (ck->ck_vmp->vm_quantum - 1)) != 0)
        return broken(ck, "I6: segment [%#zx, %#zx) is not of quantum %zu", vsp->vs_start,
                      vsp->vs_end, ck->ck_vmp->vm_quantum);
    return true;
}

/* One span and its segments; *vspp is its tag, and on return the next one. */
static bool check_span(check_t *ck, const vmem_seg_t **vspp)
{
    const vmem_seg_t *span = *vspp;
    const vmem_seg_t *vsp = span->vs_anext;
    uintptr_t at = span->vs_start;

    if (span->vs_type != VMEM_SPAN || !check_range(ck, span))
        return broken(ck, "I1: no span's tag at %#zx", span->vs_start);
    ck->ck_spans++;
    ck->ck_total += span->vs_end - span->vs_start;
    if (span->vs_import)
        ck->ck_import += span->vs_end - span->vs_start;
    for (; vsp->vs_type != VMEM_SPAN; vsp = vsp->vs_anext) {
        if (!check_range(ck, vsp))
            return false;
        if (vsp->vs_start != at || vsp->vs_end > span->vs_end)
            return broken(
                ck, "I1: segment [%#zx, %#zx) where %#zx of span [%#zx, %#zx) is due",
                vsp->vs_start, vsp->vs_end, at, span->vs_start, span->vs_end);
        if (vsp->vs_anext->vs_aprev != vsp)
            return broken(ck, "I1: back link behind %#zx", vsp->vs_start);
        if (vsp->vs_type == VMEM_FREE && vsp->vs_aprev->vs_type == VMEM_FREE)
            return broken(ck, "I2: two free segments touch at %#zx", vsp->vs_start);
        if (vsp->vs_type == VMEM_FREE && span->vs_import && vsp->vs_end == span->vs_end &&
            vsp->vs_start == span->vs_start)
            return broken(ck, "I7: imported span %#zx is all free", span->vs_start);
        ck->ck_frees += vsp->vs_type == VMEM_FREE;
        ck->ck_allocs += vsp->vs_type == VMEM_ALLOC;
        if (vsp->vs_type == VMEM_ALLOC)
            ck->ck_inuse += vsp->vs_end - vsp->vs_start;
        ck->ck_rotor_seen |= vsp == ck->ck_vmp->vm_rotor;
        at = vsp->vs_end;
    }
    if (at != span->vs_end)
        return broken(ck, "I1: span [%#zx, %#zx) is tiled up to %#zx only",
                      span->vs_start, span->vs_end, at);
    ck->ck_rotor_seen |= span == ck->ck_vmp->vm_rotor;
    *vspp = vsp;
    return true;
}

static bool check_freelists(check_t *ck)
{
    const vmem_t *vmp = ck->ck_vmp;
    size_t frees = 0;

    for (unsigned i = 0; i <= VMEM_FREELISTS; i++) {
        const vmem_seg_t *prev = NULL;
        bool bit = i < VMEM_FREELISTS && (vmp->vm_freemap >> i & 1) != 0;
        if (bit != (vmp->vm_freelist[i] != NULL))
            return broken(ck, "I3: bitmap and free list %u disagree", i);
        for (const vmem_seg_t *vsp = vmp->vm_freelist[i]; vsp != NULL;
             vsp = vsp->vs_knext) {
            size_t size = vsp->vs_end - vsp->vs_start;
            if (vsp->vs_type != VMEM_FREE || vsp->vs_kprev != prev ||
                vmem_floor_log2(size) != i)
                return broken(ck, "I3: segment [%#zx, %#zx) on free list %u",
                              vsp->vs_start, vsp->vs_end, i);
            prev = vsp;
            if (++frees > ck->ck_frees)
                return broken(ck, "I3: more on the free lists than %zu", ck->ck_frees);
        }
    }
    if (frees != ck->ck_frees)
        return broken(ck, "I3: %zu on the free lists of %zu free segments", frees,
                      ck->ck_frees);
    return true;
}

static bool check_hash(check_t *ck)
{
    const vmem_t *vmp = ck->ck_vmp;
    size_t allocs = 0;

    for (size_t i = 0; i <= vmp->vm_hash_mask; i++) {
        for (const vmem_seg_t *vsp = vmp->vm_hash_table[i]; vsp != NULL;
             vsp = vsp->vs_knext) {
            if (vsp->vs_type != VMEM_ALLOC || vmem_hash_bucket(vmp, vsp->vs_start) != i)
                return broken(ck, "I4: segment [%#zx, %#zx) in bucket %zu", vsp->vs_start,
                              vsp->vs_end, i);
            if (++allocs > ck->ck_allocs)
                return broken(ck, "I4: more in the hash than %zu", ck->ck_allocs);
        }
    }
    if (allocs != ck->ck_allocs || vmp->vm_nalloc != allocs ||
        vmp->vm_kstat.vk_alloc - vmp->vm_kstat.vk_free != allocs)
        return broken(ck, "I4: %zu allocated, %zu in the hash, vm_nalloc %zu",
                      ck->ck_allocs, allocs, vmp->vm_nalloc);
    return true;
}

static bool check_span_list(check_t *ck)
{
    const vmem_seg_t *seg0 = &ck->ck_vmp->vm_seg0;
    size_t spans = 0;

    for (const vmem_seg_t *a = seg0->vs_knext; a != seg0; a = a->vs_knext) {
        if (++spans > ck->ck_spans || a->vs_type != VMEM_SPAN)
            return broken(ck, "I1: the list of spans is not that of the arena");
    }
    if (spans != ck->ck_spans)
        return broken(ck, "I1: %zu spans listed of %zu", spans, ck->ck_spans);
    return true;
}

static bool starts_before(const vmem_seg_t *a, const vmem_seg_t *b)
{
    return a->vs_start < b->vs_start;
}

/* Restores the heap order (the latest start on top) below `at`. */
static void sift_down(const vmem_seg_t **tag, size_t at, size_t n)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && starts_before(tag[child], tag[child + 1]))
            child++;
        if (!starts_before(tag[at], tag[child]))
            return;
        const vmem_seg_t *upper = tag[at];
        tag[at] = tag[child];
        tag[child] = upper;
    }
}

/* Heapsort by start: in place, since qsort() may call malloc. */
static void sort_tags(const vmem_seg_t **tag, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(tag, i, n);
    while (n > 1) {
        const vmem_seg_t *top = tag[0];
        tag[0] = tag[--n];
        tag[n] = top;
        sift_down(tag, 0, n);
    }
}

/* The list of spans is sound already. The array comes from the kernel: the arena may be
   one that vmem feeds itself from. */
static bool check_disjoint(check_t *ck)
{
    const vmem_seg_t *seg0 = &ck->ck_vmp->vm_seg0;
    size_t n = 0, bytes = (ck->ck_spans + 1) * sizeof(const vmem_seg_t *);
    const vmem_seg_t **tag =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool good = true;

    if (tag == MAP_FAILED)
        return broken(ck, "I6: no memory to look at %zu spans", ck->ck_spans);
    for (const vmem_seg_t *a = seg0->vs_knext; a != seg0; a = a->vs_knext)
        tag[n++] = a;
    sort_tags(tag, n);
    for (size_t i = 1; good && i < n; i++)
        if (tag[i - 1]->vs_end > tag[i]->vs_start)
            good = broken(ck, "I6: spans at %#zx and %#zx overlap", tag[i - 1]->vs_start,
                          tag[i]->vs_start);
    munmap(tag, bytes);
    return good;
}

static bool check_sums(check_t *ck)
{
    const vmem_t *vmp = ck->ck_vmp;
    const vmem_kstat_t *ks = &vmp->vm_kstat;
    const vmem_seg_t *rotor = vmp->vm_rotor;

    if (ks->vk_mem_total != ck->ck_total || ks->vk_mem_import != ck->ck_import ||
        ks->vk_mem_inuse != ck->ck_inuse)
        return broken(ck,
                      "I5: counters and segments disagree on total, import or in use");
    if (rotor != &vmp->vm_seg0 && !ck->ck_rotor_seen)
        return broken(ck, "I8: the rotor is on no segment of the arena");
    if (vmp->vm_rotor_addr < rotor->vs_start || vmp->vm_rotor_addr > rotor->vs_end)
        return broken(ck, "I8: rotor %#zx outside of its segment [%#zx, %#zx)",
                      vmp->vm_rotor_addr, rotor->vs_start, rotor->vs_end);
    return true;
}

bool vmem_check(vmem_t *vmp, char *why, size_t len)
{
    check_t ck = {.ck_vmp = vmp, .ck_why = why, .ck_len = len};
    bool good = true;

    vmem_lock(vmp);
    for (const vmem_seg_t *vsp = vmp->vm_seg0.vs_anext; good && vsp != &vmp->vm_seg0;)
        good = check_span(&ck, &vsp);
    good = good && check_freelists(&ck) && check_hash(&ck) && check_span_list(&ck) &&
           check_disjoint(&ck) && check_sums(&ck);
    vmem_unlock(vmp);
    return good;
}
