/* SPDX-License-Identifier: Apache-2.0 */
/* slab.c - see slab.h. */
#include "slab.h"

#include <string.h>

#include "block.h"
#include "extent.h"

/* All blocks of the class, as DRAM bits. */
static void fill_bits(uint64_t *bits, uint32_t blocks)
{
    for (uint32_t word = 0; word < NVM_BITMAP_WORDS; word++) {
        uint32_t first = word * 64;
        if (first + 64 <= blocks)
            bits[word] = UINT64_MAX;
        else
            bits[word] = first < blocks ? ((uint64_t)1 << (blocks - first)) - 1 : 0;
    }
}

struct nvm_slab *nvm_slab_provision(struct nvm_heap *heap, struct nvm_persist *persist,
                                    unsigned klass)
{
    const struct nvm_class *info = &nvm_classes[klass];
    uint32_t unit = nvm_extent_reserve(heap, info->units);
    if (unit == NVM_UNIT_NONE)
        return NULL;
    /* Bits of a former tenant may still be set on media; isolation fences
       them away before the entry that makes them mean something. */
    size_t bytes = (info->blocks + 63) / 64 * 8;
    memset(heap->bitmaps[unit], 0, bytes);
    nvm_flush(persist, heap->bitmaps[unit], bytes);
    uint32_t generation =
        nvm_extent_isolate(heap, persist, unit, info->units, NVM_CHUNK_SLAB, klass);
    struct nvm_slab *slab = &heap->slabs[unit];
    slab->next = slab->previous = NULL;
    slab->unit = unit;
    slab->klass = (uint8_t)klass;
    slab->free = info->blocks;
    slab->state = NVM_SLAB_PARTIAL;
    fill_bits(slab->bits, info->blocks);
    uint64_t tag = nvm_block_tag(unit, klass, generation, 0);
    nvm_unit_set(heap, unit, info->units, nvm_unit_make(NVM_UNIT_SLAB, tag));
    return slab;
}

void nvm_slab_retire(struct nvm_heap *heap, struct nvm_persist *persist,
                     struct nvm_slab *slab)
{
    uint32_t units = nvm_classes[slab->klass].units;
    slab->state = NVM_SLAB_NONE;
    nvm_extent_isolate(heap, persist, slab->unit, units, NVM_CHUNK_FREE, 0);
    nvm_extent_unreserve(heap, slab->unit, units);
}

void nvm_slab_scan(struct nvm_heap *heap, struct nvm_slab *slab)
{
    const struct nvm_class *info = &nvm_classes[slab->klass];
    fill_bits(slab->bits, info->blocks);
    slab->free = 0;
    for (uint32_t word = 0; word < (info->blocks + 63) / 64; word++) {
        slab->bits[word] &=
            ~__atomic_load_n(&heap->bitmaps[slab->unit][word], __ATOMIC_RELAXED);
        slab->free += (uint32_t)__builtin_popcountl(slab->bits[word]);
    }
    slab->state = slab->free != 0 ? NVM_SLAB_PARTIAL : NVM_SLAB_FULL;
    uint64_t tag = nvm_unit_tag(nvm_unit_get(heap, slab->unit));
    nvm_unit_set(heap, slab->unit, info->units, nvm_unit_make(NVM_UNIT_SLAB, tag));
}

unsigned nvm_slab_take(struct nvm_heap *heap, struct nvm_slab *slab,
                       struct nvm_block *blocks, unsigned want)
{
    const struct nvm_class *info = &nvm_classes[slab->klass];
    uint64_t base = nvm_unit_offset(heap, slab->unit);
    uint64_t tag = nvm_unit_tag(nvm_unit_get(heap, slab->unit));
    unsigned taken = 0;
    for (uint32_t word = 0; word < (info->blocks + 63) / 64 && taken < want; word++) {
        while (slab->bits[word] != 0 && taken < want) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzl(slab->bits[word]);
            slab->bits[word] &= slab->bits[word] - 1;
            blocks[taken++] =
                (struct nvm_block){base + (uint64_t)index * info->size, tag | index};
        }
    }
    slab->free -= taken;
    return taken;
}

void nvm_slab_give(struct nvm_slab *slab, uint32_t index)
{
    slab->bits[index / 64] |= (uint64_t)1 << (index % 64);
    slab->free++;
}

uint32_t nvm_slab_live(const struct nvm_heap *heap, uint32_t unit)
{
    uint32_t live = 0;
    for (uint32_t word = 0; word < NVM_BITMAP_WORDS; word++)
        live += (uint32_t)__builtin_popcountl(
            __atomic_load_n(&heap->bitmaps[unit][word], __ATOMIC_RELAXED));
    return live;
}
