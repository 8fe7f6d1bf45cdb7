// SPDX-License-Identifier: Apache-2.0
/*
 * command_replay.c - a case's state once more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static double figure(struct json_object *document, const char *key)
{
    struct json_object *value;
    return json_object_object_get_ex(document, key, &value)
               ? json_object_get_double(value)
               : 0;
}

static const char *text(struct json_object *document, const char *key)
{
    struct json_object *value;
    const char *found = NULL;
    if (json_object_object_get_ex(document, key, &value))
        found = json_object_get_string(value);
    return found != NULL ? found : "";
}

static void emit_verdict(const struct nvl_trace *trace, const struct nvl_state *state,
                         const struct nvl_trail *trail)
{
    char sentence[1024] = "";
    struct json_object *document = json_object_new_object();
    struct json_object *sites =
        trail->sound ? json_object_new_array()
                     : nvl_explain(trace, state, trail, sentence, sizeof sentence);
    enum nvd_verdict verdict = trail->sound ? NVD_VERDICT_OK : trail->finding.verdict;
    json_object_object_add(document, "type", json_object_new_string("verdict"));
    json_object_object_add(document, "verdict",
                           json_object_new_string(nvd_verdict_name(verdict)));
    json_object_object_add(
        document, "detail",
        json_object_new_string(trail->sound ? "" : trail->finding.detail));
    json_object_object_add(document, "phase",
                           json_object_new_string(nvd_phase_name(trail->phase)));
    json_object_object_add(document, "explanation", json_object_new_string(sentence));
    json_object_object_add(document, "sites", sites);
    nvd_emit(document);
}

static int replay(struct nvl_command_options *options, struct json_object *document)
{
    char path[4200], error[200];
    static struct nvl_state place; /* too large for a stack */
    struct nvl_state *state = &place;
    struct json_object *crash;
    if (!json_object_object_get_ex(document, "crash", &crash) ||
        !nvl_state_parse(crash, state)) {
        nvd_emit_error("case", 0,
                       "%s/case.json, key 'crash': expected a list of crashes, each with "
                       "event, others and lines",
                       options->case_path);
        return NVD_ENVIRONMENT;
    }
    snprintf(path, sizeof path, "%s/trace.nvl", options->case_path);
    struct nvl_trace *trace = nvl_trace_load(path, error, sizeof error);
    if (trace == NULL) {
        nvd_emit_error("trace", 0, "%s: %s", path, error);
        return NVD_ENVIRONMENT;
    }
    if (strcmp(trace->header.adapter, options->trial.adapter->name) != 0) {
        nvd_emit_error("case", 0,
                       "the case is of the allocator '%s', the adapter of '%s'",
                       trace->header.adapter, options->trial.adapter->name);
        return NVD_ENVIRONMENT;
    }
    struct nvl_trial trial = {.options = &options->trial,
                              .file_size = trace->header.size,
                              .fill_baseline =
                                  (uint64_t)figure(document, "fill_baseline")};
    struct nvl_explore_options explore;
    if (strcmp(text(document, "domain"), "eadr") == 0)
        options->trial.domain = PX86_EADR;
    options->trial.fill_tolerance = figure(document, "fill_tolerance");
    const char *mutate = text(document, "mutate");
    if (*mutate != '\0' && nvl_mutation_parse(&options->mutation, mutate)) {
        options->trial.mutation = &options->mutation;
        nvl_mutation_use(&options->mutation);
    }
    nvl_trial_explore_options(&trial, (uint64_t)figure(document, "seed"), &explore);
    explore.extra = trace->header.extra;
    struct nvl_trail *trail = nvl_trail_new();
    if (!nvl_watch_state(trace, options->trial.adapter, &explore, options->trial.timeout,
                         state, trail))
        return NVD_ENVIRONMENT;
    emit_verdict(trace, state, trail);
    return trail->sound ? NVD_OK : NVD_INCORRECT;
}

int nvl_command_replay(int argc, char **argv)
{
    struct nvl_command_options options;
    char path[4200];
    int code = nvl_options_parse(&options, argc, argv, true);
    if (code != NVD_OK)
        return code;
    if (options.case_path == NULL) {
        nvd_emit_error("usage", 0, "--case is missing: expected the folder of a case");
        return NVD_USAGE;
    }
    snprintf(path, sizeof path, "%s/case.json", options.case_path);
    struct json_object *document = json_object_from_file(path);
    if (document == NULL) {
        nvd_emit_error("case", 0, "%s: %s", path, json_util_get_last_err());
        return NVD_ENVIRONMENT;
    }
    code = replay(&options, document);
    json_object_put(document);
    return code;
}
