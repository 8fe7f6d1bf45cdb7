/* SPDX-License-Identifier: Apache-2.0 */
/* grow.h - more units for a heap, and fewer pages. */
#ifndef NVM_GROW_H
#define NVM_GROW_H

#include <stdint.h>

struct nvm_heap;

/* Allocates in the file what a new heap of super.size needs: the metadata of its
   units, and the units. */
int nvm_heap_allocate(struct nvm_heap *heap);

/* Adds at least `units` units; ENOMEM at the heap's maximum, ENOSPC.  units_lock is
   held. */
int nvm_heap_grow(struct nvm_heap *heap, uint32_t units);

/* Allocates those of the units that may be holes; units_lock is held. */
int nvm_heap_fill_holes(struct nvm_heap *heap, uint32_t unit, uint32_t units);

#endif
