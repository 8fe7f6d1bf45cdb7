/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - holds an open, quiet heap to its invariants.
 *
 *   1. a superblock is valid; a watermark line is, and it is below the clock
 *   2. the walk over the chunk table covers the units exactly, each entry
 *      valid (heap.c), and agrees with `walked` and `units` in DRAM
 *   3. bitmaps: bits at and above a slab's block count are 0
 *   4. scanned slabs: live(i) -> !free(i), and the free count is right
 *   5. cached blocks are blocks of scanned slabs, neither live nor free
 *   6. units free in the vmem = units of FREE runs
 *   7. a root's reference names a live block, and its key is intact
 */
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "error.h"
#include "heap.h"
#include "recover.h"
#include "root.h"
#include "sizeclass.h"

struct tally {
    uint64_t free_units;
};

static int check_bitmap(struct nvm_heap *heap, uint32_t unit,
                        const struct nvm_class *klass)
{
    /* Words past the last block may hold bits of a former tenant; none reads them. */
    for (uint32_t i = klass->blocks; i % 64 != 0; i++)
        if (heap->bitmaps[unit][i / 64] >> (i % 64) & 1)
            return nvm_fail(EUCLEAN,
                            "slab at unit %u: bit %u is set, but it has %u blocks", unit,
                            i, klass->blocks);
    return 0;
}

static int check_slab(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk)
{
    const struct nvm_class *klass = &nvm_classes[chunk.klass];
    const struct nvm_slab *slab = &heap->slabs[unit];
    int error = check_bitmap(heap, unit, klass);
    if (error != 0 || slab->state == NVM_SLAB_UNSCANNED)
        return error;
    uint32_t free = 0;
    for (uint32_t word = 0; word < (klass->blocks + 63) / 64; word++) {
        uint64_t live = __atomic_load_n(&heap->bitmaps[unit][word], __ATOMIC_RELAXED);
        free += (uint32_t)__builtin_popcountl(slab->bits[word]);
        if ((live & slab->bits[word]) != 0)
            return nvm_fail(
                EUCLEAN, "slab at unit %u: block %u is live and free at once", unit,
                word * 64 + (uint32_t)__builtin_ctzl(live & slab->bits[word]));
    }
    if (free != slab->free)
        return nvm_fail(EUCLEAN, "slab at unit %u: %u blocks are free, its count says %u",
                        unit, free, slab->free);
    return 0;
}

static int check_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    static const uint8_t kinds[] = {[NVM_CHUNK_FREE] = NVM_UNIT_FREE,
                                    [NVM_CHUNK_SLAB] = NVM_UNIT_SLAB,
                                    [NVM_CHUNK_EXTENT] = NVM_UNIT_EXTENT};
    struct tally *tally = context;
    nvm_unit member = nvm_unit_get(heap, unit);
    unsigned kind = nvm_unit_kind(member);
    uint32_t generation = nvm_tag_generation(nvm_unit_tag(member));
    if (kind == NVM_UNIT_UNSCANNED)
        kind = NVM_UNIT_SLAB;
    if (kind != kinds[chunk.state] || !heap->walked[unit])
        return nvm_fail(EUCLEAN,
                        "unit %u: the chunk table says state %u, DRAM says kind %u", unit,
                        chunk.state, kind);
    if (kind != NVM_UNIT_FREE && generation != chunk.generation)
        return nvm_fail(EUCLEAN, "unit %u: generation %u on media, %u in DRAM", unit,
                        chunk.generation, generation);
    for (uint32_t i = unit + 1; i < unit + chunk.units; i++)
        if (heap->walked[i])
            return nvm_fail(EUCLEAN,
                            "unit %u: the walk jumps over it, DRAM says it stops", i);
    if (chunk.state == NVM_CHUNK_FREE)
        tally->free_units += chunk.units;
    return chunk.state == NVM_CHUNK_SLAB ? check_slab(heap, unit, chunk) : 0;
}

static int check_cached(const struct nvm_heap *heap, const struct nvm_tcache *tcache)
{
    for (unsigned klass = 0; klass < NVM_CLASSES; klass++) {
        for (uint32_t i = 0; i < tcache->bins[klass].count; i++) {
            struct nvm_block cached = tcache->bins[klass].blocks[i], block;
            const struct nvm_slab *slab = &heap->slabs[nvm_tag_unit(cached.tag)];
            if (nvm_block_locate(heap, cached.offset, &block) != NVM_LOCATE_FOUND ||
                block.tag != cached.tag || nvm_block_bit(heap, block) ||
                (slab->bits[nvm_tag_index(block.tag) / 64] & nvm_block_mask(block)) != 0)
                return nvm_fail(
                    EUCLEAN, "block at offset %llu is in a cache, and live or free too",
                    (unsigned long long)cached.offset);
        }
    }
    return 0;
}

static int check_roots(struct nvm_heap *heap)
{
    const struct nvm_root_entry *entries = nvm_heap_at(heap, NVM_ROOTS_OFFSET);
    for (uint32_t i = 0; i < NVM_ROOT_ENTRIES; i++) {
        struct nvm_block block;
        if (entries[i].ref == 0)
            continue;
        if (entries[i].crc != nvm_root_crc(&entries[i], heap->salt))
            return nvm_fail(EUCLEAN, "root entry %u: its checksum does not fit", i);
        if (!nvm_find_block(heap, entries[i].ref, &block) ||
            nvm_block_bytes(heap, block) < entries[i].bytes)
            return nvm_fail(
                EUCLEAN, "root entry %u: offset %llu names no live block of %llu bytes",
                i, (unsigned long long)entries[i].ref,
                (unsigned long long)entries[i].bytes);
    }
    return 0;
}

int nvm_check(nvm_heap *heap)
{
    struct nvm_super super;
    struct nvm_recovery recovery = {0};
    struct tally tally = {0};
    int error = nvm_super_read(&heap->region, &super);
    if (error == 0)
        error = nvm_watermark_read(heap, &recovery);
    if (error == 0 && recovery.watermark >= atomic_load(&heap->lanes.clock))
        error = nvm_fail(EUCLEAN, "the watermark is ahead of the clock");
    if (error == 0)
        error = nvm_heap_each_run(heap, check_run, &tally);
    for (const struct nvm_tcache *tcache = heap->tcaches; error == 0 && tcache != NULL;
         tcache = tcache->next)
        error = check_cached(heap, tcache);
    if (error == 0 && vmem_size(heap->free_units, VMEM_FREE) != tally.free_units)
        error = nvm_fail(EUCLEAN, "%zu units are free in DRAM, %llu on media",
                         vmem_size(heap->free_units, VMEM_FREE),
                         (unsigned long long)tally.free_units);
    return error == 0 ? check_roots(heap) : error;
}
