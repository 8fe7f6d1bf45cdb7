// SPDX-License-Identifier: Apache-2.0
/*
 * history_plan.h - what a fault case does, as a function of its seed.
 */
#ifndef NVD_HISTORY_PLAN_H
#define NVD_HISTORY_PLAN_H

#include <stdint.h>

enum {
    NVD_RECOVERY_KILLS_MAX = 2,
};

/* How the working process of a generation ends. */
enum nvd_kill {
    NVD_KILL_INSTANT = 0, /* SIGKILL from outside, some time after `ready` */
    NVD_KILL_EVENT,       /* SIGKILL by itself before its Nth persistence event */
    NVD_KILL_NONE,        /* it does its operations and closes the heap */
};

/* One process that recovers the heap and is killed, mostly before it is done. */
struct nvd_recovery_kill {
    uint64_t event; /* before which it dies, counted from open; where the allocator
                       can't be observed: */
    double delay;   /* seconds from its start to its death */
};

struct nvd_generation {
    uint64_t seed; /* of the churn, and of the verification */
    uint32_t threads;
    enum nvd_kill kill;
    uint64_t event; /* NVD_KILL_EVENT */
    double delay;   /* NVD_KILL_INSTANT, or where there are no events: seconds */
    uint64_t ops;   /* NVD_KILL_NONE */
    uint32_t recovery_kills;
    struct nvd_recovery_kill recovery[NVD_RECOVERY_KILLS_MAX];
};

/* Generation g of the case with this seed. */
struct nvd_generation nvd_history_plan(uint64_t seed, uint32_t g, uint32_t threads_max);

/* "instant", "event" or "none". */
const char *nvd_kill_name(enum nvd_kill kill);

#endif
