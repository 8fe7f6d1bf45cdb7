/* SPDX-License-Identifier: Apache-2.0 */
/* arena.c - see arena.h. */
#include "arena.h"

#include <errno.h>
#include <sched.h>

#include "block.h"
#include "dram.h"

#define ARENAS_MAX 16u
#define EMPTY_KEPT 1u

static uint32_t processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return (uint32_t)CPU_COUNT(&set);
}

int nvm_arenas_init(struct nvm_heap *heap)
{
    uint32_t count = processors();
    heap->arena_count = count > ARENAS_MAX ? ARENAS_MAX : count;
    heap->arenas = nvm_dram_map(heap->arena_count * sizeof(struct nvm_arena));
    if (heap->arenas == NULL)
        return ENOMEM;
    for (uint32_t i = 0; i < heap->arena_count; i++)
        for (unsigned klass = 0; klass < NVM_CLASSES; klass++)
            pthread_mutex_init(&heap->arenas[i].bins[klass].lock, NULL);
    return 0;
}

void nvm_arenas_fini(struct nvm_heap *heap)
{
    if (heap->arenas != NULL)
        nvm_dram_unmap(heap->arenas, heap->arena_count * sizeof(struct nvm_arena));
    heap->arenas = NULL;
}

static void list_push(struct nvm_slab **list, struct nvm_slab *slab)
{
    slab->previous = NULL;
    slab->next = *list;
    if (*list != NULL)
        (*list)->previous = slab;
    *list = slab;
}

static void list_remove(struct nvm_slab **list, struct nvm_slab *slab)
{
    if (slab->previous != NULL)
        slab->previous->next = slab->next;
    else
        *list = slab->next;
    if (slab->next != NULL)
        slab->next->previous = slab->previous;
    slab->next = slab->previous = NULL;
}

static struct nvm_bin *bin_of(struct nvm_heap *heap, const struct nvm_slab *slab)
{
    return &heap->arenas[slab->arena].bins[slab->klass];
}

static bool is_empty(const struct nvm_slab *slab)
{
    return slab->free == nvm_classes[slab->klass].blocks;
}

void nvm_arena_adopt(struct nvm_heap *heap, uint32_t unit, unsigned klass)
{
    struct nvm_slab *slab = &heap->slabs[unit];
    slab->unit = unit;
    slab->klass = (uint8_t)klass;
    slab->state = NVM_SLAB_UNSCANNED;
    slab->arena = (uint16_t)(unit % heap->arena_count);
    list_push(&bin_of(heap, slab)->unscanned, slab);
}

/* Turns an unscanned slab of the bin into a partial or full one. */
static void scan(struct nvm_heap *heap, struct nvm_bin *bin, struct nvm_slab *slab)
{
    list_remove(&bin->unscanned, slab);
    nvm_slab_scan(heap, slab);
    if (slab->state == NVM_SLAB_PARTIAL) {
        list_push(&bin->partial, slab);
        bin->empty += is_empty(slab);
    }
}

void nvm_arena_scan(struct nvm_heap *heap, uint32_t unit)
{
    struct nvm_slab *slab = &heap->slabs[unit];
    struct nvm_bin *bin = bin_of(heap, slab);
    pthread_mutex_lock(&bin->lock);
    if (slab->state == NVM_SLAB_UNSCANNED)
        scan(heap, bin, slab);
    pthread_mutex_unlock(&bin->lock);
}

/* Takes from what the bin has; no new slab. */
static unsigned bin_take(struct nvm_heap *heap, struct nvm_bin *bin,
                         struct nvm_block *blocks, unsigned want)
{
    unsigned taken = 0;
    while (taken < want) {
        while (bin->partial == NULL && bin->unscanned != NULL)
            scan(heap, bin, bin->unscanned);
        struct nvm_slab *slab = bin->partial;
        if (slab == NULL)
            break;
        bin->empty -= is_empty(slab);
        taken += nvm_slab_take(heap, slab, blocks + taken, want - taken);
        if (slab->free == 0) {
            list_remove(&bin->partial, slab);
            slab->state = NVM_SLAB_FULL;
        }
    }
    return taken;
}

/* Whether a block of class `any` does for a request of the class, no larger: aligned to
   16 if that one's are. */
static bool serves(unsigned any, unsigned klass)
{
    return nvm_classes[any].size % 16 == 0 || nvm_classes[klass].size % 16 != 0;
}

/* The same, with a new slab if the bin has nothing; *error says why there is none. */
static unsigned bin_take_or_provision(struct nvm_heap *heap, struct nvm_persist *persist,
                                      uint32_t arena, unsigned klass,
                                      struct nvm_block *blocks, unsigned want, int *error)
{
    struct nvm_bin *bin = &heap->arenas[arena].bins[klass];
    pthread_mutex_lock(&bin->lock);
    unsigned taken = bin_take(heap, bin, blocks, want);
    if (taken == 0) {
        struct nvm_slab *slab;
        *error = nvm_slab_provision(heap, persist, klass, &slab);
        if (*error == 0) {
            slab->arena = (uint16_t)arena;
            list_push(&bin->partial, slab);
            bin->empty++;
            taken = bin_take(heap, bin, blocks, want);
        }
    }
    pthread_mutex_unlock(&bin->lock);
    return taken;
}

unsigned nvm_arena_take(struct nvm_heap *heap, struct nvm_persist *persist,
                        uint32_t arena, unsigned klass, struct nvm_block *blocks,
                        unsigned want, bool larger, int *error)
{
    int why = ENOMEM, ignored;
    unsigned taken =
        bin_take_or_provision(heap, persist, arena, klass, blocks, want, &why);
    if (taken == 0 && nvm_arena_purge(heap, persist) != 0)
        taken = bin_take_or_provision(heap, persist, arena, klass, blocks, want, &why);
    /* No run of units is free: one block at a time from wherever one fits. */
    for (unsigned any = klass; larger && taken == 0 && any < NVM_CLASSES; any++) {
        for (uint32_t other = 0;
             taken == 0 && serves(any, klass) && other < heap->arena_count; other++) {
            struct nvm_bin *bin = &heap->arenas[other].bins[any];
            pthread_mutex_lock(&bin->lock);
            taken = bin_take(heap, bin, blocks, 1);
            pthread_mutex_unlock(&bin->lock);
        }
        /* A larger class may need fewer units a slab. */
        if (taken == 0 && any + 1 < NVM_CLASSES && serves(any + 1, klass))
            taken =
                bin_take_or_provision(heap, persist, arena, any + 1, blocks, 1, &ignored);
    }
    *error = taken != 0 ? 0 : why;
    return taken;
}

/* Gives one block back to its slab, whose bin is locked. */
static void bin_give(struct nvm_heap *heap, struct nvm_persist *persist,
                     struct nvm_bin *bin, struct nvm_slab *slab, uint64_t tag)
{
    nvm_slab_give(heap, slab, tag);
    if (slab->state == NVM_SLAB_FULL) {
        slab->state = NVM_SLAB_PARTIAL;
        list_push(&bin->partial, slab);
    }
    if (slab->state == NVM_SLAB_EVACUATING) { /* in no list */
        if (is_empty(slab))
            nvm_slab_retire(heap, persist, slab);
        return;
    }
    bin->empty += is_empty(slab);
    if (is_empty(slab) && bin->empty > EMPTY_KEPT) {
        list_remove(&bin->partial, slab);
        bin->empty--;
        nvm_slab_retire(heap, persist, slab);
    }
}

void nvm_arena_give(struct nvm_heap *heap, struct nvm_persist *persist,
                    const struct nvm_block *blocks, unsigned count)
{
    struct nvm_bin *locked = NULL;
    for (unsigned i = 0; i < count; i++) {
        struct nvm_slab *slab = &heap->slabs[nvm_tag_unit(blocks[i].tag)];
        struct nvm_bin *bin = bin_of(heap, slab);
        if (locked == NULL || bin != locked) {
            if (locked != NULL)
                pthread_mutex_unlock(&locked->lock);
            pthread_mutex_lock(&bin->lock);
            locked = bin;
        }
        bin_give(heap, persist, bin, slab, blocks[i].tag);
    }
    if (locked != NULL)
        pthread_mutex_unlock(&locked->lock);
}

static unsigned bin_purge(struct nvm_heap *heap, struct nvm_persist *persist,
                          struct nvm_bin *bin)
{
    unsigned retired = 0;
    pthread_mutex_lock(&bin->lock);
    while (bin->unscanned != NULL)
        scan(heap, bin, bin->unscanned);
    for (struct nvm_slab *slab = bin->partial, *next; slab != NULL; slab = next) {
        next = slab->next;
        if (!is_empty(slab))
            continue;
        list_remove(&bin->partial, slab);
        bin->empty--;
        nvm_slab_retire(heap, persist, slab);
        retired++;
    }
    pthread_mutex_unlock(&bin->lock);
    return retired;
}

unsigned nvm_arena_purge(struct nvm_heap *heap, struct nvm_persist *persist)
{
    unsigned retired = 0;
    for (uint32_t arena = 0; arena < heap->arena_count; arena++)
        for (unsigned klass = 0; klass < NVM_CLASSES; klass++)
            retired += bin_purge(heap, persist, &heap->arenas[arena].bins[klass]);
    return retired;
}

void nvm_arena_scan_all(struct nvm_heap *heap)
{
    for (uint32_t arena = 0; arena < heap->arena_count; arena++) {
        for (unsigned klass = 0; klass < NVM_CLASSES; klass++) {
            struct nvm_bin *bin = &heap->arenas[arena].bins[klass];
            pthread_mutex_lock(&bin->lock);
            nvm_bin_scan_all(heap, bin);
            pthread_mutex_unlock(&bin->lock);
        }
    }
}

/* --- for defrag.c --- */

void nvm_bin_scan_all(struct nvm_heap *heap, struct nvm_bin *bin)
{
    while (bin->unscanned != NULL)
        scan(heap, bin, bin->unscanned);
}

void nvm_bin_evacuate(struct nvm_bin *bin, struct nvm_slab *slab)
{
    list_remove(&bin->partial, slab);
    slab->state = NVM_SLAB_EVACUATING;
}

void nvm_arena_keep(struct nvm_heap *heap, struct nvm_slab *slab)
{
    struct nvm_bin *bin = bin_of(heap, slab);
    pthread_mutex_lock(&bin->lock);
    if (slab->state == NVM_SLAB_EVACUATING) {
        slab->state = NVM_SLAB_PARTIAL;
        list_push(&bin->partial, slab);
    }
    pthread_mutex_unlock(&bin->lock);
}

unsigned nvm_arena_take_partial(struct nvm_heap *heap, uint32_t arena, unsigned klass,
                                struct nvm_block *block)
{
    struct nvm_bin *bin = &heap->arenas[arena].bins[klass];
    pthread_mutex_lock(&bin->lock);
    unsigned taken = bin_take(heap, bin, block, 1);
    pthread_mutex_unlock(&bin->lock);
    return taken;
}
