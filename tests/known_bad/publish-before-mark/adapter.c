// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - publish-before-mark: stores the pointer before it marks the block,
 * unlogged.
 */
#include "../common/first_fit.h"

const struct first_fit_personality first_fit_personality = {
    .name = "publish-before-mark",
    .walks = true,
    .publish_before_mark = true,
};
