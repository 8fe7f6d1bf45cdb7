// SPDX-License-Identifier: Apache-2.0
/*
 * churn.h - threads that allocate and free until they are killed.
 *
 * All threads work on all slots, so they free each other's blocks.  A slot is
 * guarded by a try-lock in DRAM (dead with the process, as it should be):
 *   - an operation on a slot holds the slot's lock;
 *   - freeing a container holds its own lock and those of its inner slots, all
 *     taken by try-lock, so that there is no order to keep and no deadlock;
 *   - an inner slot is looked at only with its lock held, and exists only while
 *     its container's record says CONTAINER; that changes under all locks.
 *
 * What is hard on allocators, and therefore done: sizes from 16 bytes to a
 * share of the heap, skewed to small; a palette of few sizes that half of the
 * requests come from, so that freed blocks are reused at once; phases in which
 * the live set grows, shrinks or stays; blocks that begin with slots, freed and
 * reused while old log records still name places inside them.
 */
#ifndef NVD_CHURN_H
#define NVD_CHURN_H

#include "subject.h"

struct nvd_churn_plan {
    uint64_t seed;
    uint32_t threads; /* at most the journal's */
    uint64_t ops;     /* acknowledged operations, all threads; 0: no end */
};

/* Runs the plan; true if it ended with nothing to complain about. With one
   thread the operations are a function of seed, journal and the allocator's
   answers alone. */
bool nvd_churn_run(struct nvd_subject *subject, const struct nvd_churn_plan *plan,
                   struct nvd_finding *finding);

#endif
