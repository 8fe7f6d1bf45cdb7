/* SPDX-License-Identifier: Apache-2.0 */
/*
 * false_sharing.h - what cache-scratch and cache-thrash have in common: the loop in which
 * a thread's object is allocated, written to and freed.  They differ in how it begins.
 */
#ifndef NVD_FALSE_SHARING_H
#define NVD_FALSE_SHARING_H

#include "workload.h"

/* Indices of their parameters. */
enum { NVD_SHARING_SIZE, NVD_SHARING_WRITES };

/* One slot for each thread. */
size_t nvd_sharing_slots(const uint64_t *values, unsigned threads);
/* A full slot is emptied, an empty one filled and its object written to; each write reads
   what the one before left, and at the end the sum must be right. */
void nvd_sharing_run(struct nvd_worker *worker);
uint64_t nvd_sharing_cycle(const uint64_t *values);

#endif
