/* SPDX-License-Identifier: Apache-2.0 */
/*
 * application.h - an application of a heap, and what it may expect after a crash.
 *
 * The application keeps a forest: root slots (the root block's, and some names')
 * refer to blocks, each of which begins with slots that refer to further blocks,
 * and goes on with bytes that follow from its stamp.  `struct forest` says what
 * it looks like; an operation has a forest before and one after it, and a crash
 * must leave one of the two, whole: every slot, every durable byte, and no other
 * live block.
 */
#ifndef APPLICATION_H
#define APPLICATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvmalloc.h"

#define TABLE_SLOTS  24u                          /* in the root block */
#define TABLE_MAGIC  UINT64_C(0x7461626c65000000) /* after its slots: it is the table */
#define TABLE_BYTES  ((TABLE_SLOTS + 1) * sizeof(nvm_ref))
#define NAMED_SLOTS  3u
#define ROOT_SLOTS   (TABLE_SLOTS + NAMED_SLOTS)
#define OBJECT_SLOTS 2u
#define OBJECTS      64u
#define OBJECT_MIN   (OBJECT_SLOTS * sizeof(nvm_ref) + 16)
#define HELD_MAX     4u

struct object {
    bool used;
    bool durable; /* its bytes and slots are what they should be */
    size_t size;
    uint64_t stamp;
    int slot[OBJECT_SLOTS]; /* objects; -1: empty */
};

struct forest {
    struct object objects[OBJECTS];
    int root[ROOT_SLOTS];
};

struct application {
    nvm_heap *heap;
    enum nvm_mode mode;
    struct forest before, after; /* of the operation in flight; equal between two */
    nvm_ref held[HELD_MAX];      /* reserved, not published */
    uint64_t random, stamps;
    const char *phase;
    uint64_t performed[32]; /* by kind of operation */
};

void application_start(struct application *app, enum nvm_mode mode, uint64_t seed);
/* One operation, drawn at random; false: it did not apply. */
bool application_step(struct application *app);

/* Whether the heap holds what the application expects.  *happened: it is `after`. */
bool application_fits(const struct application *app, nvm_heap *heap, bool *happened,
                      char *why, size_t size);
/* After a crash that left `after` or `before`: goes on from there with this heap. */
void application_resume(struct application *app, nvm_heap *heap, bool happened);

/* Traces the forest exactly, for GC heaps; for struct nvm_options. */
void application_trace(struct nvm_tracer *tracer, const void *block, size_t usable,
                       void *context);

#endif
