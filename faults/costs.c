// SPDX-License-Identifier: Apache-2.0
/*
 * costs.c - what persistence costs more than it must, by source line.
 *
 *   needless-flush       none of its lines had anything to flush
 *   needless-fence       nothing of the thread was pending
 *   reflush              the line was among the last 4 flushed: waits for the media on
 *                        Optane (Yang et al., FAST 2020)
 *   write-amplification  bytes that reach media in 256-byte units, for each byte stored:
 *                        each fence writes the units of what it completes
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "sources.h"
#include "trial.h"

enum {
    recent_lines = 4,
    unit_bytes = 256,
    places_max = 256,
};

struct accounts {
    const struct nvl_trace *trace;
    struct px86 *model;
    uint64_t *site_place; /* by site: index + 1 of a place, 0 unknown yet */
    struct nvl_source places[places_max];
    uint32_t place_count;
    uint64_t flushes[places_max], fences[places_max];
    uint64_t idle_flushes[places_max], idle_fences[places_max], reflushes[places_max];
    uint32_t recent[recent_lines];
    uint32_t recent_count;
    uint64_t pending_units[1024];
    uint32_t pending_count;
    uint64_t stored_bytes, media_units;
};

static uint32_t place_at(struct accounts *accounts, uint32_t site)
{
    if (accounts->site_place[site] != 0)
        return (uint32_t)accounts->site_place[site] - 1;
    struct nvl_places places;
    nvl_sources_of_site(accounts->trace, site, &places);
    struct nvl_source place = {.file = "(the application)"};
    if (places.count > 0)
        place = places.place[places.telling];
    uint32_t i = 0;
    while (i < accounts->place_count &&
           (accounts->places[i].line != place.line ||
            strcmp(accounts->places[i].file, place.file) != 0))
        i++;
    if (i == accounts->place_count && i < places_max - 1)
        accounts->places[accounts->place_count++] = place;
    accounts->site_place[site] = i + 1;
    return i;
}

static void note_unit(struct accounts *accounts, uint64_t line)
{
    uint64_t unit = line * 64 / unit_bytes;
    for (uint32_t i = 0; i < accounts->pending_count; i++) {
        if (accounts->pending_units[i] == unit)
            return;
    }
    if (accounts->pending_count < 1024)
        accounts->pending_units[accounts->pending_count++] = unit;
    else
        accounts->media_units++;
}

static void note_flush(struct accounts *accounts, const struct nvl_event *event)
{
    uint32_t place = place_at(accounts, event->site);
    accounts->flushes[place]++;
    if (!px86_flush(accounts->model, event->thread, event->offset, event->length)) {
        accounts->idle_flushes[place]++;
        return;
    }
    for (uint64_t line = event->offset / 64; line * 64 < event->offset + event->length;
         line++) {
        for (uint32_t i = 0; i < recent_lines && i < accounts->recent_count; i++) {
            if (accounts->recent[i] == line) {
                accounts->reflushes[place]++;
                break;
            }
        }
        accounts->recent[accounts->recent_count++ % recent_lines] = (uint32_t)line;
        note_unit(accounts, line);
    }
}

static void note_fence(struct accounts *accounts, const struct nvl_event *event)
{
    uint32_t place = place_at(accounts, event->site);
    if (event->kind == NVL_EVENT_FENCE) {
        accounts->fences[place]++;
        accounts->idle_fences[place] +=
            !px86_fence_matters(accounts->model, event->thread);
    }
    px86_fence(accounts->model, event->thread);
    accounts->media_units += accounts->pending_count;
    accounts->pending_count = 0;
}

static void emit(const char *kind, const struct nvl_source *place, uint64_t times,
                 uint64_t of)
{
    struct json_object *document = json_object_new_object();
    if (times == 0) {
        json_object_put(document);
        return;
    }
    json_object_object_add(document, "type", json_object_new_string("cost"));
    json_object_object_add(document, "kind", json_object_new_string(kind));
    json_object_object_add(document, "file", json_object_new_string(place->file));
    json_object_object_add(document, "line", json_object_new_int(place->line));
    json_object_object_add(document, "function", json_object_new_string(place->function));
    json_object_object_add(document, "times", json_object_new_uint64(times));
    json_object_object_add(document, "of", json_object_new_uint64(of));
    nvd_emit(document);
}

static void emit_all(const struct accounts *accounts)
{
    for (uint32_t i = 0; i < accounts->place_count; i++) {
        const struct nvl_source *place = &accounts->places[i];
        emit("needless-flush", place, accounts->idle_flushes[i], accounts->flushes[i]);
        emit("needless-fence", place, accounts->idle_fences[i], accounts->fences[i]);
        emit("reflush", place, accounts->reflushes[i], accounts->flushes[i]);
    }
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("cost"));
    json_object_object_add(document, "kind",
                           json_object_new_string("write-amplification"));
    json_object_object_add(document, "stored_bytes",
                           json_object_new_uint64(accounts->stored_bytes));
    json_object_object_add(document, "media_bytes",
                           json_object_new_uint64(accounts->media_units * unit_bytes));
    nvd_emit(document);
}

void nvl_costs_emit(const struct nvl_trace *trace)
{
    struct accounts *accounts = calloc(1, sizeof *accounts);
    uint8_t *image = malloc(trace->header.size);
    if (accounts == NULL || image == NULL)
        abort();
    accounts->trace = trace;
    accounts->site_place = calloc(trace->site_count + 1, sizeof *accounts->site_place);
    nvl_trace_image(trace, image);
    accounts->model = px86_new(image, trace->header.size, PX86_ADR, 0);
    bool ready = false;
    for (size_t i = 0; i < trace->event_count && accounts->site_place != NULL; i++) {
        const struct nvl_event *event = &trace->events[i];
        ready |= event->kind == NVL_EVENT_MARK && event->mark.kind == NVL_MARK_READY;
        bool fence = event->kind == NVL_EVENT_FENCE || event->kind == NVL_EVENT_LOCKED;
        if (ready && event->kind == NVL_EVENT_FLUSH)
            note_flush(accounts, event);
        else if (ready && fence)
            note_fence(accounts, event);
        else
            nvl_feed(accounts->model, PX86_ADR, event, i);
        if (ready && event->data != NULL)
            accounts->stored_bytes += event->length;
        if (ready && event->kind == NVL_EVENT_STORE_NT) {
            for (uint64_t line = event->offset / 64;
                 line * 64 < event->offset + event->length; line++)
                note_unit(accounts, line);
        }
    }
    emit_all(accounts);
    px86_free(accounts->model);
    free(accounts->site_place);
    free(accounts);
    free(image);
}
