// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - rolls-back-acknowledged: recovery undoes the last operation, though it was
 * acknowledged.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "rolls-back-acknowledged",
    .walks = true,
    .rolls_back_acknowledged = true,
};
