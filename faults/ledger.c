// SPDX-License-Identifier: Apache-2.0
/*
 * ledger.c - bookkeeping of what is owed; see ledger.h.
 */
#include "ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t bytes_of(uint32_t ids)
{
    return sizeof(struct nvl_ledger) + ids * sizeof(struct nvl_slot);
}

struct nvl_ledger *nvl_ledger_new(uint32_t slots, uint32_t inner, uint32_t slot_size,
                                  uint64_t heap_size)
{
    uint32_t ids = slots * (1 + inner);
    struct nvl_ledger *ledger = calloc(1, bytes_of(ids));
    if (ledger == NULL)
        abort();
    ledger->slots = slots;
    ledger->inner = inner;
    ledger->slot_size = slot_size;
    ledger->ids = ids;
    ledger->heap_size = heap_size;
    return ledger;
}

struct nvl_ledger *nvl_ledger_copy(const struct nvl_ledger *ledger)
{
    struct nvl_ledger *copy = malloc(bytes_of(ledger->ids));
    if (copy == NULL)
        abort();
    memcpy(copy, ledger, bytes_of(ledger->ids));
    return copy;
}

void nvl_ledger_assign(struct nvl_ledger *to, const struct nvl_ledger *from)
{
    memcpy(to, from, bytes_of(from->ids));
}

static void fill(struct nvl_slot *slot, uint64_t size, struct nvl_place place)
{
    slot->full = true;
    slot->container = false;
    slot->size = size;
    slot->usable = place.usable;
    slot->offset = place.offset;
}

static void owe_no_payload(struct nvl_slot *slot)
{
    slot->payload_from = slot->payload_to = 0;
}

static void take_effect(struct nvl_ledger *ledger, const struct nvl_op *op,
                        const struct nvl_place *place)
{
    struct nvl_slot *first = &ledger->slot[op->id[0]];
    switch ((enum nvl_op_kind)op->kind) {
    case NVL_ALLOC:
    case NVL_GROUP:
        for (unsigned i = 0; i < op->count; i++) {
            struct nvl_slot *slot = &ledger->slot[op->id[i]];
            slot->seq++;
            fill(slot, op->size[i], place[i]);
            owe_no_payload(slot);
        }
        break;
    case NVL_FREE:
        first->seq++;
        first->full = first->container = false;
        owe_no_payload(first);
        break;
    case NVL_REALLOC:
        first->seq++;
        fill(first, op->size[0], place[0]);
        if (first->payload_to > first->usable)
            first->payload_to = first->usable;
        break;
    case NVL_MOVE: {
        struct nvl_slot *second = &ledger->slot[op->id[1]];
        uint64_t seq = second->seq + 1;
        *second = *first;
        second->seq = seq;
        first->seq++;
        first->full = first->container = false;
        owe_no_payload(first);
        break;
    }
    default:
        break;
    }
}

void nvl_ledger_resolve(struct nvl_ledger *ledger, uint32_t thread, bool whole,
                        const struct nvl_place *place)
{
    if (whole)
        take_effect(ledger, &ledger->inflight[thread].op, place);
    ledger->inflight[thread].active = false;
}

void nvl_ledger_apply(struct nvl_ledger *ledger, const struct nvl_mark *mark)
{
    ledger->version++;
    switch ((enum nvl_mark_kind)mark->kind) {
    case NVL_MARK_READY:
        ledger->ready = true;
        break;
    case NVL_MARK_BEGIN:
        ledger->inflight[mark->thread].active = true;
        ledger->inflight[mark->thread].op = mark->op;
        break;
    case NVL_MARK_ACK:
        nvl_ledger_resolve(ledger, mark->thread, true, mark->place);
        ledger->acknowledged++;
        break;
    case NVL_MARK_FAIL:
        nvl_ledger_resolve(ledger, mark->thread, false, NULL);
        break;
    case NVL_MARK_SETTLING:
        owe_no_payload(&ledger->slot[mark->id]);
        break;
    case NVL_MARK_PERSISTED: {
        struct nvl_slot *slot = &ledger->slot[mark->id];
        slot->payload_id = mark->id;
        slot->payload_seq = slot->seq;
        slot->payload_from = mark->payload_from;
        slot->payload_to = mark->payload_to;
        slot->container = mark->payload_from != 0;
        break;
    }
    default:
        break;
    }
}

bool nvl_mark_loosens(const struct nvl_mark *mark)
{
    return mark->kind == NVL_MARK_BEGIN || mark->kind == NVL_MARK_SETTLING;
}

bool nvl_ledger_is_inner(const struct nvl_ledger *ledger, uint32_t id)
{
    return id >= ledger->slots;
}

uint32_t nvl_ledger_outer(const struct nvl_ledger *ledger, uint32_t id)
{
    return id < ledger->slots ? id : (id - ledger->slots) / ledger->inner;
}

uint32_t nvl_ledger_inner(const struct nvl_ledger *ledger, uint32_t outer, uint32_t j)
{
    return ledger->slots + outer * ledger->inner + j;
}

bool nvl_ledger_occupied(const struct nvl_ledger *ledger, uint32_t outer)
{
    if (nvl_ledger_is_inner(ledger, outer) || !ledger->slot[outer].container)
        return false;
    for (uint32_t j = 0; j < ledger->inner; j++) {
        if (ledger->slot[nvl_ledger_inner(ledger, outer, j)].full)
            return true;
    }
    return false;
}

const char *nvl_ledger_name(const struct nvl_ledger *ledger, uint32_t id, char *buffer,
                            size_t size)
{
    if (nvl_ledger_is_inner(ledger, id))
        snprintf(buffer, size, "slot %u.%u", nvl_ledger_outer(ledger, id),
                 (id - ledger->slots) % ledger->inner);
    else
        snprintf(buffer, size, "slot %u", id);
    return buffer;
}
