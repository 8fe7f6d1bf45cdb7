/* SPDX-License-Identifier: Apache-2.0 */
/*
 * defrag.c - moving blocks out of thinly used slabs, so that whole units become free.
 *
 * For each size class of each arena: of its partial slabs, fullest first, as many
 * are kept as hold all their blocks together; the others are *evacuated*.  Nothing
 * is allocated from an evacuating slab (it is in no list), and what is freed to it,
 * by anybody, brings it nearer to being retired.  The caller says which slots there
 * are; each that refers into an evacuating slab gets a block of a kept one, its
 * content, and the old block is freed: the same atomic step as a reallocation.
 * Slabs that are not empty in the end, because slots were not given, go back to
 * their lists.
 */
#include <errno.h>
#include <stdlib.h>

#include "alloc.h"
#include "commit.h"
#include "dram.h"
#include "error.h"
#include "protect.h"

static uint32_t blocks_of(const struct nvm_slab *slab)
{
    return nvm_classes[slab->klass].blocks;
}

static int by_free(const void *a, const void *b)
{
    const struct nvm_slab *x = *(struct nvm_slab *const *)a;
    const struct nvm_slab *y = *(struct nvm_slab *const *)b;
    if (x->free != y->free)
        return x->free > y->free ? 1 : -1;
    return (x->unit > y->unit) - (x->unit < y->unit);
}

/* Of `count` partial slabs, fullest first, how many must be kept. */
static uint32_t slabs_to_keep(struct nvm_slab *const *slabs, uint32_t count)
{
    uint64_t live = 0, room = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        live += blocks_of(slabs[i]) - slabs[i]->free;
    while (kept < count && room < live)
        room += blocks_of(slabs[kept++]);
    return kept;
}

/* Takes the thinly used slabs of a bin out of its list; scratch: as many as there are
   units. */
static void begin_bin(struct nvm_heap *heap, struct nvm_bin *bin,
                      struct nvm_slab **scratch)
{
    uint32_t count = 0;
    pthread_mutex_lock(&bin->lock);
    nvm_bin_scan_all(heap, bin);
    for (struct nvm_slab *slab = bin->partial; slab != NULL; slab = slab->next)
        scratch[count++] = slab;
    qsort(scratch, count, sizeof(*scratch), by_free);
    /* Where several are emptied into one, that one is better full than many half. */
    for (uint32_t i = slabs_to_keep(scratch, count); i < count; i++)
        if (scratch[i]->free != blocks_of(scratch[i]))
            nvm_bin_evacuate(bin, scratch[i]);
    pthread_mutex_unlock(&bin->lock);
}

static void end_bins(struct nvm_heap *heap)
{
    for (uint32_t unit = 0; unit < heap->super.units; unit++) {
        struct nvm_slab *slab = &heap->slabs[unit];
        if (__atomic_load_n(&slab->state, __ATOMIC_RELAXED) == NVM_SLAB_EVACUATING)
            nvm_arena_keep(heap, slab);
    }
}

static int begin(struct nvm_heap *heap)
{
    size_t bytes = heap->super.max_units * sizeof(struct nvm_slab *);
    struct nvm_slab **scratch = nvm_dram_map(bytes);
    if (scratch == NULL)
        return nvm_fail(ENOMEM, "no memory to sort the slabs");
    for (uint32_t arena = 0; arena < heap->arena_count; arena++)
        for (unsigned klass = 0; klass < NVM_CLASSES; klass++)
            begin_bin(heap, &heap->arenas[arena].bins[klass], scratch);
    nvm_dram_unmap(scratch, bytes);
    return 0;
}

/* Moves the slot's block if its slab is being evacuated; 1: it has moved, 0, or -1: the
   slot refers to no live block. */
static int move(struct nvm_tcache *tcache, nvm_ref *slot)
{
    struct nvm_heap *heap = tcache->heap;
    struct nvm_block old, new;
    if (*slot == 0)
        return 0;
    if (!nvm_find_block(heap, *slot, NVM_BLOCK_LIVE, &old))
        return -1;
    const struct nvm_slab *slab = &heap->slabs[nvm_tag_unit(old.tag)];
    if (nvm_block_is_extent(old) ||
        __atomic_load_n(&slab->state, __ATOMIC_RELAXED) != NVM_SLAB_EVACUATING)
        return 0;
    /* From the slab's own arena, where there is room: not from another, where it might
       take a new slab. */
    if (nvm_arena_take_partial(heap, slab->arena, nvm_tag_class(old.tag), &new) == 0)
        return 0;
    nvm_replace_block(tcache, slot, old, new);
    return 1;
}

int nvm_defrag(nvm_heap *heap, nvm_ref *const slots[], size_t count, size_t *moved)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    size_t done = 0;
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    for (size_t i = 0; i < count; i++)
        if (!nvm_is_slot(heap, slots[i]))
            return nvm_misuse(tcache, "a slot is not an aligned place in the heap");
    nvm_tcache_flush(tcache);
    nvm_arena_purge(heap, &tcache->persist);
    int error = begin(heap);
    for (size_t i = 0; error == 0 && i < count; i++) {
        int result = move(tcache, slots[i]);
        if (result < 0)
            error = nvm_misuse(tcache, "a slot refers to no live block");
        done += result == 1;
    }
    nvm_tcache_flush(tcache);
    end_bins(heap);
    nvm_arena_purge(heap, &tcache->persist);
    if (moved != NULL)
        *moved = done;
    return error;
}
