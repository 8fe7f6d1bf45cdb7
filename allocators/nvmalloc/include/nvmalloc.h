/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvmalloc.h - a heap that survives: allocation in non-volatile memory.
 *
 * A heap is one file, best on a file system with DAX (/mnt/pmem0).  Blocks
 * are named by *references*: 8-byte offsets from the start of the heap, which
 * keep their meaning wherever the file is mapped next time.  0 refers to
 * nothing.  A reference that is to be found again after a crash lies in the
 * heap itself: under a name, in the root block, or in a block that is reached
 * from one of these.
 *
 * Three consistency modes, chosen when the heap is made
 * -----------------------------------------------------
 * NVM_LOG_OWNED (the default).  Every operation that names a place for a
 * reference (nvm_malloc_to, nvm_free_from, nvm_publish...) is durable and
 * atomic when it returns: after a crash at any instant it has happened whole,
 * or not at all.  It costs one line and one fence.  The places are *owned
 * slots*:
 *   1. only nvm_* functions change one, from its first use on until the block
 *      that holds it is freed;
 *   2. before its first use it is 0, and that 0 has been persisted (a fresh
 *      block's content is undefined after a crash: initialise the places that
 *      are to become slots, nvm_persist() them, then use them);
 *   3. it is emptied before the block that holds it is freed, or by the same
 *      nvm_publish(); the block's other bytes are the application's own, to
 *      be persisted by itself.
 * NVM_LOG_STRICT.  The same promises, and the application may overwrite, move
 * or clear a slot by its own stores as soon as the call has returned.  Costs
 * up to three fences.
 * NVM_GC.  Nothing is logged.  nvm_malloc() and nvm_free() are as fast as in
 * DRAM; what is not reached from the roots when the heap is next opened after
 * a crash is free again.  nvm_malloc_to() and the others work too: they make
 * the reference durable (one flush, one fence), one slot at a time.
 *
 * Threads: every function but nvm_close(), nvm_check(), nvm_walk() and
 * nvm_observe() may be called by several threads at once; no two at the same
 * time on one slot.  A thread's caches return to the heap when the thread
 * exits, or at nvm_thread_leave().
 *
 * fork(): the heap stays the parent's.  In the child its pages are not mapped
 * and every call on it fails with EPERM (nvm_close() just forgets it); exec
 * and opening other heaps are fine.
 *
 * Errors: functions that return int give 0 or a positive errno value; the
 * others say so.  nvm_error() explains the thread's last failure in one
 * sentence.
 *   EINVAL        misuse: slot not empty / empty, reference to no live block
 *   ENOMEM        no room in the heap (or no memory for its DRAM state)
 *   ENOSPC        the heap may grow, but the file system is full
 *   EEXIST ENOENT EACCES ...  as the operating system says
 *   EBUSY         another process has the heap open
 *   EPERM         the heap belongs to the process that this one was forked from
 *   EMEDIUMTYPE   the file is no nvmalloc heap
 *   ENOTSUP       a format, a mode or a CPU feature that is not there
 *   EUCLEAN       the heap is damaged; nvm_error() names the place
 */
#ifndef NVMALLOC_H
#define NVMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NVM_API __attribute__((visibility("default")))

/* An open heap. */
typedef struct nvm_heap nvm_heap;

/* A position-independent reference to a block; 0 refers to nothing. */
typedef uint64_t nvm_ref;

/* --- making, opening, closing --- */

/* Smallest file that nvm_create() accepts, and the alignment of its size. */
#define NVM_MIN_HEAP ((size_t)256 << 10)
#define NVM_UNIT     ((size_t)64 << 10)

enum nvm_mode { NVM_LOG_OWNED = 0, NVM_LOG_STRICT = 1, NVM_GC = 2 };

/* nvm_options.flags */
#define NVM_PROTECT                                                                      \
    (1u << 0) /* a stray store into metadata traps (memory-protection                    \
                 keys); ENOTSUP where the CPU has none */

/* Whether this processor and system have what the flags need: 0, or ENOTSUP. */
NVM_API int nvm_supports(unsigned flags);

/*
 * Called during the recovery of a GC heap for a block that is reached: gives
 * every reference in it to nvm_trace().  May be called by several threads at
 * once, must not change the heap.  usable: bytes of the block.
 */
struct nvm_tracer;
typedef void nvm_trace_fn(struct nvm_tracer *tracer, const void *block, size_t usable,
                          void *context);

struct nvm_options {
    size_t size;        /* create: bytes of the file now; 0: as small as it can be */
    size_t max_size;    /* create: bytes to which it may grow; 0: size */
    enum nvm_mode mode; /* create */
    unsigned flags;
    unsigned threads;    /* recovery of a GC heap: at most so many; 0: one a CPU */
    nvm_trace_fn *trace; /* GC: how to trace the root blocks and the blocks that
                            names refer to; NULL: conservatively */
    void *trace_context;
};

/*
 * Makes a heap in a new file (mode 0600) of `size` bytes, rounded down to
 * NVM_UNIT, every byte of which is allocated in the file system before it is
 * mapped.  EEXIST: the file is there (a heap is never truncated or replaced);
 * EINVAL: size < NVM_MIN_HEAP; ENOSPC: the file system is too small.
 */
NVM_API int nvm_create(const char *path, size_t size, nvm_heap **heap);

/*
 * The same, with options: a heap whose max_size is larger than its size grows
 * by steps of about 1/32 of its size when it is full; each step is allocated
 * in the file system before it is used, so no store raises a bus error for
 * want of space, and a full file system gives ENOSPC and loses nothing.
 */
NVM_API int nvm_create_with(const char *path, const struct nvm_options *options,
                            nvm_heap **heap);

/*
 * Opens a heap.  One that was not closed is recovered first.  LOG: that takes
 * time in proportion to the log and the chunk table, not to the heap; slabs
 * are looked at when they are first used (nvm_rebuild() does it at once).  GC:
 * in proportion to the live blocks, by several threads.  A crash meanwhile is
 * just another crash.
 */
NVM_API int nvm_open(const char *path, nvm_heap **heap);
/* The same, with options: flags, threads, trace. */
NVM_API int nvm_open_with(const char *path, const struct nvm_options *options,
                          nvm_heap **heap);

/*
 * Closes cleanly: what is on media needs no recovery.  No other thread may
 * be using the heap.  The handle is gone whatever is returned.
 */
NVM_API int nvm_close(nvm_heap *heap);

/*
 * Opens a heap image that lies in memory: base, aligned to 4096, holds size
 * bytes, as its file would; recovered if need be.  nvm_detach() forgets all
 * state in DRAM and leaves the image as it is.  For laboratories that check
 * many images a second.  The heap can't grow past size.
 */
NVM_API int nvm_attach(void *base, size_t size, const struct nvm_options *options,
                       nvm_heap **heap);
NVM_API void nvm_detach(nvm_heap *heap);

/* Rebuilds now whatever nvm_open() left for later; 0 or EUCLEAN, ENOMEM. */
NVM_API int nvm_rebuild(nvm_heap *heap);

/* One sentence on the calling thread's last failure; "" before the first. */
NVM_API const char *nvm_error(void);

/*
 * Holds the metadata of an open heap to its invariants, in DRAM and on media;
 * 0 or EUCLEAN.  No other thread may change the heap meanwhile.
 */
NVM_API int nvm_check(nvm_heap *heap);

/* --- where structures begin --- */

/*
 * The root block: allocated, zero-filled and durable at the first call, the
 * same for ever after.  size: bytes; a later call may ask for less, not for
 * more.  NULL with errno EINVAL (asks for more), ENOMEM.
 */
NVM_API void *nvm_root(nvm_heap *heap, size_t size);

/* Longest name, without its terminator. */
#define NVM_NAME_MAX 39

/*
 * The owned slot that bears a name, in O(1); every other function that takes
 * a slot takes it.  Made empty and durable if it is not there and `create` is
 * not 0.  It keeps its address while the heap is open.  NULL with errno
 * ENOENT, EINVAL (empty or longer than NVM_NAME_MAX), ENOMEM (the table of
 * names is full: 63 in a heap below 4 MiB, else 1023), EUCLEAN.
 */
NVM_API nvm_ref *nvm_named(nvm_heap *heap, const char *name, int create);
/* Takes the name away; its slot must be empty (EINVAL), and is gone. ENOENT. */
NVM_API int nvm_unname(nvm_heap *heap, const char *name);
/* Calls visit for every name in no order; a value other than 0 ends it. */
typedef int nvm_name_fn(void *context, const char *name, nvm_ref *slot);
NVM_API int nvm_each_name(nvm_heap *heap, nvm_name_fn *visit, void *context);

/* --- allocation into a durable slot --- */

/*
 * Allocates at least `size` bytes (0 counts as 1) and makes *dest refer to
 * them.  Durable and atomic on return.  dest lies in the heap and holds 0.
 * The block is aligned as its size allows: a size that is a multiple of 16
 * gives a block aligned to 16.  The content is undefined.
 */
NVM_API int nvm_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t size);

/* The same, at an address that is a multiple of alignment, a power of two up
   to 2 MiB (EINVAL otherwise). */
NVM_API int nvm_aligned_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t alignment,
                                  size_t size);

/* Frees the block that *dest refers to and sets *dest to 0; likewise. */
NVM_API int nvm_free_from(nvm_heap *heap, nvm_ref *dest);

/*
 * Gives the block of *dest at least `size` bytes, in place or by moving it;
 * then the first min(old, new) usable bytes have been copied and are durable
 * before *dest refers to the new block, and the old one is free.  Slots inside
 * a block that moves are copied as they are.  An empty *dest: nvm_malloc_to().
 * On failure nothing has changed.
 */
NVM_API int nvm_realloc_to(nvm_heap *heap, nvm_ref *dest, size_t size);

/* The empty slot `to` takes over the block of `from`, which becomes empty. */
NVM_API int nvm_move_to(nvm_heap *heap, nvm_ref *from, nvm_ref *to);

/* --- fill first, then make reachable --- */

/*
 * Reserves a block of at least `size` bytes that nobody else can get and that
 * a crash gives back by itself; 0 with errno ENOMEM, ENOSPC.  Fill and
 * nvm_persist() it, then publish or cancel it, in any thread.
 */
NVM_API nvm_ref nvm_reserve(nvm_heap *heap, size_t size);
NVM_API int nvm_cancel(nvm_heap *heap, nvm_ref reserved);

enum nvm_action_kind {
    NVM_ACT_ALLOC =
        1,            /* the reserved block `ref` becomes live, *slot = ref; *slot is 0 */
    NVM_ACT_FREE = 2, /* the block of *slot is freed, *slot = 0 */
    NVM_ACT_MOVE = 3, /* *slot = *from, *from = 0; *slot is 0 */
};
struct nvm_action {
    enum nvm_action_kind kind;
    nvm_ref *slot;
    nvm_ref *from; /* MOVE */
    nvm_ref ref;   /* ALLOC */
};
#define NVM_ACTIONS_MAX 16

/*
 * All of `count` (<= NVM_ACTIONS_MAX) actions in their order, or none: durable
 * and atomic on return, under one fence (LOG_OWNED).  "*slot is 0" means after
 * the actions before it: to push a node onto a list, MOVE the head into the
 * node's next, then ALLOC the node to the head.  EINVAL: an action does not
 * apply, and nothing has changed.  GC heaps: ENOTSUP for more than one action.
 */
NVM_API int nvm_publish(nvm_heap *heap, const struct nvm_action *actions, size_t count);

/*
 * Moves blocks out of thinly used slabs, so that whole units become free; each
 * slot's block is replaced as by nvm_realloc_to(), so no address of one may be
 * held elsewhere.  moved (may be NULL): how many blocks moved.
 */
NVM_API int nvm_defrag(nvm_heap *heap, nvm_ref *const slots[], size_t count,
                       size_t *moved);

/* --- GC heaps: allocation as in DRAM; nothing is flushed --- */

/* NULL with errno ENOMEM, ENOSPC, ENOTSUP (not a GC heap). */
NVM_API void *nvm_malloc(nvm_heap *heap, size_t size);
NVM_API void *nvm_aligned_malloc(nvm_heap *heap, size_t alignment, size_t size);
/* Any thread's block; NULL is ignored.  Misuse: EINVAL and a counter. */
NVM_API int nvm_free(nvm_heap *heap, void *block);

/* --- references and blocks --- */

/* Bytes that may be used of the live (or reserved) block; 0 if ref names none. */
NVM_API size_t nvm_usable_size(nvm_heap *heap, nvm_ref ref);

/* Address of a reference in this process (NULL for 0), and back. */
NVM_API void *nvm_ptr(nvm_heap *heap, nvm_ref ref);
NVM_API nvm_ref nvm_off(nvm_heap *heap, const void *address);

/* Returns when [address, address + length) is durable. */
NVM_API void nvm_persist(nvm_heap *heap, const void *address, size_t length);

/*
 * Calls visit for every live block in address order, the root block too;
 * a value other than 0 ends the walk and is returned.  The heap must not be
 * changed meanwhile.
 */
typedef int nvm_walk_fn(void *context, void *block, size_t usable);
NVM_API int nvm_walk(nvm_heap *heap, nvm_walk_fn *visit, void *context);

/* For nvm_trace_fn: ref is reached.  Its block is traced by `fn`, or
   conservatively (every aligned word that is a live block's reference counts)
   if fn is NULL, or not at all with NVM_TRACE_LEAF. */
NVM_API void nvm_trace(struct nvm_tracer *tracer, nvm_ref ref, nvm_trace_fn *fn);
NVM_API nvm_trace_fn NVM_TRACE_LEAF;

/* --- upkeep --- */

/* Gives the calling thread's caches back to the heap. */
NVM_API void nvm_thread_leave(nvm_heap *heap);

/* Gives the pages of free units back to the file system (holes); they are
   allocated again before they are used.  freed (may be NULL): bytes. */
NVM_API int nvm_trim(nvm_heap *heap, size_t *freed);

struct nvm_heap_stats {
    uint64_t file_bytes; /* size of the heap file */
    uint64_t used_bytes; /* file bytes outside free units */
    uint64_t live_bytes; /* usable bytes of live blocks */
    uint64_t live_blocks;
    uint64_t flushes;          /* cache lines flushed since open */
    uint64_t fences;           /* fences since open */
    uint64_t effective_fences; /* those with a flush or non-temporal store pending */
    uint64_t nt_lines;         /* lines written with non-temporal stores */
    uint64_t misuses;          /* calls refused with EINVAL */
    uint64_t checkpoints;      /* watermarks written for want of room in a lane */
    uint32_t map_sync;  /* 1: MAP_SYNC holds; 0: not, so power loss is not covered */
    uint32_t recovered; /* 1: this open had to recover */
    uint64_t replayed;  /* records that recovery replayed, or blocks that it marked */
    char flush[16];     /* instruction: clwb, clflushopt, clflush, none */
    uint64_t max_bytes; /* to which the file may grow */
    uint64_t quarantined_bytes; /* in damaged slabs, out of use */
    uint32_t mode;              /* enum nvm_mode */
    uint32_t protect;           /* 1: metadata is protected by a key */
};
NVM_API void nvm_stats(nvm_heap *heap, struct nvm_heap_stats *stats);

/* The addresses in which the heap lies, and all that it may grow to: for range checks. */
NVM_API void nvm_range(nvm_heap *heap, void **base, size_t *length);

/*
 * Observation of persistence events, for tests and fault campaigns.  kind: 0
 * flush, 1 fence, 2 non-temporal store; called before the event takes effect.
 * Process-wide; set it while no other thread works.  NULL ends it.
 */
typedef void nvm_observer_fn(void *context, int kind, const void *address, size_t length);
NVM_API void nvm_observe(nvm_observer_fn *fn, void *context);

NVM_API const char *nvm_version(void);

#ifdef __cplusplus
}
#endif
#endif
