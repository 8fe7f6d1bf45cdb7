/* SPDX-License-Identifier: Apache-2.0 */
/*
 * numa.h - which units of a heap are free: its arena, and one for each NUMA node.
 *
 * The model.  A tree of vmem arenas (vmem.h) over unit numbers:
 *
 *      heap            one span, all units of the file; grows at its end
 *       +- node 0      imports runs from the heap, gives them back when whole
 *       +- node 1 ...
 *
 * A thread allocates from its node's arena.  With several nodes an arena imports
 * BATCH units at once, so that a node's blocks lie together, in runs that a
 * page policy can be set on; with one node it imports just what is asked for.
 *
 * What holds
 *
 *  U1  a unit is in at most one live allocation
 *
 *  U2  an allocation fails only if no run of free units is long enough: what is free
 *      in one node's arena, in another's or in the heap's, or lies across their
 *      borders, can be had from every node (dry arenas are trimmed: vmem_trim())
 *
 *  U3  best fit: in the arena that serves it, a request gets a shortest free run that
 *      holds it
 *
 *  U4  with one node, placement is exactly that of a single arena with VM_BESTFIT
 *
 * Under concurrent frees U2 is decided on a set of free units that was true at some
 * instant of the call, unless the units are freed faster than SEARCHES_MAX searches.
 *
 * All of it is in DRAM, and rebuilt at open: create, then claim the runs in use in
 * ascending order, O(1) each.  Thread safe, but for create and destroy.  No malloc.
 */
#ifndef NVM_NUMA_H
#define NVM_NUMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmem.h"

#define NVM_NUMA_NODES_MAX 64u
#define NVM_NUMA_NONE      UINT64_MAX

struct nvm_numa;

/*
 * How many NUMA nodes there are: NVM_NUMA_NODES if that is set (for tests), else what
 * /sys/devices/system/node/online lists, else 1; at most NVM_NUMA_NODES_MAX.  0 if
 * NVM_NUMA_NODES is not a number of 1 to NVM_NUMA_NODES_MAX.
 */
unsigned nvm_numa_count_nodes(void);

/*
 * Units 0 to units - 1, all free; may grow to max_units.  `nodes` 0: as many as there
 * are.  NULL with errno EINVAL (impossible numbers, or a bad NVM_NUMA_NODES) or ENOMEM.
 */
struct nvm_numa *nvm_numa_create(const char *name, uint64_t units, uint64_t max_units,
                                 unsigned nodes);
/* Whatever is still allocated ends. */
void nvm_numa_destroy(struct nvm_numa *units);

/* The first of `count` units, for a thread on `node` (taken modulo the number of nodes),
   or NVM_NUMA_NONE. */
uint64_t nvm_numa_alloc(struct nvm_numa *units, unsigned node, uint64_t count);
/* The same at a multiple of `align`, a power of two (else NVM_NUMA_NONE with EINVAL); out
   of the heap's own arena, whatever the node. */
uint64_t nvm_numa_alloc_aligned(struct nvm_numa *units, uint64_t count, uint64_t align);
/* Frees what one nvm_numa_alloc...() or nvm_numa_claim() gave; another size, or what is
   not allocated, is proven misuse: the process aborts. */
void nvm_numa_free(struct nvm_numa *units, uint64_t first, uint64_t count);
/* Allocates exactly [first, first + count).  False: not all of it is free, or there is no
   memory for the segment; nothing is changed then. */
bool nvm_numa_claim(struct nvm_numa *units, uint64_t first, uint64_t count);
/* `more` units follow the last one: a free run there grows.  0, EINVAL (beyond
   max_units), ENOMEM. */
int nvm_numa_grow(struct nvm_numa *units, uint64_t more);

uint64_t nvm_numa_total(struct nvm_numa *units);
/* Free now; exact while nobody allocates or frees. */
uint64_t nvm_numa_free_count(struct nvm_numa *units);
unsigned nvm_numa_nodes(const struct nvm_numa *units);
/* The node of the CPU that the calling thread runs on, as `node` above. */
unsigned nvm_numa_here(const struct nvm_numa *units);

/* The arena of all units (address = unit + 1), and of a node: to look at. */
vmem_t *nvm_numa_heap_arena(const struct nvm_numa *units);
vmem_t *nvm_numa_node_arena(const struct nvm_numa *units, unsigned node);

/* Every invariant of the arenas.  O(free and allocated runs).  `why` as in vmem_check().
 */
bool nvm_numa_check(struct nvm_numa *units, char *why, size_t len);

#endif
