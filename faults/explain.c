// SPDX-License-Identifier: Apache-2.0
/*
 * explain.c - what is missing in a failing state, who stored it, and which flush or
 * fence should have put it on media.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sources.h"
#include "trial.h"

enum {
    sites_max = 32,
    of_a_role_max = 8,
};

struct explanation {
    const struct nvl_trace *trace;
    const struct nvl_state *state;
    const struct nvl_trail *trail;
    struct json_object *sites;
    char told[sites_max][160]; /* role, file, line: each once */
    int told_count;
};

static void place_text(const struct nvl_places *places, char *text, size_t size)
{
    if (places->count == 0)
        snprintf(text, size, "(no source line)");
    else if (places->place[places->telling].line == 0)
        snprintf(text, size, "%s of %s", places->place[places->telling].function,
                 places->place[places->telling].file);
    else
        snprintf(text, size, "%s:%d", places->place[places->telling].file,
                 places->place[places->telling].line);
}

static void add_site(struct explanation *explanation, const char *role,
                     const struct nvl_places *places)
{
    char key[160], where[110];
    place_text(places, where, sizeof where);
    snprintf(key, sizeof key, "%s %s", role, where);
    int of_role = 0;
    for (int i = 0; i < explanation->told_count; i++) {
        if (strcmp(explanation->told[i], key) == 0)
            return;
        of_role += strncmp(explanation->told[i], role, strlen(role)) == 0;
    }
    if (places->count == 0 || explanation->told_count == sites_max ||
        of_role == of_a_role_max)
        return;
    memcpy(explanation->told[explanation->told_count++], key, sizeof key);
    const struct nvl_source *place = &places->place[places->telling];
    struct json_object *site = json_object_new_object();
    struct json_object *frames = json_object_new_array();
    json_object_object_add(site, "role", json_object_new_string(role));
    json_object_object_add(site, "file", json_object_new_string(place->file));
    json_object_object_add(site, "line", json_object_new_int(place->line));
    json_object_object_add(site, "function", json_object_new_string(place->function));
    for (uint32_t i = 0; i < places->count; i++) {
        char text[200];
        snprintf(text, sizeof text, "%s:%d %s", places->place[i].file,
                 places->place[i].line, places->place[i].function);
        json_object_array_add(frames, json_object_new_string(text));
    }
    json_object_object_add(site, "frames", frames);
    json_object_array_add(explanation->sites, site);
}

static void places_of_unit(const struct explanation *explanation,
                           const struct nvl_trail_unit *unit, struct nvl_places *places)
{
    if (unit->level == 0)
        nvl_sources_of_site(explanation->trace, unit->site, places);
    else
        nvl_sources_of_frames(unit->frames, unit->frames[1] != 0 ? 2 : 1, places);
}

/* ---- the history's flushes and fences around a missing store ---- */

static bool covers(const struct nvl_event *event, uint32_t line)
{
    return event->length > 0 && event->offset / 64 <= line &&
           (event->offset + event->length - 1) / 64 >= line;
}

/* The first event of the kind at or after `from` and before `to`; or NULL. */
static const struct nvl_event *first_of(const struct nvl_trace *trace, uint64_t from,
                                        uint64_t to, enum nvl_event_kind kind, int thread,
                                        int64_t line)
{
    for (uint64_t i = from; i < to && i < trace->event_count; i++) {
        const struct nvl_event *event = &trace->events[i];
        if (event->kind == kind && (thread < 0 || event->thread == (uint32_t)thread) &&
            (line < 0 || covers(event, (uint32_t)line)))
            return event;
    }
    return NULL;
}

static const struct nvl_event *last_flush_before(const struct nvl_trace *trace,
                                                 uint64_t before, uint32_t line)
{
    for (uint64_t i = before; i > 0; i--) {
        const struct nvl_event *event = &trace->events[i - 1];
        if (event->kind == NVL_EVENT_FLUSH && covers(event, line))
            return before - i < 64 ? event : NULL;
    }
    return NULL;
}

/* Why the store is not on media; the sites that say so. */
static void tell_missing(struct explanation *explanation,
                         const struct nvl_trail_unit *unit, char *text, size_t size)
{
    const struct nvl_trace *trace = explanation->trace;
    uint64_t crash = explanation->state->crash[0].event;
    struct nvl_places places;
    char where[110];
    if (unit->level > 0) {
        snprintf(text, size, "not on media when recovery was cut off");
        return;
    }
    if (trace->events[unit->event].kind == NVL_EVENT_STORE_NT) {
        const struct nvl_event *next =
            first_of(trace, unit->event + 1, trace->event_count, NVL_EVENT_FENCE,
                     unit->thread, -1);
        snprintf(text, size, "past the caches and not fenced yet");
        if (next == NULL)
            return;
        nvl_sources_of_site(trace, next->site, &places);
        add_site(explanation, "fence", &places);
        place_text(&places, where, sizeof where);
        snprintf(text, size, "past the caches and not fenced yet (by %s)", where);
        return;
    }
    const struct nvl_event *flush =
        first_of(trace, unit->event + 1, crash, NVL_EVENT_FLUSH, -1, unit->line);
    const struct nvl_event *fence = first_of(trace, unit->event + 1, trace->event_count,
                                             NVL_EVENT_FENCE, unit->thread, -1);
    const struct nvl_event *earlier = last_flush_before(trace, unit->event, unit->line);
    if (flush != NULL) {
        nvl_sources_of_site(trace, flush->site, &places);
        place_text(&places, where, sizeof where);
        add_site(explanation, "flush", &places);
        snprintf(text, size,
                 "flushed at %s, but not fenced by thread %u before the crash", where,
                 flush->thread);
    } else if (earlier != NULL) {
        nvl_sources_of_site(trace, earlier->site, &places);
        place_text(&places, where, sizeof where);
        add_site(explanation, "flush", &places);
        snprintf(text, size, "not flushed since; its line was flushed before it at %s",
                 where);
    } else {
        snprintf(text, size, "never flushed");
    }
    if (fence != NULL) {
        nvl_sources_of_site(trace, fence->site, &places);
        add_site(explanation, "fence", &places);
        place_text(&places, where, sizeof where);
        size_t used = strlen(text);
        snprintf(text + used, size - used, " (the thread's next fence: %s)", where);
    }
}

static void tell_units(struct explanation *explanation, char *sentence, size_t size)
{
    const struct nvl_trail *trail = explanation->trail;
    size_t used = strlen(sentence);
    int told = 0;
    for (uint32_t i = 0; i < trail->unit_count; i++) {
        const struct nvl_trail_unit *unit = &trail->unit[i];
        struct nvl_places places;
        char where[110], why[300];
        if (!unit->missing)
            continue;
        places_of_unit(explanation, unit, &places);
        if (places.count == 0)
            snprintf(where, sizeof where, "the application");
        else
            place_text(&places, where, sizeof where);
        add_site(explanation, "not-persisted", &places);
        tell_missing(explanation, unit, why, sizeof why);
        if (told++ < 2 && used < size) {
            used += (size_t)snprintf(
                sentence + used, size - used, "; the store %s %s (offset 0x%x) is %s",
                places.count == 0 ? "of" : "at", where, unit->line * 64 + unit->at, why);
        }
    }
    for (uint32_t i = trail->unit_count; i > 0; i--) {
        struct nvl_places places;
        if (trail->unit[i - 1].missing)
            continue;
        places_of_unit(explanation, &trail->unit[i - 1], &places);
        add_site(explanation, "persisted", &places);
    }
    if (told == 0 && used < size)
        snprintf(sentence + used, size - used,
                 "; every store before the crash is on media: no flush is to blame");
}

/* ---- what recovery did ---- */

/* True if the crash left out a store to the line; or, `any`, could have. */
static bool line_is_missing(const struct nvl_trail *trail, uint32_t line, bool any)
{
    for (uint32_t i = 0; i < trail->unit_count; i++) {
        if ((any || trail->unit[i].missing) && trail->unit[i].line == line)
            return true;
    }
    return false;
}

static void tell_recovery(struct explanation *explanation, bool everything)
{
    const struct nvl_trail *trail = explanation->trail;
    uint32_t count = trail->count;
    uint32_t kept = count < NVL_TRAIL_MAX ? count : NVL_TRAIL_MAX;
    for (uint32_t i = 1; i <= kept; i++) {
        const struct nvl_trail_step *step = &trail->step[(count - i) % NVL_TRAIL_MAX];
        struct nvl_places places;
        bool store = step->kind == NVL_EVENT_STORE || step->kind == NVL_EVENT_STORE_NT;
        bool at_victim = store && step->offset <= trail->victim_offset &&
                         trail->victim_offset < step->offset + step->length;
        bool load = step->kind == NVL_EVENT_MODULE &&
                    line_is_missing(trail, step->line, everything);
        if (!at_victim && !load && step->kind != NVL_EVENT_END && !(everything && store))
            continue;
        nvl_sources_of_frames(step->frames, step->frame_count, &places);
        add_site(explanation,
                 step->kind == NVL_EVENT_END ? "fault"
                 : load                      ? "recovery-read"
                                             : "recovery-store",
                 &places);
    }
}

/* What recovery went by: no store is to blame for a wrong decision. */
static void tell_looks(struct explanation *explanation)
{
    const struct nvl_trail *trail = explanation->trail;
    for (uint32_t i = 0; i < trail->look_count; i++) {
        struct nvl_places places;
        nvl_sources_of_frames(trail->look[i], trail->look[i][1] != 0 ? 2 : 1, &places);
        add_site(explanation, "recovery-look", &places);
    }
}

/* The last store of the history to the slot that shows the wrong thing. */
static void tell_victim(struct explanation *explanation)
{
    const struct nvl_trace *trace = explanation->trace;
    uint64_t victim = explanation->trail->victim_offset;
    for (uint64_t i = explanation->state->crash[0].event; i > 0; i--) {
        const struct nvl_event *event = &trace->events[i - 1];
        bool store = event->kind == NVL_EVENT_STORE ||
                     event->kind == NVL_EVENT_STORE_NT ||
                     event->kind == NVL_EVENT_STORE_WHOLE;
        if (!store || event->offset > victim || victim >= event->offset + event->length)
            continue;
        struct nvl_places places;
        nvl_sources_of_site(trace, event->site, &places);
        add_site(explanation, "victim-store", &places);
        return;
    }
}

/* The stores of the operation that the crash interrupted, or that ended last. */
static void tell_last_operation(struct explanation *explanation)
{
    const struct nvl_trace *trace = explanation->trace;
    uint64_t i = explanation->state->crash[0].event;
    bool in_operation = false;
    for (; i > 0; i--) {
        const struct nvl_event *event = &trace->events[i - 1];
        struct nvl_places places;
        if (event->kind == NVL_EVENT_MARK && event->mark.kind == NVL_MARK_BEGIN) {
            if (in_operation)
                return;
            continue;
        }
        if (event->kind != NVL_EVENT_STORE && event->kind != NVL_EVENT_STORE_NT)
            continue;
        nvl_sources_of_site(trace, event->site, &places);
        in_operation |= places.count > 0;
        add_site(explanation, "operation-store", &places);
    }
}

struct json_object *nvl_explain(const struct nvl_trace *trace,
                                const struct nvl_state *state,
                                const struct nvl_trail *trail, char *sentence,
                                size_t size)
{
    struct explanation explanation = {
        .trace = trace, .state = state, .trail = trail, .sites = json_object_new_array()};
    snprintf(sentence, size, "%s", trail->finding.detail);
    tell_units(&explanation, sentence, size);
    bool nothing_missing = json_object_array_length(explanation.sites) == 0;
    tell_recovery(&explanation, nothing_missing);
    tell_victim(&explanation);
    tell_last_operation(&explanation);
    tell_looks(&explanation);
    return explanation.sites;
}
