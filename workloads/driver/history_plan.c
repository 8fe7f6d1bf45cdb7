// SPDX-License-Identifier: Apache-2.0
/*
 * history_plan.c - draws a generation.
 *
 * Half of the kills are at an event: those hit the steps *between* a flush and
 * the next fence, of which an instant picks few, and repeat exactly with one
 * thread.  The other half are at an instant: those hit between any two
 * instructions.  The number of the event is drawn log-uniformly, so that heaps
 * die empty, young and grown.
 */
#include "driver.h"
#include "history_plan.h"

static double draw_delay(struct nvd_random *random, double longest)
{
    return longest * (double)nvd_random_below(random, 1u << 20) / (double)(1u << 20);
}

static void draw_recovery_kills(struct nvd_random *random,
                                struct nvd_generation *generation)
{
    if (nvd_random_below(random, 3) != 0)
        return;
    generation->recovery_kills =
        1 + (uint32_t)nvd_random_below(random, NVD_RECOVERY_KILLS_MAX);
    for (uint32_t i = 0; i < generation->recovery_kills; i++) {
        /* Recovery of one operation takes a handful of events. */
        generation->recovery[i].event = 1 + nvd_random_below(random, 24);
        generation->recovery[i].delay = draw_delay(random, 0.005);
    }
}

struct nvd_generation nvd_history_plan(uint64_t seed, uint32_t g, uint32_t threads_max)
{
    struct nvd_random random;
    nvd_random_seed(&random, seed * UINT64_C(1000003) + g);
    struct nvd_generation generation = {
        .seed = nvd_random_next(&random),
        .threads = 1 + (uint32_t)nvd_random_below(&random, threads_max),
        .delay = draw_delay(&random, 0.040),
    };
    uint64_t draw = nvd_random_below(&random, 16);
    unsigned bits = 4 + (unsigned)nvd_random_below(&random, 10);
    generation.event =
        (UINT64_C(1) << bits) + nvd_random_below(&random, UINT64_C(1) << bits);
    generation.ops = 64 + nvd_random_below(&random, 4096);
    generation.kill = draw < 8    ? NVD_KILL_EVENT
                      : draw < 15 ? NVD_KILL_INSTANT
                                  : NVD_KILL_NONE;
    draw_recovery_kills(&random, &generation);
    return generation;
}

const char *nvd_kill_name(enum nvd_kill kill)
{
    switch (kill) {
    case NVD_KILL_INSTANT:
        return "instant";
    case NVD_KILL_EVENT:
        return "event";
    default:
        return "none";
    }
}
