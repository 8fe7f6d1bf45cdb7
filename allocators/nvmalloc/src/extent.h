/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extent.h - runs of units: the chunk table on media, the vmem in DRAM.
 *
 * On media the chunk table is a list of runs that the walk visits: entry 0,
 * then on by each entry's `units`, to the end of the heap.  In DRAM the vmem
 * `free_units` says which units are free; it coalesces, the table does not: a
 * free segment of the vmem may be several FREE runs of the table, one after
 * another, and a run that was reserved in the vmem may start or end in the
 * middle of one.
 *
 * Isolation (nvm_extent_isolate) makes the table agree before units are put
 * to use: [unit, unit + units) becomes exactly one run.  Runs are split and
 * merged by rewriting entries in an order in which every prefix leaves a
 * valid walk:
 *   1. the tail's entry, at the end of what is wanted: not walked to yet
 *   2. the wanted run's own entry, if it does not begin a run: not walked to yet
 *      -- fence --
 *   3. the entry at which the walk meets all this: the wanted run's (it now
 *      ends at the tail, so runs in between are jumped over), or that of the
 *      run which it was cut out of (it now ends at the wanted run)
 *      -- fence --
 * Only the owner of the units in the vmem isolates them, under chunk_lock.
 *
 * Generations: each of these writes, which no record tells of, raises the
 * generation of the entry that it writes; so does an extent's birth.  A record
 * about a former tenant of the unit bears an older generation and is ignored
 * by recovery, as far as the chunk entry and the bitmap go.
 *
 * An extent's allocation and free are logged: the chunk entry is the record's
 * mark, a plain store (FREE <-> EXTENT of the same run) after the record.
 */
#ifndef NVM_EXTENT_H
#define NVM_EXTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

struct nvm_heap;
struct nvm_persist;

/* Reserves units in DRAM, allocated in the file, the first at a multiple of
   alignment (bytes; a power of two up to NVM_REGION_ALIGNMENT); the heap grows if
   it may.  0, ENOMEM or ENOSPC. */
int nvm_extent_reserve(struct nvm_heap *heap, uint32_t units, uint64_t alignment,
                       uint32_t *unit);
/* Gives reserved units back in DRAM (their table run must say FREE). */
void nvm_extent_unreserve(struct nvm_heap *heap, uint32_t unit, uint32_t units);

/* Makes [unit, unit + units) one run with the given state and class, durable
   on return, and returns its generation. */
uint32_t nvm_extent_isolate(struct nvm_heap *heap, struct nvm_persist *persist,
                            uint32_t unit, uint32_t units, enum nvm_chunk_state state,
                            unsigned klass);

/* Writes the entry that makes units past the end of the walk one FREE run, durable on
   return; under chunk_lock, before the heap is told of them. */
void nvm_extent_found(struct nvm_heap *heap, struct nvm_persist *persist, uint32_t unit,
                      uint32_t units);

/* The logged flip of an isolated run: a plain store; returns the entry's
   address, which is the record's mark. */
const void *nvm_extent_flip(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk);

struct nvm_chunk nvm_extent_chunk(const struct nvm_heap *heap, uint32_t unit);

#endif
