// SPDX-License-Identifier: Apache-2.0
/*
 * command_trace.c - trace: one document an event; sites: where persistence comes from;
 * flags: how to compile for the lens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "lens_flags.h"
#include "sources.h"

static const char *const event_names[NVL_EVENT_KINDS] = {
    [NVL_EVENT_STORE] = "store",       [NVL_EVENT_STORE_WHOLE] = "line",
    [NVL_EVENT_STORE_NT] = "nt-store", [NVL_EVENT_FLUSH] = "flush",
    [NVL_EVENT_FENCE] = "fence",       [NVL_EVENT_LOCKED] = "locked",
    [NVL_EVENT_SYNCED] = "synced",     [NVL_EVENT_MARK] = "mark",
};
static const char *const mark_names[NVL_MARK_KINDS] = {
    [NVL_MARK_READY] = "ready",       [NVL_MARK_BEGIN] = "begin",
    [NVL_MARK_ACK] = "acknowledged",  [NVL_MARK_FAIL] = "failed",
    [NVL_MARK_SETTLING] = "settling", [NVL_MARK_PERSISTED] = "persisted",
};

static void add_text(struct json_object *document, const char *key, const char *value)
{
    json_object_object_add(document, key, json_object_new_string(value));
}

static void add_mark(struct json_object *document, const struct nvl_trace *trace,
                     const struct nvl_mark *mark)
{
    char name[32], script[256];
    add_text(document, "mark", mark_names[mark->kind]);
    json_object_object_add(document, "thread", json_object_new_int(mark->thread));
    if (mark->kind == NVL_MARK_BEGIN) {
        struct nvl_script one = {0};
        nvl_script_add(&one, &mark->op);
        nvl_script_print(&one, trace->ledger->slots, trace->ledger->inner, script,
                         sizeof script);
        nvl_script_clear(&one);
        add_text(document, "operation", script);
    }
    if (mark->kind == NVL_MARK_SETTLING || mark->kind == NVL_MARK_PERSISTED)
        add_text(document, "slot",
                 nvl_ledger_name(trace->ledger, mark->id, name, sizeof name));
}

static void add_data(struct json_object *document, const struct nvl_event *event)
{
    char text[2 * 16 + 4];
    size_t shown = event->length < 16 ? (size_t)event->length : 16;
    for (size_t i = 0; i < shown; i++)
        snprintf(text + 2 * i, 3, "%02x", event->data[i]);
    if (event->length > shown)
        memcpy(text + 2 * shown, "...", 4);
    add_text(document, "data", text);
}

static void add_place(struct json_object *document, const struct nvl_trace *trace,
                      uint32_t site)
{
    struct nvl_places places;
    if (site == 0) {
        add_text(document, "at", "the application");
        return;
    }
    nvl_sources_of_site(trace, site, &places);
    if (places.count == 0)
        return;
    char text[200];
    const struct nvl_source *place = &places.place[places.telling];
    snprintf(text, sizeof text, "%s:%d", place->file, place->line);
    add_text(document, "at", text);
    add_text(document, "function", place->function);
}

static void emit_event(const struct nvl_trace *trace, size_t index)
{
    const struct nvl_event *event = &trace->events[index];
    struct json_object *document = json_object_new_object();
    add_text(document, "type", "event");
    json_object_object_add(document, "event", json_object_new_uint64(index));
    add_text(document, "kind", event_names[event->kind]);
    if (event->kind == NVL_EVENT_MARK) {
        add_mark(document, trace, &event->mark);
        nvd_emit(document);
        return;
    }
    json_object_object_add(document, "thread", json_object_new_int((int)event->thread));
    if (event->kind != NVL_EVENT_FENCE && event->kind != NVL_EVENT_LOCKED) {
        json_object_object_add(document, "offset", json_object_new_uint64(event->offset));
        json_object_object_add(document, "length", json_object_new_uint64(event->length));
    }
    if (event->data != NULL)
        add_data(document, event);
    add_place(document, trace, event->site);
    nvd_emit(document);
}

int nvl_command_trace(int argc, char **argv)
{
    struct nvl_command_options options;
    char error[200];
    int code = nvl_options_parse(&options, argc, argv, false);
    if (code != NVD_OK)
        return code;
    if (options.trace_path == NULL) {
        nvd_emit_error("usage", 0, "--trace is missing: expected a recorded trace");
        return NVD_USAGE;
    }
    struct nvl_trace *trace = nvl_trace_load(options.trace_path, error, sizeof error);
    if (trace == NULL) {
        nvd_emit_error("trace", 0, "%s: %s", options.trace_path, error);
        return NVD_ENVIRONMENT;
    }
    for (size_t i = 0; i < trace->event_count; i++)
        emit_event(trace, i);
    struct json_object *document = json_object_new_object();
    add_text(document, "type", "trace");
    add_text(document, "adapter", trace->header.adapter);
    add_text(document, "options", trace->header.extra);
    add_text(document, "lens",
             trace->header.lens == NVL_LENS_COMPILED ? "compiled" : "library");
    json_object_object_add(document, "size", json_object_new_uint64(trace->header.size));
    json_object_object_add(document, "seed", json_object_new_uint64(trace->header.seed));
    json_object_object_add(document, "events",
                           json_object_new_uint64(trace->event_count));
    nvd_emit(document);
    nvl_trace_free(trace);
    return NVD_OK;
}

int nvl_command_sites(int argc, char **argv)
{
    struct nvl_command_options options;
    char error[200];
    int code = nvl_options_parse(&options, argc, argv, false);
    if (code != NVD_OK)
        return code;
    if (options.trace_path == NULL) {
        nvd_emit_error("usage", 0, "--trace is missing: record a history first");
        return NVD_USAGE;
    }
    struct nvl_trace *trace = nvl_trace_load(options.trace_path, error, sizeof error);
    if (trace == NULL) {
        nvd_emit_error("trace", 0, "%s: %s", options.trace_path, error);
        return NVD_ENVIRONMENT;
    }
    nvl_sites_emit(trace);
    nvl_trace_free(trace);
    return NVD_OK;
}

int nvl_command_flags(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct json_object *document = json_object_new_object();
    add_text(document, "type", "flags");
    add_text(document, "cflags", NVL_LENS_CFLAGS);
    add_text(document, "ldflags", NVL_LENS_LDFLAGS);
    nvd_emit(document);
    return NVD_OK;
}
