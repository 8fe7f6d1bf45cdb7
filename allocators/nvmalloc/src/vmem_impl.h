/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of vmem share. The theory is at the top of vmem.c; numbers in brackets
 * refer to its sections.
 */
#ifndef NVMALLOC_VMEM_IMPL_H
#define NVMALLOC_VMEM_IMPL_H

#include "objcache.h"
#include "vmem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define VMEM_FREELISTS    64 /* list i: free segments with 2^i <= size < 2^(i+1) */
#define VMEM_HASH_INITIAL 16

/*
 * Worst case of segment structures that one operation takes, having dropped the arena's
 * lock for the last time: an import makes a span and its free segment (2), and an
 * allocation from the middle of that splits it in three (2 more).
 */
#define VMEM_MINFREE 4
#define VMEM_MAXFREE 64 /* an arena that holds more gives half of them back */

/*
 * Segment structures that only a refill may use: it allocates once from each arena
 * between vmem_seg and the memory, VMEM_MINFREE structures in each. Our own path is 4
 * arenas long (seg, internal, heap, parent); the rest is for import functions that use
 * arenas too.
 */
#define VMEM_CHAIN_MAX 8
#define VMEM_RESERVE   (VMEM_CHAIN_MAX * VMEM_MINFREE)

typedef struct vmem_seg vmem_seg_t;
struct vmem_seg {
    _Alignas(64) uintptr_t vs_start; /* inclusive; one cache line a segment */
    uintptr_t vs_end;                /* exclusive */
    vmem_seg_t *vs_knext;            /* kin: free list, hash chain, or list of spans */
    vmem_seg_t *vs_kprev;            /* not kept in a hash chain */
    vmem_seg_t *vs_anext; /* the arena's list, in address order within a span */
    vmem_seg_t *vs_aprev;
    uint8_t vs_type;   /* VMEM_SPAN, VMEM_ALLOC or VMEM_FREE */
    uint8_t vs_import; /* a span that goes back to the source */
};

_Static_assert(sizeof(vmem_seg_t) == 64, "one cache line");

/* A reentrant walk in progress: the next segment to report. */
typedef struct vmem_cursor vmem_cursor_t;
struct vmem_cursor {
    vmem_seg_t *vc_next;
    vmem_cursor_t *vc_link;
};

/* What an allocation asks for, valid by construction: see vmem_request(). */
typedef struct vmem_request {
    size_t vr_size;
    size_t vr_align;
    size_t vr_phase;
    size_t vr_nocross; /* 0: may cross anything */
    uintptr_t vr_min;
    uintptr_t vr_max; /* UINTPTR_MAX: unbounded */
} vmem_request_t;

struct vmem {
    char vm_name[VMEM_NAMELEN];
    pthread_cond_t vm_cv; /* signalled when vm_freegen moves and vm_nwaiters > 0 */
    pthread_mutex_t vm_lock;
    uint32_t vm_id;
    int vm_cflags; /* VMC_* */
    int vm_qshift; /* log2(vm_quantum) */
    size_t vm_quantum;
    size_t vm_qcache_max; /* a multiple of the quantum; 0: no quantum caches */
    _Atomic uint32_t vm_mtbf;
    uint64_t vm_mtbf_state; /* generator of induced failures */

    vmem_alloc_t *vm_source_alloc; /* one of these two, or neither */
    vmem_ximport_t *vm_source_ximport;
    vmem_free_t *vm_source_free;
    vmem_t *vm_source;
    vmem_t *vm_next; /* list of all arenas */

    size_t vm_nsegfree;
    vmem_seg_t *vm_segfree; /* the arena's own reserve of structures, by vs_knext */

    vmem_seg_t **vm_hash_table;
    size_t vm_hash_mask;
    unsigned vm_hash_shift; /* log2 of the number of buckets */
    bool vm_hash_busy;      /* a rescale is under way */
    unsigned vm_hash_rest;  /* operations to let pass after a rescale found no memory */

    uint64_t vm_freemap;  /* bit i: vm_freelist[i] is not empty */
    vmem_seg_t vm_seg0;   /* anchor of the arena's list; an empty span at 0 */
    vmem_seg_t *vm_rotor; /* the segment in which vm_rotor_addr lies [6] */
    uintptr_t vm_rotor_addr;
    vmem_cursor_t *vm_cursors;

    size_t vm_nalloc; /* allocated segments */
    unsigned vm_nwaiters;
    uint64_t vm_freegen; /* counts events after which a waiter should look again */

    vmem_seg_t *vm_hash0[VMEM_HASH_INITIAL];
    objcache_t *vm_qcache[VMEM_NQCACHE_MAX];
    vmem_seg_t *vm_freelist[VMEM_FREELISTS + 1]; /* the last is always empty [4] */
    vmem_kstat_t vm_kstat;
};

/* vmem_bootstrap.c */
extern pthread_mutex_t vmem_init_lock;
extern pthread_mutex_t vmem_refill_lock;
extern pthread_mutex_t vmem_segfree_lock;
extern vmem_t *vmem_internal_arena;
extern vmem_t *vmem_hash_arena;
extern vmem_t *vmem_meta_arena; /* structures of arenas and caches */
extern vmem_t *vmem_heap_arena;
bool vmem_ready(void); /* sets up the default heap if nothing is set up */
vmem_t *vmem_struct_get(void);
void vmem_struct_put(vmem_t *vmp);
bool vmem_populate_locked(vmem_t *vmp);
bool vmem_is_refilling(void);
vmem_seg_t *vmem_getseg(vmem_t *vmp);
void vmem_putseg(vmem_t *vmp, vmem_seg_t *vsp);
void vmem_drain_segs(vmem_t *vmp);

/* vmem_segment.c; all under vm_lock */
void vmem_seglist_init(vmem_t *vmp);
vmem_seg_t *vmem_span_create(vmem_t *vmp, uintptr_t start, size_t size, bool import);
void vmem_span_destroy(vmem_t *vmp, vmem_seg_t *span);
void vmem_span_extend(vmem_t *vmp, vmem_seg_t *span, size_t size);
void vmem_span_cut(vmem_t *vmp, vmem_seg_t *span, vmem_seg_t *vsp, uintptr_t start,
                   uintptr_t end);
void vmem_seg_split(vmem_t *vmp, vmem_seg_t *vsp, uintptr_t start, uintptr_t end);
vmem_seg_t *vmem_seg_take(vmem_t *vmp, vmem_seg_t *vsp, uintptr_t start, size_t size);
vmem_seg_t *vmem_seg_release(vmem_t *vmp, vmem_seg_t *vsp);

/* vmem_policy.c */
unsigned vmem_floor_log2(size_t size);
bool vmem_fit(const vmem_request_t *req, uintptr_t start, uintptr_t end,
              uintptr_t *where);
vmem_seg_t *vmem_search(vmem_t *vmp, const vmem_request_t *req, int vmflag,
                        uintptr_t *where);
bool vmem_import_size(const vmem_t *vmp, const vmem_request_t *req, size_t *size);

/* vmem_hash.c */
void vmem_hash_init(vmem_t *vmp);
size_t vmem_hash_bucket(const vmem_t *vmp, uintptr_t addr);
void vmem_hash_insert(vmem_t *vmp, vmem_seg_t *vsp);
vmem_seg_t *vmem_hash_remove(vmem_t *vmp, uintptr_t addr);
vmem_seg_t *vmem_hash_find(vmem_t *vmp, uintptr_t addr);
bool vmem_hash_unfit(vmem_t *vmp);
void vmem_hash_rescale(vmem_t *vmp);
void vmem_hash_fini(vmem_t *vmp);

/* vmem.c */
void vmem_lock(vmem_t *vmp);
void vmem_unlock(vmem_t *vmp);
void vmem_wake(vmem_t *vmp);
void *vmem_try_alloc(vmem_t *vmp, size_t size, size_t align);

/* vmem_arena.c */
extern pthread_mutex_t vmem_list_lock;
extern vmem_t *vmem_list;
void vmem_cond_init(pthread_cond_t *cv);
vmem_t *vmem_create_common(const char *name, void *base, size_t size, size_t quantum,
                           vmem_alloc_t *afunc, vmem_ximport_t *xfunc, vmem_free_t *ffunc,
                           vmem_t *source, size_t qcache_max, int vmflag);

/* vmem_trim.c */
extern pthread_mutex_t vmem_trim_lock;

/* vmem_panic.c */
_Noreturn void vmem_panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static inline bool vmem_is_pow2(size_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

#endif
