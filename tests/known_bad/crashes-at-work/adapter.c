// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - crashes-at-work: the process dies of SIGSEGV at its 40th allocation
 *             from a heap that it made.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "crashes-at-work",
    .walks = true,
    .crashes_at_alloc = 40,
};
