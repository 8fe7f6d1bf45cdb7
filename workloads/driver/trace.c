// SPDX-License-Identifier: Apache-2.0
/*
 * trace.c - reads traces; see trace.h for the format.  (trace_convert.c makes them.)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "trace.h"
#include "workload.h"

#define SLOTS_MAX (UINT64_C(1) << 30)
#define BYTES_MAX (UINT64_C(1) << 36)

static _Thread_local char complaint[512];

#define COMPLAIN(...) (snprintf(complaint, sizeof complaint, __VA_ARGS__), complaint)

/* Where the reading of the operations stands. */
struct reader {
    const unsigned char *at, *end;
    struct nvd_trace *trace;
    unsigned char *full; /* by slot */
    uint64_t allocs, frees, reallocs;
    uint32_t thread;
};

/* False at the end, or where a number is cut off or too long. */
static bool take(struct reader *reader, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 63 && reader->at < reader->end; shift += 7) {
        unsigned char byte = *reader->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static void put(struct reader *reader, uint64_t slot, enum nvd_op_kind kind,
                uint64_t size)
{
    struct nvd_trace *trace = reader->trace;
    if (trace->threads != NULL)
        trace->threads[trace->count] = (uint16_t)reader->thread;
    trace->ops[trace->count++] = (struct nvd_op){
        .slot = (uint32_t)slot,
        .kind = kind,
        .size = (uint32_t)(size < NVD_MIN_BLOCK ? NVD_MIN_BLOCK : size),
    };
    reader->full[slot] = kind != NVD_OP_FREE;
}

static bool is(const struct reader *reader, uint64_t slot, bool full)
{
    return slot < reader->trace->head.slots && reader->full[slot] == full;
}

/* False if the next operation is not valid. */
static bool take_op(struct reader *reader)
{
    const size_t room = 2 * (size_t)reader->trace->head.reallocs +
                        (size_t)reader->trace->head.allocs +
                        (size_t)reader->trace->head.frees;
    uint64_t number, size, old;
    if (!take(reader, &number))
        return false;
    const uint64_t operand = number >> 2;
    if ((number & 3) == 3) {
        reader->thread = (uint32_t)operand;
        return operand < reader->trace->head.threads;
    }
    if (reader->trace->count + ((number & 3) == 2 ? 2 : 1) > room)
        return false;
    switch (number & 3) {
    case 0:
        if (!is(reader, operand, true))
            return false;
        reader->frees++;
        put(reader, operand, NVD_OP_FREE, 0);
        return true;
    case 1:
        if (!take(reader, &size) || size > UINT32_MAX || !is(reader, operand, false))
            return false;
        reader->allocs++;
        put(reader, operand, NVD_OP_ALLOC, size);
        return true;
    default:
        if (!take(reader, &size) || !take(reader, &old) || size > UINT32_MAX ||
            !is(reader, operand, false) || !is(reader, old, true))
            return false;
        reader->reallocs++;
        put(reader, operand, NVD_OP_MOVE, size);
        put(reader, old, NVD_OP_FREE, 0);
        return true;
    }
}

static const char *check_head(const char *path, const struct nvd_trace_head *head)
{
    if (head->magic != NVD_TRACE_MAGIC)
        return COMPLAIN("'%s' is no trace; `nvcrucible record` makes one", path);
    if (head->version != NVD_TRACE_VERSION)
        return COMPLAIN("'%s': a trace of version %u, expected %u: record it again", path,
                        head->version, NVD_TRACE_VERSION);
    if (head->threads == 0 || head->threads > UINT16_MAX || head->slots == 0 ||
        head->slots > SLOTS_MAX || head->bytes == 0 || head->bytes > BYTES_MAX ||
        head->allocs > head->bytes || head->frees > head->bytes ||
        head->reallocs > head->bytes || head->slots > head->bytes)
        return COMPLAIN("'%s': the head of the trace is damaged: record it again", path);
    return NULL;
}

/* The operations from memory. */
static const char *unpack(const char *path, const unsigned char *bytes,
                          struct nvd_trace *trace)
{
    const struct nvd_trace_head *head = &trace->head;
    const size_t room = (size_t)(head->allocs + head->frees + 2 * head->reallocs);
    struct reader reader = {
        .at = bytes,
        .end = bytes + head->bytes,
        .trace = trace,
        .full = calloc(head->slots, 1),
    };
    trace->ops = malloc(room * sizeof *trace->ops);
    if (head->threads > 1)
        trace->threads = malloc(room * sizeof *trace->threads);
    const char *wrong = NULL;
    if (reader.full == NULL || trace->ops == NULL ||
        (head->threads > 1 && trace->threads == NULL))
        wrong = COMPLAIN("no memory for the trace '%s'", path);
    while (wrong == NULL && reader.at < reader.end)
        if (!take_op(&reader))
            wrong = COMPLAIN("'%s': operation %zu is not valid: record it again", path,
                             trace->count);
    free(reader.full);
    if (wrong == NULL && (reader.allocs != head->allocs || reader.frees != head->frees ||
                          reader.reallocs != head->reallocs))
        wrong =
            COMPLAIN("'%s': the number of operations is not what the head says: record "
                     "it again",
                     path);
    return wrong;
}

const char *nvd_trace_read(const char *path, struct nvd_trace *trace)
{
    *trace = (struct nvd_trace){0};
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return COMPLAIN("cannot read the trace '%s': %s", path, strerror(errno));
    const char *wrong = NULL;
    unsigned char *bytes = NULL;
    struct stat status;
    if (fread(&trace->head, sizeof trace->head, 1, file) != 1)
        wrong = COMPLAIN("'%s' is too short for a trace", path);
    if (wrong == NULL)
        wrong = check_head(path, &trace->head);
    if (wrong == NULL &&
        (fstat(fileno(file), &status) != 0 ||
         (uint64_t)status.st_size != sizeof trace->head + trace->head.bytes))
        wrong =
            COMPLAIN("'%s': the length is not what the head says: record it again", path);
    if (wrong == NULL && (bytes = malloc(trace->head.bytes)) == NULL)
        wrong = COMPLAIN("no memory for the trace '%s'", path);
    if (wrong == NULL && fread(bytes, 1, trace->head.bytes, file) != trace->head.bytes)
        wrong = COMPLAIN("cannot read the trace '%s': %s", path, strerror(errno));
    fclose(file);
    if (wrong == NULL)
        wrong = unpack(path, bytes, trace);
    free(bytes);
    if (wrong != NULL)
        nvd_trace_free(trace);
    return wrong;
}

void nvd_trace_free(struct nvd_trace *trace)
{
    free(trace->ops);
    free(trace->threads);
    trace->ops = NULL;
    trace->threads = NULL;
    trace->count = 0;
}
