// SPDX-License-Identifier: Apache-2.0
/* events.c: what each counter means, on hand-computed sequences. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "events.h"

/* Made-up addresses: the tracker never looks behind them. */
#define BASE ((uintptr_t)0x100000)

static const void *line(uintptr_t number)
{
    return (const void *)(BASE + number * NVD_LINE); /* NOLINT */
}

static void flush(struct nvd_event_tracker *tracker, uintptr_t number)
{
    nvd_event_track(tracker, true, NVC_EVENT_FLUSH, line(number), 1);
}

static void nt_store(struct nvd_event_tracker *tracker, uintptr_t number)
{
    nvd_event_track(tracker, true, NVC_EVENT_NT_STORE, line(number), NVD_LINE);
}

static void fence(struct nvd_event_tracker *tracker)
{
    nvd_event_track(tracker, true, NVC_EVENT_FENCE, NULL, 0);
}

static void ranges_count_the_lines_they_touch(void **state)
{
    (void)state;
    struct nvd_event_tracker tracker = {0};
    const char *start = line(0);
    nvd_event_track(&tracker, true, NVC_EVENT_FLUSH, start + 63, 2);
    assert_int_equal(tracker.counts.flushes, 2);
    nvd_event_track(&tracker, true, NVC_EVENT_FLUSH, start, 64);
    assert_int_equal(tracker.counts.flushes, 3);
    nvd_event_track(&tracker, true, NVC_EVENT_NT_STORE, start + 1, 256);
    assert_int_equal(tracker.counts.nt_lines, 5);
    assert_int_equal(tracker.counts.flushes, 3);
}

static void fences_are_effective_if_something_is_pending(void **state)
{
    (void)state;
    struct nvd_event_tracker tracker = {0};
    fence(&tracker);
    assert_int_equal(tracker.counts.effective_fences, 0);
    flush(&tracker, 0);
    flush(&tracker, 1);
    fence(&tracker);
    assert_int_equal(tracker.counts.effective_fences, 1);
    fence(&tracker);
    assert_int_equal(tracker.counts.effective_fences, 1);
    nt_store(&tracker, 9);
    fence(&tracker);
    assert_int_equal(tracker.counts.effective_fences, 2);
    /* An empty range flushes nothing. */
    nvd_event_track(&tracker, true, NVC_EVENT_FLUSH, line(0), 0);
    fence(&tracker);
    assert_int_equal(tracker.counts.effective_fences, 2);
    assert_int_equal(tracker.counts.fences, 5);
}

static void reflushes_look_back_four_distinct_lines(void **state)
{
    (void)state;
    struct nvd_event_tracker tracker = {0};
    for (uintptr_t i = 0; i < 4; i++)
        flush(&tracker, i);
    assert_int_equal(tracker.counts.reflushes_within_4, 0);
    flush(&tracker, 0); /* the oldest of 3 2 1 0: still there */
    assert_int_equal(tracker.counts.reflushes_within_4, 1);
    flush(&tracker, 4); /* 4 0 3 2: line 1 is gone */
    flush(&tracker, 1); /* 1 4 0 3 */
    assert_int_equal(tracker.counts.reflushes_within_4, 1);
    flush(&tracker, 1); /* twice the same takes one place only */
    flush(&tracker, 3);
    assert_int_equal(tracker.counts.reflushes_within_4, 3);
    /* Non-temporal lines are no flushes: neither counted nor remembered. */
    nt_store(&tracker, 3);
    nt_store(&tracker, 50);
    nt_store(&tracker, 51);
    nt_store(&tracker, 52);
    nt_store(&tracker, 53);
    assert_int_equal(tracker.counts.reflushes_within_4, 3);
    flush(&tracker, 3);
    assert_int_equal(tracker.counts.reflushes_within_4, 4);
    flush(&tracker, 50);
    assert_int_equal(tracker.counts.reflushes_within_4, 4);
}

static void xplines_absorb_what_is_in_the_buffer(void **state)
{
    (void)state;
    struct nvd_event_tracker tracker = {0};
    /* Four lines of one XPLine, flushed or not, are one media write... */
    flush(&tracker, 0);
    flush(&tracker, 3);
    nt_store(&tracker, 1);
    nt_store(&tracker, 2);
    assert_int_equal(tracker.counts.xpline_writes, 1);
    /* ...and a range over two XPLines is two. */
    nvd_event_track(&tracker, true, NVC_EVENT_NT_STORE, line(6), 4 * NVD_LINE);
    assert_int_equal(tracker.counts.xpline_writes, 3);
}

static void xplines_leave_in_lru_order(void **state)
{
    (void)state;
    struct nvd_event_tracker tracker = {0};
    for (uintptr_t i = 0; i < NVD_XPLINES; i++)
        flush(&tracker, i * 4);
    assert_int_equal(tracker.counts.xpline_writes, NVD_XPLINES);
    flush(&tracker, 0); /* absorbed, and now the most recent */
    assert_int_equal(tracker.counts.xpline_writes, NVD_XPLINES);
    flush(&tracker, NVD_XPLINES * 4); /* evicts XPLine 1 */
    assert_int_equal(tracker.counts.xpline_writes, NVD_XPLINES + 1);
    flush(&tracker, 0);
    flush(&tracker, 8); /* XPLine 2 */
    assert_int_equal(tracker.counts.xpline_writes, NVD_XPLINES + 1);
    flush(&tracker, 4); /* XPLine 1 */
    assert_int_equal(tracker.counts.xpline_writes, NVD_XPLINES + 2);
}

static void state_is_kept_while_not_counting(void **state)
{
    (void)state;
    struct nvd_event_tracker tracker = {0};
    nvd_event_track(&tracker, false, NVC_EVENT_FLUSH, line(0), 64);
    const struct nvd_event_counts none = {0};
    assert_memory_equal(&tracker.counts, &none, sizeof none);
    fence(&tracker);
    assert_int_equal(tracker.counts.effective_fences, 1);
    flush(&tracker, 0);
    assert_int_equal(tracker.counts.reflushes_within_4, 1);
    assert_int_equal(tracker.counts.xpline_writes, 0);
}

static void *flush_without_fence(void *argument)
{
    (void)argument;
    nvd_events_observe(NULL, NVC_EVENT_FLUSH, line(0), 64);
    return NULL;
}

static void *fence_without_flush(void *argument)
{
    (void)argument;
    nvd_events_observe(NULL, NVC_EVENT_FENCE, NULL, 0);
    return NULL;
}

/* One thread's fence does not complete another's flush. */
static void threads_are_counted_apart_and_summed(void **state)
{
    (void)state;
    pthread_t thread;
    struct nvd_event_counts total;
    nvd_events_observe(NULL, NVC_EVENT_FLUSH, line(0), 64); /* not counting yet */
    nvd_events_count(true);
    pthread_create(&thread, NULL, flush_without_fence, NULL);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, fence_without_flush, NULL);
    pthread_join(thread, NULL);
    assert_true(nvd_events_total(&total));
    assert_int_equal(total.flushes, 1);
    assert_int_equal(total.fences, 1);
    assert_int_equal(total.effective_fences, 0);
    nvd_events_observe(NULL, NVC_EVENT_FENCE, NULL, 0);
    nvd_events_count(false);
    nvd_events_observe(NULL, NVC_EVENT_FENCE, NULL, 0);
    assert_true(nvd_events_total(&total));
    assert_int_equal(total.fences, 2);
    assert_int_equal(total.effective_fences, 1);
}

/* Runs last: it uses up the trackers. */
static void too_many_threads_are_told(void **state)
{
    (void)state;
    struct nvd_event_counts total;
    for (unsigned i = 0; i < NVD_EVENT_THREADS; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, fence_without_flush, NULL), 0);
        pthread_join(thread, NULL);
    }
    assert_false(nvd_events_total(&total));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_count_the_lines_they_touch),
        cmocka_unit_test(fences_are_effective_if_something_is_pending),
        cmocka_unit_test(reflushes_look_back_four_distinct_lines),
        cmocka_unit_test(xplines_absorb_what_is_in_the_buffer),
        cmocka_unit_test(xplines_leave_in_lru_order),
        cmocka_unit_test(state_is_kept_while_not_counting),
        cmocka_unit_test(threads_are_counted_apart_and_summed),
        cmocka_unit_test(too_many_threads_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
