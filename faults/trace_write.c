// SPDX-License-Identifier: Apache-2.0
/*
 * trace_write.c - streams a trace to a file; the format is docs/trace-format.md.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"
#include "trace_format.h"

struct nvl_trace_writer {
    FILE *file;
    int error;
    uint32_t module_count;
    char **modules;
    uint32_t site_count, site_capacity, table_size;
    struct nvl_site *sites;
    uint32_t *table; /* open hash of site numbers; 0: empty */
    uint64_t last_offset;
};

static void put_bytes(struct nvl_trace_writer *writer, const void *bytes, size_t length)
{
    if (length > 0 && fwrite_unlocked(bytes, 1, length, writer->file) != length &&
        writer->error == 0)
        writer->error = errno != 0 ? errno : EIO;
}

static void put(struct nvl_trace_writer *writer, uint64_t value)
{
    uint8_t bytes[10];
    size_t length = 0;
    do {
        bytes[length] = (uint8_t)(value & 0x7f);
        value >>= 7;
        bytes[length++] |= value != 0 ? 0x80 : 0;
    } while (value != 0);
    put_bytes(writer, bytes, length);
}

static void put_text(struct nvl_trace_writer *writer, const char *text)
{
    size_t length = strlen(text);
    put(writer, length);
    put_bytes(writer, text, length);
}

static void put_signed(struct nvl_trace_writer *writer, int64_t value)
{
    put(writer, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

static void put_op(struct nvl_trace_writer *writer, const struct nvl_op *op)
{
    put(writer, op->kind);
    put(writer, op->thread);
    put(writer, op->count);
    put(writer, op->container);
    for (unsigned i = 0; i < NVL_GROUP_MAX && (i < op->count || i < 2); i++) {
        put(writer, op->id[i]);
        put(writer, op->size[i]);
    }
}

static void put_ledger(struct nvl_trace_writer *writer, const struct nvl_ledger *ledger)
{
    put(writer, ledger->slots);
    put(writer, ledger->inner);
    put(writer, ledger->slot_size);
    put(writer, ledger->heap_size);
    put(writer, ledger->ready);
    for (uint32_t i = 0; i < ledger->ids; i++) {
        const struct nvl_slot *slot = &ledger->slot[i];
        put(writer, slot->seq);
        put(writer, (unsigned)slot->full | (unsigned)slot->container << 1);
        put(writer, slot->size);
        put(writer, slot->usable);
        put_signed(writer, slot->offset);
        put(writer, slot->payload_id);
        put(writer, slot->payload_seq);
        put(writer, slot->payload_from);
        put(writer, slot->payload_to);
    }
    for (uint32_t t = 0; t < NVL_THREADS_MAX; t++) {
        put(writer, ledger->inflight[t].active);
        if (ledger->inflight[t].active)
            put_op(writer, &ledger->inflight[t].op);
    }
}

static void put_image(struct nvl_trace_writer *writer, const uint8_t *image,
                      uint64_t size)
{
    static const uint8_t zeros[NVL_TRACE_PAGE];
    for (uint64_t at = 0; image != NULL && at < size; at += NVL_TRACE_PAGE) {
        size_t length = size - at < NVL_TRACE_PAGE ? (size_t)(size - at) : NVL_TRACE_PAGE;
        if (memcmp(image + at, zeros, length) == 0)
            continue;
        put(writer, at / NVL_TRACE_PAGE + 1);
        put_bytes(writer, image + at, length);
    }
    put(writer, 0);
}

struct nvl_trace_writer *nvl_trace_create(const char *path,
                                          const struct nvl_trace_header *header,
                                          const struct nvl_ledger *ledger,
                                          const void *image)
{
    struct nvl_trace_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return NULL;
    writer->file = fopen(path, "wbe");
    if (writer->file == NULL) {
        free(writer);
        return NULL;
    }
    setvbuf(writer->file, NULL, _IOFBF, 1 << 18);
    put_bytes(writer, NVL_TRACE_MAGIC, 8);
    put(writer, NVL_TRACE_VERSION);
    put(writer, header->lens);
    put(writer, header->size);
    put(writer, header->seed);
    put_text(writer, header->adapter);
    put_text(writer, header->extra);
    put_text(writer, header->script);
    put_ledger(writer, ledger);
    put_image(writer, image, header->size);
    struct nvl_site application = {0};
    writer->table_size = 1024;
    writer->table = calloc(writer->table_size, sizeof *writer->table);
    if (writer->table == NULL)
        abort();
    nvl_trace_site(writer, &application);
    return writer;
}

uint32_t nvl_trace_module(struct nvl_trace_writer *writer, const char *path)
{
    for (uint32_t i = 0; i < writer->module_count; i++) {
        if (strcmp(writer->modules[i], path) == 0)
            return i;
    }
    writer->modules =
        realloc(writer->modules, (writer->module_count + 1) * sizeof *writer->modules);
    if (writer->modules == NULL ||
        (writer->modules[writer->module_count] = strdup(path)) == NULL)
        abort();
    put(writer, NVL_EVENT_MODULE);
    put_text(writer, path);
    return writer->module_count++;
}

static uint64_t hash_site(const struct nvl_site *site)
{
    uint64_t hash = site->count;
    for (uint32_t i = 0; i < site->count; i++) {
        hash = (hash ^ site->frame[i].module) * UINT64_C(0x9e3779b97f4a7c15);
        hash = (hash ^ site->frame[i].offset ^ hash >> 31) * UINT64_C(0xff51afd7ed558ccd);
    }
    return hash ^ hash >> 32;
}

static bool same_site(const struct nvl_site *a, const struct nvl_site *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->frame[i].module != b->frame[i].module ||
            a->frame[i].offset != b->frame[i].offset)
            return false;
    }
    return true;
}

static uint32_t *find_site(struct nvl_trace_writer *writer, const struct nvl_site *site)
{
    uint32_t mask = writer->table_size - 1;
    uint32_t at = (uint32_t)hash_site(site) & mask;
    while (writer->table[at] != 0 &&
           !same_site(&writer->sites[writer->table[at] - 1], site))
        at = (at + 1) & mask;
    return &writer->table[at];
}

static void rehash(struct nvl_trace_writer *writer)
{
    free(writer->table);
    writer->table_size *= 2;
    writer->table = calloc(writer->table_size, sizeof *writer->table);
    if (writer->table == NULL)
        abort();
    for (uint32_t i = 0; i < writer->site_count; i++)
        *find_site(writer, &writer->sites[i]) = i + 1;
}

uint32_t nvl_trace_site(struct nvl_trace_writer *writer, const struct nvl_site *site)
{
    uint32_t *found = find_site(writer, site);
    if (*found != 0)
        return *found - 1;
    if (writer->site_count == writer->site_capacity) {
        writer->site_capacity = 2 * writer->site_capacity + 64;
        writer->sites =
            realloc(writer->sites, writer->site_capacity * sizeof *writer->sites);
        if (writer->sites == NULL)
            abort();
    }
    writer->sites[writer->site_count++] = *site;
    *found = writer->site_count;
    put(writer, NVL_EVENT_SITE);
    put(writer, site->count);
    for (uint32_t i = 0; i < site->count; i++) {
        put(writer, site->frame[i].module);
        put(writer, site->frame[i].offset);
    }
    if (2 * writer->site_count > writer->table_size)
        rehash(writer);
    return writer->site_count - 1;
}

static void put_mark(struct nvl_trace_writer *writer, const struct nvl_mark *mark)
{
    put(writer, mark->kind);
    put(writer, mark->thread);
    switch ((enum nvl_mark_kind)mark->kind) {
    case NVL_MARK_BEGIN:
        put_op(writer, &mark->op);
        break;
    case NVL_MARK_ACK:
        for (unsigned i = 0; i < NVL_GROUP_MAX; i++) {
            put_signed(writer, mark->place[i].offset);
            put(writer, mark->place[i].usable);
        }
        break;
    case NVL_MARK_SETTLING:
    case NVL_MARK_PERSISTED:
        put(writer, mark->id);
        put(writer, mark->payload_from);
        put(writer, mark->payload_to);
        break;
    default:
        break;
    }
}

void nvl_trace_write(struct nvl_trace_writer *writer, const struct nvl_event *event)
{
    put(writer, event->kind);
    if (event->kind == NVL_EVENT_MARK) {
        put_mark(writer, &event->mark);
        return;
    }
    put(writer, event->thread);
    put(writer, event->site);
    if (event->kind == NVL_EVENT_FENCE || event->kind == NVL_EVENT_LOCKED)
        return;
    put_signed(writer, (int64_t)(event->offset - writer->last_offset));
    put(writer, event->length);
    writer->last_offset = event->offset;
    if (event->kind != NVL_EVENT_FLUSH)
        put_bytes(writer, event->data, event->length);
}

int nvl_trace_close(struct nvl_trace_writer *writer)
{
    put(writer, NVL_EVENT_END);
    if (fclose(writer->file) != 0 && writer->error == 0)
        writer->error = errno;
    int error = writer->error;
    for (uint32_t i = 0; i < writer->module_count; i++)
        free(writer->modules[i]);
    free(writer->modules);
    free(writer->sites);
    free(writer->table);
    free(writer);
    return error;
}
