// SPDX-License-Identifier: Apache-2.0
/*
 * persist.c - flushes, fences, non-temporal stores.  Nothing here is a locked
 * instruction but where it is meant as a fence: one would complete the thread's flushes,
 * and a planted fault would be none.
 */
#include <errno.h>
#include <immintrin.h>

#include "lane_log.h"

static nvc_event_fn *event_fn;
static void *event_context;

void zoo_flush(const void *address, size_t length)
{
    if (length == 0)
        return;
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_FLUSH, address, length);
    uintptr_t line = (uintptr_t)address & ~(uintptr_t)(zoo_line - 1);
    for (; line < (uintptr_t)address + length; line += zoo_line)
        _mm_clflush((const void *)line);
}

void zoo_fence(void)
{
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_FENCE, NULL, 0);
    _mm_sfence();
}

/* The line is loaded before its store is announced: the observer takes what was stored at
   the thread's next access to memory. */
static void line_nt_store(long long *to, const long long *from)
{
    long long a = from[0], b = from[1], c = from[2], d = from[3];
    long long e = from[4], f = from[5], g = from[6], h = from[7];
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_NT_STORE, to, zoo_line);
    _mm_stream_si64(to, a);
    _mm_stream_si64(to + 1, b);
    _mm_stream_si64(to + 2, c);
    _mm_stream_si64(to + 3, d);
    _mm_stream_si64(to + 4, e);
    _mm_stream_si64(to + 5, f);
    _mm_stream_si64(to + 6, g);
    _mm_stream_si64(to + 7, h);
}

void zoo_copy_nt_store(void *to, const void *from, size_t length)
{
    for (size_t at = 0; at < length; at += zoo_line)
        line_nt_store((long long *)((char *)to + at),
                      (const long long *)((const char *)from + at));
}

int zoo_observe(nvc_event_fn *fn, void *context)
{
    event_context = context;
    event_fn = fn;
    return 0;
}
