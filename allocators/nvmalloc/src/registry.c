/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - see registry.h. */
#include "registry.h"

#include <pthread.h>

#include "heap.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvm_heap *open_heaps;
static uint64_t last_id;

void nvm_registry_enter(struct nvm_heap *heap)
{
    pthread_mutex_lock(&registry_lock);
    heap->id = ++last_id;
    heap->next_open = open_heaps;
    open_heaps = heap;
    pthread_mutex_unlock(&registry_lock);
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
