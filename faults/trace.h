// SPDX-License-Identifier: Apache-2.0
/*
 * trace.h - a recorded history: the heap before it, then what was done, in order.
 *
 * The format, byte for byte, is docs/trace-format.md.  A trace is written as a stream
 * (its end is wherever the file ends after a whole record) and holds all that a replay
 * needs but the adapter itself.  Offsets are those of the heap's file.
 */
#ifndef NVL_TRACE_H
#define NVL_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ledger.h"

#define NVL_TRACE_VERSION 1u

enum nvl_event_kind {
    NVL_EVENT_END = 0,
    NVL_EVENT_MODULE, /* defines a module: the next number */
    NVL_EVENT_SITE,   /* defines a site: the next number */
    NVL_EVENT_STORE,
    NVL_EVENT_STORE_WHOLE, /* of one line only old and new are known */
    NVL_EVENT_STORE_NT,
    NVL_EVENT_FLUSH,
    NVL_EVENT_FENCE,
    NVL_EVENT_LOCKED, /* a locked instruction: a fence too */
    NVL_EVENT_SYNCED, /* content that is taken as durable as it is */
    NVL_EVENT_MARK,
    NVL_EVENT_KINDS
};

enum {
    NVL_FRAMES = 6, /* of a site */
};

/* Where an event came from: return addresses, innermost first, as offsets in modules. */
struct nvl_site {
    uint32_t count;
    struct {
        uint32_t module;
        uint64_t offset;
    } frame[NVL_FRAMES];
};

struct nvl_event {
    enum nvl_event_kind kind;
    uint32_t thread;
    uint32_t site; /* 0: the application itself */
    uint64_t offset, length;
    const uint8_t *data; /* [length] of the stores */
    struct nvl_mark mark;
};

enum nvl_lens_kind {
    NVL_LENS_COMPILED = 0, /* every store */
    NVL_LENS_LIBRARY,      /* lines, at flushes and fences */
};

struct nvl_trace_header {
    enum nvl_lens_kind lens;
    uint64_t size; /* of the heap's file, a multiple of 64 */
    uint64_t seed;
    char adapter[64];
    char extra[256];    /* options of the adapter */
    char script[16384]; /* the operations that were recorded */
};

/* ---- writing ---- */

struct nvl_trace_writer;

/* Begins a trace at `path` of a heap whose file holds `image` (NULL: zeros) and owes
   `ledger`.  NULL with errno set. */
struct nvl_trace_writer *nvl_trace_create(const char *path,
                                          const struct nvl_trace_header *header,
                                          const struct nvl_ledger *ledger,
                                          const void *image);
/* The number of the module of that path, defined if need be; of a site likewise. */
uint32_t nvl_trace_module(struct nvl_trace_writer *writer, const char *path);
uint32_t nvl_trace_site(struct nvl_trace_writer *writer, const struct nvl_site *site);
void nvl_trace_write(struct nvl_trace_writer *writer, const struct nvl_event *event);
/* 0, or the first errno value of any write. */
int nvl_trace_close(struct nvl_trace_writer *writer);

/* ---- reading ---- */

struct nvl_trace {
    struct nvl_trace_header header;
    struct nvl_ledger *ledger; /* owed at the beginning */
    uint32_t module_count, site_count;
    char **modules;
    struct nvl_site *sites; /* [0] is the application */
    size_t event_count;
    struct nvl_event *events; /* data lie in the file's bytes */
    uint8_t *bytes;           /* of the file */
    size_t byte_count;
    size_t image_at; /* where its pages begin in the bytes */
};

/* Reads a whole trace; NULL, and a sentence in error, if it is none. */
struct nvl_trace *nvl_trace_load(const char *path, char *error, size_t error_size);
void nvl_trace_free(struct nvl_trace *trace);
/* Writes the initial image over header.size bytes. */
void nvl_trace_image(const struct nvl_trace *trace, void *image);

#endif
