// SPDX-License-Identifier: Apache-2.0
/*
 * brim.c - the ladder of brim.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "brim.h"
#include "oracle.h"

enum {
    smallest_rung = 16,
};

static void *brim_slot(const struct nvd_subject *subject, size_t i)
{
    size_t first = subject->journal.header->slots;
    return subject->table + (first + i) * subject->adapter->slot_size;
}

/* A block's both ends carry its number; 16 bytes is the least there is. */
static void mark(struct nvc_block block, uint64_t number)
{
    memcpy(block.address, &number, sizeof number);
    memcpy((unsigned char *)block.address + block.usable - sizeof number, &number,
           sizeof number);
}

static bool marked(struct nvc_block block, uint64_t number)
{
    return memcmp(block.address, &number, sizeof number) == 0 &&
           memcmp((unsigned char *)block.address + block.usable - sizeof number, &number,
                  sizeof number) == 0;
}

static bool climb_down(struct nvd_subject *subject, struct nvd_brim *brim,
                       struct nvc_block *blocks, size_t capacity,
                       struct nvd_finding *finding)
{
    const struct nvc_adapter *adapter = subject->adapter;
    size_t size = subject->journal.header->heap_size / 2;
    while (size >= smallest_rung) {
        if (brim->blocks == capacity) {
            brim->slots_exhausted = true;
            return true;
        }
        void *slot = brim_slot(subject, brim->blocks);
        int error = adapter->alloc_to(subject->heap, slot, size);
        if (error == ENOMEM) {
            size /= 2;
            continue;
        }
        if (error != 0)
            return nvd_accuse(finding, NVD_VERDICT_UNUSABLE,
                              "allocating %zu bytes failed: %s (%s)", size,
                              strerror(error), adapter->last_error());
        struct nvc_block block = adapter->read(subject->heap, slot);
        if (block.address == NULL || block.usable < size)
            return nvd_accuse(finding, NVD_VERDICT_UNUSABLE,
                              "%zu usable bytes were allocated where %zu were asked for",
                              block.address == NULL ? 0 : block.usable, size);
        blocks[brim->blocks++] = block;
        brim->bytes += size;
    }
    return true;
}

static bool drain(struct nvd_subject *subject, uint64_t count,
                  struct nvd_finding *finding)
{
    const struct nvc_adapter *adapter = subject->adapter;
    for (uint64_t i = 0; i < count; i++) {
        int error = adapter->free_from(subject->heap, brim_slot(subject, i));
        if (error != 0)
            return nvd_accuse(finding, NVD_VERDICT_UNUSABLE,
                              "freeing a block of the full heap failed: %s (%s)",
                              strerror(error), adapter->last_error());
    }
    return true;
}

bool nvd_brim_fill(struct nvd_subject *subject, struct nvd_brim *brim,
                   struct nvd_finding *finding)
{
    size_t capacity = subject->table_slots - subject->journal.header->slots;
    struct nvc_block *blocks = calloc(capacity > 0 ? capacity : 1, sizeof *blocks);
    if (blocks == NULL)
        abort();
    memset(brim, 0, sizeof *brim);
    bool sound = climb_down(subject, brim, blocks, capacity, finding) &&
                 nvd_oracle_disjoint(blocks, brim->blocks, finding);
    if (sound) {
        for (uint64_t i = 0; i < brim->blocks; i++)
            mark(blocks[i], i);
        for (uint64_t i = 0; sound && i < brim->blocks; i++) {
            if (!marked(blocks[i], i))
                sound = nvd_accuse(finding, NVD_VERDICT_CORRUPT,
                                   "block %" PRIu64 " of the full heap does not keep "
                                   "what is written to it",
                                   i);
        }
    }
    free(blocks);
    return sound && drain(subject, brim->blocks, finding);
}
