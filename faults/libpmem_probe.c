/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpmem_probe.c - reports what a process asks of libpmem, event by event.
 *
 * How it gets between
 * -------------------
 * Preloaded, it defines libpmem's functions; libpmemobj binds to them by name,
 * its tables of function pointers included (GLOB_DAT relocations), and each ends
 * in the real one.  The real library is taken by file name, not with RTLD_NEXT:
 * a program that was loaded with dlopen() brings libpmem into a scope that
 * RTLD_NEXT does not search.  libpmem itself calls pmem_flush(), pmem_drain(),
 * pmem_msync() and the pmem_deep_ ones through its PLT, so these calls come back
 * to us; a per-thread depth keeps them from being counted twice.
 *
 * What is reported, from libpmem(7), pmem_flush(3) and pmem_memmove_persist(3)
 * ----------------------------------------------------------------------------
 *   flush, deep_flush              FLUSH of the range
 *   drain, deep_drain              FENCE
 *   persist, deep_persist          FLUSH, FENCE
 *   msync                          FLUSH, FENCE (the kernel writes back)
 *   memcpy, memmove, memset        the data, then FENCE unless NODRAIN; the data are
 *     with NOFLUSH                 plain stores: nothing, and no FENCE
 *     with NONTEMPORAL or WC       NT_STORE
 *     with TEMPORAL or WB          FLUSH
 *     else, from the threshold on  NT_STORE; below it FLUSH.  256 bytes, or
 *                                  PMEM_MOVNT_THRESHOLD; PMEM_NO_MOVNT=1: never
 * A non-temporal copy writes whole lines that way.  A first line that it covers
 * in part is stored and flushed; a last one too, unless its part is 4, 8, 16 or 32
 * bytes, which single non-temporal stores can write.  The manual does not say so:
 * tests/test_libpmem_probe.c holds it, and all of this, to the instructions that run.
 *
 * Order within one call.  An event is reported before it takes effect, a FLUSH
 * after the stores that it flushes: so a copy below the threshold is split into
 * libpmem's copy without flush, the report, and libpmem's flush: the same persistence
 * instructions in the same order as without the probe.
 *
 * What it cannot see
 * ------------------
 *   - the program's plain stores: only where their lines are flushed;
 *   - locked instructions, which fence too: libpmemobj's mutexes have them;
 *   - the fences inside one non-temporal copy above some 700 bytes, which libpmem
 *     issues on Intel processors to keep write-combining buffers from spilling
 *     (PMEM_WC_WORKAROUND).  They order lines of that copy only.
 *   - on a processor with clflush alone: drain is no instruction there, as clflush
 *     waits for nothing; FENCE is reported all the same, for the order it stands for;
 *   - with PMEM_NO_MOVNT=1: that libpmem then flushes some lines twice.
 * A heap that is not persistent memory by libpmem's account and not forced to be
 * goes through msync().
 *
 * Threads.  The observer is set while no other thread is in libpmem; the real
 * functions are looked up once, by whichever thread comes first.
 */
#include "libpmem_probe.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpmem.h>

#define LINE              64u
#define DEFAULT_THRESHOLD 256u
#define EXPORT            __attribute__((visibility("default")))

#define ALWAYS_NT    (PMEM_F_MEM_NONTEMPORAL | PMEM_F_MEM_WC)
#define ALWAYS_FLUSH (PMEM_F_MEM_TEMPORAL | PMEM_F_MEM_WB)

static struct {
    void (*flush)(const void *, size_t);
    void (*drain)(void);
    void (*deep_flush)(const void *, size_t);
    int (*deep_drain)(const void *, size_t);
    int (*msync)(const void *, size_t);
    void *(*memcpy)(void *, const void *, size_t, unsigned);
    void *(*memmove)(void *, const void *, size_t, unsigned);
    void *(*memset)(void *, int, size_t, unsigned);
    size_t threshold;
} real;

static pthread_once_t real_once = PTHREAD_ONCE_INIT;

static nvc_event_fn *_Atomic observer;
static void *_Atomic observer_context;

/* Above 0: libpmem calls itself, or the observer runs. */
static _Thread_local unsigned depth;

static void resolve(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    if (address == NULL) {
        /* The program is about to call it, and there is nothing to go on with. */
        fprintf(stderr, "libpmem-probe: libpmem.so.1 has no %s\n", name);
        abort();
    }
    memcpy(function, &address, sizeof address);
}

static void resolve_all(void)
{
    void *library = dlopen("libpmem.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "libpmem-probe: %s\n", dlerror());
        abort();
    }
    resolve(library, "pmem_flush", &real.flush);
    resolve(library, "pmem_drain", &real.drain);
    resolve(library, "pmem_deep_flush", &real.deep_flush);
    resolve(library, "pmem_deep_drain", &real.deep_drain);
    resolve(library, "pmem_msync", &real.msync);
    resolve(library, "pmem_memcpy", &real.memcpy);
    resolve(library, "pmem_memmove", &real.memmove);
    resolve(library, "pmem_memset", &real.memset);
    real.threshold = DEFAULT_THRESHOLD;
    const char *threshold = getenv("PMEM_MOVNT_THRESHOLD");
    if (threshold != NULL) {
        /* As libpmem reads it: what is no number counts as 0, a negative one is ignored.
         */
        long long bytes = strtoll(threshold, NULL, 10);
        if (bytes >= 0) {
            real.threshold = (size_t)bytes;
        }
    }
    const char *no_movnt = getenv("PMEM_NO_MOVNT");
    if (no_movnt != NULL && strcmp(no_movnt, "1") == 0) {
        real.threshold = SIZE_MAX;
    }
}

EXPORT void nvc_libpmem_observe(nvc_event_fn *fn, void *context)
{
    atomic_store(&observer, NULL);
    atomic_store(&observer_context, context);
    atomic_store(&observer, fn);
}

static void report(enum nvc_event event, const void *address, size_t length)
{
    nvc_event_fn *fn = atomic_load_explicit(&observer, memory_order_acquire);
    if (fn != NULL && depth == 0) {
        depth++;
        fn(atomic_load_explicit(&observer_context, memory_order_relaxed), event, address,
           length);
        depth--;
    }
}

/* The real functions, entered with depth raised. */

static void do_flush(const void *address, size_t length)
{
    pthread_once(&real_once, resolve_all);
    if (length != 0) {
        report(NVC_EVENT_FLUSH, address, length);
    }
    depth++;
    real.flush(address, length);
    depth--;
}

static void do_drain(void)
{
    pthread_once(&real_once, resolve_all);
    report(NVC_EVENT_FENCE, NULL, 0);
    depth++;
    real.drain();
    depth--;
}

/* --- libpmem's flushing functions ---------------------------------------- */

EXPORT void pmem_flush(const void *address, size_t length)
{
    do_flush(address, length);
}

EXPORT void pmem_drain(void)
{
    do_drain();
}

EXPORT void pmem_persist(const void *address, size_t length)
{
    do_flush(address, length);
    do_drain();
}

EXPORT int pmem_msync(const void *address, size_t length)
{
    pthread_once(&real_once, resolve_all);
    report(NVC_EVENT_FLUSH, address, length);
    report(NVC_EVENT_FENCE, NULL, 0);
    depth++;
    int result = real.msync(address, length);
    depth--;
    return result;
}

EXPORT void pmem_deep_flush(const void *address, size_t length)
{
    pthread_once(&real_once, resolve_all);
    if (length != 0) {
        report(NVC_EVENT_FLUSH, address, length);
    }
    depth++;
    real.deep_flush(address, length);
    depth--;
}

EXPORT int pmem_deep_drain(const void *address, size_t length)
{
    pthread_once(&real_once, resolve_all);
    report(NVC_EVENT_FENCE, NULL, 0);
    depth++;
    int result = real.deep_drain(address, length);
    depth--;
    return result;
}

EXPORT int pmem_deep_persist(const void *address, size_t length)
{
    pmem_deep_flush(address, length);
    return pmem_deep_drain(address, length);
}

/* --- libpmem's copying functions ----------------------------------------- */

/* How the data of a copy reach memory. */
enum store_kind {
    STORE_PLAIN,       /* cached, left unflushed */
    STORE_FLUSHED,     /* cached, then flushed */
    STORE_NONTEMPORAL, /* past the cache */
};

static enum store_kind store_kind(size_t length, unsigned flags)
{
    if ((flags & PMEM_F_MEM_NOFLUSH) != 0) {
        return STORE_PLAIN;
    }
    if ((flags & ALWAYS_NT) != 0 && real.threshold != SIZE_MAX) {
        return STORE_NONTEMPORAL;
    }
    if ((flags & ALWAYS_FLUSH) != 0) {
        return STORE_FLUSHED;
    }
    return length < real.threshold ? STORE_FLUSHED : STORE_NONTEMPORAL;
}

/* A copy or fill of the real library: one of the three functions. */
struct store {
    void *(*copy)(void *, const void *, size_t, unsigned); /* or NULL: memset */
    const void *from;
    int byte;
};

static void do_store(const struct store *store, void *to, size_t length, unsigned flags)
{
    depth++;
    if (store->copy != NULL) {
        store->copy(to, store->from, length, flags);
    } else {
        real.memset(to, store->byte, length, flags);
    }
    depth--;
}

/* Can one non-temporal store write a part of a line of this length? */
static bool one_store(size_t length)
{
    return length == 4 || length == 8 || length == 16 || length == 32;
}

/* The whole lines of [to, to + length) go past the cache, what lies before and
   mostly what lies behind them is stored and flushed. */
static void store_nontemporal(const struct store *store, char *to, size_t length,
                              unsigned flags)
{
    size_t head = (LINE - (uintptr_t)to % LINE) % LINE;
    head = head < length ? head : length;
    size_t tail = (length - head) % LINE;
    tail = one_store(tail) ? 0 : tail;
    size_t past_cache = length - head - tail;
    if (past_cache != 0) {
        report(NVC_EVENT_NT_STORE, to + head, past_cache);
    }
    do_store(store, to, length, flags | PMEM_F_MEM_NODRAIN);
    if (head != 0) {
        report(NVC_EVENT_FLUSH, to, head);
    }
    if (tail != 0) {
        report(NVC_EVENT_FLUSH, to + head + past_cache, tail);
    }
}

static void *observed_store(const struct store *store, void *to, size_t length,
                            unsigned flags)
{
    pthread_once(&real_once, resolve_all);
    switch (store_kind(length, flags)) {
    case STORE_PLAIN:
        do_store(store, to, length, flags);
        return to; /* NOFLUSH implies NODRAIN */
    case STORE_FLUSHED:
        do_store(store, to, length,
                 (flags & ~(ALWAYS_NT | ALWAYS_FLUSH)) | PMEM_F_MEM_NOFLUSH);
        do_flush(to, length);
        break;
    case STORE_NONTEMPORAL:
        store_nontemporal(store, to, length, flags);
        break;
    }
    if ((flags & PMEM_F_MEM_NODRAIN) == 0) {
        do_drain();
    }
    return to;
}

EXPORT void *pmem_memcpy(void *to, const void *from, size_t length, unsigned flags)
{
    pthread_once(&real_once, resolve_all);
    return observed_store(&(struct store){.copy = real.memcpy, .from = from}, to, length,
                          flags);
}

EXPORT void *pmem_memmove(void *to, const void *from, size_t length, unsigned flags)
{
    pthread_once(&real_once, resolve_all);
    return observed_store(&(struct store){.copy = real.memmove, .from = from}, to, length,
                          flags);
}

EXPORT void *pmem_memset(void *to, int byte, size_t length, unsigned flags)
{
    return observed_store(&(struct store){.byte = byte}, to, length, flags);
}

EXPORT void *pmem_memcpy_persist(void *to, const void *from, size_t length)
{
    return pmem_memcpy(to, from, length, 0);
}

EXPORT void *pmem_memcpy_nodrain(void *to, const void *from, size_t length)
{
    return pmem_memcpy(to, from, length, PMEM_F_MEM_NODRAIN);
}

EXPORT void *pmem_memmove_persist(void *to, const void *from, size_t length)
{
    return pmem_memmove(to, from, length, 0);
}

EXPORT void *pmem_memmove_nodrain(void *to, const void *from, size_t length)
{
    return pmem_memmove(to, from, length, PMEM_F_MEM_NODRAIN);
}

EXPORT void *pmem_memset_persist(void *to, int byte, size_t length)
{
    return pmem_memset(to, byte, length, 0);
}

EXPORT void *pmem_memset_nodrain(void *to, int byte, size_t length)
{
    return pmem_memset(to, byte, length, PMEM_F_MEM_NODRAIN);
}
