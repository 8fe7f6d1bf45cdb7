/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvmalloc.h - a heap that survives: allocation in non-volatile memory.
 *
 * A heap is one file, best on a file system with DAX (/mnt/pmem0).  Blocks
 * are named by *references*: 8-byte offsets from the start of the heap, which
 * keep their meaning wherever the file is mapped next time.  0 refers to
 * nothing.  A reference that is to be found again after a crash lies in the
 * heap itself: in the root block, or in a block that is reached from it.
 *
 * Consistency (LOG mode, owned slots)
 * -----------------------------------
 * nvm_malloc_to() and nvm_free_from() are durable and atomic when they
 * return: after a crash at any instant either the block is allocated and
 * *dest refers to it, or neither.  Such a *dest is an *owned slot*:
 *   1. only nvm_* functions change it, from its first use on until the block
 *      that holds it is freed;
 *   2. before its first use it is 0, and that 0 has been persisted (a fresh
 *      block's content is undefined after a crash: initialise the places that
 *      are to become slots, nvm_persist() them, then use them);
 *   3. it is emptied before the block that holds it is freed, and the block's
 *      other bytes are the application's own, to be persisted by itself.
 *
 * Threads: every function but nvm_close() may be called by several threads
 * at once; no two at the same time on one slot.  A thread's caches return to
 * the heap when the thread exits, or at nvm_thread_leave().
 *
 * After fork() the child must not use a heap of its parent.
 *
 * Errors: functions that return int give 0 or a positive errno value; the
 * others say so.  nvm_error() explains the thread's last failure in one
 * sentence.
 *   EINVAL        misuse: slot not empty / empty, reference to no live block
 *   ENOMEM        no room in the heap (or no memory for its DRAM state)
 *   EEXIST ENOENT ENOSPC EACCES ...  as the operating system says
 *   EBUSY         another process has the heap open
 *   EMEDIUMTYPE   the file is no nvmalloc heap
 *   ENOTSUP       the heap has a format that this library does not know
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

/* Smallest file that nvm_create() accepts, and the alignment of its size. */
#define NVM_MIN_HEAP ((size_t)256 << 10)
#define NVM_UNIT     ((size_t)64 << 10)

/*
 * Makes a heap in a new file (mode 0600) of `size` bytes, rounded down to
 * NVM_UNIT, every byte of which is allocated in the file system before it is
 * mapped.  EEXIST: the file is there (a heap is never truncated or replaced);
 * EINVAL: size < NVM_MIN_HEAP; ENOSPC: the file system is too small.
 */
NVM_API int nvm_create(const char *path, size_t size, nvm_heap **heap);

/*
 * Opens a heap.  One that was not closed is recovered first; that takes time
 * in proportion to its metadata, not to its size, and a crash meanwhile is
 * just another crash.
 */
NVM_API int nvm_open(const char *path, nvm_heap **heap);

/*
 * Closes cleanly: what is on media needs no recovery.  No other thread may
 * be using the heap.  The handle is gone whatever is returned.
 */
NVM_API int nvm_close(nvm_heap *heap);

/* One sentence on the calling thread's last failure; "" before the first. */
NVM_API const char *nvm_error(void);

/*
 * Holds the metadata of an open heap to its invariants, in DRAM and on media;
 * 0 or EUCLEAN.  No other thread may change the heap meanwhile.
 */
NVM_API int nvm_check(nvm_heap *heap);

/*
 * The root block: allocated, zero-filled and durable at the first call, the
 * same for ever after.  size: bytes; a later call may ask for less, not for
 * more.  NULL with errno EINVAL (asks for more), ENOMEM.
 */
NVM_API void *nvm_root(nvm_heap *heap, size_t size);

/*
 * Allocates at least `size` bytes (0 counts as 1) and makes *dest refer to
 * them.  Durable and atomic on return; one effective fence for blocks up to
 * 512 KiB.  dest lies in the heap and holds 0.  The block is aligned as its
 * size allows: a size that is a multiple of 16 gives a block aligned to 16.
 * The content is undefined.
 */
NVM_API int nvm_malloc_to(nvm_heap *heap, nvm_ref *dest, size_t size);

/* Frees the block that *dest refers to and sets *dest to 0; likewise. */
NVM_API int nvm_free_from(nvm_heap *heap, nvm_ref *dest);

/* Bytes that may be used of the live block; 0 if ref names no live block. */
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

/* Gives the calling thread's caches back to the heap. */
NVM_API void nvm_thread_leave(nvm_heap *heap);

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
    uint64_t checkpoints;      /* watermark advances */
    uint32_t
        map_sync; /* 1: MAP_SYNC holds; 0: it does not, so power loss is not covered */
    uint32_t recovered; /* 1: this open had to recover */
    uint64_t replayed;  /* records that recovery replayed */
    char flush[16];     /* instruction: clwb, clflushopt, clflush, none */
};
NVM_API void nvm_stats(nvm_heap *heap, struct nvm_heap_stats *stats);

/* Bounds of the mapped file, for range checks. */
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
