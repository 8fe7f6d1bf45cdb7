// SPDX-License-Identifier: Apache-2.0
/*
 * profile.h - where the time of checking goes, step by step (`nvlab run --profile`).
 *
 * At any time a worker is in one step; nvl_profile_step() says that the next one begins.
 * Steps are timed by the clock: on a loaded machine each is stretched alike, so that
 * shares of the whole hold, and are applied to the CPU time.
 */
#ifndef NVL_PROFILE_H
#define NVL_PROFILE_H

#include <stddef.h>
#include <stdint.h>

enum nvl_step {
    NVL_STEP_MODEL,   /* events of the history fed to the model, points begun and ended */
    NVL_STEP_CHOOSE,  /* the next assignment that is worth trying */
    NVL_STEP_PUT,     /* its lines into the image, and the image's hash */
    NVL_STEP_RECOVER, /* attach() or open() */
    NVL_STEP_INSPECT, /* operations in flight, slots, walk, contents: the oracle */
    NVL_STEP_CHECK,   /* the allocator's own check() */
    NVL_STEP_DEEP,    /* second workload, another recovery, drain, fill to the brim */
    NVL_STEP_LEAVE,   /* detach() or close() */
    NVL_STEP_UNDO,    /* the image put back, reads fetched, the tree grown */
    NVL_STEPS
};

struct nvl_profile {
    double seconds[NVL_STEPS];
    uint64_t times[NVL_STEPS];
};

/* Where steps are noted from now on; NULL: nowhere, which costs nothing. */
void nvl_profile_use(struct nvl_profile *profile);
void nvl_profile_switch(enum nvl_step step);
const char *nvl_step_name(enum nvl_step step);

extern struct nvl_profile *nvl_profile_now;

static inline void nvl_profile_step(enum nvl_step step)
{
    if (nvl_profile_now != NULL)
        nvl_profile_switch(step);
}

#endif
