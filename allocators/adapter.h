/*
 * adapter.h - the one contract that every allocator meets.
 *
 * An adapter is a shared object that exports one symbol, nvc_adapter_get(),
 * which returns a struct of function pointers.  The driver (workloads/driver)
 * and the fault laboratory (faults/) know an allocator through it only.
 *
 * Model
 * -----
 * A *heap* is one file (persistent allocators, and volatile ones with
 * NVC_FILE, whose file means nothing once it is closed) or an object in DRAM
 * (the other volatile ones).  The driver owns a table of `slots` *persistent slots*,
 * which the adapter places in the heap's root and hands out with slots().
 * A slot is `slot_size` bytes whose meaning only the adapter knows (an 8-byte
 * offset, a PMEMoid, a plain pointer); all bits zero is always the empty slot.
 * A slot may also lie inside a live block: the driver zeroes such a place and
 * persists it before its first use, empties it before the block that holds it
 * is freed, and never writes into it itself while it is a slot.
 *
 * What is durable when a call returns
 * -----------------------------------
 *   alloc_to()   the block is allocated and the slot refers to it: both or
 *                neither survive a crash at any point of the call; both
 *                survive a crash after it.  The block's content is undefined.
 *                Size 0 is EINVAL.
 *   free_from()  the slot is empty and the block is free; likewise atomic.
 *   persist()    the given bytes.
 * Volatile allocators (NVC_VOLATILE) promise none of this; persist() of
 * theirs does nothing.
 *
 * Threads: between thread_enter() and thread_leave() a thread may call
 * alloc_to, free_from, read, persist.  Two threads never work on one slot at
 * the same time.  A block may be freed by another thread than the one that
 * allocated it.  create, open, close, check, walk and observe are called by
 * one thread while no other works on the heap.
 *
 * Errors: functions that return int return 0, or a positive errno value:
 * ENOMEM (the heap is full), EINVAL (misuse: the slot is empty, or is not),
 * EUCLEAN (the heap file is damaged), EMEDIUMTYPE (not a heap of this
 * allocator), ENOTSUP (version or feature not supported), EBUSY (in use), or
 * what the operating system said.  last_error() explains the thread's last
 * failure in one sentence.  No adapter function prints or exits.
 */
#ifndef NVC_ADAPTER_H
#define NVC_ADAPTER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when the layout or the meaning of anything below changes. */
#define NVC_ADAPTER_VERSION 1u

/* An open heap; the adapter's own type. */
struct nvc_heap;

/* nvc_adapter.capabilities */
#define NVC_PERSISTENT   (1u << 0) /* the heap survives in its file */
#define NVC_VOLATILE     (1u << 1) /* runs workloads only, as the upper bound */
#define NVC_WALK         (1u << 2) /* walk() visits every live block */
#define NVC_THREADS      (1u << 3) /* may be called from several threads */
#define NVC_OBSERVABLE   (1u << 4) /* observe() may work (see its comment) */
#define NVC_NESTED_SLOTS (1u << 5) /* a slot may lie inside a live block */
#define NVC_FILE         (1u << 6) /* volatile, but its blocks lie in the file at path */

/* What makes an interrupted operation whole again after a crash. */
enum nvc_consistency {
    NVC_CONSISTENCY_NONE = 0, /* nothing does */
    NVC_CONSISTENCY_LOG,      /* each operation is logged */
    NVC_CONSISTENCY_GC,       /* recovery marks from the slots */
    NVC_CONSISTENCY_TX,       /* the caller's transaction */
};

/* How a heap is to be made; also given to open(), where size and slots are 0. */
struct nvc_options {
    size_t size;       /* bytes of the heap file, or DRAM bound; 0 at open */
    size_t slots;      /* entries of the slot table; 0 at open */
    const char *extra; /* "key=value,key=value" from allocator.yaml, or "" */
};

/* A live block: its address in this process and the bytes that may be used. */
struct nvc_block {
    void *address; /* NULL: the slot is empty */
    size_t usable;
};

/* An event on the way of stores to the persistence domain. */
enum nvc_event {
    NVC_EVENT_FLUSH = 0, /* clwb/clflushopt/clflush of every line of the range */
    NVC_EVENT_FENCE,     /* sfence, mfence or a locked instruction used as one */
    NVC_EVENT_NT_STORE,  /* non-temporal store of the range */
};

/*
 * Called just before the event takes effect, by the thread that causes it.
 * It may end the process.  It must not call the allocator.
 */
typedef void nvc_event_fn(void *context, enum nvc_event event, const void *address,
                          size_t length);

/* walk()'s visitor; a value other than 0 ends the walk and is returned by it. */
typedef int nvc_walk_fn(void *context, struct nvc_block block);

/* Totals since the heap was opened; what the adapter cannot tell is UINT64_MAX. */
struct nvc_stats {
    uint64_t live_bytes; /* usable bytes of live blocks */
    uint64_t heap_bytes; /* size of the heap (file) */
    uint64_t used_bytes; /* heap bytes that cannot serve a request of another
                            size: metadata, slabs, caches, live blocks */
    uint64_t flushes;    /* cache lines flushed */
    uint64_t fences;     /* fences, effective or not */
    uint64_t nt_lines;   /* lines written with non-temporal stores */
    uint32_t map_sync;   /* 1: MAP_SYNC holds, 0: it does not */
    char flush[16];      /* "clwb", "clflushopt", "clflush", "none", "" */
};

struct nvc_adapter {
    uint32_t version;     /* NVC_ADAPTER_VERSION */
    uint32_t struct_size; /* sizeof(struct nvc_adapter) */
    const char *name;     /* as in allocator.yaml; [a-z0-9-] */
    uint32_t capabilities;
    enum nvc_consistency consistency;
    size_t slot_size; /* bytes, a multiple of 8 */
    size_t min_size;  /* smallest heap file that create() accepts, bytes */

    /* Version and build of the library underneath, e.g. "5.3.0-0-g54eaed1d".
       Static storage. */
    const char *(*library_version)(void);

    /* Makes a new heap at path.  EEXIST if there is a file already. */
    int (*create)(const char *path, const struct nvc_options *options,
                  struct nvc_heap **heap);
    /* Opens a heap, recovering it if it was not closed. */
    int (*open)(const char *path, const struct nvc_options *options,
                struct nvc_heap **heap);
    /* Closes cleanly.  The handle is gone whatever is returned. */
    int (*close)(struct nvc_heap *heap);
    /* The allocator's own verdict on an open heap: 0, or EUCLEAN. NULL: none. */
    int (*check)(struct nvc_heap *heap);

    /* The slot table; *count becomes its entries.  Zero-filled when new. */
    void *(*slots)(struct nvc_heap *heap, size_t *count);
    /* The address range in which every block lies; {NULL, 0} if unknown. */
    struct nvc_block (*range)(struct nvc_heap *heap);

    int (*alloc_to)(struct nvc_heap *heap, void *slot, size_t size);
    int (*free_from)(struct nvc_heap *heap, void *slot);
    /* What the slot refers to. Never fails on a slot; a wild value gives the
       address it stands for, and the oracle judges it. */
    struct nvc_block (*read)(struct nvc_heap *heap, const void *slot);
    void (*persist)(struct nvc_heap *heap, const void *address, size_t length);

    /* Every live block (the slot table's own block excluded). NULL without
       NVC_WALK. */
    int (*walk)(struct nvc_heap *heap, nvc_walk_fn *visit, void *context);

    int (*thread_enter)(struct nvc_heap *heap); /* NULL: nothing to do */
    void (*thread_leave)(struct nvc_heap *heap);

    void (*stats)(struct nvc_heap *heap, struct nvc_stats *stats);
    /* From now on, call fn at every persistence event of the process; NULL
       ends it.  May be called before any heap is open, so that recovery is
       observed too.  ENOTSUP where the library can't be observed (a libpmem
       one without the probe library preloaded). */
    int (*observe)(nvc_event_fn *fn, void *context);
    const char *(*last_error)(void);

    /* read(slot).address alone, for the bench's inner loop: several allocators
       have to search for the usable size, which a program that just allocated
       does not ask for.  NULL: read() is as cheap. */
    void *(*address)(struct nvc_heap *heap, const void *slot);

    /* Operations that not every allocator has: NULL where there is none.  Each
       is durable and atomic as alloc_to() is. */

    /* Gives the block of a non-empty slot at least size bytes (> 0), perhaps
       elsewhere; its first min(old, new usable) bytes keep their content,
       durably.  On failure nothing has changed. */
    int (*realloc_to)(struct nvc_heap *heap, void *slot, size_t size);
    /* The empty slot `to` takes over the block of `from`, which is then empty. */
    int (*move_to)(struct nvc_heap *heap, void *from, void *to);
    /* alloc_to() for count <= 8 different empty slots: all or none. */
    int (*alloc_group)(struct nvc_heap *heap, void *const slots[], const size_t sizes[],
                       size_t count);

    /* open() on a heap image that is in memory already, for the power-fail
       laboratory, which checks many images a second: base (page-aligned) holds
       size bytes, as the file would.  detach() forgets all state in DRAM and
       leaves the image as it is; nothing is closed or unmapped.  Both or NULL. */
    int (*attach)(void *base, size_t size, const struct nvc_options *options,
                  struct nvc_heap **heap);
    void (*detach)(struct nvc_heap *heap);

    /* Finishes whatever open() left for later: on return all DRAM state of the
       heap is as it would be had it never been closed.  NULL: nothing is left, or
       the library has no call for it and does it on demand. */
    int (*rebuild)(struct nvc_heap *heap);
    /* Gives free pages of the file back to the file system (punches holes), as far
       as the library can.  NULL: it cannot. */
    int (*trim)(struct nvc_heap *heap);

    /* Whether this machine has what heaps with these options need (only `extra` is
       looked at): 0, or ENOTSUP, which last_error() explains.  NULL: whatever the
       options are. */
    int (*supports)(const struct nvc_options *options);

    /* Moves the blocks of non-empty slots so that thinly used parts of the heap become
       free; content and usable sizes stay.  No other thread works on the heap.  NULL: the
       library has no such call. */
    int (*defrag)(struct nvc_heap *heap, void *const slots[], size_t count);
};

/* The one symbol that an adapter exports. */
#define NVC_ADAPTER_SYMBOL "nvc_adapter_get"
typedef const struct nvc_adapter *nvc_adapter_get_fn(void);

#ifdef __cplusplus
}
#endif
#endif
