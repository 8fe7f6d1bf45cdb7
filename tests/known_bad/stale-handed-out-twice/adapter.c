// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - stale-handed-out-twice: after a crash, open trusts the high-water mark of
 * the last clean close.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "stale-handed-out-twice",
    .walks = true,
    .forgets_above_high_water = true,
};
