/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmem: the theory, and allocation and freeing.
 *
 * After J. Bonwick and J. Adams, "Magazines and Vmem: Extending the Slab Allocator to
 * Many CPUs and Arbitrary Resources", USENIX 2001. Written from the concept.
 *
 * 1. The model
 *
 *    An arena is a set of disjoint *spans*, ranges of integers. Each span is tiled by
 *    *segments* that are allocated or free. To allocate is to turn (a part of) a free
 *    segment into an allocated one; to free is to turn it back and to merge it with its
 *    free neighbours in the same span, at once, always. Everything is a multiple of the
 *    arena's quantum, a power of two.
 *
 *    Spans are given by hand (vmem_add) or imported from a source when nothing fits. An
 *    imported span goes back to its source in the operation that makes it one free
 *    segment again. Since arenas can be sources, they form a tree; a child's imported
 *    spans are exactly allocated segments of its parent.
 *
 * 2. Representation
 *
 *    A segment is a struct vmem_seg, kept outside of the range it describes, on two
 *    lists:
 *
 *      the arena's list: circular through the anchor vm_seg0; each span's tag is
 *      followed by the span's segments in address order, so neighbours are found in
 *      O(1) (boundary tags); spans come in the order in which they were added;
 *
 *      the list of its kin: one of 64 free lists; or a hash chain if allocated; or the
 *      list of spans.
 *
 *      seg0 <-> [span 100..200) <-> [free 100..120) <-> [alloc 120..200) <-> [span ...
 *
 * 3. Invariants, at every release of an arena's lock (vmem_check() tests each)
 *
 *    I1  between a span's tag and the next tag the segments tile the span exactly
 *    I2  no two segments that touch each other are both free
 *    I3  a free segment of size s is on the list floor(log2 s), and on no other; bit
 *        i of vm_freemap is set if and only if list i is not empty
 *    I4  the hash holds exactly the allocated segments: vm_nalloc = vk_alloc -
 *        vk_free
 *    I5  vk_mem_total = sum of spans, vk_mem_import = sum of imported spans,
 *        vk_mem_inuse = sum of allocated segments
 *    I6  starts and ends are multiples of the quantum; no span starts at 0; spans are
 *        disjoint
 *    I7  no imported span consists of one free segment
 *    I8  the rotor's address lies in its segment: vs_start <= vm_rotor_addr <= vs_end
 *
 * 4. Free lists and instant fit
 *
 *    On list i all sizes lie in [2^i, 2^(i+1)). So every segment on the lists from
 *    ceil(log2 n) up holds n, and the bitmap names the first such list that isn't empty
 *    in one instruction: constant time, and a good approximation of best fit. Only when
 *    those lists are empty the one at floor(log2 n) is searched, whose members may or
 *    may not fit. So an allocation never fails, and never imports, while a fitting
 *    segment is free. There are 64 lists for the 64 possible values of floor(log2 s),
 *    and a 65th that is always empty: where searches end.
 *
 *    Alignment up to `align` costs at most align - quantum, so an aligned request is an
 *    instant fit of size + align - quantum. Bounds and boundaries can't be had that
 *    way: such requests look at the segments on each list from floor(log2 n) up.
 *
 *    VM_BESTFIT takes a smallest segment in which the request fits: the first list from
 *    below that has one has the smallest. VM_FIRSTFIT takes the lowest possible address
 *    and looks at all free segments that may be large enough; a tree by address would
 *    make that logarithmic, and every other operation slower.
 *
 * 5. The hash of allocated segments
 *
 *    By start address; gives a free its segment in O(1), and proof that address and
 *    size are right. Rescaled to one bucket a segment when the load leaves 1/8 .. 1, by
 *    the operation that finds it so, after it dropped the lock; amortised O(1). (A
 *    rescale by a timer alone, as in the original, depends on somebody's calling it.)
 *    Small tables shrink in vmem_update() only: an arena that swings between none and
 *    some tens of segments would rescale all the time.
 *
 * 6. Next fit, and walks that let go of the lock
 *
 *    The rotor is no segment on the arena's list, which would lie between two
 *    neighbours and keep them apart, but a place: a segment and an address in it. When
 *    that segment is merged into another, the rotor is in that one; when its span goes,
 *    it is at the next. A reentrant walk is such a place too, the segment to report
 *    next; when that vanishes, its successor is.
 *
 * 7. Sleeping
 *
 *    vm_freegen counts the events that can make a failed allocation succeed: frees and
 *    new spans. A search that fails notes it under the same lock, and the sleeper waits
 *    until it moves; so no wake-up is lost. Sources are asked with VM_NOSLEEP, never
 *    slept in: a thread asleep in the source would miss what is freed here. As a source
 *    (any function) can't tell when it has more, and an object can be freed into a
 *    quantum cache without the arena's noticing, sleepers of arenas with either look
 *    again after 1 ms, 2 ms, ... at most 32 ms.
 *
 * 8. Bootstrapping: how vmem feeds itself
 *
 *    No malloc anywhere: vmem may be what malloc stands on. The first arenas and
 *    segment structures lie in static pools. Above the heap (memory from mmap, or the
 *    caller's) are vmem's own arenas: vmem_internal imports from the heap; from it
 *    vmem_seg (segment structures), vmem_hash (tables), vmem_meta (arenas and caches).
 *
 *    An arena keeps a reserve of structures and fills it up to VMEM_MINFREE before each
 *    operation, so that the operation itself can't fail for want of one. The reserve is
 *    filled from a global list; when that is down to VMEM_RESERVE, the thread drops the
 *    arena's lock and refills: allocates a chunk from vmem_seg. That again is an
 *    operation on arenas which need structures: the refilling thread, one at a time,
 *    may take the last VMEM_RESERVE, which are counted out for exactly that. Then the
 *    recursion ends. Chunks of structures are kept for ever (their number is a
 *    high-water mark).
 *
 *    VMC_POPULATOR marks the arenas between vmem_seg and the memory: their reserves are
 *    filled at creation.
 *
 * 9. Locks, in the order in which they may be taken
 *
 *      0. vmem_trim_lock
 *      1. vmem_init_lock      2. list of caches       3. list of arenas
 *      4. a cache's CPU lock, its depot lock, its slab lock; then those of a cache of
 *         magazines, which has no CPU locks
 *      5. vmem_refill_lock    6. one arena's vm_lock  7. vmem_segfree_lock,
 *         pool of slab tags
 *
 *    A thread holds at most one arena's lock, but for vmem_trim(), which takes the
 *    source's while it holds the importer's (11); and none while it calls import and
 *    return functions, walkers with VMEM_REENTRANT, or visitors.
 *
 * 10. Quantum caches
 *
 *    One object cache (objcache.c) for each size of 1, 2, ... up to 16 quanta that
 *    qcache_max covers, over slabs from this very arena. If no slab can be had, the
 *    size is taken from the arena directly; the slab layer knows such objects by their
 *    lying in no slab. Before an allocation fails, the arena's own caches are emptied
 *    once.
 *
 * 11. Trimming
 *
 *    An import goes back when it is whole; one small allocation keeps the rest of it
 *    from the source's other customers. vmem_trim() is for a source that runs dry: it
 *    cuts each imported span down to its allocated runs, in the source's quanta. In the
 *    source the span is one allocated segment, which is split at the same places, so
 *    that after each cut a child's spans are allocated segments of the parent again.
 *    Both must change in one step (an import that became whole in between would go back
 *    as what it no longer is), so the importer's lock is held while the source's is
 *    taken. That order is that of the list of arenas, newest first, in which
 *    vmem_lockup() takes them all: a source is older than what imports from it. The
 *    source's segment structures are set aside before.
 */
#include "vmem_impl.h"

#include "objcache_impl.h"

#include <errno.h>
#include <time.h>

#define WAIT_FIRST_NS (1000 * 1000)
#define WAIT_MAX_NS   (32 * WAIT_FIRST_NS)

void vmem_lock(vmem_t *vmp)
{
    pthread_mutex_lock(&vmp->vm_lock);
}

void vmem_unlock(vmem_t *vmp)
{
    pthread_mutex_unlock(&vmp->vm_lock);
}

/* Something was freed or added; under the lock. */
void vmem_wake(vmem_t *vmp)
{
    vmp->vm_freegen++;
    if (vmp->vm_nwaiters > 0)
        pthread_cond_broadcast(&vmp->vm_cv);
}

static bool is_importing(const vmem_t *vmp)
{
    return vmp->vm_source_alloc != NULL || vmp->vm_source_ximport != NULL;
}

/*
 * Sleep until vm_freegen has moved on from `gen`; no longer than *timeout ns where things
 * can change without its moving [7]. Doubles *timeout.
 */
static void wait_for_change(vmem_t *vmp, uint64_t gen, long *timeout, bool for_segs)
{
    bool timed = for_segs || is_importing(vmp) || vmp->vm_qcache_max != 0;
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += *timeout;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    if (*timeout < WAIT_MAX_NS)
        *timeout *= 2;
    vmem_lock(vmp);
    vmp->vm_nwaiters++;
    if (for_segs)
        vmp->vm_kstat.vk_populate_wait++;
    else
        vmp->vm_kstat.vk_wait++;
    while (vmp->vm_freegen == gen && rc == 0) {
        if (timed)
            rc = pthread_cond_timedwait(&vmp->vm_cv, &vmp->vm_lock, &until);
        else
            pthread_cond_wait(&vmp->vm_cv, &vmp->vm_lock);
    }
    vmp->vm_nwaiters--;
    vmem_unlock(vmp);
}

/* Fetch a span for the request from the source. No lock is held. */
static void *import_span(vmem_t *vmp, const vmem_request_t *req, size_t *size)
{
    void *addr;

    if (req->vr_min != 0 || req->vr_max != UINTPTR_MAX ||
        !vmem_import_size(vmp, req, size))
        return NULL;
    if (vmp->vm_source_ximport != NULL) {
        size_t align = vmp->vm_quantum;
        if (req->vr_align > align && req->vr_phase == 0 &&
            req->vr_nocross <= req->vr_align) {
            align = req->vr_align; /* a source that aligns makes the slack unnecessary */
            *size = req->vr_size;
        }
        addr = vmp->vm_source_ximport(vmp->vm_source, size, align, VM_NOSLEEP);
    } else {
        addr = vmp->vm_source_alloc(vmp->vm_source, *size, VM_NOSLEEP);
    }
    if (addr == NULL)
        return NULL;
    uintptr_t start = (uintptr_t)addr, end;
    if (((start | *size) & (vmp->vm_quantum - 1)) != 0 ||
        __builtin_add_overflow(start, *size, &end))
        vmem_panic(
            "arena \"%s\": its import function gave [%p, +%zu), which is not a range of "
            "multiples of the quantum %zu",
            vmp->vm_name, addr, *size, vmp->vm_quantum);
    return addr;
}

static void return_span(vmem_t *vmp, void *addr, size_t size)
{
    vmp->vm_source_free(vmp->vm_source, addr, size);
}

/* Turn the place found into an allocated segment, and drop the lock. */
static void *commit(vmem_t *vmp, const vmem_request_t *req, int vmflag, vmem_seg_t *vsp,
                    uintptr_t where)
{
    vsp = vmem_seg_take(vmp, vsp, where, req->vr_size);
    vmem_hash_insert(vmp, vsp);
    vmp->vm_kstat.vk_alloc++;
    if (vmflag & VM_NEXTFIT) {
        vmp->vm_rotor = vsp;
        vmp->vm_rotor_addr = vsp->vs_end;
    }
    bool unfit = vmem_hash_unfit(vmp);
    vmem_unlock(vmp);
    if (unfit)
        vmem_hash_rescale(vmp);
    return (void *)where;
}

/*
 * With the lock held, which is dropped meanwhile: import for the request. The free
 * segment of the new span and the place in it; NULL if there is none, the span then went
 * back.
 */
static vmem_seg_t *search_import(vmem_t *vmp, const vmem_request_t *req, uintptr_t *where,
                                 bool *no_segs)
{
    size_t size;

    vmem_unlock(vmp);
    void *addr = import_span(vmp, req, &size);
    vmem_lock(vmp);
    if (addr == NULL)
        return NULL;
    uintptr_t start = (uintptr_t)addr;
    *no_segs = !vmem_populate_locked(vmp);
    /* The import function may have given less than asked, or elsewhere: don't trust it.
     */
    if (!*no_segs && start != 0 && vmem_fit(req, start, start + size, where))
        return vmem_span_create(vmp, start, size, true);
    vmem_unlock(vmp);
    return_span(vmp, addr, size);
    vmem_lock(vmp);
    return NULL;
}

/*
 * One attempt, without waiting and without counting a failure. On failure *gen is the
 * generation at which nothing fitted, *no_segs tells that segment structures lacked.
 */
static void *try_request(vmem_t *vmp, const vmem_request_t *req, int vmflag,
                         uint64_t *gen, bool *no_segs)
{
    uintptr_t where;
    vmem_seg_t *vsp = NULL;

    vmem_lock(vmp);
    *no_segs = !vmem_populate_locked(vmp);
    if (!*no_segs) {
        vsp = vmem_search(vmp, req, vmflag, &where);
        if (vsp == NULL && is_importing(vmp)) {
            vsp = search_import(vmp, req, &where, no_segs);
            /* The lock was away: look again, so that `gen` is that of a failed search. */
            if (vsp == NULL && vmem_populate_locked(vmp))
                vsp = vmem_search(vmp, req, vmflag, &where);
        }
    }
    if (vsp != NULL)
        return commit(vmp, req, vmflag, vsp, where);
    *gen = vmp->vm_freegen;
    vmem_unlock(vmp);
    return NULL;
}

/* splitmix64 (S. Vigna, public domain algorithm). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static bool induced_failure(vmem_t *vmp, int vmflag)
{
    uint32_t mtbf = atomic_load_explicit(&vmp->vm_mtbf, memory_order_relaxed);

    if (mtbf == 0 || (vmflag & (VM_NOSLEEP | VM_PANIC)) != VM_NOSLEEP)
        return false;
    vmem_lock(vmp);
    bool fail = next_random(&vmp->vm_mtbf_state) % mtbf == 0;
    vmem_unlock(vmp);
    return fail;
}

static void *fail(vmem_t *vmp, size_t size, int vmflag)
{
    vmem_lock(vmp);
    vmp->vm_kstat.vk_fail++;
    vmem_unlock(vmp);
    if (vmflag & VM_PANIC)
        vmem_panic("arena \"%s\": cannot satisfy an allocation of %zu with VM_PANIC",
                   vmp->vm_name, size);
    errno = ENOMEM;
    return NULL;
}

/*
 * Allocate, from the quantum cache `qc` if that is not NULL, else past the caches; sleep,
 * panic or fail as vmflag says.
 */
static void *allocate(vmem_t *vmp, const vmem_request_t *req, objcache_t *qc, int vmflag)
{
    long timeout = WAIT_FIRST_NS;

    if (induced_failure(vmp, vmflag))
        return fail(vmp, req->vr_size, vmflag);
    for (unsigned attempt = 0;; attempt++) {
        uint64_t gen = 0;
        bool no_segs = false;
        void *addr = qc != NULL ? objcache_try_alloc(qc) : NULL;
        if (addr != NULL)
            return addr;
        addr = try_request(vmp, req, vmflag, &gen, &no_segs);
        if (addr != NULL) {
            if (qc != NULL)
                objcache_note_direct(qc);
            return addr;
        }
        if (vmp->vm_qcache_max != 0)
            vmem_reap(vmp);
        if (vmp->vm_qcache_max != 0 && attempt == 0)
            continue;
        if (vmflag & (VM_NOSLEEP | VM_PANIC))
            return fail(vmp, req->vr_size, vmflag);
        wait_for_change(vmp, gen, &timeout, no_segs);
    }
}

/* For the slab layer of quantum caches: failure is quiet, since the caller has a way on.
 */
void *vmem_try_alloc(vmem_t *vmp, size_t size, size_t align)
{
    const vmem_request_t req = {
        .vr_size = size, .vr_align = align, .vr_max = UINTPTR_MAX};
    uint64_t gen;
    bool no_segs;

    return try_request(vmp, &req, VM_NOSLEEP, &gen, &no_segs);
}

/* Round up to the quantum. False: size 0, or not representable; sets errno. */
static bool round_size(const vmem_t *vmp, size_t size, size_t *rounded)
{
    if (size == 0) {
        errno = EINVAL;
        return false;
    }
    if (__builtin_add_overflow(size, vmp->vm_quantum - 1, rounded)) {
        errno = ENOMEM;
        return false;
    }
    *rounded &= ~(vmp->vm_quantum - 1);
    return true;
}

/*
 * Is there any place in the integers that meets these constraints? `offset` is the least
 * offset in a block of nocross at which a place can start.
 */
static bool request_possible(const vmem_t *vmp, const vmem_request_t *req)
{
    size_t mask = vmp->vm_quantum - 1;

    if (((req->vr_align | req->vr_phase | req->vr_nocross | req->vr_min) & mask) != 0)
        return false;
    if (req->vr_max != UINTPTR_MAX &&
        ((req->vr_max & mask) != 0 || req->vr_max < req->vr_min ||
         req->vr_max - req->vr_min < req->vr_size))
        return false;
    if (!vmem_is_pow2(req->vr_align) || req->vr_phase >= req->vr_align)
        return false;
    if (req->vr_nocross == 0)
        return true;
    size_t offset = req->vr_phase & (req->vr_nocross - 1), room;
    return vmem_is_pow2(req->vr_nocross) &&
           !__builtin_add_overflow(offset, req->vr_size, &room) &&
           room <= req->vr_nocross;
}

void *vmem_xalloc(vmem_t *vmp, size_t size, size_t align, size_t phase, size_t nocross,
                  void *minaddr, void *maxaddr, int vmflag)
{
    vmem_request_t req = {
        .vr_align = align != 0 ? align : vmp->vm_quantum,
        .vr_phase = phase,
        .vr_nocross = nocross,
        .vr_min = (uintptr_t)minaddr,
        .vr_max = maxaddr != NULL ? (uintptr_t)maxaddr : UINTPTR_MAX,
    };

    if (!round_size(vmp, size, &req.vr_size)) {
        if (errno == ENOMEM && (vmflag & (VM_NOSLEEP | VM_PANIC)))
            return fail(vmp, size, vmflag);
        return NULL;
    }
    if (!request_possible(vmp, &req)) {
        errno = EINVAL;
        return NULL;
    }
    return allocate(vmp, &req, NULL, vmflag);
}

static objcache_t *qcache_of(const vmem_t *vmp, size_t size)
{
    return vmp->vm_qcache[(size - 1) >> vmp->vm_qshift];
}

void *vmem_alloc(vmem_t *vmp, size_t size, int vmflag)
{
    if (size - 1 >= vmp->vm_qcache_max) /* size 0 goes this way too */
        return vmem_xalloc(vmp, size, 0, 0, 0, NULL, NULL, vmflag);
    objcache_t *qc = qcache_of(vmp, size);
    if (atomic_load_explicit(&vmp->vm_mtbf, memory_order_relaxed) == 0) {
        void *addr = objcache_try_alloc(qc);
        if (addr != NULL)
            return addr;
    }
    vmem_request_t req = {.vr_align = vmp->vm_quantum, .vr_max = UINTPTR_MAX};
    round_size(vmp, size, &req.vr_size); /* size <= qcache_max: cannot fail */
    return allocate(vmp, &req, qc, vmflag);
}

void vmem_free(vmem_t *vmp, void *addr, size_t size)
{
    if (size - 1 < vmp->vm_qcache_max)
        objcache_free(qcache_of(vmp, size), addr);
    else
        vmem_xfree(vmp, addr, size);
}

void vmem_xfree(vmem_t *vmp, void *addr, size_t size)
{
    size_t rounded = (size + vmp->vm_quantum - 1) & ~(vmp->vm_quantum - 1);

    vmem_lock(vmp);
    vmem_seg_t *vsp = vmem_hash_remove(vmp, (uintptr_t)addr);
    if (vsp == NULL)
        vmem_panic("arena \"%s\": free(%p, %zu): found no allocation at that address, "
                   "expected one of %zu",
                   vmp->vm_name, addr, size, rounded);
    if (vsp->vs_end - vsp->vs_start != rounded)
        vmem_panic(
            "arena \"%s\": free(%p, %zu): found an allocation of %zu, expected one "
            "of %zu",
            vmp->vm_name, addr, size, (size_t)(vsp->vs_end - vsp->vs_start), rounded);
    vmp->vm_kstat.vk_free++;
    vsp = vmem_seg_release(vmp, vsp);

    uintptr_t start = vsp->vs_start;
    size_t whole = 0;
    vmem_seg_t *span = vsp->vs_aprev;
    if (span->vs_type == VMEM_SPAN && span->vs_import && span->vs_end == vsp->vs_end) {
        whole = span->vs_end - span->vs_start;
        vmem_span_destroy(vmp, span);
    }
    vmem_wake(vmp);
    bool unfit = vmem_hash_unfit(vmp);
    vmem_unlock(vmp);
    if (whole != 0)
        return_span(vmp, (void *)start, whole);
    if (unfit)
        vmem_hash_rescale(vmp);
}
