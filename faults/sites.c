// SPDX-License-Identifier: Apache-2.0
/*
 * sites.c - where a trace's flushes, fences and non-temporal stores come from.
 */
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "sources.h"
#include "trial.h"

/* One for each kind of event and call stack. */
struct site_count {
    enum nvl_event_kind kind;
    struct nvl_places places;
    uint64_t count;
};

static const char *kind_name(enum nvl_event_kind kind)
{
    switch (kind) {
    case NVL_EVENT_FLUSH:
        return "flush";
    case NVL_EVENT_FENCE:
        return "fence";
    case NVL_EVENT_STORE_NT:
        return "nt-store";
    default:
        return NULL;
    }
}

static bool same_places(const struct nvl_places *left, const struct nvl_places *right)
{
    if (left->count != right->count)
        return false;
    for (uint32_t i = 0; i < left->count; i++) {
        if (left->place[i].line != right->place[i].line ||
            strcmp(left->place[i].file, right->place[i].file) != 0)
            return false;
    }
    return true;
}

static void count_site(struct site_count **sites, size_t *count, enum nvl_event_kind kind,
                       const struct nvl_places *places)
{
    for (size_t i = 0; i < *count; i++) {
        if ((*sites)[i].kind == kind && same_places(&(*sites)[i].places, places)) {
            (*sites)[i].count++;
            return;
        }
    }
    *sites = realloc(*sites, (*count + 1) * sizeof **sites);
    if (*sites == NULL)
        abort();
    (*sites)[(*count)++] = (struct site_count){kind, *places, 1};
}

static struct json_object *place_json(const struct nvl_source *place)
{
    struct json_object *json = json_object_new_object();
    json_object_object_add(json, "file", json_object_new_string(place->file));
    json_object_object_add(json, "line", json_object_new_int(place->line));
    json_object_object_add(json, "function", json_object_new_string(place->function));
    return json;
}

static void emit(const struct site_count *sites, size_t count)
{
    struct json_object *document = json_object_new_object();
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < count; i++) {
        const struct nvl_places *places = &sites[i].places;
        struct json_object *site = place_json(&places->place[places->telling]);
        struct json_object *frames = json_object_new_array();
        for (uint32_t frame = 0; frame < places->count; frame++)
            json_object_array_add(frames, place_json(&places->place[frame]));
        json_object_object_add(site, "kind",
                               json_object_new_string(kind_name(sites[i].kind)));
        json_object_object_add(site, "count", json_object_new_uint64(sites[i].count));
        json_object_object_add(site, "frames", frames);
        json_object_array_add(list, site);
    }
    json_object_object_add(document, "type", json_object_new_string("sites"));
    json_object_object_add(document, "sites", list);
    nvd_emit(document);
}

void nvl_sites_emit(const struct nvl_trace *trace)
{
    struct site_count *sites = NULL;
    size_t count = 0;
    for (size_t i = 0; i < trace->event_count; i++) {
        const struct nvl_event *event = &trace->events[i];
        struct nvl_places places;
        if (kind_name(event->kind) == NULL || event->site == 0)
            continue;
        nvl_sources_of_site(trace, event->site, &places);
        if (places.count > 0)
            count_site(&sites, &count, event->kind, &places);
    }
    emit(sites, count);
    free(sites);
}
