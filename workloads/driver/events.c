// SPDX-License-Identifier: Apache-2.0
/* events.c - see events.h. */
#include <stdatomic.h>
#include <string.h>

#include "events.h"

static struct nvd_event_tracker pool[NVD_EVENT_THREADS];
static atomic_uint claimed; /* trackers given out, or wanted: may pass the pool's end */
static atomic_bool counting_on;

bool nvd_list_has(const uintptr_t *list, size_t length, uintptr_t entry)
{
    size_t at = 0;
    while (at < length && list[at] != entry)
        at++;
    return at < length;
}

bool nvd_list_promote(uintptr_t *list, size_t length, uintptr_t entry)
{
    size_t at = 0;
    while (at < length - 1 && list[at] != entry)
        at++;
    bool found = list[at] == entry;
    memmove(list + 1, list, at * sizeof *list);
    list[0] = entry;
    return found;
}

static void reach_media(struct nvd_event_tracker *tracker, bool counting, uintptr_t line)
{
    bool absorbed =
        nvd_list_promote(tracker->xplines, NVD_XPLINES, line / (NVD_XPLINE / NVD_LINE));
    tracker->counts.xpline_writes += counting && !absorbed;
}

void nvd_event_track(struct nvd_event_tracker *tracker, bool counting,
                     enum nvc_event event, const void *address, size_t length)
{
    if (event == NVC_EVENT_FENCE) {
        tracker->counts.fences += counting;
        tracker->counts.effective_fences += counting && tracker->pending;
        tracker->pending = false;
        return;
    }
    if (length == 0)
        return;
    uintptr_t first = (uintptr_t)address / NVD_LINE;
    uintptr_t last = ((uintptr_t)address + length - 1) / NVD_LINE;
    tracker->pending = true;
    for (uintptr_t line = first; line <= last; line++) {
        if (event == NVC_EVENT_FLUSH) {
            bool again = nvd_list_promote(tracker->flushed, NVD_REFLUSH_WINDOW, line);
            tracker->counts.flushes += counting;
            tracker->counts.reflushes_within_4 += counting && again;
        } else {
            tracker->counts.nt_lines += counting;
        }
        reach_media(tracker, counting, line);
    }
}

void nvd_events_observe(void *context, enum nvc_event event, const void *address,
                        size_t length)
{
    static _Thread_local struct nvd_event_tracker *mine;
    static _Thread_local bool refused;
    (void)context;
    if (mine == NULL) {
        if (refused)
            return;
        unsigned index = atomic_fetch_add(&claimed, 1);
        if (index >= NVD_EVENT_THREADS) {
            refused = true;
            return;
        }
        mine = &pool[index];
    }
    nvd_event_track(mine, nvd_events_counting(), event, address, length);
}

void nvd_events_count(bool on)
{
    atomic_store(&counting_on, on);
}

bool nvd_events_counting(void)
{
    return atomic_load_explicit(&counting_on, memory_order_relaxed);
}

bool nvd_events_total(struct nvd_event_counts *total)
{
    unsigned threads = atomic_load(&claimed);
    bool complete = threads <= NVD_EVENT_THREADS;
    *total = (struct nvd_event_counts){0};
    for (unsigned i = 0; i < (complete ? threads : NVD_EVENT_THREADS); i++) {
        total->flushes += pool[i].counts.flushes;
        total->fences += pool[i].counts.fences;
        total->effective_fences += pool[i].counts.effective_fences;
        total->nt_lines += pool[i].counts.nt_lines;
        total->reflushes_within_4 += pool[i].counts.reflushes_within_4;
        total->xpline_writes += pool[i].counts.xpline_writes;
    }
    return complete;
}
