// SPDX-License-Identifier: Apache-2.0
/*
 * second_workload.h - does the recovered heap work on?
 *
 * A short, single-threaded, seeded run of journalled operations on a heap that
 * was just judged sound: mostly allocations of the sizes of live blocks (an
 * allocator that forgot that a block is live hands it out to its own size
 * class first), some frees, of old blocks too.  Every new block is held
 * against every live one *before* it is written to, and in the end everything
 * is judged again, so that a block handed out twice is an `overlap` and not
 * the corruption that follows.
 */
#ifndef NVD_SECOND_WORKLOAD_H
#define NVD_SECOND_WORKLOAD_H

#include "subject.h"

bool nvd_second_workload(struct nvd_subject *subject, uint64_t seed,
                         struct nvd_finding *finding);

/* Frees every block, inner ones before their container; the seed orders them. */
bool nvd_free_everything(struct nvd_subject *subject, uint64_t seed,
                         struct nvd_finding *finding);

#endif
