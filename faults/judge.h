// SPDX-License-Identifier: Apache-2.0
/*
 * judge.h - holds one crash state to the recovery contract, in this process.
 *
 * Two depths:
 *   every state: recovery ends without a complaint; each operation in flight is whole
 *     or absent, all of its slots together; the driver's oracle (oracle.h) on slots,
 *     places, overlaps, walk, contents, leaks; the allocator's own check() agrees.
 *   each state that looks new to the application (other blocks, other slots than any
 *     state judged since the last acknowledgement), and a seeded share of the others:
 *     a second workload (driver's), everything freed, the heap filled to the brim and
 *     compared with a fresh one, and recovered once more.
 * A heap that was found wanting is not unmounted: that may not be survived.
 */
#ifndef NVL_JUDGE_H
#define NVL_JUDGE_H

#include "image.h"
#include "ledger.h"
#include "oracle.h"
#include "subject.h"
#include "verdict.h"

struct nvl_judge {
    struct nvl_image *image;
    uint64_t fill_baseline; /* bytes that fill a fresh heap; 0: not compared */
    double fill_tolerance;
    uint64_t deep_share; /* one state in so many is judged deeply in any case; 0: none */
    uint64_t seed;
    bool deep;                     /* at all */
    _Atomic uint32_t *shown_phase; /* for whoever buries the process; or NULL */

    /* Of the state judged last. */
    struct nvl_ledger *resolved;
    struct nvd_finding finding;
    enum nvd_phase phase;
    bool mounted; /* the heap was left mounted: the process is not clean */
    bool was_deep;
    size_t reads; /* watched lines read before the deep part, in which states that look
                     the same are taken to be the same */
    void (*recovered)(void *context); /* called when recovery has ended */
    void *context;

    /* Kept between states. */
    struct nvd_sighting *sightings;
    uint64_t *victim_slots; /* [ids]: where each slot was seen in the image; UINT64_MAX */
    char (*names)[24];
    struct nvc_block *walked;
    size_t walked_count, walked_capacity;
    struct nvd_subject subject;
    uint8_t *journal; /* in DRAM, laid out as its file */
    uint64_t *looks;  /* open hash of the looks judged deeply since an operation ended */
    size_t look_count;
};

void nvl_judge_init(struct nvl_judge *judge, struct nvl_image *image,
                    const struct nvl_ledger *ledger);
/* An operation was acknowledged: every look is new again. */
void nvl_judge_new_operation(struct nvl_judge *judge);
/* True if the image, which owes `ledger`, survives. The image is changed. */
bool nvl_judge_state(struct nvl_judge *judge, const struct nvl_ledger *ledger);

/* The three steps of a recorder's generation that recovers: reads the slots of the
   operations in flight and settles what became of them. */
void nvl_resolve(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                 struct nvl_ledger *ledger);
/* The address of a slot; NULL if its container is not in place. */
void *nvl_slot_address(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                       const struct nvl_ledger *ledger, uint32_t id);
struct nvl_place nvl_place_of(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                              struct nvc_block block);

#endif
