// SPDX-License-Identifier: Apache-2.0
/*
 * survey.c - turns slots, journal and walk into evidence.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "survey.h"

static void *must_realloc(void *old, size_t count, size_t size)
{
    void *array = realloc(old, count * size);
    if (array == NULL)
        abort();
    return array;
}

static int note_block(void *context, struct nvc_block block)
{
    struct nvd_survey *survey = context;
    if (survey->evidence.walked_count == survey->walked_capacity) {
        survey->walked_capacity = 2 * survey->walked_capacity + 1024;
        survey->walked =
            must_realloc(survey->walked, survey->walked_capacity, sizeof *survey->walked);
    }
    survey->walked[survey->evidence.walked_count++] = block;
    return 0;
}

/* What the journal owes in a slot. */
static struct nvd_sighting owed_in(const struct nvd_journal *journal, uint32_t id)
{
    const struct nvd_record *record = &journal->records[id];
    struct nvd_slot_state state = nvd_journal_state(journal, id);
    struct nvd_sighting s = {
        .id = id, .seq = state.seq, .owed = NVD_OWED_EMPTY, .offset = -1};
    if (state.full) {
        s.owed = NVD_OWED_FULL;
        s.size = record->size;
        s.offset = record->offset;
    }
    if (state.persisted) {
        const struct nvd_journal_header *header = journal->header;
        s.payload_from = state.container ? (size_t)header->inner * header->slot_size : 0;
        s.payload_to = record->usable;
    }
    return s;
}

static const struct nvd_sighting *note_slot(struct nvd_survey *survey,
                                            const struct nvd_subject *subject,
                                            uint32_t id,
                                            const struct nvd_sighting *container)
{
    size_t n = survey->evidence.count++;
    struct nvd_sighting *s = &survey->sightings[n];
    *s = owed_in(&subject->journal, id);
    snprintf(survey->names[n], sizeof survey->names[n], "%s",
             nvd_journal_name(&subject->journal, id));
    s->name = survey->names[n];
    s->seen = nvd_subject_read(subject, id);
    s->container = container;
    return s;
}

/* True if the container in an outer slot can be looked into: its block is the
   acknowledged one, as far as can be told. */
static bool container_in_place(const struct nvd_survey *survey,
                               const struct nvd_sighting *s)
{
    struct nvc_block range = survey->evidence.range;
    if (s->seen.address == NULL || s->seen.usable < s->payload_from)
        return false;
    return range.address == NULL || s->offset < 0 ||
           (uintptr_t)s->seen.address - (uintptr_t)range.address == (uintptr_t)s->offset;
}

/* Operations in flight: owed either way; an alloc's size is in its announcement. */
static void note_in_flight(struct nvd_survey *survey, const struct nvd_journal *journal)
{
    for (uint32_t thread = 0; thread < journal->header->threads; thread++) {
        enum nvd_op op;
        uint32_t id;
        uint64_t size;
        if (!nvd_journal_in_flight(journal, thread, &op, &id, &size))
            continue;
        for (size_t i = 0; i < survey->evidence.count; i++) {
            struct nvd_sighting *s = &survey->sightings[i];
            if (s->id != id)
                continue;
            s->owed = NVD_OWED_EITHER;
            if (op == NVD_OP_ALLOC)
                s->size = size;
        }
    }
}

bool nvd_survey_take(struct nvd_survey *survey, const struct nvd_subject *subject,
                     struct nvd_finding *finding)
{
    const struct nvd_journal *journal = &subject->journal;
    const struct nvc_adapter *adapter = subject->adapter;
    uint32_t ids = nvd_journal_ids(journal);
    memset(survey, 0, sizeof *survey);
    survey->sightings = must_realloc(NULL, ids, sizeof *survey->sightings);
    survey->names = must_realloc(NULL, ids, sizeof *survey->names);
    survey->evidence.range = subject->range;
    survey->evidence.table = (struct nvc_block){
        subject->table, subject->table_slots * journal->header->slot_size};
    for (uint32_t outer = 0; outer < journal->header->slots; outer++) {
        const struct nvd_sighting *s = note_slot(survey, subject, outer, NULL);
        if (!nvd_journal_state(journal, outer).container ||
            !container_in_place(survey, s))
            continue;
        for (uint32_t j = 0; j < journal->header->inner; j++)
            note_slot(survey, subject, nvd_journal_inner(journal, outer, j), s);
    }
    note_in_flight(survey, journal);
    survey->evidence.walks = adapter->capabilities & NVC_WALK && adapter->walk != NULL;
    int error = 0;
    if (survey->evidence.walks)
        error = adapter->walk(subject->heap, note_block, survey);
    survey->evidence.sightings = survey->sightings;
    survey->evidence.walked = survey->walked;
    for (size_t i = 0; i < survey->evidence.count; i++) {
        if (survey->sightings[i].seen.address != NULL) {
            survey->live_blocks++;
            survey->live_bytes += survey->sightings[i].seen.usable;
        }
    }
    if (error != 0)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE, "walk failed: %s (%s)",
                          strerror(error), adapter->last_error());
    return true;
}

void nvd_survey_drop(struct nvd_survey *survey)
{
    free(survey->sightings);
    free(survey->names);
    free(survey->walked);
    memset(survey, 0, sizeof *survey);
}

bool nvd_survey_judge(const struct nvd_subject *subject, uint64_t *live_blocks,
                      uint64_t *live_bytes, struct nvd_finding *finding)
{
    struct nvd_survey survey;
    bool sound = nvd_survey_take(&survey, subject, finding) &&
                 nvd_oracle_judge(&survey.evidence, finding);
    if (live_blocks != NULL)
        *live_blocks = survey.live_blocks;
    if (live_bytes != NULL)
        *live_bytes = survey.live_bytes;
    nvd_survey_drop(&survey);
    return sound;
}
