// SPDX-License-Identifier: Apache-2.0
/*
 * ledger.h - what a heap owes its application at an instant of a history.
 *
 * The driver's journal (workloads/driver/journal.h) with more operations, kept in
 * DRAM and driven by *marks* of the trace, so that it can be brought to any instant of
 * a recorded history.  A slot's id is the journal's: table slot i is i, slot j inside
 * the container in table slot i is slots + i * inner + j.
 *
 * Between BEGIN and ACK (or FAIL: nothing happened) of a thread its operation is in
 * flight: whole or absent, all of its slots together.  An acknowledged block's payload
 * is owed from PERSISTED on, and no more from SETTLING (the application begins to write
 * it) or the next operation on its slot.
 */
#ifndef NVL_LEDGER_H
#define NVL_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NVL_GROUP_MAX = 8,
    NVL_THREADS_MAX = 4,
};

enum nvl_op_kind {
    NVL_ALLOC = 0,
    NVL_FREE,
    NVL_REALLOC,
    NVL_MOVE,   /* id[0] to id[1] */
    NVL_GROUP,  /* count allocations, all or none */
    NVL_REOPEN, /* no slot: closed and opened */
    NVL_OP_KINDS
};

struct nvl_op {
    uint8_t kind; /* enum nvl_op_kind */
    uint8_t thread;
    uint8_t count;  /* slots concerned */
    bool container; /* ALLOC: the block is to begin with slots */
    uint32_t id[NVL_GROUP_MAX];
    uint64_t size[NVL_GROUP_MAX];
};

enum nvl_mark_kind {
    NVL_MARK_READY = 0, /* the heap is made or opened: what follows must survive */
    NVL_MARK_BEGIN,
    NVL_MARK_ACK,
    NVL_MARK_FAIL,
    NVL_MARK_SETTLING,
    NVL_MARK_PERSISTED,
    NVL_MARK_KINDS
};

struct nvl_place {
    int64_t offset; /* of a block from the adapter's range(); -1: unknown */
    uint64_t usable;
};

struct nvl_mark {
    uint8_t kind;                          /* enum nvl_mark_kind */
    uint8_t thread;                        /* whose operation */
    struct nvl_op op;                      /* BEGIN */
    struct nvl_place place[NVL_GROUP_MAX]; /* ACK: of each slot's block */
    uint32_t id;                           /* SETTLING, PERSISTED */
    uint64_t payload_from, payload_to;     /* PERSISTED */
};

struct nvl_slot {
    uint64_t seq; /* of the last acknowledged operation */
    bool full, container;
    uint64_t size, usable;
    int64_t offset;
    uint32_t payload_id; /* whose payload it is: payload.h */
    uint64_t payload_seq;
    uint64_t payload_from, payload_to; /* equal: none is owed */
};

struct nvl_ledger {
    uint32_t slots, inner, slot_size;
    uint32_t ids; /* slots * (1 + inner) */
    uint64_t heap_size;
    uint64_t version; /* grows with each mark */
    uint64_t acknowledged;
    bool ready;
    struct {
        bool active;
        struct nvl_op op;
    } inflight[NVL_THREADS_MAX];
    struct nvl_slot slot[]; /* [ids] */
};

struct nvl_ledger *nvl_ledger_new(uint32_t slots, uint32_t inner, uint32_t slot_size,
                                  uint64_t heap_size);
struct nvl_ledger *nvl_ledger_copy(const struct nvl_ledger *ledger);
/* Overwrites `to`, which has the same geometry. */
void nvl_ledger_assign(struct nvl_ledger *to, const struct nvl_ledger *from);
void nvl_ledger_apply(struct nvl_ledger *ledger, const struct nvl_mark *mark);
/* An operation in flight took place as a whole (blocks at `place`), or not at all. */
void nvl_ledger_resolve(struct nvl_ledger *ledger, uint32_t thread, bool whole,
                        const struct nvl_place *place);

bool nvl_ledger_is_inner(const struct nvl_ledger *ledger, uint32_t id);
uint32_t nvl_ledger_outer(const struct nvl_ledger *ledger, uint32_t id);
uint32_t nvl_ledger_inner(const struct nvl_ledger *ledger, uint32_t outer, uint32_t j);
/* A container with a full slot in it. */
bool nvl_ledger_occupied(const struct nvl_ledger *ledger, uint32_t outer);
/* "slot 7" or "slot 7.2"; returns buffer. */
const char *nvl_ledger_name(const struct nvl_ledger *ledger, uint32_t id, char *buffer,
                            size_t size);
/* True if the mark makes the heap owe less, so that a state from just before it would
   be judged too mildly after it. */
bool nvl_mark_loosens(const struct nvl_mark *mark);

#endif
