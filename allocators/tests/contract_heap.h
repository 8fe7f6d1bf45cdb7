/* SPDX-License-Identifier: Apache-2.0 */
/*
 * contract_heap.h - an adapter under test and one heap of it.
 *
 * Every function fails the running cmocka test instead of returning an error,
 * and names the adapter's own last_error(); so tests read as the contract does.
 */
#ifndef CONTRACT_HEAP_H
#define CONTRACT_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"

#define CONTRACT_SLOTS 8192

/* The adapter of the whole run and the folder its heaps lie in. */
struct contract {
    const struct nvc_adapter *adapter;
    char folder[256];
    char path[288]; /* of the heap file; absent at the start of each test */
    size_t size;    /* of the heaps */
};

/* An open heap with its slot table. */
struct contract_heap {
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap;
    unsigned char *table;
    size_t slots;
};

/* Loads the adapter; exits with a message if it can't, as no test could run. */
void contract_load(struct contract *contract, const char *library);
void contract_unload(struct contract *contract);
bool contract_can(const struct contract *contract, uint32_t capability);

/* What a call must return: `expected`, with a reason in last_error() unless 0. */
void contract_expect(const struct contract *contract, int expected, int returned,
                     const char *call);

struct contract_heap contract_create(const struct contract *contract);
struct contract_heap contract_open(const struct contract *contract);
void contract_close(struct contract_heap *heap);

void *contract_slot(const struct contract_heap *heap, size_t index);
struct nvc_block contract_read(const struct contract_heap *heap, size_t index);
void contract_alloc(const struct contract_heap *heap, size_t index, size_t size);
void contract_free(const struct contract_heap *heap, size_t index);

/* Content that only (index, sequence) gives: written over the block's first
   `size` bytes and persisted; compared. */
void contract_fill(const struct contract_heap *heap, struct nvc_block block, size_t size,
                   uint64_t index, uint64_t sequence);
bool contract_holds(struct nvc_block block, size_t size, uint64_t index,
                    uint64_t sequence);

/* The live blocks that the table's slots name are disjoint, lie in range() and,
   where the adapter walks, are with `nested` further blocks just what walk() visits;
   check() agrees. Returns how many the table names. */
size_t contract_consistent(const struct contract_heap *heap, size_t nested);

/* splitmix64 */
uint64_t contract_random(uint64_t *state);

#endif
