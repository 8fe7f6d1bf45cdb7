// SPDX-License-Identifier: Apache-2.0
/*
 * shrink.c - a failure with as little around it as can be had in a few seconds.
 *
 * 1. Operations: those that began after the crash go at once; then ever smaller runs of
 *    them are left out (Zeller and Hildebrandt's ddmin), each time recording and
 *    exploring anew, while the same kind of verdict shows.
 * 2. Lines, crash by crash, the last one first: lines that need not be missing are
 *    given program order; what stays missing is what the failure needs.  Then lines
 *    that need not be there are put to their floor, if that many can be tried.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "trial.h"

enum {
    recordings_max = 80,
    line_tries_max = 120,
};

static const double seconds_max = 20;

struct shrinker {
    struct nvl_trial *trial;
    const struct nvl_beginning *beginning;
    uint64_t seed;
    const char *path; /* of the trace of the best history so far */
    enum nvd_verdict verdict;
    struct nvl_trace **trace;
    struct nvl_state *state;
    double deadline;
    int recordings;
};

void nvl_script_of(const struct nvl_trace *trace, struct nvl_script *script)
{
    nvl_script_clear(script);
    for (size_t i = 0; i < trace->event_count; i++) {
        if (trace->events[i].kind == NVL_EVENT_MARK &&
            trace->events[i].mark.kind == NVL_MARK_BEGIN)
            nvl_script_add(script, &trace->events[i].mark.op);
    }
}

static bool out_of_time(const struct shrinker *shrinker)
{
    return nvl_trial_seconds(shrinker->trial) > shrinker->deadline;
}

/* ---- operations ---- */

/* Records and explores the script; on the same kind of failure it becomes the best. */
static bool still_fails(struct shrinker *shrinker, const struct nvl_script *script)
{
    struct nvl_record_options record;
    struct nvl_explore_options explore;
    char trial_path[4300], error[200];
    snprintf(trial_path, sizeof trial_path, "%s.try", shrinker->path);
    nvl_trial_record_options(shrinker->trial, shrinker->seed, &record);
    record.trace = trial_path;
    record.script = script;
    record.beginning = shrinker->beginning;
    shrinker->recordings++;
    int code = nvl_trial_record(&record, shrinker->trial->options->timeout);
    if (code != NVD_OK && code != NVD_INCORRECT)
        return false;
    struct nvl_trace *trace = nvl_trace_load(trial_path, error, sizeof error);
    unlink(trial_path);
    if (trace == NULL)
        return false;
    struct nvl_tally *tally = nvl_tally_new();
    nvl_trial_explore_options(shrinker->trial, shrinker->seed, &explore);
    explore.max_failures = 1;
    explore.budget = 5;
    bool fails = nvl_watch_explore(trace, shrinker->trial->options->adapter, &explore,
                                   shrinker->trial->options->timeout, tally) &&
                 tally->failure_count > 0 &&
                 tally->failures[0].finding.verdict == shrinker->verdict;
    if (fails) {
        nvl_trace_free(*shrinker->trace);
        *shrinker->trace = trace;
        *shrinker->state = tally->failures[0].state;
    } else {
        nvl_trace_free(trace);
    }
    nvl_tally_free(tally);
    return fails;
}

static size_t begun_before(const struct nvl_trace *trace, uint64_t event)
{
    size_t begun = 0;
    for (size_t i = 0; i < trace->event_count && i < event; i++)
        begun += trace->events[i].kind == NVL_EVENT_MARK &&
                 trace->events[i].mark.kind == NVL_MARK_BEGIN;
    return begun;
}

static void without(const struct nvl_script *script, size_t from, size_t count,
                    struct nvl_script *shorter)
{
    nvl_script_clear(shorter);
    for (size_t i = 0; i < script->count; i++) {
        if (i < from || i >= from + count)
            nvl_script_add(shorter, &script->ops[i]);
    }
}

/* The script of the best history, cut off behind the crash. */
static void present_script(const struct shrinker *shrinker, struct nvl_script *script)
{
    nvl_script_of(*shrinker->trace, script);
    size_t begun = begun_before(*shrinker->trace, shrinker->state->crash[0].event);
    script->count = begun < script->count ? begun : script->count;
}

static void shrink_operations(struct shrinker *shrinker)
{
    struct nvl_script script = {0}, shorter = {0};
    present_script(shrinker, &script);
    if (still_fails(shrinker, &script))
        present_script(shrinker, &script);
    else
        nvl_script_of(*shrinker->trace, &script);
    size_t run = script.count / 2;
    while (run > 0) {
        bool shrunk = false;
        for (size_t from = 0; from < script.count && !out_of_time(shrinker) &&
                              shrinker->recordings < recordings_max;) {
            without(&script, from, run, &shorter);
            if (still_fails(shrinker, &shorter)) {
                present_script(shrinker, &script);
                shrunk = true;
            } else {
                from += run;
            }
        }
        if (out_of_time(shrinker) || shrinker->recordings >= recordings_max)
            break;
        if (!shrunk || run > script.count)
            run /= 2;
    }
    nvl_script_clear(&script);
    nvl_script_clear(&shorter);
}

/* ---- lines ---- */

static bool fails_in(const struct shrinker *shrinker, const struct nvl_state *state,
                     struct nvl_trail *trail)
{
    struct nvl_explore_options explore;
    nvl_trial_explore_options(shrinker->trial, shrinker->seed, &explore);
    return nvl_watch_state(*shrinker->trace, shrinker->trial->options->adapter, &explore,
                           shrinker->trial->options->timeout, state, trail) &&
           !trail->sound && trail->finding.verdict == shrinker->verdict;
}

/* Replaces the level's crash by the same one told the other way round. */
static void retell(struct nvl_crash *crash, const struct nvl_differing *differing,
                   bool from_last)
{
    crash->from_last = from_last;
    crash->count = differing->count;
    for (uint32_t i = 0; i < differing->count; i++) {
        crash->set[i].line = differing->set[i].line;
        crash->set[i].choice = differing->set[i].choice;
    }
}

/* Leaves out of the crash's list what the failure does not need. */
static void drop_lines(const struct shrinker *shrinker, uint32_t level,
                       struct nvl_trail *trail)
{
    struct nvl_state *state = shrinker->state;
    struct nvl_state *candidate = malloc(sizeof *candidate);
    if (candidate == NULL)
        abort();
    int tries = 0;
    uint32_t run = state->crash[level].count;
    while (run > 0) {
        for (uint32_t from = 0; from < state->crash[level].count;) {
            struct nvl_crash *crash = &candidate->crash[level];
            if (tries++ >= line_tries_max || out_of_time(shrinker))
                goto out;
            *candidate = *state;
            uint32_t end = from + run < crash->count ? from + run : crash->count;
            memmove(&crash->set[from], &crash->set[end],
                    (crash->count - end) * sizeof crash->set[0]);
            crash->count -= end - from;
            if (fails_in(shrinker, candidate, trail))
                *state = *candidate;
            else
                from += run;
        }
        run = run > state->crash[level].count ? state->crash[level].count : run / 2;
    }
out:
    free(candidate);
}

static void shrink_lines(struct shrinker *shrinker)
{
    struct nvl_trail *trail = nvl_trail_new();
    struct nvl_state *state = shrinker->state;
    for (uint32_t level = state->depth; level-- > 0;) {
        if (!fails_in(shrinker, state, trail) || trail->missing[level].more)
            break;
        retell(&state->crash[level], &trail->missing[level], true);
        drop_lines(shrinker, level, trail);
    }
    nvl_trail_free(trail);
}

void nvl_shrink(struct nvl_trial *trial, const struct nvl_beginning *beginning,
                uint64_t seed, const char *trace_path, struct nvl_trace **trace,
                struct nvl_state *state, enum nvd_verdict verdict)
{
    struct shrinker shrinker = {.trial = trial,
                                .beginning = beginning,
                                .seed = seed,
                                .path = trace_path,
                                .verdict = verdict,
                                .trace = trace,
                                .state = state,
                                .deadline = nvl_trial_seconds(trial) + seconds_max};
    shrink_operations(&shrinker);
    shrinker.deadline = nvl_trial_seconds(trial) + seconds_max;
    shrink_lines(&shrinker);
}
