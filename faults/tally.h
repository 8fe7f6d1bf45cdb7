// SPDX-License-Identifier: Apache-2.0
/*
 * tally.h - what an exploration has found so far, in memory that outlives its worker.
 *
 * States are tried in a worker process, which a bad allocator may kill or hang; the
 * supervisor reads here which state that was.  One writer (the worker), one reader.
 */
#ifndef NVL_TALLY_H
#define NVL_TALLY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lens.h"
#include "profile.h"
#include "verdict.h"

enum {
    NVL_DEPTH_MAX = 3, /* a crash, and crashes in two recoveries after it */
    NVL_CRASH_LINES = 2048,
    NVL_FAILURES_MAX = 16,
};

/* One crash: the events before it happened, and these lines are not at their floor (or,
   from_last, not as program order has them). */
struct nvl_crash {
    uint64_t event; /* index of the first event that did not happen */
    uint32_t count;
    bool truncated; /* more lines than fit: it can't be replayed */
    bool from_last; /* lines that are not named hold program order, not their floor */
    struct {
        uint32_t line;
        uint32_t choice; /* px86_choice of the line then */
    } set[NVL_CRASH_LINES];
};

/* A state: a crash in the history, then perhaps crashes in the recoveries from it. */
struct nvl_state {
    uint32_t depth; /* crashes; 1: none in a recovery */
    struct nvl_crash crash[NVL_DEPTH_MAX];
};

struct nvl_failure {
    struct nvd_finding finding;
    enum nvd_phase phase;
    uintptr_t fault_frames[2]; /* crash: the instruction; hang: a late access */
    struct nvl_state state;
};

struct nvl_tally {
    _Atomic uint64_t progress; /* states begun */
    uint64_t points;           /* crash points, those in recoveries not included */
    uint64_t points_complete;  /* with every legal state decided */
    uint64_t nested_points;
    long double legal;   /* states of all points: the denominator */
    long double covered; /* of them, decided by a state that was tried */
    long double nested_legal, nested_covered;
    uint64_t checked, nested_checked;         /* states tried */
    uint64_t distinct;                        /* of these, different images */
    uint64_t deep;                            /* judged with workload, drain and fill */
    uint64_t validations;                     /* whole images compared after undo */
    uint64_t recovery_reads, recovery_stores; /* lines, summed over states */
    double seconds;                           /* of CPU time */
    struct nvl_profile profile;               /* if it is asked for */
    uint32_t failure_count;                   /* found; the first ones are kept */
    uint64_t by_kind[NVD_VERDICTS];
    struct nvl_failure failures[NVL_FAILURES_MAX];
    /* The state that is being tried. */
    struct nvl_state now;
    _Atomic uint32_t phase;
    uint64_t next_event; /* where the next worker goes on */
    bool finished;
    uint64_t lens_error_offset; /* an image that undo did not put back; UINT64_MAX */
    uintptr_t fault_frames[2];
    _Atomic uintptr_t last_access;
};

#endif
