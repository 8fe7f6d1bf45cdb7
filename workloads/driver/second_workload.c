// SPDX-License-Identifier: Apache-2.0
/*
 * second_workload.c - see second_workload.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "second_workload.h"
#include "survey.h"

enum {
    second_workload_steps = 96,
};

/* True if an operation may be tried on this slot: an outer one, or one in a
   container that is (still, or again) live. */
static bool slot_exists(const struct nvd_subject *subject, uint32_t id)
{
    const struct nvd_journal *journal = &subject->journal;
    return !nvd_journal_is_inner(journal, id) ||
           nvd_journal_state(journal, nvd_journal_outer(journal, id)).container;
}

static bool container_occupied(const struct nvd_journal *journal, uint32_t outer)
{
    if (nvd_journal_is_inner(journal, outer) ||
        !nvd_journal_state(journal, outer).container)
        return false;
    for (uint32_t j = 0; j < journal->header->inner; j++) {
        if (nvd_journal_state(journal, nvd_journal_inner(journal, outer, j)).full)
            return true;
    }
    return false;
}

/* Half of the time the size of a live block, else small, seldom large. */
static size_t pick_size(struct nvd_random *random, const struct nvd_survey *survey)
{
    if (nvd_random_below(random, 2) == 0) {
        size_t start = nvd_random_below(random, survey->evidence.count);
        for (size_t i = 0; i < survey->evidence.count; i++) {
            const struct nvd_sighting *s =
                &survey->sightings[(start + i) % survey->evidence.count];
            if (s->seen.address != NULL && s->size > 0)
                return s->size;
        }
    }
    uint64_t bound = nvd_random_below(random, 16) == 0 ? 256 * 1024 : 2048;
    return 16 + nvd_random_below(random, bound);
}

static bool allocate(struct nvd_subject *subject, struct nvd_survey *survey,
                     struct nvd_sighting *s, struct nvd_random *random,
                     struct nvd_finding *finding)
{
    size_t size = pick_size(random, survey);
    struct nvc_block block;
    int error = nvd_subject_alloc(subject, 0, s->id, size, &block);
    if (error == ENOMEM)
        return true;
    if (error != 0)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE,
                          "allocating %zu bytes to %s failed: %s (%s)", size, s->name,
                          strerror(error), subject->adapter->last_error());
    if (!nvd_oracle_admits(&survey->evidence, s->name, block, finding))
        return false;
    bool container = !nvd_journal_is_inner(&subject->journal, s->id) &&
                     nvd_subject_can_contain(subject, size) &&
                     nvd_random_below(random, 8) == 0;
    nvd_subject_settle(subject, s->id, block, container);
    s->seen = block;
    s->size = size;
    return true;
}

static bool release(struct nvd_subject *subject, uint32_t id, struct nvd_finding *finding)
{
    int error = nvd_subject_free(subject, 0, id);
    if (error != 0)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE, "freeing %s failed: %s (%s)",
                          nvd_journal_name(&subject->journal, id), strerror(error),
                          subject->adapter->last_error());
    return true;
}

static bool step(struct nvd_subject *subject, struct nvd_survey *survey,
                 struct nvd_random *random, struct nvd_finding *finding)
{
    const struct nvd_journal *journal = &subject->journal;
    struct nvd_sighting *s =
        &survey->sightings[nvd_random_below(random, survey->evidence.count)];
    if (!slot_exists(subject, s->id))
        return true;
    if (!nvd_journal_state(journal, s->id).full)
        return allocate(subject, survey, s, random, finding);
    if (nvd_random_below(random, 3) != 0 || container_occupied(journal, s->id))
        return true;
    if (!release(subject, s->id, finding))
        return false;
    s->seen.address = NULL;
    return true;
}

bool nvd_second_workload(struct nvd_subject *subject, uint64_t seed,
                         struct nvd_finding *finding)
{
    struct nvd_random random;
    struct nvd_survey survey;
    nvd_random_seed(&random, seed);
    bool sound = nvd_survey_take(&survey, subject, finding);
    for (int i = 0; sound && i < second_workload_steps; i++)
        sound = step(subject, &survey, &random, finding);
    nvd_survey_drop(&survey);
    return sound && nvd_survey_judge(subject, NULL, NULL, finding);
}

/* Inner slots (the higher ids) first, then outer ones. */
static bool free_range(struct nvd_subject *subject, uint32_t from, uint32_t to,
                       struct nvd_random *random, struct nvd_finding *finding)
{
    uint32_t count = to - from;
    uint32_t *order = malloc((count > 0 ? count : 1) * sizeof *order);
    bool sound = true;
    if (order == NULL)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        uint32_t j = (uint32_t)nvd_random_below(random, i + 1);
        order[i] = order[j];
        order[j] = from + i;
    }
    for (uint32_t i = 0; sound && i < count; i++) {
        if (nvd_journal_state(&subject->journal, order[i]).full)
            sound = release(subject, order[i], finding);
    }
    free(order);
    return sound;
}

bool nvd_free_everything(struct nvd_subject *subject, uint64_t seed,
                         struct nvd_finding *finding)
{
    uint32_t slots = subject->journal.header->slots;
    struct nvd_random random;
    nvd_random_seed(&random, seed);
    return free_range(subject, slots, nvd_journal_ids(&subject->journal), &random,
                      finding) &&
           free_range(subject, 0, slots, &random, finding);
}
