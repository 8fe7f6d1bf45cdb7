/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - holds an open, quiet heap to its invariants.
 *
 *   1. a superblock is valid; a watermark line is, and it is below the clock
 *   2. the walk over the chunk table covers the units exactly, each entry
 *      valid (build.c), and agrees with what DRAM says of the units
 *   3. bitmaps: each word fits its checksum and has no bit past the last
 *      block; LOG: bits = state of the blocks, once all lanes are settled
 *   4. scanned slabs: no block is both free and in use, and the free count is
 *      right
 *   5. cached blocks are idle blocks of scanned slabs, and not free
 *   6. units free in the arenas of units = units of FREE runs that nobody has reserved
 *   7. a root's reference names a live block
 */
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "build.h"
#include "error.h"
#include "extent.h"
#include "mark.h"
#include "recover.h"
#include "root.h"
#include "settle.h"
#include "sigbus.h"

struct tally {
    uint64_t free_units;
};

/* What is the same for all words of a slab; looked up once, as there are thousands. */
struct slab_view {
    uint32_t unit, words, blocks, salt;
    uint64_t tag, first_number;
    const uint64_t *bitmap; /* on media */
    const uint64_t *free;   /* in DRAM */
    bool marks, scanned;    /* whether media's and DRAM's words mean something */
};

static int check_word(const struct nvm_heap *heap, const struct slab_view *slab,
                      uint32_t word, uint64_t value)
{
    if (nvm_mark_valid(value, slab->first_number + word, slab->salt) &&
        (value & NVM_MARK_BLOCKS & ~nvm_mark_capacity(word, slab->blocks)) == 0)
        return 0;
    return nvm_fail(EUCLEAN,
                    "slab at unit %u: word %u of its bitmap (offset %llu, value "
                    "0x%016llx) is damaged",
                    slab->unit, word,
                    (unsigned long long)nvm_heap_offset(heap, slab->bitmap + word),
                    (unsigned long long)value);
}

/* A scanned slab's word: in use, and on media; *live: how many blocks are live. */
static int check_blocks(const struct nvm_heap *heap, const struct slab_view *slab,
                        uint32_t word, uint64_t value, uint32_t *live_blocks)
{
    uint64_t live = nvm_slab_live(heap, slab->tag, word);
    uint64_t marks = value & NVM_MARK_BLOCKS;
    *live_blocks += (uint32_t)__builtin_popcountl(live);
    if (slab->marks && marks != live)
        return nvm_fail(
            EUCLEAN, "slab at unit %u: word %u says 0x%012llx on media, DRAM 0x%012llx",
            slab->unit, word, (unsigned long long)marks, (unsigned long long)live);
    return 0;
}

/* Four states at a time. */
typedef uint64_t __attribute__((may_alias)) four_states;
_Static_assert(NVM_BLOCK_LIVE == 1u << 15 && NVM_BLOCK_OTHER >> 15 == 1, "the top bit");
#define LOWEST_BITS UINT64_C(0x0001000100010001)

/* Granules of the units in which something live begins, be it a block or not.  The
   power-fail laboratory, which observes every load through this sanitizer, need not see
   thousands of loads of DRAM. */
__attribute__((no_sanitize_thread)) static uint32_t
count_live_states(const struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    uint64_t granules = (uint64_t)units << (NVM_UNIT_SHIFT - NVM_GRANULE_SHIFT);
    const four_states *state = (const four_states *)(const void *)nvm_block_state(
        heap, nvm_unit_offset(heap, unit));
    uint64_t counts = 0; /* four: a slab has at most 16 units of 4096 granules */
    for (uint64_t i = 0; i < granules / 4; i++)
        counts += state[i] >> 15 & LOWEST_BITS;
    return (uint32_t)((counts & 0xffff) + (counts >> 16 & 0xffff) +
                      (counts >> 32 & 0xffff) + (counts >> 48));
}

static int check_slab(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk)
{
    const struct nvm_class *klass = &nvm_classes[chunk.klass];
    const struct nvm_slab *slab = &heap->slabs[unit];
    nvm_unit member = nvm_unit_get(heap, unit);
    const uint64_t *bitmap = nvm_heap_bitmap(heap, unit);
    const struct slab_view view = {.unit = unit,
                                   .words = klass->words,
                                   .blocks = klass->blocks,
                                   .salt = heap->salt,
                                   .tag = nvm_unit_tag(member),
                                   .first_number = (uint64_t)(bitmap - heap->bitmaps),
                                   .bitmap = bitmap,
                                   .free = heap->slab_bits[slab->unit],
                                   .marks = heap->super.mode != NVM_GC,
                                   .scanned = nvm_unit_is_scanned(member)};
    uint32_t count = 0, live = 0;
    int error = 0;
    if (nvm_unit_kind(member) == NVM_UNIT_DAMAGED)
        return nvm_fail(
            EUCLEAN, "slab at unit %u: its bitmap is damaged; it is quarantined", unit);
    for (uint32_t word = 0; error == 0 && word < view.words; word++) {
        uint64_t value = __atomic_load_n(&bitmap[word], __ATOMIC_RELAXED);
        if (view.marks)
            error = check_word(heap, &view, word, value);
        if (error == 0 && view.scanned) {
            uint64_t free = view.free[word];
            error = check_blocks(heap, &view, word, value, &live);
            count += (uint32_t)__builtin_popcountl(free);
        }
    }
    if (error == 0 && view.scanned && count != slab->free)
        return nvm_fail(EUCLEAN, "slab at unit %u: %u blocks are free, its count says %u",
                        unit, count, slab->free);
    if (error == 0 && view.scanned && count_live_states(heap, unit, klass->units) != live)
        return nvm_fail(EUCLEAN,
                        "slab at unit %u: what is live in it is no block, or free", unit);
    return error;
}

/* What DRAM may say of the first unit of a run in each state. */
static bool kind_fits(unsigned kind, unsigned state)
{
    switch (state) {
    case NVM_CHUNK_SLAB:
        return kind == NVM_UNIT_SLAB || kind == NVM_UNIT_UNSCANNED ||
               kind == NVM_UNIT_DAMAGED;
    case NVM_CHUNK_EXTENT:
        return kind == NVM_UNIT_EXTENT;
    default: /* FREE: or an extent that is reserved, whose birth nobody has logged */
        return kind == NVM_UNIT_FREE || kind == NVM_UNIT_EXTENT;
    }
}

static int check_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    struct tally *tally = context;
    nvm_unit member = nvm_unit_get(heap, unit);
    unsigned kind = nvm_unit_kind(member);
    uint32_t generation = nvm_tag_generation(nvm_unit_tag(member));
    if (!kind_fits(kind, chunk.state) || !heap->walked[unit])
        return nvm_fail(EUCLEAN,
                        "unit %u: the chunk table says state %u, DRAM says kind %u", unit,
                        chunk.state, kind);
    if (chunk.state != NVM_CHUNK_FREE && generation != chunk.generation)
        return nvm_fail(EUCLEAN, "unit %u: generation %u on media, %u in DRAM", unit,
                        chunk.generation, generation);
    for (uint32_t i = unit + 1; i < unit + chunk.units; i++)
        if (heap->walked[i])
            return nvm_fail(EUCLEAN,
                            "unit %u: the walk jumps over it, DRAM says it stops", i);
    if (kind == NVM_UNIT_FREE)
        tally->free_units += chunk.units;
    return chunk.state == NVM_CHUNK_SLAB ? check_slab(heap, unit, chunk) : 0;
}

static int check_cached(const struct nvm_heap *heap, const struct nvm_tcache *tcache)
{
    for (unsigned klass = 0; klass < NVM_CLASSES; klass++) {
        for (uint32_t i = 0; i < nvm_tcache_count(&tcache->bins[klass]); i++) {
            struct nvm_block cached = tcache->bins[klass].bottom[i], block;
            if (nvm_block_locate(heap, cached.offset, &block) != NVM_LOCATE_FOUND ||
                cached.tag !=
                    (tcache->gc ? nvm_block_live_state(true, block) : block.tag) ||
                *nvm_block_state(heap, block.offset) != NVM_BLOCK_IDLE ||
                (heap->slab_bits[nvm_tag_unit(block.tag)][nvm_tag_word(block.tag)] >>
                     nvm_tag_bit(block.tag) &
                 1) != 0)
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
    const uint32_t roots = heap->super.roots;
    for (uint32_t i = 0; i < roots; i++) {
        struct nvm_block block;
        if (entries[i].ref == 0)
            continue;
        if (!nvm_root_valid(&entries[i], heap->salt))
            return nvm_fail(EUCLEAN, "root entry %u: its checksum does not fit", i);
        if (!nvm_find_block(heap, entries[i].ref, NVM_BLOCK_LIVE, &block) ||
            nvm_block_bytes(heap, block) < entries[i].bytes)
            return nvm_fail(
                EUCLEAN, "root entry %u: offset %llu names no live block of %llu bytes",
                i, (unsigned long long)entries[i].ref,
                (unsigned long long)entries[i].bytes);
    }
    return 0;
}

static int check_log(struct nvm_heap *heap)
{
    struct nvm_super super;
    struct nvm_recovery recovery = {0};
    bool doubtful;
    int error = nvm_super_read(&heap->region, &super, &doubtful);
    if (error == 0 && doubtful)
        error = nvm_fail(EUCLEAN, "a superblock copy is damaged");
    if (error == 0)
        error = nvm_watermark_read(heap, &recovery);
    if (error == 0 && recovery.watermark >= atomic_load(&heap->lanes.clock))
        error = nvm_fail(EUCLEAN, "the watermark is ahead of the clock");
    return error;
}

static int scan_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                    void *context)
{
    (void)context;
    if (chunk.state == NVM_CHUNK_SLAB)
        nvm_arena_scan(heap, unit);
    return 0;
}

static int check(struct nvm_heap *heap)
{
    struct tally tally = {0};
    /* DRAM's view is complete, and media's marks are. */
    int error = nvm_heap_each_run(heap, scan_run, NULL);
    if (error == 0)
        error = nvm_lanes_probe(heap);
    if (error == 0 && heap->super.mode == NVM_LOG_OWNED)
        nvm_lanes_settle(heap);
    if (error == 0)
        error = check_log(heap);
    if (error == 0)
        error = nvm_heap_each_run(heap, check_run, &tally);
    for (const struct nvm_tcache *tcache = heap->tcaches; error == 0 && tcache != NULL;
         tcache = tcache->next)
        error = check_cached(heap, tcache);
    uint64_t free_units = nvm_numa_free_count(heap->free_units);
    if (error == 0 && free_units != tally.free_units)
        error = nvm_fail(EUCLEAN, "%llu units are free in DRAM, %llu on media",
                         (unsigned long long)free_units,
                         (unsigned long long)tally.free_units);
    return error == 0 ? check_roots(heap) : error;
}

int nvm_check(nvm_heap *heap)
{
    NVM_WINDOW(heap);
    struct nvm_sigbus guard;
    if (heap->foreign)
        return nvm_tcache_refused(heap);
    if (nvm_sigbus_caught(&guard))
        return nvm_sigbus_error(&guard, heap);
    int error = check(heap);
    nvm_sigbus_end(&guard);
    return error;
}
