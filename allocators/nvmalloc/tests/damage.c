/* SPDX-License-Identifier: Apache-2.0 */
/* damage.c - see damage.h. */
#include "damage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap.h"

#define GRAIN 8u /* every block is a multiple of it, and begins at one */

#define SIZES     7u
#define GIVEN_MAX 4096u

static const size_t sizes[SIZES] = {16, 40, 100, 200, 700, 3000, 20000};

char *damage_pages(void)
{
    void *got = mmap(NULL, DAMAGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED)
        abort();
    return got;
}

static void need(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "damage: %s: %s\n", what, nvm_error());
    abort();
}

static int note_live(void *context, void *block, size_t usable)
{
    struct damage_image *image = context;
    image->live[image->count++] =
        (struct damage_block){(nvm_ref)(uintptr_t)block, usable};
    return 0;
}

/* A heap with slabs of several classes, an extent, names, references in blocks, and a log
   whose records have been overwritten some times. */
static void populate(nvm_heap *heap)
{
    nvm_ref *slots = nvm_root(heap, DAMAGE_SLOTS * sizeof(nvm_ref));
    need(slots != NULL, "root");
    for (unsigned i = 0; i < 600; i++) {
        nvm_ref *slot = &slots[i * 7 % DAMAGE_SLOTS];
        if (*slot != 0)
            need(nvm_free_from(heap, slot) == 0, "free");
        else
            (void)nvm_malloc_to(heap, slot, sizes[i % SIZES]); /* or it is full */
        if (*slot != 0)
            memset(nvm_ptr(heap, *slot), 0, sizes[i % SIZES]);
    }
    nvm_ref *large = nvm_named(heap, "large", 1), *small = nvm_named(heap, "small", 1);
    need(large != NULL && small != NULL, "names");
    if (nvm_malloc_to(heap, large, 600 << 10) != 0)
        need(nvm_malloc_to(heap, large, 100 << 10) == 0, "large");
    need(nvm_malloc_to(heap, small, 24) == 0, "small");
    memset(nvm_ptr(heap, *small), 0, 24);
    need(nvm_malloc_to(heap, nvm_ptr(heap, *small), 64) == 0, "inner");
}

void damage_make(struct damage_image *image, const char *path, enum nvm_mode mode,
                 bool closed)
{
    struct nvm_options options = {.size = DAMAGE_BYTES, .mode = mode};
    nvm_heap *heap;
    void *base;
    size_t length;
    unlink(path);
    need(nvm_create_with(path, &options, &heap) == 0, "create");
    populate(heap);
    need(nvm_check(heap) == 0, "check");
    nvm_range(heap, &base, &length);
    image->mode = mode;
    image->closed = closed;
    image->count = 0;
    need(nvm_walk(heap, note_live, image) == 0, "walk");
    for (size_t i = 0; i < image->count; i++)
        image->live[i].ref -= (nvm_ref)(uintptr_t)base;
    memcpy(image->bytes, base, length);
    need(nvm_close(heap) == 0, "close");
    if (closed) {
        FILE *file = fopen(path, "rb");
        need(file != NULL && fread(image->bytes, 1, DAMAGE_BYTES, file) == DAMAGE_BYTES,
             "read");
        fclose(file);
    }
    unlink(path);
}

/* --- use --- */

struct use {
    nvm_heap *heap;
    uint8_t taken[DAMAGE_BYTES / GRAIN];
    nvm_ref given[GIVEN_MAX];
    const char *fault;
};

/* A block that must be inside the data, and taken by nobody else. */
static void take(struct use *use, uint64_t ref, uint64_t usable, const char *fault)
{
    const struct nvm_super *super = &use->heap->super;
    uint64_t end = super->data_offset + (super->units << NVM_UNIT_SHIFT);
    if (use->fault != NULL)
        return;
    if (ref < super->data_offset || usable == 0 || usable > end || ref > end - usable ||
        end > DAMAGE_BYTES || ref % GRAIN != 0) {
        use->fault = "a block outside the data";
        return;
    }
    for (uint64_t at = ref / GRAIN; at < (ref + usable + GRAIN - 1) / GRAIN; at++) {
        if (use->taken[at])
            use->fault = fault;
        use->taken[at] = 1;
    }
}

static int note_walked(void *context, void *block, size_t usable)
{
    struct use *use = context;
    take(use, nvm_off(use->heap, block), usable, "two live blocks overlap");
    return use->fault != NULL;
}

static void note_kept(struct use *use, const struct damage_image *kept)
{
    for (size_t i = 0; kept != NULL && i < kept->count; i++)
        for (uint64_t at = 0; at < kept->live[i].usable; at += GRAIN)
            use->taken[(kept->live[i].ref + at) / GRAIN] = 1;
}

/* Reserves blocks of a size until there are `most`, or none is left. */
static void take_blocks(struct use *use, struct damage_outcome *outcome, size_t size,
                        unsigned most)
{
    nvm_ref ref;
    while (most-- > 0 && use->fault == NULL &&
           (ref = nvm_reserve(use->heap, size)) != 0) {
        size_t usable = nvm_usable_size(use->heap, ref);
        if (usable < size)
            use->fault = "a block smaller than was asked for";
        take(use, ref, usable, "memory that is in use was given out");
        if (use->fault == NULL)
            memset(nvm_ptr(use->heap, ref), 0x5a, usable);
        use->given[outcome->given++] = ref;
    }
}

/* First what the slabs have that are there, then all else. */
static void fill_up(struct use *use, struct damage_outcome *outcome)
{
    static const size_t large[] = {200000, 70000, 30000};
    for (unsigned i = 0; i < SIZES; i++)
        take_blocks(use, outcome, sizes[i], 60);
    for (unsigned i = 0; i < sizeof(large) / sizeof(large[0]); i++)
        take_blocks(use, outcome, large[i], GIVEN_MAX / 8);
    for (unsigned i = 0; i < SIZES; i++)
        take_blocks(use, outcome, sizes[i], 3);
    for (size_t i = 0; i < outcome->given && use->fault == NULL; i++)
        if (nvm_cancel(use->heap, use->given[i]) != 0)
            use->fault = "a reserved block is no longer known";
}

/* The interface of names and roots, whatever they say now. */
static int visit_name(void *context, const char *name, nvm_ref *slot)
{
    struct use *use = context;
    (void)slot;
    if (strlen(name) > NVM_NAME_MAX)
        use->fault = "a name without an end";
    return 0;
}

const char *damage_use(char *bytes, size_t length, const struct damage_image *kept,
                       struct damage_outcome *outcome)
{
    static struct use use;
    struct nvm_heap_stats stats;
    memset(&use, 0, sizeof(use));
    memset(outcome, 0, sizeof(*outcome));
    outcome->open =
        nvm_attach(bytes, length, &(struct nvm_options){.threads = 1}, &use.heap);
    if (outcome->open != 0)
        return nvm_error()[0] == '\0' ? "refused without a reason" : NULL;
    outcome->check = nvm_check(use.heap);
    if (outcome->check != 0 && nvm_error()[0] == '\0')
        use.fault = "damage without a name";
    nvm_rebuild(use.heap);
    nvm_stats(use.heap, &stats);
    outcome->quarantined = stats.quarantined_bytes;
    nvm_walk(use.heap, note_walked, &use);
    note_kept(&use, kept);
    nvm_each_name(use.heap, visit_name, &use);
    (void)nvm_named(use.heap, "small", 0);
    fill_up(&use, outcome);
    nvm_detach(use.heap);
    return use.fault;
}
