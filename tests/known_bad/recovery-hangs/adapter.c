// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - recovery-hangs: recovery of an interrupted free never ends.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "recovery-hangs",
    .walks = true,
    .hangs_in_recovery = true,
};
