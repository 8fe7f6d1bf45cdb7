// SPDX-License-Identifier: Apache-2.0
/*
 * verdict.c - names of verdicts and phases, and how one is stated.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "verdict.h"

static const char *const verdict_names[NVD_VERDICTS] = {
    [NVD_VERDICT_OK] = "ok",
    [NVD_VERDICT_CRASH] = "crash",
    [NVD_VERDICT_HANG] = "hang",
    [NVD_VERDICT_LOST] = "lost",
    [NVD_VERDICT_RESURRECTED] = "resurrected",
    [NVD_VERDICT_OVERLAP] = "overlap",
    [NVD_VERDICT_CORRUPT] = "corrupt",
    [NVD_VERDICT_LEAK] = "leak",
    [NVD_VERDICT_UNUSABLE] = "unusable",
    [NVD_VERDICT_CHECK_DISAGREES] = "check-disagrees",
};

static const char *const phase_names[NVD_PHASES] = {
    [NVD_PHASE_START] = "start",
    [NVD_PHASE_OPEN] = "open",
    [NVD_PHASE_INSPECT] = "inspect",
    [NVD_PHASE_CHECK] = "check",
    [NVD_PHASE_SECOND_WORKLOAD] = "second-workload",
    [NVD_PHASE_CLOSE] = "close",
    [NVD_PHASE_REOPEN] = "reopen",
    [NVD_PHASE_DRAIN] = "drain",
    [NVD_PHASE_FILL] = "fill",
    [NVD_PHASE_WORK] = "work",
};

const char *nvd_verdict_name(enum nvd_verdict verdict)
{
    return (unsigned)verdict < NVD_VERDICTS ? verdict_names[verdict] : "unknown";
}

const char *nvd_phase_name(enum nvd_phase phase)
{
    return (unsigned)phase < NVD_PHASES ? phase_names[phase] : "unknown";
}

bool nvd_verdict_parse(const char *name, enum nvd_verdict *verdict)
{
    for (int i = 0; i < NVD_VERDICTS; i++) {
        if (strcmp(name, verdict_names[i]) == 0) {
            *verdict = (enum nvd_verdict)i;
            return true;
        }
    }
    return false;
}

bool nvd_accuse(struct nvd_finding *finding, enum nvd_verdict verdict, const char *format,
                ...)
{
    va_list arguments;
    finding->verdict = verdict;
    va_start(arguments, format);
    vsnprintf(finding->detail, sizeof finding->detail, format, arguments);
    va_end(arguments);
    return false;
}
