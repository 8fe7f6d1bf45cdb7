/* SPDX-License-Identifier: Apache-2.0 */
/* collect.h - recovery of a GC heap: what the roots reach is live. */
#ifndef NVM_COLLECT_H
#define NVM_COLLECT_H

struct nvm_heap;

/* Sets heap->state of every block by reachability, and frees the extents that are
   not reached; the heap is built, and nobody else uses it.  0 or ENOMEM. */
int nvm_collect(struct nvm_heap *heap);

#endif
