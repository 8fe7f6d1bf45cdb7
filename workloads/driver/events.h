/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - counts an adapter's persistence events, and models what they cost.
 *
 * nvd_events_observe() is the function that adapter->observe() is given.  It
 * may be called by any thread; each gets a tracker of its own from a fixed
 * pool at its first event (no locks, no allocation: the callback runs inside
 * an allocator), so all of the following is per thread, as fences are.
 * Trackers always follow the events but count only while counting is on.
 *
 * What is counted
 * ---------------
 *   flushes             lines flushed (a range is as many as it touches)
 *   fences              all of them
 *   effective_fences    fences with at least one flush or non-temporal store
 *                       of this thread pending, i.e. since its last fence.
 *                       These are the ones that wait for the memory: a fence
 *                       with nothing pending costs 1 ns
 *   nt_lines            lines touched by non-temporal stores
 *   reflushes_within_4  flushes of a line that is among the last 4 distinct
 *                       lines that the thread flushed.  On Optane such a flush
 *                       waits for the one before it (Chen et al., FlatStore,
 *                       ASPLOS'20; Dang et al., NVAlloc, ASPLOS'22)
 *   xpline_writes       the media writes of the following model
 *
 * Model of the media: Optane writes units of 256 bytes (XPLines) and combines
 * smaller writes in a buffer of 16 KB (Yang et al., FAST'20).  Here: each
 * thread has a buffer of NVD_XPLINES = 64 aligned XPLines, fully associative,
 * replaced in LRU order.  Every flushed line and every non-temporal line is
 * taken to be dirty and to reach the buffer at once; if its XPLine is there
 * the write is absorbed, else it enters, and one media write is charged (at
 * the entry: its eviction will come).  Cache evictions, interleaving over
 * DIMMs and sharing of the buffer between threads are not modelled.
 */
#ifndef NVD_EVENTS_H
#define NVD_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"

#define NVD_LINE           ((uintptr_t)64)
#define NVD_XPLINE         ((uintptr_t)256)
#define NVD_XPLINES        ((uintptr_t)64)
#define NVD_REFLUSH_WINDOW 4u
/* Threads that may cause events: workers, main, the allocator's own. */
#define NVD_EVENT_THREADS 1100u

struct nvd_event_counts {
    uint64_t flushes;
    uint64_t fences;
    uint64_t effective_fences;
    uint64_t nt_lines;
    uint64_t reflushes_within_4;
    uint64_t xpline_writes;
};

/* The state of one thread; exposed so that the model can be tested. */
struct nvd_event_tracker {
    _Alignas(128) struct nvd_event_counts counts;
    bool pending; /* a flush or non-temporal store since the last fence */
    /* Most recent first; an entry is an address / unit, 0 where there is none
       (no heap lies in the first page). */
    uintptr_t flushed[NVD_REFLUSH_WINDOW];
    uintptr_t xplines[NVD_XPLINES];
};

/* Follows one event; adds it to counts if counting. */
void nvd_event_track(struct nvd_event_tracker *tracker, bool counting,
                     enum nvc_event event, const void *address, size_t length);

/* A list of what was touched last, most recent first, without an entry twice.
   promote() moves entry to the front, dropping the oldest if it is new; whether it was
   there.  has() only looks. */
bool nvd_list_promote(uintptr_t *list, size_t length, uintptr_t entry);
bool nvd_list_has(const uintptr_t *list, size_t length, uintptr_t entry);

/* The process's trackers. */
nvc_event_fn nvd_events_observe; /* context is not used */
void nvd_events_count(bool on);  /* off at first */
bool nvd_events_counting(void);
/* The sum over all threads, none of which may be inside an event.  False if
   there were more threads than trackers, so that the sum is too low. */
bool nvd_events_total(struct nvd_event_counts *total);

#endif
