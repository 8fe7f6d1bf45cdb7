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

#include <stddef.h>
#include <stdint.h>

#include "tcache.h"

/* A block that nobody else can get, and that is not live. */
struct nvm_reservation {
    uint64_t offset;
    uint64_t bytes;               /* usable */
    uint32_t unit;                /* of the chunk entry: slab or extent head */
    uint32_t generation;          /* that the block's record must bear */
    struct nvm_block_place place; /* of a slab block */
    uint8_t extent;               /* 1: an extent */
};

/* 0 or ENOMEM. size: 0 counts as 1. */
int nvm_reserve_block(struct nvm_tcache *tcache, size_t size,
                      struct nvm_reservation *reservation);
/* Makes the block live and *dest refer to it; durable and atomic on return. */
void nvm_commit_block(struct nvm_tcache *tcache,
                      const struct nvm_reservation *reservation, nvm_ref *dest);
void nvm_cancel_block(struct nvm_tcache *tcache,
                      const struct nvm_reservation *reservation);

/* Whether ref names a live block; if so, fills in everything. */
bool nvm_find_block(const struct nvm_heap *heap, nvm_ref ref,
                    struct nvm_reservation *block);

#endif
