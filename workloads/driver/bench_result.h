/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_result.h - what `nvdrive bench` prints: the documents of a sample and of a trial.
 */
#ifndef NVD_BENCH_RESULT_H
#define NVD_BENCH_RESULT_H

#include "bench.h"
#include "trial.h"

/* The caller's to emit or to put. */
struct json_object *nvd_bench_document(const struct nvd_bench_request *request,
                                       const struct nvd_bench_result *result,
                                       size_t heap_bytes);
/* Like a sample's, with null for what only windows have. */
struct json_object *nvd_trial_document(const struct nvd_bench_request *request,
                                       const struct nvd_trial *trial);

#endif
