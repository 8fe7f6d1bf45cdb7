// SPDX-License-Identifier: Apache-2.0
/*
 * command_run.c - run, record, explore: a trial, or one of its halves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "commands.h"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int begin(struct nvl_trial *trial, struct nvl_command_options *options)
{
    *trial = (struct nvl_trial){.options = &options->trial, .began = now()};
    trial->sum = nvl_tally_new();
    if (mkdir(options->trial.work, 0700) != 0 && errno != EEXIST) {
        nvd_emit_error("work", errno, "%s: %s", options->trial.work, strerror(errno));
        return NVD_ENVIRONMENT;
    }
    return nvl_trial_measure(trial);
}

static int finish(struct nvl_trial *trial, enum nvl_outcome outcome)
{
    if (outcome == NVL_BROKEN)
        return NVD_ENVIRONMENT;
    nvl_trial_conclude(trial, outcome);
    return outcome == NVL_FAILED ? NVD_INCORRECT : NVD_OK;
}

int nvl_command_run(int argc, char **argv)
{
    struct nvl_command_options options;
    struct nvl_trial trial;
    int code = nvl_options_parse(&options, argc, argv, true);
    if (code == NVD_OK)
        code = begin(&trial, &options);
    return code != NVD_OK ? code : finish(&trial, nvl_trial_run(&trial));
}

int nvl_command_record(int argc, char **argv)
{
    struct nvl_command_options options;
    struct nvl_trial trial;
    struct nvl_record_options record;
    struct nvl_script script = {0};
    char error[200];
    int code = nvl_options_parse(&options, argc, argv, true);
    if (code == NVD_OK && options.trace_path == NULL) {
        nvd_emit_error("usage", 0, "--trace is missing: expected the file to write");
        return NVD_USAGE;
    }
    if (code == NVD_OK)
        code = begin(&trial, &options);
    if (code != NVD_OK)
        return code;
    nvl_trial_record_options(&trial, options.trial.seed, &record);
    record.trace = options.trace_path;
    if (options.trial.script_text != NULL) {
        if (!nvl_script_parse(&script, options.trial.script_text, options.trial.slots,
                              nvd_subject_inner(options.trial.adapter), error,
                              sizeof error)) {
            nvd_emit_error("script", 0, "%s", error);
            return NVD_USAGE;
        }
        record.script = &script;
    }
    code = nvl_trial_record(&record, options.trial.timeout);
    if (code == NVD_OK) {
        struct json_object *document = json_object_new_object();
        json_object_object_add(document, "type", json_object_new_string("recorded"));
        json_object_object_add(document, "trace", json_object_new_string(record.trace));
        json_object_object_add(document, "fill_baseline",
                               json_object_new_uint64(trial.fill_baseline));
        nvd_emit(document);
    }
    return code;
}

int nvl_command_explore(int argc, char **argv)
{
    struct nvl_command_options options;
    struct nvl_trial trial;
    char error[200];
    int code = nvl_options_parse(&options, argc, argv, true);
    if (code == NVD_OK && options.trace_path == NULL) {
        nvd_emit_error("usage", 0, "--trace is missing: expected a recorded trace");
        return NVD_USAGE;
    }
    if (code == NVD_OK)
        code = begin(&trial, &options);
    if (code != NVD_OK)
        return code;
    struct nvl_trace *trace = nvl_trace_load(options.trace_path, error, sizeof error);
    if (trace == NULL) {
        nvd_emit_error("trace", 0, "%s: %s", options.trace_path, error);
        return NVD_ENVIRONMENT;
    }
    struct nvl_tally *tally = nvl_tally_new();
    bool done = nvl_trial_explore(&trial, trace, options.trial.seed, tally);
    if (tally->failure_count > 0)
        trial.finding = tally->failures[0].finding;
    return finish(&trial, !done                      ? NVL_BROKEN
                          : tally->failure_count > 0 ? NVL_FAILED
                                                     : NVL_SURVIVED);
}
