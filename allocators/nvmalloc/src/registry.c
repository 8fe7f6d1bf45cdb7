/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - see registry.h. */
#include "registry.h"

#include <pthread.h>

#include "heap.h"
#include "vmem.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvm_heap *open_heaps;
static uint64_t last_id;

bool nvm_registry_locks_vmem = true;

/* Around fork(): nobody else holds the locks, so the child can use them. */
static void before_fork(void)
{
    pthread_mutex_lock(&registry_lock);
    if (nvm_registry_locks_vmem)
        vmem_lockup();
}

static void after_fork(void)
{
    if (nvm_registry_locks_vmem)
        vmem_release();
    pthread_mutex_unlock(&registry_lock);
}

/* The child's copies of the heaps are its parent's: a new id makes every call miss
   the threads' caches, and `foreign` makes it fail. */
static void in_child(void)
{
    struct nvm_heap *own = NULL;
    for (struct nvm_heap *heap = open_heaps, *next; heap != NULL; heap = next) {
        next = heap->next_open;
        if (heap->region.fd < 0) { /* no file of the parent's: an image, or detached */
            heap->next_open = own;
            own = heap;
            continue;
        }
        heap->id = ++last_id;
        heap->fast_id = NVM_NO_ID;
        heap->foreign = true;
        /* Another thread may have held it. */
        pthread_mutex_init(&heap->threads_lock, NULL);
        nvm_region_abandon(&heap->region);
    }
    open_heaps = own;
    after_fork();
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, in_child);
}

void nvm_registry_enter(struct nvm_heap *heap)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&registry_lock);
    heap->id = ++last_id;
    heap->next_open = open_heaps;
    open_heaps = heap;
    pthread_mutex_unlock(&registry_lock);
    nvm_registry_refresh();
}

void nvm_registry_refresh(void)
{
    pthread_mutex_lock(&registry_lock);
    for (struct nvm_heap *heap = open_heaps; heap != NULL; heap = heap->next_open)
        __atomic_store_n(&heap->fast_id, nvm_persist_unusual ? NVM_NO_ID : heap->id,
                         __ATOMIC_RELAXED);
    pthread_mutex_unlock(&registry_lock);
}

void nvm_observe(nvm_observer_fn *fn, void *context)
{
    nvm_persist_observe(fn, context);
    nvm_registry_refresh();
}

void nvm_registry_remove(struct nvm_heap *heap)
{
    pthread_mutex_lock(&registry_lock);
    struct nvm_heap **link = &open_heaps;
    while (*link != NULL && *link != heap)
        link = &(*link)->next_open;
    if (*link != NULL)
        *link = heap->next_open;
    pthread_mutex_unlock(&registry_lock);
}

struct nvm_heap *nvm_registry_lock(uint64_t id)
{
    pthread_mutex_lock(&registry_lock);
    struct nvm_heap *heap = open_heaps;
    while (heap != NULL && heap->id != id)
        heap = heap->next_open;
    return heap;
}

void nvm_registry_unlock(void)
{
    pthread_mutex_unlock(&registry_lock);
}
