/* SPDX-License-Identifier: Apache-2.0 */
/* super.c - reading, judging and writing the superblocks; rules in layout.h. */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "heap.h"

uint32_t nvm_super_salt(const struct nvm_super *super)
{
    return nvm_crc32c(1, super->uuid, sizeof(super->uuid));
}

static uint32_t super_crc(const struct nvm_super *super)
{
    return nvm_crc32c(1, super, offsetof(struct nvm_super, crc));
}

/* 0, or why this copy does not count. */
static int judge(const struct nvm_super *super, uint64_t file_size)
{
    if (memcmp(super->magic, NVM_MAGIC, sizeof(super->magic)) != 0)
        return EMEDIUMTYPE;
    if (super->crc != super_crc(super)) {
        /* A later format may keep its checksum elsewhere. */
        return super->version > NVM_FORMAT_VERSION ? ENOTSUP : EUCLEAN;
    }
    if (super->version != NVM_FORMAT_VERSION || super->bytes != sizeof(*super) ||
        super->mode > NVM_GC ||
        (super->flags & ~(uint32_t)(NVM_SUPER_CLEAN | NVM_SUPER_HOLES)) != 0)
        return ENOTSUP;
    struct nvm_super expected = *super;
    if (nvm_layout_compute(&expected) != 0 ||
        memcmp(&expected, super, sizeof(expected)) != 0 ||
        super->lanes_used > super->lanes)
        return EUCLEAN;
    return super->size > file_size ? ENODATA : 0;
}

static int explain(int error, const struct nvm_super *super, uint64_t file_size)
{
    switch (error) {
    case EMEDIUMTYPE:
        return nvm_fail(error,
                        "not an nvmalloc heap: the file begins with neither superblock "
                        "(expected magic \"%s\")",
                        NVM_MAGIC);
    case ENOTSUP:
        return nvm_fail(error, "heap format version %u; this library knows version %u",
                        super->version, NVM_FORMAT_VERSION);
    case ENODATA:
        return nvm_fail(
            EUCLEAN, "truncated heap: the file has %llu bytes, its superblock says %llu",
            (unsigned long long)file_size, (unsigned long long)super->size);
    default:
        return nvm_fail(EUCLEAN, "both superblocks are damaged (checksum or geometry)");
    }
}

static bool is_blank(const struct nvm_super *super)
{
    static const struct nvm_super blank;
    return memcmp(super, &blank, sizeof(blank)) == 0;
}

int nvm_super_read(const struct nvm_region *region, struct nvm_super *super,
                   bool *doubtful)
{
    int worst = EMEDIUMTYPE;
    bool found = false, blank = false, broken = false;
    struct nvm_super culprit = {.version = 0};
    for (unsigned copy = 0; copy < 2; copy++) {
        uint64_t offset = NVM_SUPER_OFFSET(copy);
        if (offset + sizeof(struct nvm_super) > region->size)
            break;
        struct nvm_super candidate;
        memcpy(&candidate, region->base + offset, sizeof(candidate));
        int error = judge(&candidate, region->size);
        if (error == 0 && (!found || candidate.generation > super->generation)) {
            *super = candidate;
            found = true;
        }
        broken |= error != 0 && !is_blank(&candidate);
        blank |= is_blank(&candidate);
        if (error != 0 && error != EMEDIUMTYPE && worst != ENODATA) {
            worst = error;
            culprit = candidate;
        }
    }
    /* Only the very first superblock of a heap has no other beside it. */
    *doubtful = broken || (found && blank && super->generation > 1);
    return found ? 0 : explain(worst, &culprit, region->size);
}

static void write_next(struct nvm_heap *heap)
{
    struct nvm_super *super = &heap->super;
    struct nvm_persist persist = {0};
    super->generation++;
    super->clock = heap->lanes.lane == NULL ? 0 : atomic_load(&heap->lanes.clock);
    super->crc = super_crc(super);
    struct nvm_super *copy = nvm_heap_at(heap, NVM_SUPER_OFFSET(super->generation % 2));
    memcpy(copy, super, sizeof(*super));
    nvm_flush(&persist, copy, sizeof(*copy));
    /* What it announces must not begin before it is durable, nor the other copy be
       touched. */
    nvm_fence(&persist);
    nvm_persist_add(&heap->super_counts, &persist);
}

void nvm_super_write(struct nvm_heap *heap, bool clean)
{
    if (clean)
        heap->super.flags |= NVM_SUPER_CLEAN;
    else
        heap->super.flags &= ~(uint32_t)NVM_SUPER_CLEAN;
    write_next(heap);
}

void nvm_super_write_both(struct nvm_heap *heap)
{
    write_next(heap);
    write_next(heap);
}
