// SPDX-License-Identifier: Apache-2.0
/*
 * trace_read.c - reads a trace whole; trusts nothing that a file says.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"
#include "trace_format.h"

enum {
    sites_max = 1 << 24,
    slots_max = 1 << 20,
};

struct cursor {
    const uint8_t *at, *end;
    bool bad; /* read past the end, or a value that can't be */
};

static uint64_t take(struct cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (cursor->at == cursor->end) {
            cursor->bad = true;
            return 0;
        }
        uint8_t byte = *cursor->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    cursor->bad = true;
    return 0;
}

static int64_t take_signed(struct cursor *cursor)
{
    uint64_t value = take(cursor);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

static const uint8_t *take_bytes(struct cursor *cursor, uint64_t length)
{
    if (length > (uint64_t)(cursor->end - cursor->at)) {
        cursor->bad = true;
        return NULL;
    }
    const uint8_t *bytes = cursor->at;
    cursor->at += length;
    return bytes;
}

static void take_text(struct cursor *cursor, char *text, size_t size)
{
    uint64_t length = take(cursor);
    const uint8_t *bytes = take_bytes(cursor, length);
    if (bytes == NULL || length >= size) {
        cursor->bad = true;
        return;
    }
    memcpy(text, bytes, length);
    text[length] = '\0';
}

static uint64_t take_below(struct cursor *cursor, uint64_t bound)
{
    uint64_t value = take(cursor);
    if (value < bound)
        return value;
    cursor->bad = true;
    return 0;
}

static void take_op(struct cursor *cursor, struct nvl_op *op, uint32_t ids)
{
    memset(op, 0, sizeof *op);
    op->kind = (uint8_t)take_below(cursor, NVL_OP_KINDS);
    op->thread = (uint8_t)take_below(cursor, NVL_THREADS_MAX);
    op->count = (uint8_t)take_below(cursor, NVL_GROUP_MAX + 1);
    op->container = take_below(cursor, 2) != 0;
    for (unsigned i = 0; i < NVL_GROUP_MAX && (i < op->count || i < 2); i++) {
        op->id[i] = (uint32_t)take_below(cursor, ids);
        op->size[i] = take(cursor);
    }
}

static struct nvl_ledger *take_ledger(struct cursor *cursor)
{
    uint32_t slots = (uint32_t)take_below(cursor, slots_max);
    uint32_t inner = (uint32_t)take_below(cursor, 65);
    uint32_t slot_size = (uint32_t)take_below(cursor, 4096);
    uint64_t heap_size = take(cursor);
    if (cursor->bad || slots == 0) {
        cursor->bad = true;
        return NULL;
    }
    struct nvl_ledger *ledger = nvl_ledger_new(slots, inner, slot_size, heap_size);
    ledger->ready = take_below(cursor, 2) != 0;
    for (uint32_t i = 0; i < ledger->ids; i++) {
        struct nvl_slot *slot = &ledger->slot[i];
        slot->seq = take(cursor);
        unsigned flags = (unsigned)take_below(cursor, 4);
        slot->full = flags & 1;
        slot->container = flags & 2;
        slot->size = take(cursor);
        slot->usable = take(cursor);
        slot->offset = take_signed(cursor);
        slot->payload_id = (uint32_t)take_below(cursor, ledger->ids);
        slot->payload_seq = take(cursor);
        slot->payload_from = take(cursor);
        slot->payload_to = take(cursor);
    }
    for (uint32_t t = 0; t < NVL_THREADS_MAX; t++) {
        ledger->inflight[t].active = take_below(cursor, 2) != 0;
        if (ledger->inflight[t].active)
            take_op(cursor, &ledger->inflight[t].op, ledger->ids);
    }
    return ledger;
}

static void skip_image(struct cursor *cursor, uint64_t size)
{
    uint64_t page;
    while ((page = take(cursor)) != 0 && !cursor->bad) {
        uint64_t at = (page - 1) * NVL_TRACE_PAGE;
        if (page > size / NVL_TRACE_PAGE + 1 || at >= size) {
            cursor->bad = true;
            return;
        }
        take_bytes(cursor, size - at < NVL_TRACE_PAGE ? size - at : NVL_TRACE_PAGE);
    }
}

void nvl_trace_image(const struct nvl_trace *trace, void *image)
{
    uint64_t size = trace->header.size, page;
    struct cursor cursor = {trace->bytes + trace->image_at,
                            trace->bytes + trace->byte_count, false};
    memset(image, 0, size);
    while ((page = take(&cursor)) != 0 && !cursor.bad) {
        uint64_t at = (page - 1) * NVL_TRACE_PAGE;
        uint64_t length = size - at < NVL_TRACE_PAGE ? size - at : NVL_TRACE_PAGE;
        const uint8_t *bytes = take_bytes(&cursor, length);
        if (bytes != NULL)
            memcpy((uint8_t *)image + at, bytes, length);
    }
}

static void take_mark(struct cursor *cursor, struct nvl_mark *mark, uint32_t ids)
{
    memset(mark, 0, sizeof *mark);
    mark->kind = (uint8_t)take_below(cursor, NVL_MARK_KINDS);
    mark->thread = (uint8_t)take_below(cursor, NVL_THREADS_MAX);
    switch ((enum nvl_mark_kind)mark->kind) {
    case NVL_MARK_BEGIN:
        take_op(cursor, &mark->op, ids);
        break;
    case NVL_MARK_ACK:
        for (unsigned i = 0; i < NVL_GROUP_MAX; i++) {
            mark->place[i].offset = take_signed(cursor);
            mark->place[i].usable = take(cursor);
        }
        break;
    case NVL_MARK_SETTLING:
    case NVL_MARK_PERSISTED:
        mark->id = (uint32_t)take_below(cursor, ids);
        mark->payload_from = take(cursor);
        mark->payload_to = take(cursor);
        break;
    default:
        break;
    }
}

static void *must(void *pointer)
{
    if (pointer == NULL)
        abort();
    return pointer;
}

static void take_module(struct cursor *cursor, struct nvl_trace *trace)
{
    char path[4096] = "";
    take_text(cursor, path, sizeof path);
    trace->modules =
        must(realloc(trace->modules, (trace->module_count + 1) * sizeof *trace->modules));
    trace->modules[trace->module_count++] = must(strdup(path));
}

static void take_site(struct cursor *cursor, struct nvl_trace *trace)
{
    struct nvl_site site = {.count = (uint32_t)take_below(cursor, NVL_FRAMES + 1)};
    for (uint32_t i = 0; i < site.count; i++) {
        site.frame[i].module = (uint32_t)take_below(cursor, trace->module_count);
        site.frame[i].offset = take(cursor);
    }
    if (trace->site_count >= sites_max) {
        cursor->bad = true;
        return;
    }
    if (trace->site_count % 64 == 0)
        trace->sites =
            must(realloc(trace->sites, (trace->site_count + 64) * sizeof *trace->sites));
    trace->sites[trace->site_count++] = site;
}

static void take_access(struct cursor *cursor, struct nvl_trace *trace,
                        struct nvl_event *event, uint64_t *last_offset)
{
    event->thread = (uint32_t)take_below(cursor, NVL_THREADS_MAX);
    event->site = (uint32_t)take_below(cursor, trace->site_count);
    if (event->kind == NVL_EVENT_FENCE || event->kind == NVL_EVENT_LOCKED)
        return;
    event->offset = *last_offset + (uint64_t)take_signed(cursor);
    event->length = take(cursor);
    *last_offset = event->offset;
    if (event->offset > trace->header.size ||
        event->length > trace->header.size - event->offset)
        cursor->bad = true;
    else if (event->kind != NVL_EVENT_FLUSH)
        event->data = take_bytes(cursor, event->length);
}

static void take_events(struct cursor *cursor, struct nvl_trace *trace)
{
    size_t capacity = 0;
    uint64_t last_offset = 0;
    while (!cursor->bad && cursor->at != cursor->end) {
        enum nvl_event_kind kind =
            (enum nvl_event_kind)take_below(cursor, NVL_EVENT_KINDS);
        if (kind == NVL_EVENT_END)
            break;
        if (kind == NVL_EVENT_MODULE) {
            take_module(cursor, trace);
            continue;
        }
        if (kind == NVL_EVENT_SITE) {
            take_site(cursor, trace);
            continue;
        }
        if (trace->event_count == capacity) {
            capacity = 2 * capacity + 1024;
            trace->events =
                must(realloc(trace->events, capacity * sizeof *trace->events));
        }
        struct nvl_event *event = &trace->events[trace->event_count];
        memset(event, 0, sizeof *event);
        event->kind = kind;
        if (kind == NVL_EVENT_MARK)
            take_mark(cursor, &event->mark, trace->ledger->ids);
        else
            take_access(cursor, trace, event, &last_offset);
        trace->event_count += !cursor->bad;
    }
}

static bool parse(struct nvl_trace *trace, char *error, size_t error_size)
{
    struct cursor cursor = {trace->bytes, trace->bytes + trace->byte_count, false};
    const uint8_t *magic = take_bytes(&cursor, 8);
    if (magic == NULL || memcmp(magic, NVL_TRACE_MAGIC, 8) != 0) {
        snprintf(error, error_size, "it is no trace: it does not begin with %s",
                 NVL_TRACE_MAGIC);
        return false;
    }
    uint64_t version = take(&cursor);
    if (version != NVL_TRACE_VERSION) {
        snprintf(error, error_size, "found version %llu of the format, expected %u",
                 (unsigned long long)version, NVL_TRACE_VERSION);
        return false;
    }
    trace->header.lens = (enum nvl_lens_kind)take_below(&cursor, 2);
    trace->header.size = take_below(&cursor, UINT64_C(1) << 40);
    trace->header.seed = take(&cursor);
    take_text(&cursor, trace->header.adapter, sizeof trace->header.adapter);
    take_text(&cursor, trace->header.extra, sizeof trace->header.extra);
    take_text(&cursor, trace->header.script, sizeof trace->header.script);
    if (!cursor.bad)
        trace->ledger = take_ledger(&cursor);
    if (!cursor.bad) {
        trace->image_at = (size_t)(cursor.at - trace->bytes);
        skip_image(&cursor, trace->header.size);
    }
    if (!cursor.bad)
        take_events(&cursor, trace);
    if (cursor.bad || trace->header.size % 64 != 0) {
        snprintf(error, error_size, "it is damaged or cut off near byte %zu of %zu",
                 (size_t)(cursor.at - trace->bytes), trace->byte_count);
        return false;
    }
    return true;
}

static int read_all(struct nvl_trace *trace, const char *path)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return errno;
    size_t capacity = 0;
    for (;;) {
        if (trace->byte_count == capacity) {
            capacity = 2 * capacity + (1 << 16);
            trace->bytes = must(realloc(trace->bytes, capacity));
        }
        size_t got = fread(trace->bytes + trace->byte_count, 1,
                           capacity - trace->byte_count, file);
        trace->byte_count += got;
        if (got == 0)
            break;
    }
    int error = ferror(file) ? EIO : 0;
    fclose(file);
    return error;
}

struct nvl_trace *nvl_trace_load(const char *path, char *error, size_t error_size)
{
    struct nvl_trace *trace = must(calloc(1, sizeof *trace));
    int problem = read_all(trace, path);
    if (problem != 0)
        snprintf(error, error_size, "it can't be read: %s", strerror(problem));
    if (problem != 0 || !parse(trace, error, error_size)) {
        nvl_trace_free(trace);
        return NULL;
    }
    return trace;
}

void nvl_trace_free(struct nvl_trace *trace)
{
    if (trace == NULL)
        return;
    for (uint32_t i = 0; i < trace->module_count; i++)
        free(trace->modules[i]);
    free(trace->modules);
    free(trace->sites);
    free(trace->events);
    free(trace->ledger);
    free(trace->bytes);
    free(trace);
}
