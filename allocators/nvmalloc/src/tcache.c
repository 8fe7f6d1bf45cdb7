/* SPDX-License-Identifier: Apache-2.0 */
/* tcache.c - see tcache.h. */
#include "tcache.h"

#include <errno.h>
#include <string.h>

#include "dram.h"
#include "error.h"
#include "registry.h"

#define HEAPS_PER_THREAD 8u

_Thread_local struct nvm_tcache_tls nvm_tcache_last;

/* All of the thread's tcaches, those of closed heaps included until their
   place is needed. */
static _Thread_local struct nvm_tcache_tls thread_caches[HEAPS_PER_THREAD];
static pthread_key_t exit_key;

static size_t tcache_bytes(const struct nvm_tcache *tcache)
{
    return (size_t)((const char *)tcache->bins[NVM_CLASSES - 1].limit -
                    (const char *)tcache);
}

static size_t new_tcache_bytes(void)
{
    size_t bytes = sizeof(struct nvm_tcache);
    for (unsigned klass = 0; klass < NVM_CLASSES; klass++)
        bytes += nvm_classes[klass].cache * sizeof(struct nvm_block);
    return bytes;
}

/* Ends a tcache whose heap is open; threads_lock is held. */
static void leave_locked(struct nvm_tcache *tcache, bool flush)
{
    struct nvm_heap *heap = tcache->heap;
    if (flush)
        nvm_tcache_flush(tcache);
    if (tcache->previous != NULL)
        tcache->previous->next = tcache->next;
    else
        heap->tcaches = tcache->next;
    if (tcache->next != NULL)
        tcache->next->previous = tcache->previous;
    nvm_persist_add(&heap->retired, &tcache->persist);
    heap->retired_misuses += tcache->misuses;
    if (tcache->lane != NULL && flush)
        nvm_lane_release(tcache->lane);
    nvm_dram_unmap(tcache, tcache_bytes(tcache));
}

/* Takes entry i out of the calling thread's. */
static struct nvm_tcache_tls forget_entry(unsigned i)
{
    struct nvm_tcache_tls entry = thread_caches[i];
    thread_caches[i] = (struct nvm_tcache_tls){0};
    if (nvm_tcache_last.id == entry.id)
        nvm_tcache_last = (struct nvm_tcache_tls){0};
    return entry;
}

static void leave(struct nvm_heap *heap, struct nvm_tcache *tcache)
{
    NVM_WINDOW(heap);
    pthread_mutex_lock(&heap->threads_lock);
    leave_locked(tcache, true);
    pthread_mutex_unlock(&heap->threads_lock);
}

/* Ends entry i of the calling thread, if its heap is still there. */
static void leave_entry(unsigned i)
{
    struct nvm_tcache_tls entry = forget_entry(i);
    if (entry.id == 0)
        return;
    /* The registry's lock keeps the heap from being closed meanwhile. */
    struct nvm_heap *heap = nvm_registry_lock(entry.id);
    if (heap != NULL)
        leave(heap, entry.tcache);
    nvm_registry_unlock();
}

static void leave_all(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < HEAPS_PER_THREAD; i++)
        leave_entry(i);
}

static void make_exit_key(void)
{
    pthread_key_create(&exit_key, leave_all);
}

static struct nvm_tcache *make(struct nvm_heap *heap)
{
    NVM_WINDOW(heap); /* the lane may be a new one */
    struct nvm_tcache *tcache = nvm_dram_map(new_tcache_bytes());
    if (tcache == NULL)
        return NULL;
    struct nvm_block *blocks = (struct nvm_block *)(tcache + 1);
    for (unsigned klass = 0; klass < NVM_CLASSES; klass++) {
        struct nvm_tcache_bin *bin = &tcache->bins[klass];
        bin->top = bin->bottom = blocks;
        blocks += nvm_classes[klass].cache;
        bin->limit = blocks;
    }
    tcache->heap = heap;
    tcache->gc = heap->super.mode == NVM_GC;
    if (!tcache->gc) {
        tcache->lane = nvm_lane_acquire(heap);
        if (tcache->lane == NULL) {
            nvm_dram_unmap(tcache, tcache_bytes(tcache));
            errno = ENOSPC;
            return NULL;
        }
        tcache->fast = heap->super.mode == NVM_LOG_OWNED && !tcache->lane->shared &&
                       !heap->protection.on;
    }
    tcache->arena = atomic_fetch_add(&heap->next_arena, 1) % heap->arena_count;
    pthread_mutex_lock(&heap->threads_lock);
    tcache->next = heap->tcaches;
    if (heap->tcaches != NULL)
        heap->tcaches->previous = tcache;
    heap->tcaches = tcache;
    pthread_mutex_unlock(&heap->threads_lock);
    return tcache;
}

/* A place for one more: unused, or of a closed heap; else an open heap's is
   given up, which costs that heap's next call a new tcache. */
static unsigned make_place(void)
{
    for (unsigned i = 0; i < HEAPS_PER_THREAD; i++) {
        bool open = nvm_registry_lock(thread_caches[i].id) != NULL;
        nvm_registry_unlock();
        if (!open)
            return i;
    }
    leave_entry(HEAPS_PER_THREAD - 1);
    return HEAPS_PER_THREAD - 1;
}

struct nvm_tcache *nvm_tcache_find(struct nvm_heap *heap)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    errno = heap->foreign ? EPERM : ENOMEM;
    if (heap->foreign)
        return NULL;
    for (unsigned i = 0; i < HEAPS_PER_THREAD; i++) {
        if (thread_caches[i].id == heap->id) {
            nvm_tcache_last = thread_caches[i];
            return nvm_tcache_last.tcache;
        }
    }
    pthread_once(&once, make_exit_key);
    /* Any value makes the destructor run at the thread's exit. */
    if (pthread_setspecific(exit_key, &nvm_tcache_last) != 0)
        return NULL;
    struct nvm_tcache *tcache = make(heap);
    if (tcache == NULL)
        return NULL;
    nvm_tcache_last = (struct nvm_tcache_tls){.id = heap->id,
                                              .tcache = tcache,
                                              .log_id = tcache->fast ? heap->id : 0,
                                              .gc_id = tcache->gc ? heap->id : 0};
    thread_caches[make_place()] = nvm_tcache_last;
    return tcache;
}

int(nvm_tcache_refused)(struct nvm_heap *heap)
{
    int error = heap->foreign ? EPERM : errno == ENOSPC ? ENOSPC : ENOMEM;
    return nvm_fail(error, error == EPERM
                               ? "the heap belongs to the process that this one was "
                                 "forked from"
                           : error == ENOSPC ? "the file system has no room for a lane"
                                             : "no memory for the thread's caches");
}

/* Blocks of a GC heap's cache, as the arenas know them. */
static void set_tags(struct nvm_tcache *tcache, struct nvm_block *blocks, uint32_t count)
{
    for (uint32_t i = 0; tcache->gc && i < count; i++)
        nvm_block_locate(tcache->heap, blocks[i].offset, &blocks[i]);
}

int nvm_tcache_refill(struct nvm_tcache *tcache, unsigned klass, struct nvm_block *block)
{
    struct nvm_tcache_bin *bin = &tcache->bins[klass];
    unsigned want = ((unsigned)(bin->limit - bin->bottom) + 1) / 2;
    int error;
    unsigned taken = nvm_arena_take(tcache->heap, &tcache->persist, tcache->arena, klass,
                                    bin->bottom, want, false, &error);
    if (taken == 0) {
        /* Before larger classes are touched: what is cached here may be all of a slab. */
        nvm_tcache_flush(tcache);
        taken = nvm_arena_take(tcache->heap, &tcache->persist, tcache->arena, klass,
                               bin->bottom, want, true, &error);
    }
    if (taken == 0)
        return error;
    /* Lowest address on top, so that blocks come in address order. */
    for (unsigned i = 0; i < taken / 2; i++) {
        struct nvm_block swap = bin->bottom[i];
        bin->bottom[i] = bin->bottom[taken - 1 - i];
        bin->bottom[taken - 1 - i] = swap;
    }
    bin->top = bin->bottom + taken - 1;
    *block = *bin->top;
    for (unsigned i = 0; tcache->gc && i < taken - 1; i++)
        bin->bottom[i].tag = nvm_block_live_state(true, bin->bottom[i]);
    return 0;
}

int nvm_tcache_spill(struct nvm_tcache *tcache, unsigned klass)
{
    NVM_WINDOW(tcache->heap); /* nvm_free() has none */
    struct nvm_tcache_bin *bin = &tcache->bins[klass];
    uint32_t surplus = (nvm_tcache_count(bin) + 1) / 2;
    set_tags(tcache, bin->bottom, surplus);
    nvm_arena_give(tcache->heap, &tcache->persist, bin->bottom, surplus);
    bin->top -= surplus;
    memmove(bin->bottom, bin->bottom + surplus,
            nvm_tcache_count(bin) * sizeof(struct nvm_block));
    return 0;
}

void nvm_tcache_flush(struct nvm_tcache *tcache)
{
    for (unsigned klass = 0; klass < NVM_CLASSES; klass++) {
        struct nvm_tcache_bin *bin = &tcache->bins[klass];
        if (nvm_tcache_count(bin) == 0)
            continue;
        set_tags(tcache, bin->bottom, nvm_tcache_count(bin));
        nvm_arena_give(tcache->heap, &tcache->persist, bin->bottom,
                       nvm_tcache_count(bin));
        bin->top = bin->bottom;
    }
}

void nvm_tcache_drop_all(struct nvm_heap *heap, bool flush)
{
    pthread_mutex_lock(&heap->threads_lock);
    while (heap->tcaches != NULL)
        leave_locked(heap->tcaches, flush);
    pthread_mutex_unlock(&heap->threads_lock);
}

void nvm_thread_leave(nvm_heap *heap)
{
    for (unsigned i = 0; i < HEAPS_PER_THREAD; i++)
        if (thread_caches[i].id == heap->id)
            leave(heap, forget_entry(i).tcache);
}
