// SPDX-License-Identifier: Apache-2.0
/*
 * journal.h - what was acknowledged, and what was under way, when a process died.
 *
 * The journal is a file outside the NVM, mapped MAP_SHARED: after SIGKILL the
 * page cache holds every store that a thread retired.  A killed thread's
 * stores are a prefix of its program order (a precise interrupt ends it between
 * two instructions, and what was retired before drains to the coherent cache),
 * so the order in which the *compiler* emits the stores is all that has to be
 * held; the release stores below hold it.
 *
 * Places.  Slot ids: outer slot i is i; inner slot j of the container in outer
 * slot i is slots + i * inner + j.  A block in an outer slot is a *container*
 * when its first inner * slot_size bytes are slots themselves.
 *
 * Record of a slot: a word {seq << 8 | flags} beside the block's data.
 * In flight of a thread: {op, id, seq, size}.
 *
 * An operation, in this order:
 *   1. in-flight id, seq = record.seq + 1, size; then, with release, op
 *   2. the allocator's call
 *   3. (alloc) record.size, record.usable, record.offset
 *   4. with release, record.word = {seq, FULL or nothing}   <- acknowledged
 *   5. with release, in-flight op = NONE
 *   6. (alloc) the payload is written and persisted, then, with release,
 *      record.word gains PERSISTED (and CONTAINER)
 *
 * An operation is in flight iff its op is not NONE and its seq is larger than
 * its record's.  Why that decides it at every instant:
 *   before 1 ends   op is NONE (5 of the operation before): nothing in flight,
 *                   and the allocator was not called.
 *   1 .. 4          op is set and its fields were stored before it; record.seq
 *                   is still seq - 1: in flight.  What 3 wrote is not read,
 *                   since the record is not FULL (an alloc goes into an empty
 *                   slot only).
 *   after 4         record.seq == seq: acknowledged, whether 5 was reached or not.
 *   before 6 ends   FULL without PERSISTED: the block is owed, its content isn't.
 * No two threads work on one slot (the churn's locks), so a record has one writer.
 *
 * Resolving.  After recovery each operation in flight must be whole or absent;
 * whoever recovered the heap writes what it saw: whole is acknowledged by
 * steps 3-5, absent by step 5 alone (the record is that of before).
 * Dying between leaves a journal to which the same rules apply.
 *
 * File (native byte order; it is read on the machine that wrote it):
 *      0  header   128 bytes
 *    128  threads x struct nvd_inflight, 64 bytes each
 *         (slots + slots * inner) x struct nvd_record, 32 bytes each
 * Valid iff magic and version match, the geometry is in the limits below and
 * the file has exactly the length that follows from it.
 */
#ifndef NVD_JOURNAL_H
#define NVD_JOURNAL_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVD_JOURNAL_MAGIC   UINT64_C(0x314c4e524a44564e) /* "NVDJRNL1" */
#define NVD_JOURNAL_VERSION 1u

#define NVD_SLOTS_MAX   65536u
#define NVD_INNER_MAX   64u
#define NVD_THREADS_MAX 64u

enum nvd_op {
    NVD_OP_NONE = 0,
    NVD_OP_ALLOC,
    NVD_OP_FREE,
};

/* Flags of a record's word. */
#define NVD_FULL      UINT64_C(1) /* the slot holds a block */
#define NVD_PERSISTED UINT64_C(2) /* its payload was persisted */
#define NVD_CONTAINER UINT64_C(4) /* it begins with slots */

struct nvd_geometry {
    uint32_t slots;     /* outer slots that the journal covers */
    uint32_t inner;     /* slots in a container; 0: no containers */
    uint32_t slot_size; /* bytes of a slot, as the adapter said */
    uint32_t threads;   /* in-flight records */
    uint64_t heap_size; /* bytes asked for at create */
};

struct nvd_journal_header {
    uint64_t magic;
    uint32_t version;
    uint32_t threads;
    uint32_t slots;
    uint32_t inner;
    uint32_t slot_size;
    uint32_t pad;
    uint64_t heap_size;
    _Atomic uint32_t phase; /* enum nvd_phase of the process at work */
    uint32_t pad2[21];
};
static_assert(sizeof(struct nvd_journal_header) == 128, "header of the journal");

struct nvd_inflight {
    _Atomic uint32_t op;
    uint32_t id;
    uint64_t seq;
    uint64_t size;
    _Atomic uint64_t acknowledged; /* operations of this thread so far */
    uint64_t pad[4];
};
static_assert(sizeof(struct nvd_inflight) == 64, "a line a thread");

struct nvd_record {
    _Atomic uint64_t word; /* seq << 8 | flags */
    uint64_t size;         /* bytes asked for */
    uint64_t usable;       /* bytes got, all of them filled with payload */
    int64_t offset;        /* of the block from the adapter's range(); -1: it has none */
};
static_assert(sizeof(struct nvd_record) == 32, "two records a line");

struct nvd_journal {
    struct nvd_journal_header *header;
    struct nvd_inflight *inflight; /* [header->threads] */
    struct nvd_record *records;    /* [nvd_journal_ids()] */
    size_t length;                 /* of the mapping */
};

/* A record's state, read at once. */
struct nvd_slot_state {
    uint64_t seq;
    bool full, persisted, container;
};

/* Makes the file (EEXIST if there is one). 0 or an errno value. */
int nvd_journal_create(struct nvd_journal *journal, const char *path,
                       const struct nvd_geometry *geometry);
/* Maps an existing one; EUCLEAN if it is not valid (see above). */
int nvd_journal_open(struct nvd_journal *journal, const char *path);
void nvd_journal_close(struct nvd_journal *journal);

/* Outer and inner slots together. */
uint32_t nvd_journal_ids(const struct nvd_journal *journal);
/* The outer slot in whose block an inner slot lies; the id itself if outer. */
uint32_t nvd_journal_outer(const struct nvd_journal *journal, uint32_t id);
bool nvd_journal_is_inner(const struct nvd_journal *journal, uint32_t id);
uint32_t nvd_journal_inner(const struct nvd_journal *journal, uint32_t outer, uint32_t j);
/* "slot 7" or "slot 7.2", for people; static per thread, two live at a time. */
const char *nvd_journal_name(const struct nvd_journal *journal, uint32_t id);

struct nvd_slot_state nvd_journal_state(const struct nvd_journal *journal, uint32_t id);

/* Step 1. */
void nvd_journal_begin(struct nvd_journal *journal, uint32_t thread, enum nvd_op op,
                       uint32_t id, uint64_t size);
/* Steps 3-5 of an alloc. */
void nvd_journal_ack_alloc(struct nvd_journal *journal, uint32_t thread, uint64_t usable,
                           int64_t offset);
/* Steps 4-5 of a free. */
void nvd_journal_ack_free(struct nvd_journal *journal, uint32_t thread);
/* Step 5 alone: the operation did not take place. */
void nvd_journal_cancel(struct nvd_journal *journal, uint32_t thread);
/* Step 6. */
void nvd_journal_persisted(struct nvd_journal *journal, uint32_t id, bool container);

/* The thread's operation in flight, if the rule above says there is one. */
bool nvd_journal_in_flight(const struct nvd_journal *journal, uint32_t thread,
                           enum nvd_op *op, uint32_t *id, uint64_t *size);
/* Operations acknowledged since the journal was made. */
uint64_t nvd_journal_acknowledged(const struct nvd_journal *journal);

void nvd_journal_set_phase(struct nvd_journal *journal, uint32_t phase);

#endif
