// SPDX-License-Identifier: Apache-2.0
/*
 * judge.c - the steps of judge.h, cheapest and most telling first.
 */
#include "judge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "brim.h"
#include "driver.h"
#include "lens.h"
#include "profile.h"
#include "second_workload.h"
#include "survey.h"

enum {
    looks_size = 1024, /* a power of two */
};

static void *must(void *pointer)
{
    if (pointer == NULL)
        abort();
    return pointer;
}

static void enter(struct nvl_judge *judge, enum nvd_phase phase)
{
    judge->phase = phase;
    if (judge->shown_phase != NULL)
        atomic_store_explicit(judge->shown_phase, phase, memory_order_relaxed);
}

/* ---- slots and operations in flight ---- */

struct nvl_place nvl_place_of(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                              struct nvc_block block)
{
    struct nvc_block range = adapter->range(heap);
    if (range.address == NULL || block.address == NULL)
        return (struct nvl_place){-1, block.usable};
    return (struct nvl_place){
        (int64_t)((uintptr_t)block.address - (uintptr_t)range.address), block.usable};
}

void *nvl_slot_address(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                       const struct nvl_ledger *ledger, uint32_t id)
{
    size_t count;
    unsigned char *table = adapter->slots(heap, &count);
    uint32_t outer = nvl_ledger_outer(ledger, id);
    if (table == NULL || outer >= count)
        return NULL;
    unsigned char *slot = table + (size_t)outer * adapter->slot_size;
    if (!nvl_ledger_is_inner(ledger, id))
        return slot;
    struct nvc_block container = adapter->read(heap, slot);
    struct nvl_place place = nvl_place_of(adapter, heap, container);
    size_t needed = (size_t)ledger->inner * adapter->slot_size;
    if (container.address == NULL || container.usable < needed ||
        (place.offset >= 0 && ledger->slot[outer].offset >= 0 &&
         place.offset != ledger->slot[outer].offset))
        return NULL;
    uint32_t j = (id - ledger->slots) % ledger->inner;
    return (unsigned char *)container.address + (size_t)j * adapter->slot_size;
}

static struct nvc_block look_into(const struct nvc_adapter *adapter,
                                  struct nvc_heap *heap, const struct nvl_ledger *ledger,
                                  uint32_t id)
{
    void *slot = nvl_slot_address(adapter, heap, ledger, id);
    if (slot == NULL)
        return (struct nvc_block){NULL, 0};
    return adapter->read(heap, slot);
}

/* True if the heap shows the operation as done; a mixture is not, and the oracle will
   stumble over the part that shows. */
static bool shows_whole(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                        const struct nvl_ledger *ledger, const struct nvl_op *op,
                        struct nvl_place *place)
{
    struct nvc_block block[NVL_GROUP_MAX] = {{NULL, 0}};
    unsigned full = 0, count = op->kind == NVL_MOVE ? 2 : op->count;
    for (unsigned i = 0; i < count; i++) {
        block[i] = look_into(adapter, heap, ledger, op->id[i]);
        place[i] = nvl_place_of(adapter, heap, block[i]);
        full += block[i].address != NULL;
    }
    switch ((enum nvl_op_kind)op->kind) {
    case NVL_ALLOC:
    case NVL_GROUP:
        return full == op->count;
    case NVL_FREE:
        return full == 0;
    case NVL_MOVE:
        return block[0].address == NULL && block[1].address != NULL;
    case NVL_REALLOC: {
        const struct nvl_slot *slot = &ledger->slot[op->id[0]];
        return full == 1 && block[0].usable >= op->size[0] &&
               (place[0].offset != slot->offset || block[0].usable != slot->usable);
    }
    default:
        return false;
    }
}

void nvl_resolve(const struct nvc_adapter *adapter, struct nvc_heap *heap,
                 struct nvl_ledger *ledger)
{
    for (uint32_t t = 0; t < NVL_THREADS_MAX; t++) {
        struct nvl_place place[NVL_GROUP_MAX] = {{-1, 0}};
        if (!ledger->inflight[t].active)
            continue;
        bool whole = shows_whole(adapter, heap, ledger, &ledger->inflight[t].op, place);
        nvl_ledger_resolve(ledger, t, whole, place);
    }
}

/* ---- the oracle's evidence ---- */

static int note_block(void *context, struct nvc_block block)
{
    struct nvl_judge *judge = context;
    if (judge->walked_count == judge->walked_capacity) {
        judge->walked_capacity = 2 * judge->walked_capacity + 256;
        judge->walked =
            must(realloc(judge->walked, judge->walked_capacity * sizeof *judge->walked));
    }
    judge->walked[judge->walked_count++] = block;
    /* A walk over a damaged heap may not end. */
    return judge->walked_count > judge->image->size / 8 ? ELOOP : 0;
}

static struct nvd_sighting *sight(struct nvl_judge *judge, struct nvc_heap *heap,
                                  const struct nvl_ledger *ledger, uint32_t id,
                                  const struct nvd_sighting *container, size_t n)
{
    const struct nvl_slot *slot = &ledger->slot[id];
    struct nvd_sighting *s = &judge->sightings[n];
    const void *address = nvl_slot_address(judge->image->adapter, heap, ledger, id);
    judge->victim_slots[id] =
        address == NULL ? UINT64_MAX : (uintptr_t)address - nvl_lens.base;
    *s = (struct nvd_sighting){
        .name = judge->names[id],
        .id = slot->payload_id,
        .owed = slot->full ? NVD_OWED_FULL : NVD_OWED_EMPTY,
        .seen = address != NULL ? judge->image->adapter->read(heap, address)
                                : (struct nvc_block){NULL, 0},
        .seq = slot->payload_to > slot->payload_from ? slot->payload_seq : slot->seq,
        .size = slot->full ? slot->size : 0,
        .offset = slot->full ? slot->offset : -1,
        .payload_from = slot->payload_from,
        .payload_to = slot->payload_to,
        .container = container};
    return s;
}

static size_t take_sightings(struct nvl_judge *judge, struct nvc_heap *heap,
                             const struct nvl_ledger *ledger)
{
    size_t n = 0;
    for (uint32_t outer = 0; outer < ledger->slots; outer++) {
        const struct nvl_slot *slot = &ledger->slot[outer];
        const struct nvd_sighting *s = sight(judge, heap, ledger, outer, NULL, n++);
        if (!slot->container ||
            nvl_slot_address(judge->image->adapter, heap, ledger,
                             nvl_ledger_inner(ledger, outer, 0)) == NULL)
            continue;
        for (uint32_t j = 0; j < ledger->inner; j++)
            sight(judge, heap, ledger, nvl_ledger_inner(ledger, outer, j), s, n++);
    }
    return n;
}

/* Contents are compared by code that the lens does not see. */
static void note_payload_reads(const struct nvl_judge *judge, size_t count,
                               struct nvc_block range)
{
    for (size_t i = 0; i < count; i++) {
        const struct nvd_sighting *s = &judge->sightings[i];
        uintptr_t base = (uintptr_t)range.address, at = (uintptr_t)s->seen.address;
        if (s->seen.address == NULL || s->payload_from >= s->payload_to ||
            (base != 0 && (at < base || at - base > range.usable)))
            continue;
        size_t to = s->payload_to < s->seen.usable ? s->payload_to : s->seen.usable;
        if (to > s->payload_from)
            nvl_lens_note_read((const char *)s->seen.address + s->payload_from,
                               to - s->payload_from);
    }
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

/* What the application can tell apart. */
static uint64_t look_of(const struct nvl_judge *judge, size_t sightings, uintptr_t base)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < sightings; i++) {
        const struct nvd_sighting *s = &judge->sightings[i];
        if (s->seen.address != NULL)
            hash = mix(hash, i << 48 ^ ((uintptr_t)s->seen.address - base) ^
                                 (uint64_t)s->seen.usable << 20);
    }
    for (size_t i = 0; i < judge->walked_count; i++)
        hash = mix(hash, (uintptr_t)judge->walked[i].address - base);
    return hash | 1;
}

static bool inspect(struct nvl_judge *judge, struct nvc_heap *heap,
                    const struct nvl_ledger *ledger, uint64_t *look)
{
    const struct nvc_adapter *adapter = judge->image->adapter;
    size_t table_slots;
    void *table = adapter->slots(heap, &table_slots);
    struct nvd_evidence evidence = {.sightings = judge->sightings,
                                    .range = adapter->range(heap),
                                    .walks = adapter->walk != NULL};
    if (table == NULL || table_slots < ledger->slots)
        return nvd_accuse(&judge->finding, NVD_VERDICT_UNUSABLE,
                          "the slot table has %zu entries after recovery, at least %u "
                          "before",
                          table == NULL ? 0 : table_slots, ledger->slots);
    evidence.table = (struct nvc_block){table, table_slots * adapter->slot_size};
    evidence.count = take_sightings(judge, heap, ledger);
    judge->walked_count = 0;
    int error = evidence.walks ? adapter->walk(heap, note_block, judge) : 0;
    if (error != 0)
        return nvd_accuse(&judge->finding, NVD_VERDICT_UNUSABLE, "walk failed: %s (%s)",
                          strerror(error), adapter->last_error());
    evidence.walked = judge->walked;
    evidence.walked_count = judge->walked_count;
    note_payload_reads(judge, evidence.count, evidence.range);
    bool sound = nvd_oracle_judge(&evidence, &judge->finding);
    *look = look_of(judge, evidence.count, (uintptr_t)evidence.range.address);
    return sound;
}

/* ---- the deep judgement ---- */

/* The driver's journal, in DRAM, as the ledger says. */
static void write_journal(struct nvl_judge *judge, const struct nvl_ledger *ledger)
{
    struct nvd_journal *journal = &judge->subject.journal;
    for (uint32_t id = 0; id < ledger->ids; id++) {
        const struct nvl_slot *slot = &ledger->slot[id];
        struct nvd_record *record = &journal->records[id];
        uint64_t flags = slot->full ? NVD_FULL : 0;
        /* A payload that moved with its block is another slot's: not compared again. */
        if (slot->payload_to > slot->payload_from && slot->payload_id == id &&
            slot->payload_seq == slot->seq)
            flags |= NVD_PERSISTED;
        if (slot->container)
            flags |= NVD_CONTAINER;
        atomic_store_explicit(&record->word, slot->seq << 8 | flags,
                              memory_order_relaxed);
        record->size = slot->size;
        /* As far as the payload goes, which is all that `usable` is used for. */
        record->usable = slot->payload_to;
        record->offset = slot->offset;
    }
    for (uint32_t t = 0; t < journal->header->threads; t++)
        memset(&journal->inflight[t], 0, sizeof journal->inflight[t]);
}

static bool remount(struct nvl_judge *judge)
{
    struct nvd_subject *subject = &judge->subject;
    enter(judge, NVD_PHASE_REOPEN);
    int error = nvl_image_remount(judge->image, &subject->heap);
    if (error != 0)
        return nvd_accuse(&judge->finding, NVD_VERDICT_UNUSABLE,
                          "recovery of the recovered heap failed: %s (%s)",
                          strerror(error), judge->image->adapter->last_error());
    subject->table = judge->image->adapter->slots(subject->heap, &subject->table_slots);
    subject->range = judge->image->adapter->range(subject->heap);
    return true;
}

static bool fill(struct nvl_judge *judge, uint64_t *bytes)
{
    struct nvd_brim brim;
    enter(judge, NVD_PHASE_FILL);
    if (!nvd_brim_fill(&judge->subject, &brim, &judge->finding))
        return false;
    *bytes = brim.bytes;
    return true;
}

static bool fill_and_compare(struct nvl_judge *judge)
{
    double least = (double)judge->fill_baseline * (1.0 - judge->fill_tolerance);
    uint64_t at_once = 0, again = 0;
    if (judge->fill_baseline == 0)
        return true;
    if (!fill(judge, &at_once))
        return false;
    if ((double)at_once >= least)
        return true;
    /* Held back for other sizes in DRAM is fragmentation, not a leak. */
    if (!remount(judge) || !fill(judge, &again))
        return false;
    if ((double)again >= least)
        return true;
    return nvd_accuse(&judge->finding,
                      again == 0 ? NVD_VERDICT_UNUSABLE : NVD_VERDICT_LEAK,
                      "after everything was freed %" PRIu64 " bytes could be allocated "
                      "(%" PRIu64 " after another recovery); a fresh heap gives %" PRIu64,
                      at_once, again, judge->fill_baseline);
}

static bool judge_deeply(struct nvl_judge *judge, struct nvc_heap *heap, uint64_t seed)
{
    struct nvd_subject *subject = &judge->subject;
    subject->heap = heap;
    subject->table = judge->image->adapter->slots(heap, &subject->table_slots);
    subject->range = judge->image->adapter->range(heap);
    nvl_profile_step(NVL_STEP_DEEP);
    write_journal(judge, judge->resolved);
    enter(judge, NVD_PHASE_SECOND_WORKLOAD);
    bool sound = nvd_second_workload(subject, seed, &judge->finding) && remount(judge) &&
                 nvd_survey_judge(subject, NULL, NULL, &judge->finding);
    if (!sound)
        return false;
    enter(judge, NVD_PHASE_DRAIN);
    return nvd_free_everything(subject, seed, &judge->finding) &&
           nvd_survey_judge(subject, NULL, NULL, &judge->finding) &&
           fill_and_compare(judge);
}

static bool look_is_new(struct nvl_judge *judge, uint64_t look)
{
    size_t at = (size_t)(look * UINT64_C(0x9e3779b97f4a7c15) >> 54) % looks_size;
    while (judge->looks[at] != 0 && judge->looks[at] != look)
        at = (at + 1) % looks_size;
    if (judge->looks[at] == look || judge->look_count > looks_size / 2)
        return false;
    judge->looks[at] = look;
    judge->look_count++;
    return true;
}

void nvl_judge_new_operation(struct nvl_judge *judge)
{
    if (judge->look_count > 0)
        memset(judge->looks, 0, looks_size * sizeof *judge->looks);
    judge->look_count = 0;
}

/* ---- the whole ---- */

static bool ask_check(struct nvl_judge *judge, struct nvc_heap *heap)
{
    const struct nvc_adapter *adapter = judge->image->adapter;
    enter(judge, NVD_PHASE_CHECK);
    nvl_profile_step(NVL_STEP_CHECK);
    if (adapter->check == NULL || adapter->check(heap) == 0)
        return true;
    return nvd_accuse(&judge->finding, NVD_VERDICT_CHECK_DISAGREES,
                      "the allocator's check sees damage where the oracle finds none: %s",
                      adapter->last_error());
}

bool nvl_judge_state(struct nvl_judge *judge, const struct nvl_ledger *ledger)
{
    struct nvc_heap *heap = NULL;
    uint64_t look = 0;
    judge->finding.verdict = NVD_VERDICT_OK;
    judge->finding.detail[0] = '\0';
    enter(judge, NVD_PHASE_OPEN);
    nvl_profile_step(NVL_STEP_RECOVER);
    judge->mounted = true;
    judge->was_deep = false;
    int error = nvl_image_mount(judge->image, &heap);
    if (error != 0)
        return nvd_accuse(&judge->finding, NVD_VERDICT_UNUSABLE, "open failed: %s (%s)",
                          strerror(error), judge->image->adapter->last_error());
    judge->recovered(judge->context);
    enter(judge, NVD_PHASE_INSPECT);
    nvl_profile_step(NVL_STEP_INSPECT);
    nvl_ledger_assign(judge->resolved, ledger);
    nvl_resolve(judge->image->adapter, heap, judge->resolved);
    if (!inspect(judge, heap, judge->resolved, &look))
        return false;
    /* An uninstrumented allocator's check opens the heap once more: it costs as much as
       all the rest, and has its turn below. */
    bool foreign = judge->image->mounting == NVL_MOUNT_RESTORE;
    if (!foreign && !ask_check(judge, heap))
        return false;
    bool by_lot = judge->deep_share != 0 &&
                  (judge->seed = mix(judge->seed, look)) % judge->deep_share == 0;
    judge->subject.heap = heap;
    judge->reads = nvl_lens.read_count;
    if (judge->deep && (look_is_new(judge, look) || by_lot)) {
        judge->was_deep = true;
        if (foreign && !ask_check(judge, heap))
            return false;
        /* The seed must not depend on the order of states, or no replay would repeat it.
         */
        if (!judge_deeply(judge, heap, mix(look, ledger->version)))
            return false;
    }
    nvl_profile_step(NVL_STEP_LEAVE);
    nvl_image_unmount(judge->image, judge->subject.heap);
    judge->mounted = false;
    return true;
}

static void recovered_nothing(void *context)
{
    (void)context;
}

void nvl_judge_init(struct nvl_judge *judge, struct nvl_image *image,
                    const struct nvl_ledger *ledger)
{
    *judge = (struct nvl_judge){.image = image, .recovered = recovered_nothing};
    judge->resolved = nvl_ledger_copy(ledger);
    judge->sightings = must(calloc(ledger->ids, sizeof *judge->sightings));
    judge->names = must(calloc(ledger->ids, sizeof *judge->names));
    judge->victim_slots = must(malloc(ledger->ids * sizeof *judge->victim_slots));
    memset(judge->victim_slots, 0xff, ledger->ids * sizeof *judge->victim_slots);
    judge->looks = must(calloc(looks_size, sizeof *judge->looks));
    for (uint32_t id = 0; id < ledger->ids; id++)
        nvl_ledger_name(ledger, id, judge->names[id], sizeof judge->names[id]);
    size_t length = sizeof(struct nvd_journal_header) +
                    NVL_THREADS_MAX * sizeof(struct nvd_inflight) +
                    ledger->ids * sizeof(struct nvd_record);
    judge->journal = must(calloc(1, length));
    struct nvd_journal *journal = &judge->subject.journal;
    journal->header = (struct nvd_journal_header *)judge->journal;
    journal->inflight = (struct nvd_inflight *)(journal->header + 1);
    journal->records = (struct nvd_record *)(journal->inflight + NVL_THREADS_MAX);
    journal->length = length;
    *journal->header = (struct nvd_journal_header){.magic = NVD_JOURNAL_MAGIC,
                                                   .version = NVD_JOURNAL_VERSION,
                                                   .threads = NVL_THREADS_MAX,
                                                   .slots = ledger->slots,
                                                   .inner = ledger->inner,
                                                   .slot_size = ledger->slot_size,
                                                   .heap_size = ledger->heap_size};
    judge->subject.adapter = image->adapter;
    judge->subject.extra = image->options.extra;
}
