/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmem: a resource arena allocator.
 *
 * An arena hands out ranges [address, address + size) of integers: memory addresses, page
 * numbers, offsets into a heap file, identifiers. It never touches what the integers
 * stand for. The interface follows J. Bonwick and J. Adams, "Magazines and Vmem", USENIX
 * 2001; the theory of this implementation opens src/vmem.c.
 *
 * Conventions that hold for every function here
 *  - Addresses travel as `void *` and sizes as `size_t`, in units of 1. All of an arena's
 *    addresses and sizes are multiples of its quantum, a power of two.
 *  - Address 0 cannot be managed, since NULL means failure: vmem_add() and vmem_create()
 *    refuse a range that starts there (EINVAL). Number pages and identifiers from 1.
 *  - An allocation that cannot be satisfied returns NULL with errno: ENOMEM (nothing
 * fits), EINVAL (impossible arguments: size 0, an alignment that is no power of two,
 * bounds closer together than the size, ...). EINVAL never sleeps and changes nothing;
 * ENOMEM changes counters only.
 *  - Freeing what is not allocated, or with another size, is proven misuse: the process
 *    aborts with a message that names arena, address, what was found and what expected.
 *  - Import and return functions run under no arena's lock. They may use arenas, but not
 *    create or destroy them, and may be called from any operation of the arena, a free
 *    included (a hash table that grows takes memory from the heap).
 *  - Every function is thread safe. None calls malloc. Not async-signal safe.
 */
#ifndef NVMALLOC_VMEM_H
#define NVMALLOC_VMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* On every function of the interface: all else in the libraries stays hidden. */
#ifndef VMEM_API
#define VMEM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vmem vmem_t;

/* Import from `source`: an arena, or NULL if the function takes from elsewhere. */
typedef void *vmem_alloc_t(vmem_t *source, size_t size, int vmflag);
typedef void vmem_free_t(vmem_t *source, void *addr, size_t size);
/*
 * The import function of vmem_xcreate(): may give more than *size (it then stores the
 * true size, a multiple of the arena's quantum), at an address that is a multiple of
 * `align`.
 */
typedef void *vmem_ximport_t(vmem_t *source, size_t *size, size_t align, int vmflag);

/* Per allocation: what to do when nothing fits... */
#define VM_SLEEP   0x0000 /* wait until something does */
#define VM_NOSLEEP 0x0001 /* return NULL, errno = ENOMEM */
#define VM_PANIC   0x0002 /* abort with a message; implies VM_NOSLEEP */
/* ...and which of the fitting free segments to take; none of these: instant fit, O(1). */
#define VM_BESTFIT  0x0100 /* a smallest one; with VM_FIRSTFIT: the lowest of these */
#define VM_FIRSTFIT 0x0200 /* the lowest possible address */
#define VM_NEXTFIT  0x0400 /* the first at or after the end of the last VM_NEXTFIT one */

/* Per arena, at creation. */
#define VMC_POPULATOR                                                                    \
    0x10000 /* lies on the path by which vmem feeds itself; see vmem.c, 8 */
#define VMC_NO_QCACHE 0x20000 /* no quantum caches, whatever qcache_max says */
#define VMC_IDENTIFIER                                                                   \
    0x40000 /* the integers are not memory: shown so by vmem_dump()                      \
             */

/* Segment types, for vmem_walk() and vmem_size(). */
#define VMEM_ALLOC     0x01
#define VMEM_FREE      0x02
#define VMEM_SPAN      0x10
#define VMEM_REENTRANT 0x40000000 /* vmem_walk(): call back without the arena's lock */

#define VMEM_NAMELEN     30 /* bytes, terminating NUL included; longer names are cut */
#define VMEM_NQCACHE_MAX 16

/* Counters. Totals are in the arena's units; the others count events since creation. */
typedef struct vmem_kstat {
    uint64_t vk_mem_inuse;  /* allocated now (a quantum cache's slabs count whole) */
    uint64_t vk_mem_import; /* imported from the source now */
    uint64_t vk_mem_total;  /* sum of all spans now */
    uint32_t vk_source_id;  /* vmem_id() of the source arena, 0 if there is none */
    uint64_t vk_alloc;      /* allocations that succeeded */
    uint64_t vk_free;       /* frees */
    uint64_t vk_wait;       /* times an allocation went to sleep */
    uint64_t vk_fail;       /* allocations that failed (ENOMEM), induced ones included */
    uint64_t vk_lookup;     /* look-ups in the allocated-segment hash */
    uint64_t vk_search;     /* free segments examined beyond an instant fit */
    uint64_t vk_populate_wait;   /* waits for segment structures */
    uint64_t vk_populate_fail;   /* failures to get segment structures */
    uint64_t vk_contains;        /* vmem_contains() calls */
    uint64_t vk_contains_search; /* spans they examined */
} vmem_kstat_t;

/*
 * Set the allocator up with a heap of the caller's own, from which all of vmem's and the
 * object caches' structures come (memory that may be written, quantum >= 4096). Optional;
 * at most once, and before anything else: the first vmem_create() otherwise sets up a
 * heap that mmap()s. `parent_name` may be NULL: no parent arena. The heap gets the range
 * [heap_start, heap_start + heap_size) if heap_size > 0 and imports with heap_alloc /
 * heap_free from the parent (with vmem_alloc / vmem_free if they are NULL and a parent is
 * given); the parent imports with parent_alloc / parent_free from nowhere (source NULL).
 * All arguments NULL or 0: the default heap. Returns the heap arena; NULL and EBUSY if
 * already set up otherwise, EINVAL for impossible arguments.
 */
VMEM_API vmem_t *vmem_init(const char *parent_name, size_t parent_quantum,
                           vmem_alloc_t *parent_alloc, vmem_free_t *parent_free,
                           const char *heap_name, void *heap_start, size_t heap_size,
                           size_t heap_quantum, vmem_alloc_t *heap_alloc,
                           vmem_free_t *heap_free);

/*
 * Create an arena. [base, base + size) is its first span (size 0: none yet). When it runs
 * out it imports afunc(source, ...) and gives each imported span back with ffunc as soon
 * as all of it is free again; afunc NULL: never imports. Allocations of up to qcache_max
 * (at most 16 quanta; 0: none) are served by quantum caches. vmflag: VM_* | VMC_*.
 * Returns NULL with EINVAL or ENOMEM. The caller owns the arena: vmem_destroy().
 */
VMEM_API vmem_t *vmem_create(const char *name, void *base, size_t size, size_t quantum,
                             vmem_alloc_t *afunc, vmem_free_t *ffunc, vmem_t *source,
                             size_t qcache_max, int vmflag);
/* The same with an import function that knows alignment and may give more than asked. */
VMEM_API vmem_t *vmem_xcreate(const char *name, void *base, size_t size, size_t quantum,
                              vmem_ximport_t *afunc, vmem_free_t *ffunc, vmem_t *source,
                              size_t qcache_max, int vmflag);

/*
 * Destroy an arena: every allocation from it ends, every imported span goes back to its
 * source (a source that is an arena must still exist). Returns what was still allocated,
 * 0 if the caller had freed everything. No other thread may be using the arena.
 */
VMEM_API size_t vmem_destroy(vmem_t *vmp);

/*
 * Allocate `size`, rounded up to the quantum. Sizes up to qcache_max come from the
 * quantum caches, where a policy flag has no meaning; use vmem_xalloc() where it must
 * have. Free with vmem_free() and the same size.
 */
VMEM_API void *vmem_alloc(vmem_t *vmp, size_t size, int vmflag);
VMEM_API void vmem_free(vmem_t *vmp, void *addr, size_t size);

/*
 * Allocate under constraints, past the quantum caches:
 *   addr % align == phase      (align 0: the quantum; a power of two; phase < align)
 *   [addr, addr + size) crosses no multiple of nocross  (0: no such rule; a power of two)
 *   minaddr <= addr, addr + size <= maxaddr             (maxaddr NULL: no upper bound)
 * All of them multiples of the quantum. A request with minaddr or maxaddr never imports:
 * a source can't be told the bounds. A fixed address is minaddr = addr, maxaddr = addr +
 * size; carving a fresh arena at ascending fixed addresses is O(1) a piece with
 * VM_NEXTFIT. Free with vmem_xfree() and the same size.
 */
VMEM_API void *vmem_xalloc(vmem_t *vmp, size_t size, size_t align, size_t phase,
                           size_t nocross, void *minaddr, void *maxaddr, int vmflag);
VMEM_API void vmem_xfree(vmem_t *vmp, void *addr, size_t size);

/*
 * Add the span [addr, addr + size) for good (it is never returned anywhere). Spans don't
 * merge, even if adjacent; vmem_extend() is for that. Returns addr; NULL with EINVAL (not
 * multiples of the quantum, address 0, wraps around), EEXIST (overlaps a span), ENOMEM.
 */
VMEM_API void *vmem_add(vmem_t *vmp, void *addr, size_t size, int vmflag);

/*
 * The same, but if a span that was added (not imported) ends at addr, it grows: what is
 * free on both sides of addr is then one free segment.
 */
VMEM_API void *vmem_extend(vmem_t *vmp, void *addr, size_t size, int vmflag);

/*
 * Give back to the source arena whatever is free in imported spans, at once: an import
 * otherwise returns only when it is whole. Each span is cut down to its allocated runs
 * (rounded to the source's quantum), and the source then has that many smaller
 * allocations instead of one; its vk_alloc counts them as well. Imports that are no plain
 * allocation of an arena (source NULL, or a quantum cache's object) stay as they are.
 * Returns what was given back; less than possible if there is no memory for segment
 * structures. O(segments of vmp). One trim at a time in a process; others wait.
 */
VMEM_API size_t vmem_trim(vmem_t *vmp);

/* Is all of [addr, addr + size) within the arena's spans (allocated or free)? */
VMEM_API bool vmem_contains(vmem_t *vmp, const void *addr, size_t size);

/*
 * Call func(arg, start, size) for every segment of the types in `typemask`, in the
 * arena's order: spans as they were added, within a span by address. Under the arena's
 * lock: func may not call into this arena. With VMEM_REENTRANT it may (the lock is
 * dropped around each call); then every segment that exists unchanged from start to end
 * of the walk is reported exactly once, one that appears or changes meanwhile at most
 * once at each address.
 */
typedef void vmem_walker_t(void *arg, void *start, size_t size);
VMEM_API void vmem_walk(vmem_t *vmp, int typemask, vmem_walker_t *func, void *arg);

/* Sum of the segments of the types VMEM_ALLOC, VMEM_FREE, or both (or VMEM_SPAN). O(1).
 */
VMEM_API size_t vmem_size(vmem_t *vmp, int typemask);

/* Make sure that the next operation finds its segment structures; false: ENOMEM. */
VMEM_API bool vmem_populate(vmem_t *vmp, int vmflag);

/*
 * Maintenance, for one arena or (NULL) all, worth calling every few seconds: rescales the
 * hash tables, measures the working sets of the quantum caches and gives back what they
 * did not need since the last call, resizes magazines, wakes the sleepers to try again.
 */
VMEM_API void vmem_update(vmem_t *vmp);

/* Give back everything that the quantum caches of one arena or (NULL) all hold unused. */
VMEM_API void vmem_reap(vmem_t *vmp);

/*
 * Around fork(): vmem_lockup() before, vmem_release() after, in parent and child. Nothing
 * of vmem and of the object caches is then half done in the child. Made for
 * pthread_atfork(vmem_lockup, vmem_release, vmem_release).
 */
VMEM_API void vmem_lockup(void);
VMEM_API void vmem_release(void);

/* Names and relations; valid while the arena exists. */
VMEM_API const char *vmem_name(const vmem_t *vmp);
VMEM_API uint32_t vmem_id(const vmem_t *vmp);
VMEM_API size_t vmem_quantum(const vmem_t *vmp);
VMEM_API vmem_t *vmem_source(const vmem_t *vmp);

/* A consistent snapshot of the counters. */
VMEM_API void vmem_kstat(vmem_t *vmp, vmem_kstat_t *ks);

/*
 * Let about one in `mtbf` VM_NOSLEEP allocations of the arena fail (1: each; 0: none), in
 * an order that `seed` fixes.
 */
VMEM_API void vmem_set_mtbf(vmem_t *vmp, uint32_t mtbf, uint64_t seed);

/* One arena in the tree of arenas. */
typedef struct vmem_info {
    char vi_name[VMEM_NAMELEN];
    uint32_t vi_id;
    unsigned vi_depth; /* 0: no source arena */
    int vi_cflags;     /* VMC_* */
    size_t vi_quantum;
    size_t vi_qcache_max;
    size_t vi_hash_size; /* buckets */
    size_t vi_segs_free; /* segment structures in the arena's reserve */
    vmem_kstat_t vi_kstat;
} vmem_info_t;

/*
 * Call func for every arena, each source before those that import from it (depth first,
 * by id). No lock is held during a call: func may use arenas, create and destroy
 * included.
 */
typedef void vmem_visitor_t(const vmem_info_t *info, void *arg);
VMEM_API void vmem_visit(vmem_visitor_t *func, void *arg);

/*
 * The tree of arenas, handed to `write` piece by piece (`text` is not NUL-terminated).
 * VMEM_DUMP_TEXT: a heading, then a line an arena, indented under its source.
 * VMEM_DUMP_JSON: one line, {"arenas":[ARENA,...]}, where an ARENA is {"id","name",
 * "source":id|null,"quantum","identifier":bool,"populator":bool,"qcache_max",
 * "hash_buckets","segments_spare","in_use","total","imported", a key for each other
 * counter of vmem_kstat_t without its vk_, "arenas":[those that import from it]}.
 */
#define VMEM_DUMP_TEXT 0
#define VMEM_DUMP_JSON 1
typedef void vmem_writer_t(void *arg, const char *text, size_t len);
VMEM_API void vmem_dump(vmem_writer_t *write, void *arg, int format);
/* The same to a file descriptor. 0, or the errno value of a write(2) that failed. */
VMEM_API int vmem_dump_fd(int fd, int format);

/*
 * Check every invariant of the arena (vmem.c, 3). O(segments). Returns true, or false
 * with the broken one described in `why` (NUL-terminated, cut to `len`).
 */
VMEM_API bool vmem_check(vmem_t *vmp, char *why, size_t len);

#ifdef __cplusplus
}
#endif
#endif
