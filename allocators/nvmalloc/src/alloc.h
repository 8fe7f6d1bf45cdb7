/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.h - allocation and free, in two steps: reserve, then commit.
 *
 * Reserving is DRAM work only (but for slabs and splits, which are durable on
 * their own and mean nothing to anybody); all that can fail, fails there.
 * The commit cannot: it logs one record and makes two plain stores.
 */
#ifndef NVM_ALLOC_H
#define NVM_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcache.h"

/* A block that nobody else can get, and that is not live; 0 or ENOMEM.
   size: 0 counts as 1. */
int nvm_reserve_block(struct nvm_tcache *tcache, size_t size, struct nvm_block *block);
/* Makes the block live and *dest refer to it; durable and atomic on return. */
void nvm_commit_block(struct nvm_tcache *tcache, struct nvm_block block, nvm_ref *dest);
void nvm_cancel_block(struct nvm_tcache *tcache, struct nvm_block block);

/* Whether ref names a live block; if so, its coordinates. */
bool nvm_find_block(const struct nvm_heap *heap, nvm_ref ref, struct nvm_block *block);

/* Usable bytes of a block that is live or reserved. */
uint64_t nvm_block_bytes(const struct nvm_heap *heap, struct nvm_block block);

#endif
