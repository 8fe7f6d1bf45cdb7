/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - a program's allocations, recorded and ready to be replayed.
 *
 * Two formats; all integers little-endian.
 *
 * The raw one is what the recorder (workloads/record/recorder.c) writes while the
 * program runs: struct nvd_raw_head, then events in the order in which they happened.  A
 * file that ends in the middle (the program was killed) is good up to there.
 *
 * The trace is what `nvdrive trace` makes of it, without addresses: struct
 * nvd_trace_head, then `bytes` bytes of operations.  An operation is one LEB128 number
 * (7 bits a byte, the lowest first, bit 7: more follow), n = operand << 2 | kind, and:
 *   kind 0  free          operand: a slot, full
 *        1  alloc         operand: a slot, empty; a second number: the size
 *        2  realloc       operand: a slot, empty; second number: the new size; third: the
 *                         slot, full, whose content moves there, and which is then empty
 *        3  thread        operand: the number of the thread that does what follows
 * Slots are numbered from 0, freed ones first, so `slots` of them are enough.  The
 * operations are in an order in which they happened: a block is freed before its
 * memory is handed out again.
 * A trace is valid iff magic and version are right, the operations fill `bytes`, end at
 * their end, number as many as the head says, and use slots as above.
 */
#ifndef NVD_TRACE_H
#define NVD_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVD_RAW_MAGIC     UINT64_C(0x316365727761726e) /* "nrawrec1" */
#define NVD_TRACE_MAGIC   UINT64_C(0x65636172742d766e) /* "nv-trace" */
#define NVD_TRACE_VERSION 1u

struct nvd_raw_head {
    uint64_t magic;
    uint64_t process;
};

enum nvd_raw_kind { NVD_RAW_FREE, NVD_RAW_ALLOC, NVD_RAW_REALLOC };

struct nvd_raw_event {
    uint64_t address; /* what was freed, or returned */
    uint64_t old;     /* of a realloc: what was given */
    uint64_t size;
    uint32_t thread;
    uint32_t kind;
};
_Static_assert(sizeof(struct nvd_raw_event) == 32, "no padding");

struct nvd_trace_head {
    uint64_t magic;
    uint32_t version;
    uint32_t threads; /* numbered from 0 */
    uint64_t bytes;
    uint64_t allocs, frees, reallocs;
    uint64_t slots;      /* most blocks that were live at once */
    uint64_t peak_bytes; /* most bytes that were live at once, as asked for */
    uint64_t dropped;    /* frees of blocks that the recorder had not seen allocated */
    char program[120];   /* what was recorded, cut off */
};
_Static_assert(sizeof(struct nvd_trace_head) == 192, "no padding");

/* One operation, unpacked.  A realloc is an NVD_OP_MOVE, like an alloc but that the
   content is that of the block of the free that follows it. */
enum nvd_op_kind { NVD_OP_FREE, NVD_OP_ALLOC, NVD_OP_MOVE };

struct nvd_op {
    uint32_t slot : 30;
    uint32_t kind : 2;
    uint32_t size; /* of an alloc or a move, >= NVD_MIN_BLOCK */
};
_Static_assert(sizeof(struct nvd_op) == 8, "eight in a cache line");

struct nvd_trace {
    struct nvd_trace_head head;
    size_t count;       /* operations, moves counted with their frees */
    struct nvd_op *ops; /* in their order */
    uint16_t *threads;  /* who does each; NULL in a trace of one thread */
};

/* Sizes are raised to at least NVD_MIN_BLOCK.  NULL, or what is wrong with the file: a
   text that lives until the thread's next call. */
const char *nvd_trace_read(const char *path, struct nvd_trace *trace);
void nvd_trace_free(struct nvd_trace *trace);

/* Converts; sets *head.  NULL, or what is wrong. */
const char *nvd_trace_convert(const char *raw_path, const char *path, const char *program,
                              struct nvd_trace_head *head);

#endif
