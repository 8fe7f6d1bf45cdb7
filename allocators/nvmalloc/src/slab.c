/* SPDX-License-Identifier: Apache-2.0 */
/* slab.c - see slab.h. */
#include "slab.h"

#include <errno.h>

#include "block.h"
#include "error.h"
#include "extent.h"
#include "mark.h"
#include "sigbus.h"

static uint64_t mark_number(uint32_t unit, uint32_t word)
{
    return (uint64_t)unit * NVM_BITMAP_WORDS + word;
}

int nvm_slab_provision(struct nvm_heap *heap, struct nvm_persist *persist, unsigned klass,
                       struct nvm_slab **made)
{
    const struct nvm_class *info = &nvm_classes[klass];
    uint32_t unit;
    int error = nvm_extent_reserve(heap, info->units, 1, &unit);
    if (error != 0)
        return error;
    if (heap->super.mode != NVM_GC) {
        /* Marks of a former tenant may still be set on media; isolation fences
           them away before the entry that makes them mean something. */
        uint64_t *bitmap = nvm_heap_bitmap(heap, unit);
        for (uint32_t word = 0; word < info->words; word++)
            bitmap[word] = nvm_mark_word(0, mark_number(unit, word), heap->salt);
        nvm_flush(persist, bitmap, info->words * sizeof(*bitmap));
    }
    uint32_t generation =
        nvm_extent_isolate(heap, persist, unit, info->units, NVM_CHUNK_SLAB, klass);
    struct nvm_slab *slab = &heap->slabs[unit];
    slab->next = slab->previous = NULL;
    slab->unit = unit;
    slab->klass = (uint8_t)klass;
    slab->free = info->blocks;
    slab->state = NVM_SLAB_PARTIAL;
    slab->hint = 0;
    for (uint32_t word = 0; word < info->words; word++)
        heap->slab_bits[slab->unit][word] = nvm_mark_capacity(word, info->blocks);
    uint64_t tag = nvm_slab_tag(unit, klass, generation);
    nvm_unit_set(heap, unit, info->units, nvm_unit_make(NVM_UNIT_SLAB, tag));
    *made = slab;
    return 0;
}

void nvm_slab_retire(struct nvm_heap *heap, struct nvm_persist *persist,
                     struct nvm_slab *slab)
{
    uint32_t units = nvm_classes[slab->klass].units;
    /* Toggles that lanes have not applied yet must not hit the next tenant. */
    if (heap->super.mode == NVM_LOG_OWNED && slab->klass < NVM_LATE_CLASSES)
        nvm_lanes_settle(heap);
    slab->state = NVM_SLAB_NONE;
    nvm_extent_isolate(heap, persist, slab->unit, units, NVM_CHUNK_FREE, 0);
    nvm_extent_unreserve(heap, slab->unit, units);
}

/* Takes the slab out of use: word `word` of its bitmap is not valid. */
static void quarantine(struct nvm_heap *heap, struct nvm_slab *slab, uint64_t tag,
                       uint32_t word)
{
    const struct nvm_class *info = &nvm_classes[slab->klass];
    slab->state = NVM_SLAB_DAMAGED;
    slab->free = 0;
    atomic_fetch_add(&heap->quarantined, (uint64_t)info->units << NVM_UNIT_SHIFT);
    nvm_unit_set(heap, slab->unit, info->units, nvm_unit_make(NVM_UNIT_DAMAGED, tag));
    uint64_t *place = nvm_heap_bitmap(heap, slab->unit) + word;
    nvm_fail(EUCLEAN,
             "bitmap of the slab at unit %u (size %u, offset %llu): word %u does not fit "
             "its checksum; the slab is quarantined",
             slab->unit, info->size, (unsigned long long)nvm_heap_offset(heap, place),
             word);
}

/* The live ones among some blocks of a word. */
static uint64_t live_in_dram(const struct nvm_heap *heap, uint64_t tag, uint32_t word,
                             uint64_t among)
{
    uint64_t size = nvm_classes[nvm_tag_class(tag)].size;
    uint64_t first =
        nvm_unit_offset(heap, nvm_tag_unit(tag)) + word * NVM_WORD_BLOCKS * size;
    uint64_t live = 0;
    for (; among != 0; among &= among - 1) {
        uint64_t bit = (uint64_t)__builtin_ctzl(among);
        uint16_t state = *nvm_block_state(heap, first + bit * size);
        live |= (uint64_t)nvm_block_state_is_live(state) << bit;
    }
    return live;
}

static void set_state(struct nvm_heap *heap, uint64_t tag, uint32_t word, uint64_t live)
{
    uint64_t size = nvm_classes[nvm_tag_class(tag)].size;
    uint64_t first =
        nvm_unit_offset(heap, nvm_tag_unit(tag)) + word * NVM_WORD_BLOCKS * size;
    for (; live != 0; live &= live - 1) {
        uint64_t bit = (uint64_t)__builtin_ctzl(live);
        nvm_block_set_live(heap,
                           (struct nvm_block){first + bit * size, tag + word * 64 + bit});
    }
}

/* Whether a bitmap word of a slab of `blocks` blocks fits its checksum, and has no bit
   past the last block. */
static bool word_is_good(uint32_t salt, uint32_t blocks, uint64_t tag, uint32_t word,
                         uint64_t value)
{
    return nvm_mark_valid(value, mark_number(nvm_tag_unit(tag), word), salt) &&
           (value & NVM_MARK_BLOCKS & ~nvm_mark_capacity(word, blocks)) == 0;
}

/* The live blocks of a slab as media tells; the number of the first word that is
   damaged, or `words`. */
static uint32_t read_bitmap(struct nvm_heap *heap, const struct nvm_slab *slab,
                            uint64_t tag, uint64_t *live)
{
    const struct nvm_class *info = &nvm_classes[slab->klass];
    const uint64_t *bitmap = nvm_heap_bitmap(heap, slab->unit);
    const uint32_t salt = heap->salt, words = info->words, blocks = info->blocks;
    volatile uint32_t reached = 0;
    struct nvm_sigbus guard;
    if (nvm_sigbus_caught(&guard))
        return reached;
    uint32_t word = 0;
    for (; word < words; word++) {
        reached = word;
        uint64_t value = __atomic_load_n(&bitmap[word], __ATOMIC_RELAXED);
        live[word] = value & NVM_MARK_BLOCKS;
        if (!word_is_good(salt, blocks, tag, word, value))
            break;
    }
    nvm_sigbus_end(&guard);
    return word;
}

void nvm_slab_scan(struct nvm_heap *heap, struct nvm_slab *slab)
{
    const struct nvm_class *info = &nvm_classes[slab->klass];
    uint64_t tag = nvm_unit_tag(nvm_unit_get(heap, slab->unit));
    uint64_t live[NVM_BITMAP_WORDS];
    bool in_dram = heap->collected;
    if (!in_dram) {
        uint32_t good = read_bitmap(heap, slab, tag, live);
        if (good < info->words) {
            quarantine(heap, slab, tag, good);
            return;
        }
    }
    uint64_t *bits = heap->slab_bits[slab->unit];
    const uint32_t words = info->words, blocks = info->blocks;
    uint32_t free = 0;
    slab->hint = 0;
    for (uint32_t word = 0; word < words; word++) {
        if (in_dram)
            live[word] = live_in_dram(heap, tag, word, nvm_mark_capacity(word, blocks));
        else if (live[word] != 0) /* NOLINT: read_bitmap() filled it */
            set_state(heap, tag, word, live[word]);
        uint64_t idle = nvm_mark_capacity(word, blocks) & ~live[word];
        bits[word] = idle;
        free += (uint32_t)__builtin_popcountl(idle);
    }
    slab->free = free;
    slab->state = slab->free != 0 ? NVM_SLAB_PARTIAL : NVM_SLAB_FULL;
    nvm_unit_set(heap, slab->unit, info->units, nvm_unit_make(NVM_UNIT_SLAB, tag));
}

unsigned nvm_slab_take(struct nvm_heap *heap, struct nvm_slab *slab,
                       struct nvm_block *blocks, unsigned want)
{
    const struct nvm_class *info = &nvm_classes[slab->klass];
    uint64_t base = nvm_unit_offset(heap, slab->unit);
    uint64_t tag = nvm_unit_tag(nvm_unit_get(heap, slab->unit));
    uint64_t *bits = heap->slab_bits[slab->unit];
    unsigned taken = 0;
    uint32_t word = slab->hint;
    for (; word < info->words; word++) {
        while (bits[word] != 0 && taken < want) {
            uint32_t bit = (uint32_t)__builtin_ctzl(bits[word]);
            uint64_t index = word * NVM_WORD_BLOCKS + bit;
            bits[word] &= bits[word] - 1;
            blocks[taken++] =
                (struct nvm_block){base + index * info->size, tag + word * 64 + bit};
        }
        if (taken == want)
            break;
    }
    slab->hint = word;
    slab->free -= taken;
    return taken;
}

void nvm_slab_give(struct nvm_heap *heap, struct nvm_slab *slab, uint64_t tag)
{
    uint32_t word = nvm_tag_word(tag);
    heap->slab_bits[slab->unit][word] |= (uint64_t)1 << nvm_tag_bit(tag);
    if (word < slab->hint)
        slab->hint = word;
    slab->free++;
}

uint64_t nvm_slab_live(const struct nvm_heap *heap, uint64_t tag, uint32_t word)
{
    uint32_t unit = nvm_tag_unit(tag), blocks = nvm_classes[nvm_tag_class(tag)].blocks;
    uint64_t all = nvm_mark_capacity(word, blocks);
    if (nvm_unit_is_scanned(nvm_unit_get(heap, unit)))
        return live_in_dram(heap, tag, word, all & ~heap->slab_bits[unit][word]);
    if (heap->collected)
        return live_in_dram(heap, tag, word, all);
    bool damaged = nvm_unit_kind(nvm_unit_get(heap, unit)) == NVM_UNIT_DAMAGED;
    struct nvm_sigbus guard;
    if (damaged && nvm_sigbus_caught(&guard))
        return 0;
    uint64_t value =
        __atomic_load_n(nvm_heap_bitmap(heap, unit) + word, __ATOMIC_RELAXED);
    if (damaged)
        nvm_sigbus_end(&guard);
    return word_is_good(heap->salt, blocks, tag, word, value) ? value & NVM_MARK_BLOCKS
                                                              : 0;
}

void nvm_slab_store(struct nvm_heap *heap, struct nvm_persist *persist, uint64_t tag)
{
    uint32_t unit = nvm_tag_unit(tag);
    const struct nvm_class *info = &nvm_classes[nvm_tag_class(tag)];
    uint64_t *bitmap = nvm_heap_bitmap(heap, unit);
    for (uint32_t word = 0; word < info->words; word++)
        bitmap[word] = nvm_mark_word(nvm_slab_live(heap, tag, word),
                                     mark_number(unit, word), heap->salt);
    nvm_flush(persist, bitmap, info->words * sizeof(*bitmap));
}
