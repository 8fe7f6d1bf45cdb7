/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native_heap.h - the native heap of the two historical Daisy designs.
 *
 * What daisy-bitmap and daisy-list have in common: one file, mapped whole, whose
 * first line says what it is; the write-back of what they store into it; and the
 * words for what went wrong.  How the space behind the first line is managed is
 * what the designs differ in.
 *
 * The notes that describe the designs show no flush at all.  Here every store to
 * metadata is written back and fenced before the next one that depends on it:
 * otherwise a power cut would show that a flush is missing, and nothing about the
 * design.  What still goes wrong does so because several stores belong to one
 * operation and nothing makes them one.
 *
 * First line of the file
 *   offset 0   u64 magic   the design's own
 *          8   u64 bytes   of the file
 *         16   u64 slots   entries of the driver's slot table
 * Valid iff magic is the design's and bytes is the file's length.  The magic is
 * stored last, when the rest of the fresh heap is on media.
 */
#ifndef NATIVE_HEAP_H
#define NATIVE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"

#define NATIVE_HEAP_FIRST 64    /* offset behind the first line */
#define NATIVE_HEAP_MIN   65536 /* bytes; what the notes' program asks for */

struct native_heap {
    unsigned char *base;
    size_t bytes;
    size_t slots;
    int fd; /* holds the lock */
    bool map_sync;
};

/* Makes the file, locked, mapped and full of zeros, without its magic:
   native_heap_finish() stores that.  0 or an errno value; nothing is left then. */
int native_heap_create(const char *path, size_t bytes, size_t slots,
                       struct native_heap *heap);
void native_heap_finish(struct native_heap *heap, uint64_t magic);
/* Takes back what native_heap_create() made. */
void native_heap_discard(const char *path, struct native_heap *heap);

/* ENOENT, EBUSY, EMEDIUMTYPE (another magic), EUCLEAN (another length), ... */
int native_heap_open(const char *path, uint64_t magic, struct native_heap *heap);
void native_heap_close(struct native_heap *heap);

/* Returns when [address, address + length) is on media. */
void native_heap_persist(const void *address, size_t length);

/* Records why, for native_heap_last_error(); returns error. */
int native_heap_fail(int error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const char *native_heap_last_error(void);

/* The adapter's observe(), and its share of stats(). */
int native_heap_observe(nvc_event_fn *fn, void *context);
void native_heap_stats(const struct native_heap *heap, struct nvc_stats *stats);

#endif
