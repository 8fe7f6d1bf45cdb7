// SPDX-License-Identifier: Apache-2.0
/*
 * command_history.c - `nvdrive history`: one whole fault case.
 *
 * Generations of work, kill and recovery on one heap, as the seed says; the
 * last verification also empties the heap and fills it to the brim.
 */
#include <errno.h>
#include <string.h>

#include "child.h"
#include "driver.h"
#include "history.h"
#include "journal.h"

static uint64_t acknowledged(const struct nvd_history *history)
{
    struct nvd_journal journal;
    if (nvd_journal_open(&journal, history->journal) != 0)
        return 0;
    uint64_t ops = nvd_journal_acknowledged(&journal);
    nvd_journal_close(&journal);
    return ops;
}

static void report_generation(const struct nvd_history *history,
                              const struct nvd_generation *plan)
{
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "type", json_object_new_string("generation"));
    json_object_object_add(of, "generation", json_object_new_uint64(history->generation));
    json_object_object_add(of, "kill", json_object_new_string(nvd_kill_name(plan->kill)));
    json_object_object_add(of, "threads", json_object_new_uint64(plan->threads));
    json_object_object_add(of, "ops", json_object_new_uint64(acknowledged(history)));
    json_object_object_add(of, "recovery_kills",
                           json_object_new_uint64(plan->recovery_kills));
    json_object_object_add(of, "live_blocks",
                           json_object_new_uint64(history->live_blocks));
    nvd_emit(of);
}

static void report_verdict(const struct nvd_history *history, double seconds)
{
    const struct nvd_finding *finding = &history->finding;
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "type", json_object_new_string("verdict"));
    json_object_object_add(of, "verdict",
                           json_object_new_string(nvd_verdict_name(finding->verdict)));
    json_object_object_add(of, "detail", json_object_new_string(finding->detail));
    json_object_object_add(
        of, "phase",
        history->phase[0] != '\0' ? json_object_new_string(history->phase) : NULL);
    json_object_object_add(of, "generation", json_object_new_uint64(history->generation));
    json_object_object_add(of, "ops", json_object_new_uint64(acknowledged(history)));
    json_object_object_add(of, "kills", json_object_new_uint64(history->kills));
    json_object_object_add(of, "recoveries", json_object_new_uint64(history->recoveries));
    json_object_object_add(of, "live_blocks",
                           json_object_new_uint64(history->live_blocks));
    json_object_object_add(of, "fill_baseline",
                           json_object_new_uint64(history->baseline));
    json_object_object_add(of, "observable",
                           json_object_new_boolean(history->observable));
    json_object_object_add(of, "seconds", json_object_new_double(seconds));
    json_object_object_add(of, "seed", json_object_new_uint64(history->options->seed));
    nvd_emit(of);
}

/* Lives through the generations; *last is the one that ended it. */
static enum nvd_step live(struct nvd_history *history, struct nvd_generation *last,
                          bool *final)
{
    const struct nvd_fault_options *options = history->options;
    enum nvd_step step = nvd_history_begin(history);
    for (uint32_t g = 0; step == NVD_STEP_DONE && g < options->generations; g++) {
        history->generation = g;
        *final = g + 1 == options->generations;
        *last = nvd_history_plan(options->seed, g, (uint32_t)options->threads);
        step = nvd_history_generation(history, last, *final);
        if (step == NVD_STEP_DONE || step == NVD_STEP_FAILED)
            report_generation(history, last);
    }
    return step;
}

int nvd_command_history(int argc, char **argv)
{
    struct nvd_fault_options options;
    int done = nvd_fault_options_parse(&options, NVD_TAKES_HISTORY, argc, argv);
    if (done >= 0)
        return done;
    nvd_child_catch_signals();
    static struct nvd_history history; /* large paths */
    struct nvd_generation last = {0};
    bool final = false;
    double start = nvd_child_now();
    history.options = &options;
    enum nvd_step step = live(&history, &last, &final);
    if (step == NVD_STEP_FAILED &&
        nvd_history_keep_evidence(&history, &last, final) != NVD_STEP_DONE)
        step = NVD_STEP_ENVIRONMENT;
    if (step == NVD_STEP_DONE || step == NVD_STEP_FAILED)
        report_verdict(&history, nvd_child_now() - start);
    nvd_history_end(&history, step == NVD_STEP_FAILED);
    switch (step) {
    case NVD_STEP_DONE:
        return NVD_OK;
    case NVD_STEP_FAILED:
        return NVD_INCORRECT;
    case NVD_STEP_INTERRUPTED:
        nvd_emit_error("history", 0, "stopped by %s", strsignal(nvd_child_signal()));
        return 128 + nvd_child_signal();
    default:
        return NVD_ENVIRONMENT;
    }
}
