// SPDX-License-Identifier: Apache-2.0
/*
 * verdict.h - what a fault case can end in, and in which step.
 *
 * When several kinds apply, the one nearest to the root cause is reported:
 * docs/sigkill-campaign.md has the order of the questions, oracle.h the reason.
 */
#ifndef NVD_VERDICT_H
#define NVD_VERDICT_H

#include <stdbool.h>

enum nvd_verdict {
    NVD_VERDICT_OK = 0,
    NVD_VERDICT_CRASH,       /* the process died */
    NVD_VERDICT_HANG,        /* a step did not end in time */
    NVD_VERDICT_LOST,        /* an acknowledged block is gone from its slot */
    NVD_VERDICT_RESURRECTED, /* an acknowledged free is undone */
    NVD_VERDICT_OVERLAP,     /* the same bytes have two owners */
    NVD_VERDICT_CORRUPT,     /* a slot or a payload holds something else */
    NVD_VERDICT_LEAK,        /* space that is neither reachable nor free */
    NVD_VERDICT_UNUSABLE,    /* the heap can't be opened, allocated from or freed to */
    NVD_VERDICT_CHECK_DISAGREES, /* the allocator's check sees damage that is none */
    NVD_VERDICTS
};

/* The step that a process is in; kept in the journal, so that whoever buries
   the process knows where it died. */
enum nvd_phase {
    NVD_PHASE_START = 0,
    NVD_PHASE_OPEN,
    NVD_PHASE_INSPECT,
    NVD_PHASE_CHECK,
    NVD_PHASE_SECOND_WORKLOAD,
    NVD_PHASE_CLOSE,
    NVD_PHASE_REOPEN,
    NVD_PHASE_DRAIN,
    NVD_PHASE_FILL,
    NVD_PHASE_WORK,
    NVD_PHASES
};

struct nvd_finding {
    enum nvd_verdict verdict;
    char detail[512]; /* one sentence; empty for NVD_VERDICT_OK */
};

/* The names of docs/driver-protocol.md, e.g. "check-disagrees". */
const char *nvd_verdict_name(enum nvd_verdict verdict);
const char *nvd_phase_name(enum nvd_phase phase);
/* False if there is no such verdict. */
bool nvd_verdict_parse(const char *name, enum nvd_verdict *verdict);

/* Sets *finding; returns false, so that a check can `return nvd_accuse(...)`. */
bool nvd_accuse(struct nvd_finding *finding, enum nvd_verdict verdict, const char *format,
                ...) __attribute__((format(printf, 3, 4)));

#endif
