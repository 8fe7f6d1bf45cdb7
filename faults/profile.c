// SPDX-License-Identifier: Apache-2.0
/*
 * profile.c - see profile.h.
 */
#include "profile.h"

#include <time.h>

struct nvl_profile *nvl_profile_now;

static enum nvl_step current;
static double since;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void nvl_profile_use(struct nvl_profile *profile)
{
    nvl_profile_now = profile;
    current = NVL_STEP_MODEL;
    since = now();
}

void nvl_profile_switch(enum nvl_step step)
{
    double time = now();
    nvl_profile_now->seconds[current] += time - since;
    nvl_profile_now->times[step]++;
    current = step;
    since = time;
}

const char *nvl_step_name(enum nvl_step step)
{
    static const char *const names[NVL_STEPS] = {
        [NVL_STEP_MODEL] = "model",     [NVL_STEP_CHOOSE] = "choose",
        [NVL_STEP_PUT] = "put",         [NVL_STEP_RECOVER] = "recover",
        [NVL_STEP_INSPECT] = "inspect", [NVL_STEP_CHECK] = "check",
        [NVL_STEP_DEEP] = "deep",       [NVL_STEP_LEAVE] = "leave",
        [NVL_STEP_UNDO] = "undo",
    };
    return names[step];
}
