// SPDX-License-Identifier: Apache-2.0
/*
 * history.h - one running fault case: its files, its counts, its steps.
 */
#ifndef NVD_HISTORY_H
#define NVD_HISTORY_H

#include "fault_options.h"
#include "history_plan.h"
#include "verdict.h"

struct json_object;

enum {
    NVD_PATH_MAX = 4096,
};

/* How a step of a case went. */
enum nvd_step {
    NVD_STEP_DONE,        /* go on */
    NVD_STEP_FAILED,      /* the case is decided: history.finding */
    NVD_STEP_ENVIRONMENT, /* the machine's fault; an error line was written */
    NVD_STEP_INTERRUPTED, /* SIGINT or SIGTERM */
};

struct nvd_history {
    const struct nvd_fault_options *options;
    char folder[NVD_PATH_MAX];         /* of this case, in the NVM */
    char heap[NVD_PATH_MAX];           /* folder/heap */
    char heap_before[NVD_PATH_MAX];    /* folder/heap.before: as found by the
                                          recovery that is under way */
    char journal[NVD_PATH_MAX];        /* work/journal */
    char journal_before[NVD_PATH_MAX]; /* work/journal.before */
    uint64_t baseline;                 /* bytes that fill a fresh heap */
    uint32_t kills, recoveries;
    uint32_t generation;
    uint64_t live_blocks; /* as the last verification found */
    struct nvd_finding finding;
    char phase[32];    /* of the finding */
    bool observable;   /* the working process can count persistence events */
    bool symptom_only; /* the heap shows nothing: only the whole case repeats it */
};

/* Makes the case's folder and finds the baseline. */
enum nvd_step nvd_history_begin(struct nvd_history *history);
/* One generation: work, kill, kills during recovery, verification. */
enum nvd_step nvd_history_generation(struct nvd_history *history,
                                     const struct nvd_generation *plan, bool final);
/* Moves evidence of a failure to --work and writes replay.json. */
enum nvd_step nvd_history_keep_evidence(struct nvd_history *history,
                                        const struct nvd_generation *plan, bool final);
/* Removes the case's folder and, unless it failed, its journals. */
void nvd_history_end(struct nvd_history *history, bool failed);

#endif
