// SPDX-License-Identifier: Apache-2.0
/*
 * recording.h - what one recovery did, in DRAM; sets of hashes; lines kept aside.
 */
#ifndef NVL_RECORDING_H
#define NVL_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lens.h"

struct nvl_recorded {
    enum nvl_event_kind kind;
    uint32_t thread;
    uint64_t offset, length;
    size_t data; /* in bytes */
    uintptr_t frames[2];
};

struct nvl_recording {
    struct nvl_recorded *events;
    size_t count, capacity;
    uint8_t *bytes;
    size_t byte_count, byte_capacity;
};

void nvl_recording_init(struct nvl_recording *recording);
void nvl_recording_clear(struct nvl_recording *recording);
void nvl_recording_drop(struct nvl_recording *recording);
void nvl_recording_add(struct nvl_recording *recording,
                       const struct nvl_sighted *sighted);
/* nvl_sink_fn; context is the recording. */
void nvl_recording_sink(void *context, const struct nvl_sighted *sighted);
/* As a trace's event. */
struct nvl_event nvl_recording_event(const struct nvl_recording *recording, size_t i);
/* Of what was stored where, and in which order with flushes and fences. */
uint64_t nvl_recording_hash(const struct nvl_recording *recording);
bool nvl_recording_stores(const struct nvl_recording *recording);

/* The lines that a recording stores to, as they are now. */
struct nvl_lines {
    struct nvl_saved *lines;
    size_t count;
};
void nvl_lines_keep(struct nvl_lines *lines, const uint8_t *image,
                    const struct nvl_recording *recording);
void nvl_lines_restore(struct nvl_lines *lines, uint8_t *image);

/* A set of 64-bit hashes. */
struct nvl_set {
    uint64_t *table;
    size_t size, count;
};
void nvl_set_init(struct nvl_set *set);
/* True if it was not in. */
bool nvl_set_add(struct nvl_set *set, uint64_t hash);

#endif
