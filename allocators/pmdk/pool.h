/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - a libpmemobj pool as a heap of adapter.h, but for alloc_to and
 * free_from, in which libpmemobj's two interfaces differ: adapter.c here takes the
 * atomic one, ../pmdk-tx/adapter.c transactions.
 *
 * A slot is a PMEMoid, the slot table an array of them in the pool's root
 * object, behind a header that says how many.
 *
 * Invariants
 *   1. A pool is ours iff its layout name is ours and its root object has the
 *      header; libpmemobj constructs the root object atomically, so a crash in
 *      create() leaves a pool without root, which open() calls damaged.
 *   2. A slot is empty iff its offset is 0 (libpmemobj's own rule).
 *   3. read() takes the offset alone and this pool's base, not the pool id: a
 *      wild slot must show the oracle where it points, not look empty.
 *
 * The two adapters open each other's pools: it is one format.
 */
#ifndef NVC_PMDK_POOL_H
#define NVC_PMDK_POOL_H

#include <libpmemobj.h>

#include "adapter.h"

/* Of every block but the root object. */
#define PMDK_BLOCK_TYPE 1

struct pmdk_root;

struct nvc_heap {
    PMEMobjpool *pool;
    size_t size; /* of the file, and of its mapping at pool */
    struct pmdk_root *root;
};

/* Notes the reason for last_error() and returns error. */
int pmdk_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The errno value that alloc_to gives for what libpmemobj left in errno. */
int pmdk_alloc_error(int error);

/* As adapter.h has them. */
const char *pmdk_library_version(void);
int pmdk_create(const char *path, const struct nvc_options *options,
                struct nvc_heap **heap);
int pmdk_open(const char *path, const struct nvc_options *options,
              struct nvc_heap **heap);
int pmdk_close(struct nvc_heap *heap);
int pmdk_check(struct nvc_heap *heap);
void *pmdk_slots(struct nvc_heap *heap, size_t *count);
struct nvc_block pmdk_range(struct nvc_heap *heap);
struct nvc_block pmdk_read(struct nvc_heap *heap, const void *slot);
void *pmdk_address(struct nvc_heap *heap, const void *slot);
void pmdk_persist(struct nvc_heap *heap, const void *address, size_t length);
int pmdk_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context);
void pmdk_stats(struct nvc_heap *heap, struct nvc_stats *stats);
int pmdk_observe(nvc_event_fn *fn, void *context);
const char *pmdk_last_error(void);

/* Initialises all of a struct nvc_adapter but name, consistency, alloc_to, free_from. */
#define PMDK_POOL_FUNCTIONS                                                              \
    .version = NVC_ADAPTER_VERSION, .struct_size = sizeof(struct nvc_adapter),           \
    .capabilities =                                                                      \
        NVC_PERSISTENT | NVC_WALK | NVC_THREADS | NVC_OBSERVABLE | NVC_NESTED_SLOTS,     \
    .slot_size = sizeof(PMEMoid), .min_size = PMEMOBJ_MIN_POOL,                          \
    .library_version = pmdk_library_version, .create = pmdk_create, .open = pmdk_open,   \
    .close = pmdk_close, .check = pmdk_check, .slots = pmdk_slots, .range = pmdk_range,  \
    .read = pmdk_read, .persist = pmdk_persist, .walk = pmdk_walk, .stats = pmdk_stats,  \
    .observe = pmdk_observe, .last_error = pmdk_last_error, .address = pmdk_address

#endif
