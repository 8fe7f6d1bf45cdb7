/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ycsb.h - the requests and the data of the Yahoo! Cloud Serving Benchmark's core
 * workloads (Cooper et al., Benchmarking Cloud Serving Systems with YCSB, SoCC 2010).
 *
 * Records are numbered; record r has the key fnv1a64(r), so that neighbours in number are
 * strangers in order.  Which record a request is for:
 *   scrambled  fnv1a64(rank) % records, the rank by Zipf's law with theta 0.99: popular
 *              records lie anywhere
 *   latest     the rank is counted back from the newest record
 * Ranks are drawn as in Gray et al., Quickly Generating Billion-Record Synthetic
 * Databases, SIGMOD 1994.
 *
 * A value begins with its record's number; the second word is its version, and the rest a
 * payload (payload.h) of the two, as far as there is room.
 */
#ifndef NVK_YCSB_H
#define NVK_YCSB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ycsb_zipf {
    uint64_t items;
    double theta, zeta, alpha, eta;
};

/* O(items). */
void ycsb_zipf_prepare(struct ycsb_zipf *zipf, uint64_t items, double theta);
/* A rank below items, for u uniform in [0, 1). */
uint64_t ycsb_zipf_rank(const struct ycsb_zipf *zipf, double u);

/* FNV-1a of the 8 bytes, the least significant first. */
uint64_t ycsb_hash(uint64_t number);

enum ycsb_request { YCSB_READ, YCSB_UPDATE, YCSB_INSERT, YCSB_SCAN, YCSB_MODIFY };

/* Per cent of each request, by enum; the rest is 0. */
struct ycsb_mix {
    unsigned char share[5];
    bool latest;
};

/* A to F. */
extern const struct ycsb_mix ycsb_mixes[6];

void ycsb_value_fill(void *value, size_t bytes, uint64_t record, uint64_t version);
uint64_t ycsb_value_record(const void *value);
/* 0 where the value has no room for one. */
uint64_t ycsb_value_version(const void *value, size_t bytes);
/* The offset of the first wrong byte; `bytes` if there is none. */
size_t ycsb_value_check(const void *value, size_t bytes, uint64_t record);

#endif
