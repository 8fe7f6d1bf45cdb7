/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h - the heaps that are open in this process, by id; what fork() does to them.
 */
#ifndef NVM_REGISTRY_H
#define NVM_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

struct nvm_heap;

/* Whether fork() is surrounded by vmem_lockup() and vmem_release() here; false: by
   somebody else, who has to take them in an order of his own. */
extern bool nvm_registry_locks_vmem;

/* Enters the heap under a new id, which it sets. */
void nvm_registry_enter(struct nvm_heap *heap);
/* Tells all open heaps what nvm_persist_unusual is now: see heap->fast_id. */
void nvm_registry_refresh(void);
/* After this no thread exit touches the heap. */
void nvm_registry_remove(struct nvm_heap *heap);
/* Takes the registry's lock; the heap of that id, or NULL if it is gone. */
struct nvm_heap *nvm_registry_lock(uint64_t id);
void nvm_registry_unlock(void);

#endif
