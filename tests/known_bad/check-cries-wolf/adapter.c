// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - check-cries-wolf: check sees damage after each recovery, where there is
 * none.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "check-cries-wolf",
    .walks = true,
    .check_cries_wolf = true,
};
