/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settle.h - applying the marks of a lane's records, and flushing what they
 * changed, each line once (lane.h, theory 5 and 6).
 */
#ifndef NVM_SETTLE_H
#define NVM_SETTLE_H

struct nvm_heap;
struct nvm_lane;

/* Settles what the calling thread, the lane's owner, has written since it did so
   last; durable after its next fence. */
void nvm_lane_settle_later(struct nvm_lane *lane);

/* Settles all that has been written in the lane, by whomever; durable on return
   but for an operation that is in flight. */
void nvm_lane_settle(struct nvm_lane *lane);

/* Whether all that nvm_lane_settle() would touch can be read: 0 or EUCLEAN.  A settling
   that is cut off by SIGBUS would leave marks of which nobody knows whether they are
   applied. */
int nvm_lanes_probe(struct nvm_heap *heap);

#endif
