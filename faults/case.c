// SPDX-License-Identifier: Apache-2.0
/*
 * case.c - a failing state as a folder: case.json beside its trace.
 */
#include <errno.h>
#include <string.h>

#include "driver.h"
#include "trial.h"

struct json_object *nvl_state_json(const struct nvl_state *state)
{
    struct json_object *crashes = json_object_new_array();
    for (uint32_t level = 0; level < state->depth; level++) {
        const struct nvl_crash *crash = &state->crash[level];
        struct json_object *one = json_object_new_object();
        struct json_object *lines = json_object_new_array();
        json_object_object_add(one, "event", json_object_new_uint64(crash->event));
        json_object_object_add(
            one, "others", json_object_new_string(crash->from_last ? "last" : "floor"));
        for (uint32_t i = 0; i < crash->count; i++) {
            struct json_object *pair = json_object_new_array();
            json_object_array_add(pair, json_object_new_uint64(crash->set[i].line));
            json_object_array_add(pair, json_object_new_uint64(crash->set[i].choice));
            json_object_array_add(lines, pair);
        }
        json_object_object_add(one, "lines", lines);
        json_object_array_add(crashes, one);
    }
    return crashes;
}

static bool crash_parse(struct json_object *document, struct nvl_crash *crash)
{
    struct json_object *event, *others, *lines;
    if (!json_object_object_get_ex(document, "event", &event) ||
        !json_object_object_get_ex(document, "others", &others) ||
        !json_object_object_get_ex(document, "lines", &lines) ||
        !json_object_is_type(lines, json_type_array))
        return false;
    crash->event = json_object_get_uint64(event);
    crash->from_last = strcmp(json_object_get_string(others), "last") == 0;
    size_t count = json_object_array_length(lines);
    if (count > NVL_CRASH_LINES)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct json_object *pair = json_object_array_get_idx(lines, i);
        if (!json_object_is_type(pair, json_type_array) ||
            json_object_array_length(pair) != 2)
            return false;
        crash->set[i].line =
            (uint32_t)json_object_get_uint64(json_object_array_get_idx(pair, 0));
        crash->set[i].choice =
            (uint32_t)json_object_get_uint64(json_object_array_get_idx(pair, 1));
    }
    crash->count = (uint32_t)count;
    return true;
}

bool nvl_state_parse(struct json_object *document, struct nvl_state *state)
{
    memset(state, 0, sizeof *state);
    if (!json_object_is_type(document, json_type_array))
        return false;
    size_t depth = json_object_array_length(document);
    if (depth < 1 || depth > NVL_DEPTH_MAX)
        return false;
    for (size_t level = 0; level < depth; level++) {
        if (!crash_parse(json_object_array_get_idx(document, level),
                         &state->crash[level]))
            return false;
    }
    state->depth = (uint32_t)depth;
    return true;
}

static void copy_key(struct json_object *to, struct json_object *from, const char *key)
{
    struct json_object *value;
    if (json_object_object_get_ex(from, key, &value))
        json_object_object_add(to, key, json_object_get(value));
}

bool nvl_case_write(const struct nvl_trial *trial, const char *folder,
                    const struct nvl_trace *trace, const struct nvl_state *state,
                    uint64_t seed, struct json_object *failure)
{
    static const char *const copied[] = {
        "verdict",         "detail", "phase",         "explanation", "operations",
        "operation_count", "depth",  "lines_missing", "sites"};
    const struct nvl_trial_options *options = trial->options;
    char path[4200];
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "schema", json_object_new_int(1));
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        copy_key(document, failure, copied[i]);
    json_object_object_add(document, "adapter",
                           json_object_new_string(trace->header.adapter));
    json_object_object_add(document, "options", json_object_new_string(options->extra));
    json_object_object_add(
        document, "domain",
        json_object_new_string(options->domain == PX86_EADR ? "eadr" : "adr"));
    json_object_object_add(document, "seed", json_object_new_uint64(seed));
    json_object_object_add(document, "fill_baseline",
                           json_object_new_uint64(trial->fill_baseline));
    json_object_object_add(document, "fill_tolerance",
                           json_object_new_double(options->fill_tolerance));
    json_object_object_add(document, "crash", nvl_state_json(state));
    if (options->mutation != NULL) {
        char text[200];
        nvl_mutation_print(options->mutation, text, sizeof text);
        json_object_object_add(document, "mutate", json_object_new_string(text));
    }
    snprintf(path, sizeof path, "%s/case.json", folder);
    bool written = json_object_to_file_ext(path, document, JSON_C_TO_STRING_PRETTY) == 0;
    if (!written)
        nvd_emit_error("work", errno, "%s can't be written", path);
    json_object_put(document);
    return written;
}
