// SPDX-License-Identifier: Apache-2.0
/*
 * recovery.h - holds one heap to the recovery contract, in this process.
 *
 * A crash or a hang of the allocator ends or stops this process; so it runs in
 * a child (supervise.h), and says in the journal's phase where it is.
 */
#ifndef NVD_RECOVERY_H
#define NVD_RECOVERY_H

#include "fault_options.h"
#include "subject.h"

/* How a verified heap is left; drawn from the seed. */
enum nvd_ending {
    NVD_ENDING_CLOSE = 0, /* closed cleanly */
    NVD_ENDING_ABANDON,   /* the process exits with the heap open: one more crash */
    NVD_ENDING_REOPEN,    /* closed, opened, judged again, closed */
    NVD_ENDINGS
};

/* What the allocator's own check said. */
enum nvd_check {
    NVD_CHECK_NONE = 0, /* it has none, or was not reached */
    NVD_CHECK_CONSISTENT,
    NVD_CHECK_DAMAGED,
};

struct nvd_recovery {
    struct nvd_finding finding;
    enum nvd_phase phase; /* of the finding */
    enum nvd_check check;
    enum nvd_ending ending;
    uint64_t live_blocks, live_bytes; /* just after recovery */
    uint32_t resolved;                /* operations that were in flight */
    double recovery_ms;               /* of open(); negative: not reached */
    uint64_t uncounted; /* what the allocator counts as live beyond the slots'
                           blocks, e.g. the slot table (modulo 2^64) */
    bool filled;
    uint64_t filled_bytes;   /* in the end */
    uint64_t retained_bytes; /* missing at the first fill and there after a reopen:
                                cached for other sizes, not leaked */
    /* Called with a finding before the allocator's check is asked about a heap
       that is known to be broken, which it may not survive. */
    void (*preliminary)(const struct nvd_recovery *recovery);
};

/* Judges the heap; true if the verdict is ok. Sets all but `preliminary`. */
bool nvd_recovery_judge(struct nvd_subject *subject,
                        const struct nvd_fault_options *options,
                        struct nvd_recovery *recovery);

#endif
