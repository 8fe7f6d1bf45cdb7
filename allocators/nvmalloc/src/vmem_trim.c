/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmem_trim(): imported spans are cut down to what is allocated in them, and the rest
 * goes back to the source. Theory: vmem.c, 11.
 */
#include "vmem_impl.h"

enum { SPLIT_SEGS = 2 }; /* structures that a split in the source takes */

enum step {
    STEP_CUT,  /* a free segment was cut out: it has to be given back */
    STEP_LEFT, /* one was found, but its span is none that can be split */
    STEP_END,  /* there is none any more */
};

typedef struct trim {
    vmem_t *tr_vmp;
    vmem_t *tr_source;
    vmem_cursor_t tr_cursor;
    vmem_seg_t *tr_segs[SPLIT_SEGS]; /* set aside in the source */
    uintptr_t tr_start, tr_end;      /* what was found last */
    bool tr_unfit;                   /* the source's hash should be rescaled */
} trim_t;

pthread_mutex_t vmem_trim_lock = PTHREAD_MUTEX_INITIALIZER;

/* A place to go on from while the lock is dropped, as a walk has one. */
static void cursor_enter(vmem_t *vmp, vmem_cursor_t *cursor)
{
    vmem_lock(vmp);
    cursor->vc_next = vmp->vm_seg0.vs_anext;
    cursor->vc_link = vmp->vm_cursors;
    vmp->vm_cursors = cursor;
    vmem_unlock(vmp);
}

static void cursor_leave(vmem_t *vmp, vmem_cursor_t *cursor)
{
    vmem_lock(vmp);
    vmem_cursor_t **link = &vmp->vm_cursors;
    while (*link != cursor)
        link = &(*link)->vc_link;
    *link = cursor->vc_link;
    vmem_unlock(vmp);
}

/* The tag of the span in which vsp lies. O(segments of the span before it). */
static vmem_seg_t *tag_of(vmem_seg_t *vsp)
{
    while (vsp->vs_type != VMEM_SPAN)
        vsp = vsp->vs_aprev;
    return vsp;
}

/* Set structures aside in the source, none of whose locks is held. */
static bool reserve(vmem_t *source, vmem_seg_t **segs)
{
    vmem_lock(source);
    bool enough = vmem_populate_locked(source);
    for (int i = 0; enough && i < SPLIT_SEGS; i++)
        segs[i] = vmem_getseg(source);
    vmem_unlock(source);
    return enough;
}

static void unreserve(vmem_t *source, vmem_seg_t *const *segs)
{
    for (int i = 0; i < SPLIT_SEGS; i++)
        vmem_putseg(source, segs[i]);
}

/*
 * Under the importer's lock: split the source's segment for `span` where it will be cut.
 * False, and nothing is changed, if the source has no such segment of its own. The
 * structures set aside are used or put back.
 */
static bool split_in_source(trim_t *trim, const vmem_seg_t *span)
{
    vmem_t *source = trim->tr_source;

    vmem_lock(source);
    unreserve(source, trim->tr_segs); /* where the split finds them */
    vmem_seg_t *whole = vmem_hash_find(source, span->vs_start);
    bool found = whole != NULL && whole->vs_end == span->vs_end &&
                 whole->vs_end - whole->vs_start > source->vm_qcache_max;
    if (found)
        vmem_seg_split(source, whole, trim->tr_start, trim->tr_end);
    trim->tr_unfit = vmem_hash_unfit(source);
    vmem_unlock(source);
    return found;
}

/* The source's quanta that lie in vsp; false if there is not one. */
static bool whole_quanta(trim_t *trim, const vmem_seg_t *vsp)
{
    size_t mask = trim->tr_source->vm_quantum - 1;

    trim->tr_start = (vsp->vs_start + mask) & ~mask;
    trim->tr_end = vsp->vs_end & ~mask;
    return trim->tr_start < trim->tr_end;
}

/*
 * Look at the next free segment of an imported span behind the cursor, and cut it out.
 * Its range is then an allocation of the source that is nobody's any more.
 */
static enum step trim_next(trim_t *trim)
{
    vmem_t *vmp = trim->tr_vmp;
    vmem_seg_t *seg0 = &vmp->vm_seg0, *vsp = NULL, *span = NULL;

    vmem_lock(vmp);
    bool found = false, no_segs = !vmem_populate_locked(vmp);
    while (!found && !no_segs && trim->tr_cursor.vc_next != seg0) {
        vsp = trim->tr_cursor.vc_next;
        trim->tr_cursor.vc_next = vsp->vs_anext;
        if (vsp->vs_type == VMEM_SPAN)
            span = vsp;
        else if (span == NULL)
            span = tag_of(vsp);
        found = vsp->vs_type == VMEM_FREE && span->vs_import && whole_quanta(trim, vsp);
    }
    enum step step = STEP_END;
    if (found) {
        step = split_in_source(trim, span) ? STEP_CUT : STEP_LEFT;
        if (step == STEP_CUT)
            vmem_span_cut(vmp, span, vsp, trim->tr_start, trim->tr_end);
    }
    vmem_unlock(vmp);
    return step;
}

size_t vmem_trim(vmem_t *vmp)
{
    trim_t trim = {.tr_vmp = vmp, .tr_source = vmp->vm_source};
    size_t given = 0;
    enum step step = STEP_CUT;

    if (trim.tr_source == NULL)
        return 0;
    vmem_reap(vmp);
    pthread_mutex_lock(&vmem_trim_lock);
    cursor_enter(vmp, &trim.tr_cursor);
    while (step != STEP_END && reserve(trim.tr_source, trim.tr_segs)) {
        step = trim_next(&trim);
        if (step == STEP_CUT) {
            size_t size = trim.tr_end - trim.tr_start;
            vmp->vm_source_free(trim.tr_source, (void *)trim.tr_start, size);
            given += size;
        }
        if (step == STEP_END) {
            vmem_lock(trim.tr_source);
            unreserve(trim.tr_source, trim.tr_segs);
            vmem_unlock(trim.tr_source);
        } else if (trim.tr_unfit) {
            vmem_hash_rescale(trim.tr_source);
        }
    }
    cursor_leave(vmp, &trim.tr_cursor);
    pthread_mutex_unlock(&vmem_trim_lock);
    return given;
}
