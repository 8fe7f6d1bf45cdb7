// SPDX-License-Identifier: Apache-2.0
/*
 * survey.h - gathers the oracle's evidence from a heap under test.
 *
 * A survey names every outer slot, and the inner slots of every container that
 * is where the journal says (through a wild reference nothing is read).
 */
#ifndef NVD_SURVEY_H
#define NVD_SURVEY_H

#include "oracle.h"
#include "subject.h"

struct nvd_survey {
    struct nvd_evidence evidence;
    struct nvd_sighting *sightings; /* evidence.sightings, to be updated */
    char (*names)[24];
    struct nvc_block *walked;
    size_t walked_capacity;
    uint64_t live_blocks, live_bytes; /* seen in slots */
};

/* False, with an accusation, if the allocator's walk fails. */
bool nvd_survey_take(struct nvd_survey *survey, const struct nvd_subject *subject,
                     struct nvd_finding *finding);
void nvd_survey_drop(struct nvd_survey *survey);

/* Survey, judge, drop; totals of live blocks if the pointers are not NULL. */
bool nvd_survey_judge(const struct nvd_subject *subject, uint64_t *live_blocks,
                      uint64_t *live_bytes, struct nvd_finding *finding);

#endif
