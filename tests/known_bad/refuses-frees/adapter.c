// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - refuses-frees: each 100th free of a process fails with EIO.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "refuses-frees",
    .walks = true,
    .refuses_free_each = 100,
};
