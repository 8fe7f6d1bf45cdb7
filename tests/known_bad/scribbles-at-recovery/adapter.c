// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - scribbles-at-recovery: recovery writes into a live block.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "scribbles-at-recovery",
    .walks = true,
    .scribbles_at_recovery = true,
};
