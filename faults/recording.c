// SPDX-License-Identifier: Apache-2.0
/*
 * recording.c - see recording.h.
 */
#include "recording.h"

#include <stdlib.h>
#include <string.h>

static void *grown(void *array, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return array;
    size_t wanted = 2 * *capacity > needed ? 2 * *capacity : needed + 64;
    void *larger = realloc(array, wanted * size);
    if (larger == NULL)
        abort();
    *capacity = wanted;
    return larger;
}

void nvl_recording_init(struct nvl_recording *recording)
{
    *recording = (struct nvl_recording){0};
}

void nvl_recording_clear(struct nvl_recording *recording)
{
    recording->count = 0;
    recording->byte_count = 0;
}

void nvl_recording_drop(struct nvl_recording *recording)
{
    free(recording->events);
    free(recording->bytes);
}

void nvl_recording_add(struct nvl_recording *recording, const struct nvl_sighted *sighted)
{
    recording->events = grown(recording->events, &recording->capacity,
                              recording->count + 1, sizeof *recording->events);
    struct nvl_recorded *event = &recording->events[recording->count++];
    *event = (struct nvl_recorded){.kind = sighted->kind,
                                   .thread = sighted->thread,
                                   .offset = sighted->offset,
                                   .length = sighted->length,
                                   .data = recording->byte_count};
    for (uint32_t i = 0; i < 2 && i < sighted->frame_count; i++)
        event->frames[i] = sighted->frames[i];
    if (sighted->data == NULL)
        return;
    recording->bytes = grown(recording->bytes, &recording->byte_capacity,
                             recording->byte_count + sighted->length, 1);
    memcpy(recording->bytes + recording->byte_count, sighted->data, sighted->length);
    recording->byte_count += sighted->length;
}

void nvl_recording_sink(void *context, const struct nvl_sighted *sighted)
{
    nvl_recording_add(context, sighted);
}

struct nvl_event nvl_recording_event(const struct nvl_recording *recording, size_t i)
{
    const struct nvl_recorded *event = &recording->events[i];
    return (struct nvl_event){.kind = event->kind,
                              .thread = event->thread,
                              .offset = event->offset,
                              .length = event->length,
                              .data = recording->bytes + event->data};
}

uint64_t nvl_recording_hash(const struct nvl_recording *recording)
{
    uint64_t hash = recording->count;
    for (size_t i = 0; i < recording->count; i++) {
        const struct nvl_recorded *event = &recording->events[i];
        hash = (hash ^ event->offset << 4 ^ event->kind) * UINT64_C(0x9e3779b97f4a7c15);
        hash = (hash ^ event->length ^ hash >> 31) * UINT64_C(0xff51afd7ed558ccd);
    }
    size_t at = 0;
    for (uint64_t word; at + sizeof word <= recording->byte_count; at += sizeof word) {
        memcpy(&word, recording->bytes + at, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    for (; at < recording->byte_count; at++)
        hash = (hash ^ recording->bytes[at]) * UINT64_C(0x100000001b3);
    return hash;
}

bool nvl_recording_stores(const struct nvl_recording *recording)
{
    return recording->byte_count > 0;
}

/* ---- lines kept aside ---- */

static int by_line(const void *left, const void *right)
{
    uint32_t a = ((const struct nvl_saved *)left)->line;
    uint32_t b = ((const struct nvl_saved *)right)->line;
    return (a > b) - (a < b);
}

void nvl_lines_keep(struct nvl_lines *lines, const uint8_t *image,
                    const struct nvl_recording *recording)
{
    size_t capacity = 0;
    *lines = (struct nvl_lines){0};
    for (size_t i = 0; i < recording->count; i++) {
        const struct nvl_recorded *event = &recording->events[i];
        if (event->kind != NVL_EVENT_STORE && event->kind != NVL_EVENT_STORE_NT)
            continue;
        uint64_t last = (event->offset + event->length - 1) / 64;
        for (uint64_t line = event->offset / 64; line <= last; line++) {
            lines->lines =
                grown(lines->lines, &capacity, lines->count + 1, sizeof *lines->lines);
            lines->lines[lines->count++].line = (uint32_t)line;
        }
    }
    if (lines->count > 0)
        qsort(lines->lines, lines->count, sizeof *lines->lines, by_line);
    size_t unique = 0;
    for (size_t i = 0; i < lines->count; i++) {
        if (unique > 0 && lines->lines[unique - 1].line == lines->lines[i].line)
            continue;
        lines->lines[unique].line = lines->lines[i].line;
        memcpy(lines->lines[unique].content,
               image + (size_t)lines->lines[unique].line * 64, 64);
        unique++;
    }
    lines->count = unique;
}

void nvl_lines_restore(struct nvl_lines *lines, uint8_t *image)
{
    for (size_t i = 0; i < lines->count; i++)
        memcpy(image + (size_t)lines->lines[i].line * 64, lines->lines[i].content, 64);
    free(lines->lines);
}

/* ---- sets ---- */

void nvl_set_init(struct nvl_set *set)
{
    set->size = 1 << 12;
    set->count = 0;
    set->table = calloc(set->size, sizeof *set->table);
    if (set->table == NULL)
        abort();
}

static bool insert(struct nvl_set *set, uint64_t hash)
{
    size_t at = (size_t)(hash ^ hash >> 32) & (set->size - 1);
    while (set->table[at] != 0 && set->table[at] != hash)
        at = (at + 1) & (set->size - 1);
    if (set->table[at] == hash)
        return false;
    set->table[at] = hash;
    set->count++;
    return true;
}

bool nvl_set_add(struct nvl_set *set, uint64_t hash)
{
    hash += hash == 0;
    if (2 * set->count > set->size) {
        struct nvl_set larger = {.size = 4 * set->size};
        larger.table = calloc(larger.size, sizeof *larger.table);
        if (larger.table == NULL)
            abort();
        for (size_t i = 0; i < set->size; i++) {
            if (set->table[i] != 0)
                insert(&larger, set->table[i]);
        }
        free(set->table);
        *set = larger;
    }
    return insert(set, hash);
}
