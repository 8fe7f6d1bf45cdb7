// SPDX-License-Identifier: Apache-2.0
/*
 * brim.h - fills a heap to the brim.
 *
 * A descending ladder: blocks of half the heap's size while they fit, then of
 * a quarter, ... down to 16 bytes.  What remains free after a rung is smaller
 * than its size, so each rung takes few blocks, and the ladder as a whole
 * measures the space that can still be handed out, to the last 16 bytes.
 * The same code fills a fresh heap (the baseline) and one that has lived
 * through crashes and whose blocks are all freed: less is a leak.
 * The sum of the *requested* sizes is compared: it is what an application gets.
 *
 * It uses the slots behind the journal's (subject.h), unjournalled: a crash
 * while it runs is a verdict, not a state to go on from.
 */
#ifndef NVD_BRIM_H
#define NVD_BRIM_H

#include "subject.h"

struct nvd_brim {
    uint64_t bytes;
    uint64_t blocks;
    bool slots_exhausted; /* the ladder ended for want of slots, not of space */
};

/* Fills, checks that the blocks are disjoint and hold what is written to their
   ends, and frees them again. False with an accusation. */
bool nvd_brim_fill(struct nvd_subject *subject, struct nvd_brim *brim,
                   struct nvd_finding *finding);

#endif
