/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - makes a machine without NVM as slow as one that has it.
 *
 * An emulation, and labelled so wherever its numbers go.  The adapter's
 * persistence events (adapter->observe()) drive a model of the device, thread by
 * thread; the thread that would have waited for the device spins that long, on top
 * of what its flushes and fences cost here anyway.  So all figures are what the
 * device takes *more* than DRAM; suite/device_models/ has them, with their sources.
 *
 * The model
 * ---------
 * Memory is written in units (Optane: XPLines of 256 bytes) through a buffer of
 * `units` of them, LRU, as in events.h.  A unit that enters the buffer is one media
 * write, which keeps the medium busy for media_write_ns, one after the other.
 *
 *   effective fence   waits fence_ns, plus line_ns for each line after the first that
 *                     was flushed or streamed since the last fence, plus the time
 *                     until no more media writes are due than the buffer holds: bursts
 *                     are absorbed, but nobody is faster for long than the medium
 *   reflush           a line flushed again within the last NVD_REFLUSH_WINDOW: the fence
 *                     waits reflush_ns more
 *   read              a line that was streamed (or flushed, with flush_evicts) has left
 *                     the cache.  When it is flushed again it was stored to before, so
 *                     the store fetched it: read_buffered_ns if its unit is in the
 *                     buffer, else read_ns, waited for at the flush
 *
 * What it cannot do.  It sees flushes, fences and streaming stores, no loads: a read
 * of an evicted line is known only when a flush of the same line follows, so
 * allocators that read metadata back without writing it, and the application's own
 * reads, come out too fast.  Evictions that the cache makes by itself, DIMMs
 * that are interleaved, and bandwidth shared between threads are not modelled; each
 * thread has a device of its own.  The evicted lines are remembered in a table of
 * NVD_EVICTED entries in which later ones displace earlier ones.
 */
#ifndef NVD_DEVICE_H
#define NVD_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "events.h"

#define NVD_EVICTED 4096u /* a power of two */

struct nvd_device_figures {
    char name[32];
    uint64_t fence_ns, line_ns, reflush_ns;
    uint64_t read_ns, read_buffered_ns;
    uint64_t media_write_ns;
    uint64_t unit_bytes;   /* a power of two, 64..4096 */
    uint64_t units;        /* 1..NVD_XPLINES */
    uint64_t flush_evicts; /* 0 or 1 */
};

struct nvd_device_counts {
    uint64_t delays;     /* times that a thread waited */
    uint64_t delayed_ns; /* and how long in all */
    uint64_t media_writes, media_reads, buffered_reads, reflushes;
};

/* One thread's device; exposed so that the model can be tested. */
struct nvd_device {
    _Alignas(128) struct nvd_device_counts counts;
    uint64_t pending_lines, pending_reflushes; /* since the last fence */
    uint64_t pending_writes;                   /* media writes, since the last fence */
    uint64_t idle_at_ns;                       /* when the medium has done all writes */
    uintptr_t flushed[NVD_REFLUSH_WINDOW];     /* as in struct nvd_event_tracker */
    uintptr_t units[NVD_XPLINES];
    uintptr_t evicted[NVD_EVICTED]; /* lines; 0: none */
};

/* "name=optane,fence_ns=5,..." with every figure once; NULL, or what is wrong with it. */
const char *nvd_device_parse(const char *text, struct nvd_device_figures *figures);

/* Follows one event that happens at now_ns; the ns that its thread has to wait. */
uint64_t nvd_device_follow(struct nvd_device *device,
                           const struct nvd_device_figures *figures, bool counting,
                           enum nvc_event event, const void *address, size_t length,
                           uint64_t now_ns);

/* The process's devices: from now on every event is delayed.  Takes some 20 ms, to
   settle a clock.  Events are passed on to nvd_events_observe() when `observed`. */
void nvd_device_start(const struct nvd_device_figures *figures, bool observed);
nvc_event_fn nvd_device_observe; /* context is not used */
/* What the threads waited for while nvd_events_counting(); none may be inside an event.
 */
struct json_object *nvd_device_json(uint64_t ops);

#endif
