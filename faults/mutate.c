// SPDX-License-Identifier: Apache-2.0
/*
 * mutate.c - see mutate.h.
 */
#include "mutate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "sources.h"

enum {
    cache_size = 4096,
};

bool nvl_mutation_active;

static struct nvl_mutation mutation;
/* Whether a place (a hash of frames) is the mutation's: 0 unknown, 1 no, 2 yes. */
static struct {
    uint64_t hash;
    uint8_t answer;
} cache[cache_size];
/* SWAP: an event that waits for the next of its thread. */
static struct nvl_sighted waiting[NVL_THREADS_MAX];
static bool is_waiting[NVL_THREADS_MAX];

static const struct {
    const char *name;
    enum nvl_mutation_kind kind;
    enum nvl_event_kind only;
} kinds[] = {
    {"drop", NVL_DROP, NVL_EVENT_END},          {"swap", NVL_SWAP, NVL_EVENT_END},
    {"drop-flush", NVL_DROP, NVL_EVENT_FLUSH},  {"drop-fence", NVL_DROP, NVL_EVENT_FENCE},
    {"swap-flush", NVL_SWAP, NVL_EVENT_FLUSH},  {"swap-fence", NVL_SWAP, NVL_EVENT_FENCE},
    {"cached", NVL_CACHED, NVL_EVENT_STORE_NT},
};

bool nvl_mutation_parse(struct nvl_mutation *parsed, const char *text)
{
    uint64_t line;
    const char *file = strchr(text, ':');
    const char *number = strrchr(text, ':');
    if (file == NULL || number == file || !nvd_parse_u64(number + 1, 1, 1 << 24, &line))
        return false;
    snprintf(parsed->file, sizeof parsed->file, "%.*s", (int)(number - file - 1),
             file + 1);
    parsed->line = (int)line;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t length = strlen(kinds[i].name);
        if ((size_t)(file - text) == length && memcmp(text, kinds[i].name, length) == 0) {
            parsed->kind = kinds[i].kind;
            parsed->only = kinds[i].only;
            return true;
        }
    }
    return false;
}

void nvl_mutation_print(const struct nvl_mutation *printed, char *text, size_t size)
{
    size_t i = 0;
    while (kinds[i].kind != printed->kind || kinds[i].only != printed->only)
        i++;
    snprintf(text, size, "%s:%s:%d", kinds[i].name, printed->file, printed->line);
}

void nvl_mutation_use(const struct nvl_mutation *used)
{
    nvl_mutation_active = used != NULL;
    if (used != NULL)
        mutation = *used;
    memset(cache, 0, sizeof cache);
    memset(is_waiting, 0, sizeof is_waiting);
}

static bool is_place(const struct nvl_sighted *sighted)
{
    struct nvl_places places;
    nvl_sources_of_frames(sighted->frames, sighted->frame_count, &places);
    for (uint32_t i = 0; i < places.count; i++) {
        if (places.place[i].line == mutation.line &&
            strcmp(places.place[i].file, mutation.file) == 0)
            return true;
    }
    return false;
}

bool nvl_mutation_hits(const struct nvl_sighted *sighted)
{
    bool wanted = mutation.only == NVL_EVENT_END ? sighted->kind == NVL_EVENT_FLUSH ||
                                                       sighted->kind == NVL_EVENT_FENCE
                                                 : sighted->kind == mutation.only;
    if (!wanted)
        return false;
    uint64_t hash = sighted->frame_count;
    for (uint32_t i = 0; i < sighted->frame_count; i++)
        hash = (hash ^ sighted->frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
    size_t at = (size_t)(hash >> 40) % cache_size;
    if (cache[at].hash != hash || cache[at].answer == 0) {
        cache[at].hash = hash;
        cache[at].answer = is_place(sighted) ? 2 : 1;
    }
    return cache[at].answer == 2;
}

static void pass_waiting(uint32_t thread, nvl_sink_fn *sink, void *context)
{
    if (!is_waiting[thread])
        return;
    is_waiting[thread] = false;
    sink(context, &waiting[thread]);
}

static void pass_mutated(const struct nvl_sighted *sighted, nvl_sink_fn *sink,
                         void *context)
{
    struct nvl_sighted cached = *sighted;
    switch (mutation.kind) {
    case NVL_DROP:
        return;
    case NVL_SWAP: /* the last of several in a row changes places with what follows */
        pass_waiting(sighted->thread, sink, context);
        waiting[sighted->thread] = *sighted;
        is_waiting[sighted->thread] = true;
        return;
    case NVL_CACHED:
        cached.kind = NVL_EVENT_STORE;
        sink(context, &cached);
        return;
    }
}

void nvl_mutation_pass(const struct nvl_sighted *sighted, nvl_sink_fn *sink,
                       void *context)
{
    if (nvl_mutation_hits(sighted)) {
        pass_mutated(sighted, sink, context);
        return;
    }
    sink(context, sighted);
    if (sighted->kind == NVL_EVENT_FLUSH || sighted->kind == NVL_EVENT_FENCE ||
        sighted->kind == NVL_EVENT_LOCKED || sighted->kind == NVL_EVENT_STORE ||
        sighted->kind == NVL_EVENT_STORE_NT)
        pass_waiting(sighted->thread, sink, context);
}
