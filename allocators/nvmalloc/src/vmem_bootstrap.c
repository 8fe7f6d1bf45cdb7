/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How vmem feeds itself: static pools to begin with, then arenas of its own over a heap,
 * and the refill of segment structures. Theory: vmem.c, 8.
 */
#include "vmem_impl.h"

#include "objcache_impl.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define VMEM_INITIAL 8 /* arenas: parent, heap, internal, seg, hash, meta; 2 spare */
#define VMEM_SEG_INITIAL                                                                 \
    256 /* > 6 arenas x (a span and VMEM_MINFREE), + VMEM_RESERVE                        \
         */
#define VMEM_SEG_CHUNK ((size_t)16384)
#define VMEM_PAGE      ((size_t)4096)
#define VMEM_MMAP_STEP ((size_t)256 << 10)
#define VMEM_HUGE_PAGE ((size_t)2 << 20)
#define VMEM_BATCH     16 /* structures that an arena fetches at once */

vmem_t *vmem_heap_arena;
vmem_t *vmem_internal_arena;
vmem_t *vmem_hash_arena;
vmem_t *vmem_meta_arena;
static vmem_t *vmem_seg_arena;

static vmem_t vmem0[VMEM_INITIAL];
static unsigned vmem0_used;
static vmem_seg_t vmem_seg0[VMEM_SEG_INITIAL];

pthread_mutex_t vmem_init_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool initialised;
static bool failed; /* a heap without memory for even the first structures: for good */

pthread_mutex_t vmem_segfree_lock = PTHREAD_MUTEX_INITIALIZER;
static vmem_seg_t *segfree;
static size_t nsegfree;

pthread_mutex_t vmem_refill_lock = PTHREAD_MUTEX_INITIALIZER;
/* Static TLS: the dynamic kind may call malloc at first use. */
static _Thread_local bool refilling __attribute__((tls_model("initial-exec")));

bool vmem_is_refilling(void)
{
    return refilling;
}

static void segs_put_global(vmem_seg_t *first, vmem_seg_t *last, size_t n)
{
    pthread_mutex_lock(&vmem_segfree_lock);
    last->vs_knext = segfree;
    segfree = first;
    nsegfree += n;
    pthread_mutex_unlock(&vmem_segfree_lock);
}

static void segs_put_array(vmem_seg_t *seg, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        seg[i].vs_knext = &seg[i + 1];
    segs_put_global(&seg[0], &seg[n - 1], n);
}

/* Move structures to the arena until it has `want`; the last VMEM_RESERVE are a refill's.
 */
static bool segs_get_global(vmem_t *vmp, size_t want)
{
    pthread_mutex_lock(&vmem_segfree_lock);
    while (vmp->vm_nsegfree < want && nsegfree > (refilling ? 0 : VMEM_RESERVE)) {
        vmem_seg_t *vsp = segfree;
        segfree = vsp->vs_knext;
        nsegfree--;
        vsp->vs_knext = vmp->vm_segfree;
        vmp->vm_segfree = vsp;
        vmp->vm_nsegfree++;
    }
    pthread_mutex_unlock(&vmem_segfree_lock);
    return vmp->vm_nsegfree >= VMEM_MINFREE;
}

/* Make a chunk of new structures. No arena lock is held. One thread at a time. */
static bool refill(void)
{
    vmem_seg_t *chunk = NULL;
    bool enough;

    pthread_mutex_lock(&vmem_refill_lock);
    pthread_mutex_lock(&vmem_segfree_lock);
    enough = nsegfree > VMEM_RESERVE + VMEM_BATCH;
    pthread_mutex_unlock(&vmem_segfree_lock);
    if (!enough && vmem_seg_arena != NULL) {
        refilling = true;
        chunk =
            vmem_xalloc(vmem_seg_arena, VMEM_SEG_CHUNK, 0, 0, 0, NULL, NULL, VM_NOSLEEP);
        refilling = false;
        if (chunk != NULL)
            segs_put_array(chunk, VMEM_SEG_CHUNK / sizeof(vmem_seg_t));
    }
    pthread_mutex_unlock(&vmem_refill_lock);
    return enough || chunk != NULL;
}

/*
 * With the arena's lock held, which may be dropped meanwhile: see to it that the arena
 * holds VMEM_MINFREE structures on return. False if no memory can be had for them.
 */
bool vmem_populate_locked(vmem_t *vmp)
{
    while (vmp->vm_nsegfree < VMEM_MINFREE) {
        if (segs_get_global(vmp, refilling ? VMEM_MINFREE : VMEM_BATCH))
            break;
        if (refilling)
            vmem_panic(
                "arena \"%s\": no segment structures left during a refill: more than "
                "%d arenas between vmem_seg and the heap's memory",
                vmp->vm_name, VMEM_CHAIN_MAX);
        vmem_unlock(vmp);
        bool more = refill();
        vmem_lock(vmp);
        if (!more && vmp->vm_nsegfree < VMEM_MINFREE) {
            vmp->vm_kstat.vk_populate_fail++;
            return false;
        }
    }
    return true;
}

vmem_seg_t *vmem_getseg(vmem_t *vmp)
{
    vmem_seg_t *vsp = vmp->vm_segfree;

    vmp->vm_segfree = vsp->vs_knext;
    vmp->vm_nsegfree--;
    return vsp;
}

static void segs_spill(vmem_t *vmp, size_t keep)
{
    vmem_seg_t *first = vmp->vm_segfree;
    vmem_seg_t *last = first;
    size_t n = vmp->vm_nsegfree - keep;

    for (size_t i = 1; i < n; i++)
        last = last->vs_knext;
    vmp->vm_segfree = last->vs_knext;
    vmp->vm_nsegfree = keep;
    segs_put_global(first, last, n);
}

void vmem_putseg(vmem_t *vmp, vmem_seg_t *vsp)
{
    vsp->vs_knext = vmp->vm_segfree;
    vmp->vm_segfree = vsp;
    if (++vmp->vm_nsegfree > VMEM_MAXFREE)
        segs_spill(vmp, VMEM_MAXFREE / 2);
}

void vmem_drain_segs(vmem_t *vmp)
{
    if (vmp->vm_nsegfree > 0)
        segs_spill(vmp, 0);
}

/* Room for an arena: static until vmem_meta_arena exists. NULL: ENOMEM. */
vmem_t *vmem_struct_get(void)
{
    if (vmem_meta_arena != NULL)
        return vmem_alloc(vmem_meta_arena, sizeof(vmem_t), VM_NOSLEEP);
    return vmem0_used < VMEM_INITIAL ? &vmem0[vmem0_used++] : NULL;
}

/* The arenas of the static pool are our own and live as long as the process. */
void vmem_struct_put(vmem_t *vmp)
{
    vmem_free(vmem_meta_arena, vmp, sizeof(*vmp));
}

/* Anonymous memory at a multiple of `align`; NULL: none. */
static void *map_aligned(size_t size, size_t align)
{
    size_t room;

    if (__builtin_add_overflow(size, align - VMEM_PAGE, &room))
        return NULL;
    char *p =
        mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    char *aligned = (char *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
    if (aligned > p)
        munmap(p, (size_t)(aligned - p));
    if (aligned + size < p + room)
        munmap(aligned + size, (size_t)(p + room - (aligned + size)));
    return aligned;
}

static _Atomic size_t mmap_total;

/*
 * The default heap: memory in steps that amortise the system call. A heap that has grown
 * large grows by huge pages: segment structures are visited in no order, and a miss of
 * the TLB costs as much as one of the cache.
 */
static void *mmap_import(vmem_t *source, size_t *size, size_t align, int vmflag)
{
    bool large =
        atomic_load(&mmap_total) >= 4 * VMEM_HUGE_PAGE || *size >= VMEM_HUGE_PAGE;
    size_t step = large ? VMEM_HUGE_PAGE : VMEM_MMAP_STEP;
    size_t want;

    (void)source;
    (void)vmflag;
    if (__builtin_add_overflow(*size, step - 1, &want))
        return NULL;
    want &= ~(step - 1);
    if (large && align < VMEM_HUGE_PAGE)
        align = VMEM_HUGE_PAGE;
    void *p = map_aligned(want, align);
    if (p == NULL)
        return NULL;
    if (large)
        madvise(p, want, MADV_HUGEPAGE); /* a wish; without it all works too */
    atomic_fetch_add(&mmap_total, want);
    *size = want;
    return p;
}

static void mmap_return(vmem_t *source, void *addr, size_t size)
{
    (void)source;
    if (munmap(addr, size) != 0)
        vmem_panic("munmap(%p, %zu) failed: errno %d", addr, size, errno);
    atomic_fetch_sub(&mmap_total, size);
}

static vmem_t *own_arena(const char *name, size_t quantum, vmem_t *source)
{
    return vmem_create_common(name, NULL, 0, quantum, vmem_alloc, NULL, vmem_free, source,
                              0, VM_NOSLEEP | VMC_POPULATOR | VMC_NO_QCACHE);
}

/* The arenas of vmem itself above a heap. The heap exists; failure leaves nothing usable.
 */
static bool start(vmem_t *heap)
{
    vmem_heap_arena = heap;
    vmem_internal_arena = own_arena("vmem_internal", VMEM_PAGE, heap);
    vmem_seg_arena = own_arena("vmem_seg", VMEM_PAGE, vmem_internal_arena);
    vmem_hash_arena = own_arena("vmem_hash", 64, vmem_internal_arena);
    vmem_meta_arena = own_arena("vmem_meta", 64, vmem_internal_arena);
    return objcache_start();
}

static vmem_t *start_default(void)
{
    segs_put_array(vmem_seg0, VMEM_SEG_INITIAL);
    vmem_t *heap = vmem_create_common("vmem_heap", NULL, 0, VMEM_PAGE, NULL, mmap_import,
                                      mmap_return, NULL, 0,
                                      VM_NOSLEEP | VMC_POPULATOR | VMC_NO_QCACHE);
    return start(heap) ? heap : NULL;
}

bool vmem_ready(void)
{
    if (atomic_load_explicit(&initialised, memory_order_acquire))
        return true;
    return vmem_init(NULL, 0, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL) != NULL;
}

static vmem_t *start_given(const char *parent_name, size_t parent_quantum,
                           vmem_alloc_t *parent_alloc, vmem_free_t *parent_free,
                           const char *heap_name, void *heap_start, size_t heap_size,
                           size_t heap_quantum, vmem_alloc_t *heap_alloc,
                           vmem_free_t *heap_free)
{
    const int flags = VM_NOSLEEP | VMC_POPULATOR | VMC_NO_QCACHE;
    vmem_t *parent = NULL;

    segs_put_array(vmem_seg0, VMEM_SEG_INITIAL);
    if (parent_name != NULL)
        parent = vmem_create_common(parent_name, NULL, 0, parent_quantum, parent_alloc,
                                    NULL, parent_free, NULL, 0, flags);
    if (parent != NULL && heap_alloc == NULL) {
        heap_alloc = vmem_alloc;
        heap_free = vmem_free;
    }
    vmem_t *heap = vmem_create_common(heap_name, heap_start, heap_size, heap_quantum,
                                      heap_alloc, NULL, heap_free, parent, 0, flags);
    return start(heap) ? heap : NULL;
}

static bool range_ok(const void *start, size_t size, size_t quantum)
{
    uintptr_t end;

    return size == 0 ||
           (start != NULL && (((uintptr_t)start | size) & (quantum - 1)) == 0 &&
            !__builtin_add_overflow((uintptr_t)start, size, &end));
}

static bool heap_args_ok(const char *parent_name, size_t parent_quantum,
                         vmem_alloc_t *parent_alloc, const void *heap_start,
                         size_t heap_size, size_t heap_quantum, vmem_alloc_t *heap_alloc)
{
    if (parent_name != NULL && (!vmem_is_pow2(parent_quantum) || parent_alloc == NULL))
        return false;
    if (!vmem_is_pow2(heap_quantum) || heap_quantum < VMEM_PAGE)
        return false;
    if (heap_size == 0 && heap_alloc == NULL && parent_name == NULL)
        return false;
    return range_ok(heap_start, heap_size, heap_quantum);
}

vmem_t *vmem_init(const char *parent_name, size_t parent_quantum,
                  vmem_alloc_t *parent_alloc, vmem_free_t *parent_free,
                  const char *heap_name, void *heap_start, size_t heap_size,
                  size_t heap_quantum, vmem_alloc_t *heap_alloc, vmem_free_t *heap_free)
{
    bool by_default = parent_name == NULL && heap_name == NULL;
    vmem_t *heap = NULL;

    pthread_mutex_lock(&vmem_init_lock);
    if (atomic_load_explicit(&initialised, memory_order_relaxed)) {
        if (by_default)
            heap = vmem_heap_arena;
        else
            errno = EBUSY;
    } else if (failed) {
        errno = ENOMEM;
    } else if (by_default) {
        heap = start_default();
        failed = heap == NULL;
    } else if (heap_name == NULL ||
               !heap_args_ok(parent_name, parent_quantum, parent_alloc, heap_start,
                             heap_size, heap_quantum, heap_alloc)) {
        errno = EINVAL;
    } else {
        heap =
            start_given(parent_name, parent_quantum, parent_alloc, parent_free, heap_name,
                        heap_start, heap_size, heap_quantum, heap_alloc, heap_free);
        failed = heap == NULL;
    }
    if (heap != NULL)
        atomic_store_explicit(&initialised, true, memory_order_release);
    pthread_mutex_unlock(&vmem_init_lock);
    return heap;
}
