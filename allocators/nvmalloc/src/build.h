/* SPDX-License-Identifier: Apache-2.0 */
/* build.h - the DRAM state of a heap: derived from media, and dropped. */
#ifndef NVM_BUILD_H
#define NVM_BUILD_H

#include <stdint.h>

#include "layout.h"

struct nvm_heap;

/* Derives all DRAM state from media; the log must have been replayed.  Slabs are
   left unscanned. */
int nvm_heap_build(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy);
void nvm_heap_drop(struct nvm_heap *heap);

/* Calls visit for every run of the chunk table, in order; its error, or EUCLEAN
   with the reason at the first entry that is not valid, ends the walk. */
typedef int nvm_run_fn(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                       void *context);
int nvm_heap_each_run(struct nvm_heap *heap, nvm_run_fn *visit, void *context);
/* The same; EUCLEAN, too, where a page cannot be read.  visit must not hold locks. */
int nvm_heap_each_run_guarded(struct nvm_heap *heap, nvm_run_fn *visit, void *context);

#endif
