// SPDX-License-Identifier: Apache-2.0
/*
 * recovery.c - the recovery contract, point by point.
 *
 *   point                                   step
 *   1 slots = acknowledged, +- in flight    inspect (oracle.h)
 *   2 disjoint, inside, content             inspect
 *   3 nothing leaked                        inspect (walk), fill (--final)
 *   4 the heap works on                     second workload, close, reopen
 *   5 recovery is idempotent                reopen; abandon (the next recovery
 *                                           is of a heap that was just recovered)
 *   6 recovery ends and does not crash      the supervisor's part
 *
 * The allocator's own check is asked after each inspection, but its "damaged"
 * is the verdict only if nothing else is found by the end: where it is right,
 * what it is right about says more.
 */
#include <inttypes.h>
#include <time.h>

#include "brim.h"
#include "driver.h"
#include "recovery.h"
#include "second_workload.h"
#include "survey.h"

static void enter_phase(struct nvd_subject *subject, struct nvd_recovery *recovery,
                        enum nvd_phase phase)
{
    recovery->phase = phase;
    nvd_journal_set_phase(&subject->journal, phase);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void ask_check(struct nvd_subject *subject, struct nvd_recovery *recovery)
{
    if (subject->adapter->check == NULL)
        return;
    enum nvd_phase phase = recovery->phase;
    nvd_journal_set_phase(&subject->journal, NVD_PHASE_CHECK);
    if (subject->adapter->check(subject->heap) != 0)
        recovery->check = NVD_CHECK_DAMAGED;
    else if (recovery->check == NVD_CHECK_NONE)
        recovery->check = NVD_CHECK_CONSISTENT;
    nvd_journal_set_phase(&subject->journal, phase);
}

static bool open_and_inspect(struct nvd_subject *subject,
                             const struct nvd_fault_options *options,
                             struct nvd_recovery *recovery)
{
    double start = now_ms();
    enter_phase(subject, recovery, NVD_PHASE_OPEN);
    if (!nvd_subject_open(subject, options->heap, &recovery->finding))
        return false;
    recovery->recovery_ms = now_ms() - start;
    enter_phase(subject, recovery, NVD_PHASE_INSPECT);
    bool sound = nvd_survey_judge(subject, &recovery->live_blocks, &recovery->live_bytes,
                                  &recovery->finding);
    struct nvc_stats stats;
    subject->adapter->stats(subject->heap, &stats);
    recovery->uncounted = stats.live_bytes - recovery->live_bytes;
    /* Also of a heap that was found wanting: whether check agrees is a finding. */
    if (!sound && subject->adapter->check != NULL)
        recovery->preliminary(recovery);
    ask_check(subject, recovery);
    if (!sound)
        return false;
    recovery->resolved = nvd_subject_resolve(subject);
    return true;
}

static bool close_heap(struct nvd_subject *subject, struct nvd_recovery *recovery)
{
    enter_phase(subject, recovery, NVD_PHASE_CLOSE);
    return nvd_subject_close(subject, &recovery->finding);
}

static bool close_and_reopen(struct nvd_subject *subject,
                             const struct nvd_fault_options *options,
                             struct nvd_recovery *recovery)
{
    if (!close_heap(subject, recovery))
        return false;
    enter_phase(subject, recovery, NVD_PHASE_REOPEN);
    if (!nvd_subject_open(subject, options->heap, &recovery->finding) ||
        !nvd_survey_judge(subject, NULL, NULL, &recovery->finding))
        return false;
    ask_check(subject, recovery);
    return close_heap(subject, recovery);
}

static bool work_again(struct nvd_subject *subject, uint64_t seed,
                       struct nvd_recovery *recovery)
{
    enter_phase(subject, recovery, NVD_PHASE_SECOND_WORKLOAD);
    return nvd_second_workload(subject, seed, &recovery->finding);
}

/* After everything is freed: nothing in the slots and the walk, and the
   allocator's own count, where it keeps one, has gone down by as much. */
static bool judge_empty(struct nvd_subject *subject, struct nvd_recovery *recovery)
{
    struct nvc_stats stats;
    if (!nvd_survey_judge(subject, NULL, NULL, &recovery->finding))
        return false;
    subject->adapter->stats(subject->heap, &stats);
    if (stats.live_bytes != recovery->uncounted && stats.live_bytes != UINT64_MAX)
        return nvd_accuse(&recovery->finding, NVD_VERDICT_LEAK,
                          "everything is freed; of the bytes that the allocator counts "
                          "as live, %" PRId64 " more than before are in no slot",
                          (int64_t)(stats.live_bytes - recovery->uncounted));
    return true;
}

static bool fill(struct nvd_subject *subject, struct nvd_recovery *recovery)
{
    struct nvd_brim brim;
    enter_phase(subject, recovery, NVD_PHASE_FILL);
    if (!nvd_brim_fill(subject, &brim, &recovery->finding))
        return false;
    recovery->filled = true;
    recovery->filled_bytes = brim.bytes;
    return judge_empty(subject, recovery);
}

/*
 * Point 3 without a walk.  What is missing at once but there after a clean
 * reopen was held back for other sizes in DRAM or in empty slabs: fragmentation,
 * which the report shows, not a leak.  Filling after a reopen only would never
 * show it; accusing at once would accuse allocators that leak nothing.
 */
static bool fill_and_compare(struct nvd_subject *subject,
                             const struct nvd_fault_options *options,
                             struct nvd_recovery *recovery)
{
    double least = (double)options->fill_baseline * (1.0 - options->fill_tolerance);
    if (!fill(subject, recovery))
        return false;
    uint64_t at_once = recovery->filled_bytes;
    if ((double)at_once >= least)
        return true;
    if (!close_heap(subject, recovery))
        return false;
    enter_phase(subject, recovery, NVD_PHASE_REOPEN);
    if (!nvd_subject_open(subject, options->heap, &recovery->finding) ||
        !fill(subject, recovery))
        return false;
    if ((double)recovery->filled_bytes >= least) {
        recovery->retained_bytes = recovery->filled_bytes - at_once;
        return true;
    }
    return nvd_accuse(
        &recovery->finding,
        recovery->filled_bytes == 0 ? NVD_VERDICT_UNUSABLE : NVD_VERDICT_LEAK,
        "after everything was freed %" PRIu64 " bytes could be allocated (%" PRIu64
        " after a reopen); a fresh heap gives %" PRIu64 " (tolerance %g)",
        at_once, recovery->filled_bytes, options->fill_baseline, options->fill_tolerance);
}

static bool finish_for_good(struct nvd_subject *subject,
                            const struct nvd_fault_options *options,
                            struct nvd_recovery *recovery)
{
    enter_phase(subject, recovery, NVD_PHASE_DRAIN);
    return nvd_free_everything(subject, options->seed, &recovery->finding) &&
           judge_empty(subject, recovery) &&
           fill_and_compare(subject, options, recovery) &&
           work_again(subject, options->seed + 1, recovery) &&
           close_and_reopen(subject, options, recovery);
}

static bool end_as_drawn(struct nvd_subject *subject,
                         const struct nvd_fault_options *options,
                         struct nvd_recovery *recovery)
{
    switch (recovery->ending) {
    case NVD_ENDING_CLOSE:
        return close_heap(subject, recovery);
    case NVD_ENDING_REOPEN:
        return close_and_reopen(subject, options, recovery);
    default:
        return true; /* the process ends with the heap open */
    }
}

bool nvd_recovery_judge(struct nvd_subject *subject,
                        const struct nvd_fault_options *options,
                        struct nvd_recovery *recovery)
{
    struct nvd_random random;
    nvd_random_seed(&random, options->seed);
    *recovery =
        (struct nvd_recovery){.recovery_ms = -1, .preliminary = recovery->preliminary};
    recovery->ending = options->final
                           ? NVD_ENDING_REOPEN
                           : (enum nvd_ending)nvd_random_below(&random, NVD_ENDINGS);
    bool sound = open_and_inspect(subject, options, recovery) &&
                 work_again(subject, nvd_random_next(&random), recovery) &&
                 (options->final ? finish_for_good(subject, options, recovery)
                                 : end_as_drawn(subject, options, recovery));
    if (sound && recovery->check == NVD_CHECK_DAMAGED) {
        recovery->phase = NVD_PHASE_CHECK;
        sound =
            nvd_accuse(&recovery->finding, NVD_VERDICT_CHECK_DISAGREES,
                       "the allocator's check sees damage where the oracle finds none");
    }
    return sound;
}
