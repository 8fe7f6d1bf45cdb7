/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.h - allocation and free, in two steps: reserve, then commit.
 *
 * Reserving is DRAM work only (but for slabs and splits, which are durable on
 * their own and mean nothing to anybody); all that can fail, fails there.
 * The commit (commit.h) cannot.
 */
#ifndef NVM_ALLOC_H
#define NVM_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcache.h"

/* Largest alignment that a block may be asked to have. */
#define NVM_ALIGNMENT_MAX NVM_REGION_ALIGNMENT

/* A block that nobody else can get, and that is not live; 0, ENOMEM or ENOSPC.
   size: 0 counts as 1.  alignment: a power of two up to NVM_ALIGNMENT_MAX; 1: as
   the size allows. */
int nvm_reserve_block(struct nvm_tcache *tcache, size_t size, size_t alignment,
                      struct nvm_block *block);
void nvm_cancel_block(struct nvm_tcache *tcache, struct nvm_block block);

/* Whether ref names a block in the given state; if so, its coordinates.  Scans its
   slab if need be.  `slab` and `extent` are for who knows which it is. */
bool nvm_find_block(struct nvm_heap *heap, nvm_ref ref, enum nvm_block_state state,
                    struct nvm_block *block);

/* Puts the content of `from` into the reserved block `to`, durably, and the slot from the
   one to the other, atomically; `from` is free then. */
void nvm_replace_block(struct nvm_tcache *tcache, nvm_ref *slot, struct nvm_block from,
                       struct nvm_block to);

/* Usable bytes of a block that is live or reserved. */
uint64_t nvm_block_bytes(const struct nvm_heap *heap, struct nvm_block block);

/* Whether a place may be an owned slot: 8-aligned in the data area, or named. */
bool nvm_is_slot(const struct nvm_heap *heap, const nvm_ref *slot);

/* Counts the misuse, explains it, and returns EINVAL. */
int nvm_misuse(struct nvm_tcache *tcache, const char *what);

/* ENOMEM or ENOSPC, explained. */
int nvm_no_room(int error, size_t size);

#endif
