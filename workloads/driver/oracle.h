// SPDX-License-Identifier: Apache-2.0
/*
 * oracle.h - judges what a recovered heap shows against what it owes.
 *
 * The oracle knows neither adapter nor journal, only *evidence*: for each slot
 * what is owed and what is seen, what the allocator's walk visited, and where
 * blocks may lie.  So it can be tested on synthetic evidence of every kind.
 *
 * Points 1-3 of the recovery contract, in the order in which they are judged;
 * the first that fails is the verdict, because each can cause the later ones:
 *   lost, resurrected   a slot shows another operation's state than the last
 *                       acknowledged one (an operation in flight may be whole
 *                       or absent).  A slot that names another block than the
 *                       acknowledged one is lost too.  Whatever follows from
 *                       such a slot (its space reused, its content foreign)
 *                       has this for its cause.  But a slot inside a block may
 *                       itself be the victim: when its container shares memory
 *                       with an acknowledged block, or the container's payload
 *                       is foreign too, that is the verdict (overlap, corrupt).
 *   corrupt (place)     a block outside the heap or smaller than asked for: its
 *                       extent means nothing, so overlaps of it don't either
 *   overlap             the same bytes have two owners: two live blocks, a live
 *                       block and the slot table, or a live block and the
 *                       allocator's free space (the walk does not visit it, so
 *                       it will be handed out again)
 *   corrupt (content)   a payload that was persisted is not what the block
 *                       holds, though nobody else owns these bytes
 *   leak                the walk visits a block that no slot refers to, or
 *                       accounts for more bytes than the slots do
 */
#ifndef NVD_ORACLE_H
#define NVD_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"
#include "verdict.h"

/* What is owed in a slot. */
enum nvd_owed {
    NVD_OWED_EMPTY = 0,
    NVD_OWED_FULL,
    NVD_OWED_EITHER, /* an operation in flight: whole or absent */
};

/* One slot: what is owed in it and what is seen. */
struct nvd_sighting {
    const char *name; /* "slot 7.2" */
    uint32_t id;
    enum nvd_owed owed;
    struct nvc_block seen; /* address NULL: empty */
    uint64_t seq;          /* of the acknowledged block */
    size_t size;           /* least usable bytes, if there is a block */
    int64_t offset;        /* of the acknowledged block from the range; -1: unknown */
    size_t payload_from;   /* payload that is owed if there is a block: */
    size_t payload_to;     /* bytes [from, to); none if equal */
    /* The sighting of the block in which this slot lies; NULL: in the table. */
    const struct nvd_sighting *container;
};

struct nvd_evidence {
    const struct nvd_sighting *sightings;
    size_t count;
    const struct nvc_block *walked; /* what the walk visited */
    size_t walked_count;
    bool walks;             /* the allocator has a walk */
    struct nvc_block range; /* where blocks may lie; address NULL: unknown */
    struct nvc_block table; /* the slot table */
};

/* True if nothing is wrong; else the finding says what. ENOMEM of its own is
   fatal to the process. */
bool nvd_oracle_judge(const struct nvd_evidence *evidence, struct nvd_finding *finding);

/* True if a fresh block collides with nothing in the evidence. */
bool nvd_oracle_admits(const struct nvd_evidence *evidence, const char *name,
                       struct nvc_block fresh, struct nvd_finding *finding);

/* True if no two of these blocks overlap; sorts them. */
bool nvd_oracle_disjoint(struct nvc_block *blocks, size_t count,
                         struct nvd_finding *finding);

#endif
