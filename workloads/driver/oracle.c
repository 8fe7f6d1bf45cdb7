// SPDX-License-Identifier: Apache-2.0
/*
 * oracle.c - the judgements of oracle.h, one function each, in their order.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"
#include "payload.h"

/* A stretch of bytes and who owns it. */
struct extent {
    uintptr_t start, end;
    const char *owner;
};

static void *checked_array(size_t count, size_t size)
{
    void *array = calloc(count > 0 ? count : 1, size);
    if (array == NULL)
        abort(); /* no verdict without evidence; the supervisor reports a crash */
    return array;
}

static int by_start(const void *left, const void *right)
{
    const struct extent *a = left, *b = right;
    return (a->start > b->start) - (a->start < b->start);
}

static int by_address(const void *left, const void *right)
{
    const struct nvc_block *a = left, *b = right;
    return ((uintptr_t)a->address > (uintptr_t)b->address) -
           ((uintptr_t)a->address < (uintptr_t)b->address);
}

/* Where an address lies, said so that every run says the same: as an offset if
   the heap's range is known. Static per thread. */
static const char *place_of(const struct nvd_evidence *evidence, const void *address)
{
    static _Thread_local char text[40];
    if (evidence->range.address != NULL)
        snprintf(text, sizeof text, "offset 0x%" PRIxPTR,
                 (uintptr_t)address - (uintptr_t)evidence->range.address);
    else
        snprintf(text, sizeof text, "%p", address);
    return text;
}

static struct extent extent_of(struct nvc_block block, const char *owner)
{
    uintptr_t start = (uintptr_t)block.address;
    return (struct extent){start, start + block.usable, owner};
}

/* Whose payload a word is, if it is that of a slot in the evidence. */
static const struct nvd_sighting *author(const struct nvd_evidence *evidence,
                                         uint64_t word, size_t k)
{
    for (size_t i = 0; i < evidence->count; i++) {
        const struct nvd_sighting *s = &evidence->sightings[i];
        if (nvd_payload_word(s->id, s->seq, k) == word)
            return s;
    }
    return NULL;
}

static bool content_holds(const struct nvd_evidence *evidence,
                          const struct nvd_sighting *s, struct nvd_finding *finding)
{
    size_t to = s->payload_to < s->seen.usable ? s->payload_to : s->seen.usable;
    if (s->seen.address == NULL || s->payload_from >= to)
        return true;
    struct nvd_payload_mismatch mismatch =
        nvd_payload_check(s->seen.address, s->payload_from, to, s->id, s->seq);
    if (mismatch.offset >= to)
        return true;
    const struct nvd_sighting *other =
        author(evidence, mismatch.found, mismatch.offset / 8);
    return nvd_accuse(finding, NVD_VERDICT_CORRUPT,
                      "%s (%zu bytes, operation %" PRIu64 ") holds 0x%016" PRIx64
                      " at byte %zu, not 0x%016" PRIx64 "%s%s",
                      s->name, s->size, s->seq, mismatch.found, mismatch.offset,
                      mismatch.expected, other != NULL ? ": the payload of " : "",
                      other != NULL ? other->name : "");
}

/* The slot shows the block that was acknowledged, at its place. */
static bool as_acknowledged(const struct nvd_evidence *evidence,
                            const struct nvd_sighting *s)
{
    uintptr_t base = (uintptr_t)evidence->range.address;
    return s->owed == NVD_OWED_FULL && s->seen.address != NULL &&
           (base == 0 || s->offset < 0 ||
            (uintptr_t)s->seen.address - base == (uintptr_t)s->offset);
}

/* False, with the accusation, if a slot shows the wrong thing because somebody
   else writes to the block that it lies in. */
static bool container_sound(const struct nvd_evidence *evidence,
                            const struct nvd_sighting *container,
                            struct nvd_finding *finding)
{
    struct extent own = extent_of(container->seen, container->name);
    for (size_t i = 0; i < evidence->count; i++) {
        const struct nvd_sighting *s = &evidence->sightings[i];
        struct extent other = extent_of(s->seen, s->name);
        if (s != container && as_acknowledged(evidence, s) && own.start < other.end &&
            other.start < own.end)
            return nvd_accuse(finding, NVD_VERDICT_OVERLAP,
                              "%s (%zu bytes) and %s (%zu bytes) share memory", own.owner,
                              container->seen.usable, other.owner, s->seen.usable);
    }
    return content_holds(evidence, container, finding);
}

/* Point 1 for one slot. */
static bool slot_holds(const struct nvd_evidence *evidence, const struct nvd_sighting *s,
                       struct nvd_finding *finding)
{
    uintptr_t base = (uintptr_t)evidence->range.address;
    bool full = s->seen.address != NULL;
    if (s->owed == NVD_OWED_FULL && !full)
        return nvd_accuse(finding, NVD_VERDICT_LOST,
                          "%s is empty; its block of %zu bytes (operation %" PRIu64
                          ") was acknowledged",
                          s->name, s->size, s->seq);
    if (s->owed == NVD_OWED_EMPTY && full)
        return nvd_accuse(finding, NVD_VERDICT_RESURRECTED,
                          "%s refers to %zu bytes; operation %" PRIu64
                          ", acknowledged, left it empty",
                          s->name, s->seen.usable, s->seq);
    if (s->owed != NVD_OWED_EMPTY && full && base != 0 && s->offset >= 0 &&
        (uintptr_t)s->seen.address - base != (uintptr_t)s->offset)
        return nvd_accuse(finding, NVD_VERDICT_LOST,
                          "%s refers to offset 0x%" PRIxPTR
                          " of the heap; the block of operation %" PRIu64
                          ", acknowledged, is at 0x%" PRIx64,
                          s->name, (uintptr_t)s->seen.address - base, s->seq, s->offset);
    return true;
}

static bool judge_slots(const struct nvd_evidence *evidence, struct nvd_finding *finding)
{
    for (size_t i = 0; i < evidence->count; i++) {
        const struct nvd_sighting *s = &evidence->sightings[i];
        if (slot_holds(evidence, s, finding))
            continue;
        /* The container's trouble, if it has one, replaces the slot's. */
        if (s->container != NULL)
            container_sound(evidence, s->container, finding);
        return false;
    }
    return true;
}

static bool inside(struct nvc_block range, struct nvc_block block)
{
    uintptr_t base = (uintptr_t)range.address, start = (uintptr_t)block.address;
    return start >= base && start - base <= range.usable &&
           block.usable <= range.usable - (start - base);
}

static bool judge_places(const struct nvd_evidence *evidence, struct nvd_finding *finding)
{
    for (size_t i = 0; i < evidence->count; i++) {
        const struct nvd_sighting *s = &evidence->sightings[i];
        if (s->seen.address == NULL)
            continue;
        if (evidence->range.address != NULL && !inside(evidence->range, s->seen))
            return nvd_accuse(
                finding, NVD_VERDICT_CORRUPT,
                "%s refers to %zu bytes at %s, outside of the heap (%zu bytes)", s->name,
                s->seen.usable, place_of(evidence, s->seen.address),
                evidence->range.usable);
        if (s->seen.usable < s->size)
            return nvd_accuse(finding, NVD_VERDICT_CORRUPT,
                              "%s has %zu usable bytes of the %zu asked for", s->name,
                              s->seen.usable, s->size);
    }
    return true;
}

static bool judge_overlap(const struct nvd_evidence *evidence,
                          struct nvd_finding *finding)
{
    struct extent *extents = checked_array(evidence->count + 1, sizeof *extents);
    size_t count = 0;
    if (evidence->table.address != NULL)
        extents[count++] = extent_of(evidence->table, "the slot table");
    for (size_t i = 0; i < evidence->count; i++) {
        const struct nvd_sighting *s = &evidence->sightings[i];
        if (s->seen.address != NULL)
            extents[count++] = extent_of(s->seen, s->name);
    }
    qsort(extents, count, sizeof *extents, by_start);
    bool sound = true;
    /* The one that reaches farthest so far covers every earlier one's end. */
    size_t farthest = 0;
    for (size_t i = 1; i < count && sound; i++) {
        if (extents[i].start < extents[farthest].end)
            sound = nvd_accuse(
                finding, NVD_VERDICT_OVERLAP,
                "%s (%zu bytes) and %s (%zu bytes) share memory", extents[farthest].owner,
                (size_t)(extents[farthest].end - extents[farthest].start),
                extents[i].owner, (size_t)(extents[i].end - extents[i].start));
        if (extents[i].end > extents[farthest].end)
            farthest = i;
    }
    free(extents);
    return sound;
}

/* The walk as a sorted array; twice the same block is an overlap by itself. */
static bool judge_walk(const struct nvd_evidence *evidence, struct nvc_block *walked,
                       struct nvd_finding *finding)
{
    qsort(walked, evidence->walked_count, sizeof *walked, by_address);
    for (size_t i = 1; i < evidence->walked_count; i++) {
        if (walked[i].address == walked[i - 1].address)
            return nvd_accuse(finding, NVD_VERDICT_OVERLAP,
                              "the walk visits the block at %s twice",
                              place_of(evidence, walked[i].address));
    }
    for (size_t i = 0; i < evidence->count; i++) {
        const struct nvd_sighting *s = &evidence->sightings[i];
        if (s->seen.address != NULL && bsearch(&s->seen, walked, evidence->walked_count,
                                               sizeof *walked, by_address) == NULL)
            return nvd_accuse(finding, NVD_VERDICT_OVERLAP,
                              "%s refers to %zu bytes that the allocator's walk does not "
                              "visit: live and free at once",
                              s->name, s->seen.usable);
    }
    return true;
}

static bool judge_content(const struct nvd_evidence *evidence,
                          struct nvd_finding *finding)
{
    for (size_t i = 0; i < evidence->count; i++) {
        if (!content_holds(evidence, &evidence->sightings[i], finding))
            return false;
    }
    return true;
}

static int sighting_by_address(const void *key, const void *member)
{
    return by_address(key, &((const struct nvd_sighting *)member)->seen);
}

static int compare_sightings(const void *left, const void *right)
{
    return by_address(&((const struct nvd_sighting *)left)->seen,
                      &((const struct nvd_sighting *)right)->seen);
}

static bool judge_leak(const struct nvd_evidence *evidence,
                       const struct nvc_block *walked, struct nvd_finding *finding)
{
    struct nvd_sighting *sorted = checked_array(evidence->count, sizeof *sorted);
    memcpy(sorted, evidence->sightings, evidence->count * sizeof *sorted);
    qsort(sorted, evidence->count, sizeof *sorted, compare_sightings);
    const struct nvc_block *unreachable = NULL;
    size_t unreachable_count = 0;
    uint64_t reachable_bytes = 0, walked_bytes = 0;
    for (size_t i = 0; i < evidence->count; i++) {
        if (sorted[i].seen.address != NULL)
            reachable_bytes += sorted[i].seen.usable;
    }
    for (size_t i = 0; i < evidence->walked_count; i++) {
        walked_bytes += walked[i].usable;
        if (bsearch(&walked[i], sorted, evidence->count, sizeof *sorted,
                    sighting_by_address) == NULL) {
            unreachable = unreachable == NULL ? &walked[i] : unreachable;
            unreachable_count++;
        }
    }
    free(sorted);
    if (unreachable != NULL)
        return nvd_accuse(finding, NVD_VERDICT_LEAK,
                          "the allocator's walk visits %zu block(s) that no slot refers "
                          "to, the first of %zu bytes at %s",
                          unreachable_count, unreachable->usable,
                          place_of(evidence, unreachable->address));
    if (walked_bytes != reachable_bytes)
        return nvd_accuse(finding, NVD_VERDICT_LEAK,
                          "the walk accounts for %" PRIu64
                          " bytes, the slots for %" PRIu64,
                          walked_bytes, reachable_bytes);
    return true;
}

bool nvd_oracle_judge(const struct nvd_evidence *evidence, struct nvd_finding *finding)
{
    size_t walked_count = evidence->walks ? evidence->walked_count : 0;
    struct nvc_block *walked = checked_array(walked_count, sizeof *walked);
    if (walked_count > 0)
        memcpy(walked, evidence->walked, walked_count * sizeof *walked);
    bool sound = judge_slots(evidence, finding) && judge_places(evidence, finding) &&
                 judge_overlap(evidence, finding) &&
                 (!evidence->walks || judge_walk(evidence, walked, finding)) &&
                 judge_content(evidence, finding) &&
                 (!evidence->walks || judge_leak(evidence, walked, finding));
    free(walked);
    if (sound) {
        finding->verdict = NVD_VERDICT_OK;
        finding->detail[0] = '\0';
    }
    return sound;
}

bool nvd_oracle_admits(const struct nvd_evidence *evidence, const char *name,
                       struct nvc_block fresh, struct nvd_finding *finding)
{
    struct extent new_extent = extent_of(fresh, name);
    if (evidence->range.address != NULL && !inside(evidence->range, fresh))
        return nvd_accuse(finding, NVD_VERDICT_CORRUPT,
                          "the new block of %s is outside of the heap", name);
    for (size_t i = 0; i <= evidence->count; i++) {
        bool table = i == evidence->count;
        struct nvc_block other = table ? evidence->table : evidence->sightings[i].seen;
        struct extent old =
            extent_of(other, table ? "the slot table" : evidence->sightings[i].name);
        if (other.address != NULL && new_extent.start < old.end &&
            old.start < new_extent.end)
            return nvd_accuse(finding, NVD_VERDICT_OVERLAP,
                              "the new block of %s (%zu bytes) was handed out over that "
                              "of %s (%zu bytes)",
                              name, fresh.usable, old.owner, other.usable);
    }
    return true;
}

bool nvd_oracle_disjoint(struct nvc_block *blocks, size_t count,
                         struct nvd_finding *finding)
{
    qsort(blocks, count, sizeof *blocks, by_address);
    for (size_t i = 1; i < count; i++) {
        uintptr_t end = (uintptr_t)blocks[i - 1].address + blocks[i - 1].usable;
        if ((uintptr_t)blocks[i].address < end)
            return nvd_accuse(
                finding, NVD_VERDICT_OVERLAP,
                "two blocks of the full heap share memory (%zu and %zu bytes)",
                blocks[i - 1].usable, blocks[i].usable);
    }
    return true;
}
