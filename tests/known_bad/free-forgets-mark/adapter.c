// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - free-forgets-mark: free clears the slot and forgets the mark.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "free-forgets-mark",
    .walks = true,
    .free_forgets_mark = true,
};
