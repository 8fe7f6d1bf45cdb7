// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - good-minimal: correct under SIGKILL and power loss; must never be accused.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "good-minimal",
    .walks = true,
};
