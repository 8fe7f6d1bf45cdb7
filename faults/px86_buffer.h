// SPDX-License-Identifier: Apache-2.0
/*
 * px86_buffer.h - rule 1: the store buffers in front of px86.h.
 *
 * Stores, flushes and store fences of a thread enter a FIFO and leave it one at a time,
 * at any time; only what has left is visible to other threads and to media.  The thread
 * itself reads its own newest buffered store (forwarding).  mfence and locked
 * instructions wait until the buffer is empty.  clwb and clflushopt may in truth also
 * leave early or late with respect to other lines; leaving in order notes the fewest
 * stores, so no state is missed.
 *
 * The compiled lens records one interleaving, with every store visible at once; other
 * interleavings are other seeds.  This file is for litmus programs, of which every
 * interleaving is wanted.
 */
#ifndef PX86_BUFFER_H
#define PX86_BUFFER_H

#include "px86.h"

enum { PX86_BUFFERED = 8 };

enum px86_entry_kind {
    PX86_STORE,
    PX86_STORE_WHOLE,
    PX86_STORE_NT,
    PX86_FLUSH,
    PX86_CLFLUSH,
    PX86_SFENCE,
};

struct px86_entry {
    enum px86_entry_kind kind;
    size_t offset, length;
    uint8_t data[PX86_LINE];
};

struct px86_buffer {
    uint32_t count;
    struct px86_entry entry[PX86_BUFFERED];
};

/* False if the buffer is full: let something leave first. */
bool px86_buffer_enter(struct px86_buffer *buffer, const struct px86_entry *entry);
/* The oldest entry takes effect in the model and in `visible`, what all threads see. */
void px86_buffer_leave(struct px86_buffer *buffer, uint32_t thread, struct px86 *model,
                       enum px86_domain domain, uint8_t *visible);
/* What the thread reads: its own newest buffered store of this byte, else memory. */
uint8_t px86_buffer_read(const struct px86_buffer *buffer, const uint8_t *visible,
                         size_t offset);

#endif
