// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - leak-every-crash: each recovery takes 4 KiB out of service.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "leak-every-crash",
    .walks = false,
    .leaks_at_recovery = true,
};
