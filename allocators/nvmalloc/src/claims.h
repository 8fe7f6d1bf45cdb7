/* SPDX-License-Identifier: Apache-2.0 */
/*
 * claims.h - which units are taken, as the arenas of units (numa.h) see it.
 *
 * The arenas give back only what was allocated as a whole.  A heap that is
 * opened has thousands of runs in use; allocating each of them would be most of
 * the time that an open takes.  So a *claim* is made for every stretch of units
 * in use without a free one between, and cut when a run of it is given back:
 * the claim is freed, and what is left on either side is claimed again.
 *
 * Invariant: heap->unit_flags has CLAIMED for the units that are allocated in
 * the arenas, and CLAIM for the first of each allocation.
 *
 * All under heap->units_lock: whoever allocates units holds it, so nobody takes
 * what is free only for the moment.
 */
#ifndef NVM_CLAIMS_H
#define NVM_CLAIMS_H

#include <stdint.h>

struct nvm_heap;

/* Notes that the arenas have given out [unit, unit + units). */
void nvm_claims_note(struct nvm_heap *heap, uint32_t unit, uint32_t units);

/* Claims units that are in use at open; 0 or ENOMEM. */
int nvm_claims_make(struct nvm_heap *heap, uint32_t unit, uint32_t units);

/* Gives [unit, unit + units), part of one claim, back to the arenas. */
void nvm_claims_release(struct nvm_heap *heap, uint32_t unit, uint32_t units);

#endif
