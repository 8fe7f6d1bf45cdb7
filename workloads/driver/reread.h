/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reread.h - what it costs to read a line again that was just made durable.
 *
 * A flush may or may not leave its line in the cache (CLWB may, CLFLUSHOPT does not; the
 * first processors with CLWB did not either), and a non-temporal store never does.  So an
 * allocator that reads back what it persisted pays for it here, and a benchmark
 * that counts fences alone does not see it.
 *
 * Each round prepares every line, waits for a fence, and then follows a chain through all
 * of them, in an order that no prefetcher guesses: each read waits for the one before.
 *   idle   the lines were read just before: they are in the nearest cache
 *   flush  8 bytes of each were stored, the line flushed
 *   nt     each was written whole by non-temporal stores
 * A figure is the median of its rounds, in ns a read.
 */
#ifndef NVD_REREAD_H
#define NVD_REREAD_H

#include <stddef.h>

enum nvd_reread {
    NVD_REREAD_IDLE,
    NVD_REREAD_FLUSH,
    NVD_REREAD_NT,
    NVD_REREADS,
};

/* Works on `lines` lines at memory for about `seconds`; the lines' content is lost.
   x86-64 only. */
double nvd_reread_ns(enum nvd_reread after, char *memory, size_t lines, double seconds);

#endif
