// SPDX-License-Identifier: Apache-2.0
/*
 * record.h - runs a history on a heap under the lens and writes its trace.
 *
 * In a process of its own: the allocator's state in DRAM begins empty, and nothing that
 * it does to the process matters afterwards.
 */
#ifndef NVL_RECORD_H
#define NVL_RECORD_H

#include "adapter.h"
#include "lens.h"
#include "mutate.h"
#include "script.h"
#include "trace.h"

/* A heap to go on with: what an earlier history's crash left. */
struct nvl_beginning {
    const void *image;
    const struct nvl_ledger *ledger;
};

struct nvl_record_options {
    const struct nvc_adapter *adapter;
    const char *extra;
    const char *folder; /* for the heap's file; on tmpfs */
    const char *trace;  /* the file to write */
    enum nvl_lens_kind lens;
    uint64_t heap_size; /* asked for at create */
    uint64_t file_size; /* what create() makes of it */
    uint32_t slots, threads;
    uint64_t ops;     /* drawn operations, if there is no script */
    uint64_t payload; /* bytes of a block that are written, persisted and compared */
    uint64_t seed;
    const struct nvl_script *script;       /* NULL: drawn from the seed */
    const struct nvl_beginning *beginning; /* NULL: a fresh heap */
    const struct nvl_mutation *mutation;   /* NULL: none */
};

/* An exit code of driver.h; a JSON error line was written unless NVD_OK. */
int nvl_record(const struct nvl_record_options *options);

/* Makes a heap as nvl_record() would, fills it to the brim and removes it: the file's
   size and how many bytes fit. */
int nvl_measure_fresh(const struct nvl_record_options *options, uint64_t *file_size,
                      uint64_t *fill_bytes);

#endif
