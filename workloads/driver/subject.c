// SPDX-License-Identifier: Apache-2.0
/*
 * subject.c - journalled operations on the heap under test.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "payload.h"
#include "subject.h"

enum {
    inner_slots = 6, /* of a container, where the adapter takes nested slots */
};

uint32_t nvd_subject_inner(const struct nvc_adapter *adapter)
{
    return adapter->capabilities & NVC_NESTED_SLOTS ? inner_slots : 0;
}

/* What every user of an open heap needs: the layout, and this thread entered. */
static int move_in(struct nvd_subject *subject)
{
    const struct nvc_adapter *adapter = subject->adapter;
    subject->table = adapter->slots(subject->heap, &subject->table_slots);
    subject->range = adapter->range(subject->heap);
    return adapter->thread_enter != NULL ? adapter->thread_enter(subject->heap) : 0;
}

int nvd_subject_create(struct nvd_subject *subject, const char *heap_path,
                       const char *journal_path, size_t heap_size, uint32_t slots,
                       uint32_t threads)
{
    const struct nvc_adapter *adapter = subject->adapter;
    const struct nvd_geometry geometry = {
        .slots = slots,
        .inner = nvd_subject_inner(adapter),
        .slot_size = (uint32_t)adapter->slot_size,
        .threads = threads,
        .heap_size = heap_size,
    };
    const struct nvc_options options = {heap_size, slots + NVD_BRIM_SLOTS,
                                        subject->extra};
    int error = nvd_journal_create(&subject->journal, journal_path, &geometry);
    if (error != 0)
        return error;
    error = adapter->create(heap_path, &options, &subject->heap);
    if (error != 0) {
        nvd_journal_close(&subject->journal);
        unlink(journal_path);
        return error;
    }
    return move_in(subject);
}

bool nvd_subject_open(struct nvd_subject *subject, const char *heap_path,
                      struct nvd_finding *finding)
{
    const struct nvc_options options = {0, 0, subject->extra};
    const struct nvd_journal_header *header = subject->journal.header;
    int error = subject->adapter->open(heap_path, &options, &subject->heap);
    if (error != 0)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE, "open failed: %s (%s)",
                          strerror(error), subject->adapter->last_error());
    error = move_in(subject);
    if (error != 0)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE, "no thread can enter: %s (%s)",
                          strerror(error), subject->adapter->last_error());
    if (subject->table == NULL || subject->table_slots < header->slots)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE,
                          "the slot table has %zu entries after open, at least %u before",
                          subject->table == NULL ? 0 : subject->table_slots,
                          header->slots);
    return true;
}

bool nvd_subject_close(struct nvd_subject *subject, struct nvd_finding *finding)
{
    if (subject->adapter->thread_leave != NULL)
        subject->adapter->thread_leave(subject->heap);
    int error = subject->adapter->close(subject->heap);
    subject->heap = NULL;
    if (error != 0)
        return nvd_accuse(finding, NVD_VERDICT_UNUSABLE, "close failed: %s (%s)",
                          strerror(error), subject->adapter->last_error());
    return true;
}

void *nvd_subject_slot(const struct nvd_subject *subject, uint32_t id)
{
    const struct nvd_journal *journal = &subject->journal;
    size_t slot_size = subject->adapter->slot_size;
    if (!nvd_journal_is_inner(journal, id))
        return subject->table + id * slot_size;
    uint32_t outer = nvd_journal_outer(journal, id);
    struct nvc_block container =
        subject->adapter->read(subject->heap, subject->table + outer * slot_size);
    size_t j = (id - journal->header->slots) % journal->header->inner;
    return (unsigned char *)container.address + j * slot_size;
}

struct nvc_block nvd_subject_read(const struct nvd_subject *subject, uint32_t id)
{
    return subject->adapter->read(subject->heap, nvd_subject_slot(subject, id));
}

static int64_t offset_of(const struct nvd_subject *subject, const void *address)
{
    if (subject->range.address == NULL)
        return -1;
    return (int64_t)((uintptr_t)address - (uintptr_t)subject->range.address);
}

int nvd_subject_alloc(struct nvd_subject *subject, uint32_t thread, uint32_t id,
                      size_t size, struct nvc_block *block)
{
    struct nvd_journal *journal = &subject->journal;
    void *slot = nvd_subject_slot(subject, id);
    nvd_journal_begin(journal, thread, NVD_OP_ALLOC, id, size);
    int error = subject->adapter->alloc_to(subject->heap, slot, size);
    if (error == ENOMEM)
        nvd_journal_cancel(journal, thread);
    if (error != 0)
        return error;
    *block = subject->adapter->read(subject->heap, slot);
    if (block->address == NULL || block->usable < size)
        return EPROTO; /* success without a block that serves */
    nvd_journal_ack_alloc(journal, thread, block->usable,
                          offset_of(subject, block->address));
    return 0;
}

void nvd_subject_settle(struct nvd_subject *subject, uint32_t id, struct nvc_block block,
                        bool container)
{
    const struct nvd_journal_header *header = subject->journal.header;
    size_t slots_end = container ? (size_t)header->inner * header->slot_size : 0;
    uint64_t seq = nvd_journal_state(&subject->journal, id).seq;
    memset(block.address, 0, slots_end);
    nvd_payload_fill(block.address, slots_end, block.usable, id, seq);
    subject->adapter->persist(subject->heap, block.address, block.usable);
    nvd_journal_persisted(&subject->journal, id, container);
}

int nvd_subject_free(struct nvd_subject *subject, uint32_t thread, uint32_t id)
{
    struct nvd_journal *journal = &subject->journal;
    void *slot = nvd_subject_slot(subject, id);
    nvd_journal_begin(journal, thread, NVD_OP_FREE, id, 0);
    int error = subject->adapter->free_from(subject->heap, slot);
    if (error == 0)
        nvd_journal_ack_free(journal, thread);
    return error;
}

bool nvd_subject_can_contain(const struct nvd_subject *subject, size_t size)
{
    const struct nvd_journal_header *header = subject->journal.header;
    return header->inner != 0 && size >= (size_t)header->inner * header->slot_size;
}

uint32_t nvd_subject_resolve(struct nvd_subject *subject)
{
    struct nvd_journal *journal = &subject->journal;
    uint32_t resolved = 0;
    for (uint32_t thread = 0; thread < journal->header->threads; thread++) {
        enum nvd_op op;
        uint32_t id;
        uint64_t size;
        if (!nvd_journal_in_flight(journal, thread, &op, &id, &size)) {
            nvd_journal_cancel(journal, thread);
            continue;
        }
        struct nvc_block block = nvd_subject_read(subject, id);
        if (op == NVD_OP_ALLOC && block.address != NULL)
            nvd_journal_ack_alloc(journal, thread, block.usable,
                                  offset_of(subject, block.address));
        else if (op == NVD_OP_FREE && block.address == NULL)
            nvd_journal_ack_free(journal, thread);
        else
            nvd_journal_cancel(journal, thread);
        resolved++;
    }
    return resolved;
}
