// SPDX-License-Identifier: Apache-2.0
/*
 * watch.h - runs exploration in worker processes and survives what happens to them.
 *
 * A worker that dies of a signal found a state whose recovery crashes, one that makes no
 * progress a state whose recovery hangs; both are verdicts.  The next worker goes on at
 * the crash point after the one that failed.
 */
#ifndef NVL_WATCH_H
#define NVL_WATCH_H

#include "explore.h"

struct nvl_tally *nvl_tally_new(void);
void nvl_tally_free(struct nvl_tally *tally);
struct nvl_trail *nvl_trail_new(void);
void nvl_trail_free(struct nvl_trail *trail);

/* Explores the whole trace; false if the machine or the lens failed (an error line was
   written).  `timeout`: seconds of one state that are a hang. */
bool nvl_watch_explore(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                       const struct nvl_explore_options *options, double timeout,
                       struct nvl_tally *tally);

/* Tries one state again; its finding and trail. False as above. */
bool nvl_watch_state(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                     const struct nvl_explore_options *options, double timeout,
                     const struct nvl_state *state, struct nvl_trail *trail);

#endif
