// SPDX-License-Identifier: Apache-2.0
/*
 * snapshot.h - copies a heap file, or a journal, as it is.
 */
#ifndef NVD_SNAPSHOT_H
#define NVD_SNAPSHOT_H

/* Copies from to to (made or replaced, mode 0600): same length, same bytes;
   pages of zeros become holes. 0 or an errno value. */
int nvd_snapshot(const char *from, const char *to);

#endif
