/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daisy.c - blocks and who owns them; daisy.h has the theory.
 */
#include "places.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[512];

int daisy_fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

const char *daisy_error(void)
{
    return last_error;
}

nvm_heap *daisy_nvm(const struct daisy *heap)
{
    return heap->nvm;
}

uint64_t daisy_size(const struct daisy *heap)
{
    return heap->root->size;
}

/* ---- blocks ---- */

static void *caller_bytes(struct daisy *heap, nvm_ref block)
{
    return (unsigned char *)nvm_ptr(heap->nvm, block) + sizeof(struct daisy_header);
}

struct daisy_header *daisy_header(struct daisy *heap, nvm_ref block)
{
    return nvm_ptr(heap->nvm, block);
}

/* What the caller may use of a live block; 0 if there is none at the reference. */
static uint64_t usable_of(struct daisy *heap, nvm_ref block)
{
    uint64_t usable = nvm_usable_size(heap->nvm, block);
    return usable > sizeof(struct daisy_header) ? usable - sizeof(struct daisy_header)
                                                : 0;
}

/* The block whose caller's bytes begin at an address; 0 if there is none, and why. */
static nvm_ref block_at(struct daisy *heap, const void *address)
{
    void *base;
    size_t length;
    nvm_range(heap->nvm, &base, &length);
    const uintptr_t offset = (uintptr_t)address - (uintptr_t)base;
    if (offset >= sizeof(struct daisy_header) && offset < length && offset % 16 == 0) {
        const nvm_ref block = offset - sizeof(struct daisy_header);
        if (usable_of(heap, block) != 0)
            return block;
    }
    daisy_fail(EINVAL, "%p is not the address of a block", address);
    return 0;
}

static int known_id(uint32_t id)
{
    if (id >= 1 && id <= DAISY_MAX_ID)
        return 0;
    return daisy_fail(EINVAL, "%ld is no id: ids are 1 to %u", (long)(int32_t)id,
                      DAISY_MAX_ID);
}

static int not_found(uint32_t id)
{
    return daisy_fail(ENOENT, "there is no block with id %u", id);
}

nvm_ref daisy_reserve_bytes(struct daisy *heap, uint64_t bytes)
{
    nvm_ref block = nvm_reserve(heap->nvm, bytes);
    if (block == 0) {
        const int error = errno;
        errno = daisy_fail(error, "no room for %llu bytes: %s", (unsigned long long)bytes,
                           nvm_error());
    }
    return block;
}

nvm_ref daisy_reserve(struct daisy *heap, struct daisy_header header, bool zero)
{
    if (header.size > UINT64_MAX / 2) {
        errno = daisy_fail(ENOMEM, "%llu bytes are more than any heap has",
                           (unsigned long long)header.size);
        return 0;
    }
    const uint64_t bytes = (sizeof header + header.size + 15) & ~UINT64_C(15);
    nvm_ref block = daisy_reserve_bytes(heap, bytes);
    if (block == 0)
        return 0;
    memcpy(nvm_ptr(heap->nvm, block), &header, sizeof header);
    if (zero)
        memset(caller_bytes(heap, block), 0, bytes - sizeof header);
    /* Before the block is reached: from then on its header must hold. */
    nvm_persist(heap->nvm, nvm_ptr(heap->nvm, block), zero ? bytes : sizeof header);
    return block;
}

/* Makes a reserved block the place's, or cancels it. */
static int settle(struct daisy *heap, nvm_ref *place, nvm_ref block, void **address)
{
    struct nvm_action action = {.kind = NVM_ACT_ALLOC, .slot = place, .ref = block};
    int error = nvm_publish(heap->nvm, &action, 1);
    if (error != 0) {
        nvm_cancel(heap->nvm, block);
        return daisy_fail(error, "%s", nvm_error());
    }
    *address = caller_bytes(heap, block);
    return 0;
}

static int free_from(struct daisy *heap, nvm_ref *place)
{
    int error = nvm_free_from(heap->nvm, place);
    return error == 0 ? 0 : daisy_fail(error, "%s", nvm_error());
}

/* ---- blocks without an id ---- */

int daisy_malloc(struct daisy *heap, uint64_t size, void **address)
{
    uint32_t number;
    pthread_mutex_lock(&heap->anchors_lock);
    int error = anchor_take(heap, &number);
    nvm_ref *place = error == 0 ? anchor_at(heap, number) : NULL;
    pthread_mutex_unlock(&heap->anchors_lock);
    if (error != 0)
        return error;
    nvm_ref block = daisy_reserve(heap, (struct daisy_header){size, 0, number}, false);
    error = block == 0 ? errno : settle(heap, place, block, address);
    if (error != 0) {
        pthread_mutex_lock(&heap->anchors_lock);
        anchor_give_back(heap, number);
        pthread_mutex_unlock(&heap->anchors_lock);
    }
    return error;
}

/* Frees the block if its anchor owns it; true if so. */
static bool free_anchored(struct daisy *heap, nvm_ref block, int *error)
{
    pthread_mutex_lock(&heap->anchors_lock);
    const uint32_t number = daisy_header(heap, block)->anchor;
    nvm_ref *place = anchor_at(heap, number);
    const bool owner = place != NULL && *place == block;
    if (owner) {
        *error = free_from(heap, place);
        if (*error == 0)
            anchor_give_back(heap, number);
    }
    pthread_mutex_unlock(&heap->anchors_lock);
    return owner;
}

/* Frees the block if an id owns it; true if so. */
static bool free_bound(struct daisy *heap, nvm_ref block, int *error)
{
    const uint32_t id = daisy_header(heap, block)->id;
    if (id == 0 || id > DAISY_MAX_ID)
        return false;
    pthread_mutex_lock(id_lock(heap, id));
    const nvm_ref *entry = id_entry(heap, id);
    const bool owner = entry != NULL && *entry == block;
    if (owner)
        *error = id_free(heap, id);
    pthread_mutex_unlock(id_lock(heap, id));
    return owner;
}

int daisy_free(struct daisy *heap, void *address)
{
    int error;
    const nvm_ref block = block_at(heap, address);
    if (block == 0)
        return EINVAL;
    /* In this order: a block leaves an id for an anchor while its id is replaced. */
    if (free_bound(heap, block, &error) || free_anchored(heap, block, &error))
        return error;
    return daisy_fail(EINVAL, "%p is not the address of a block", address);
}

/* ---- blocks with an id ---- */

/* With the id's lock held. */
static int make_with_id(struct daisy *heap, struct daisy_header header, bool zero,
                        void **address)
{
    struct id_place place;
    int error = id_prepare(heap, header.id, &place);
    if (error != 0)
        return error;
    nvm_ref block = 0;
    if (*place.entry != 0)
        error = daisy_fail(EEXIST, "there is a block with id %u", header.id);
    else if ((block = daisy_reserve(heap, header, zero)) == 0)
        error = errno;
    if (error != 0) {
        id_give_up(heap, &place);
        return error;
    }
    struct nvm_action action = {.kind = NVM_ACT_ALLOC, .slot = place.entry, .ref = block};
    error = id_fill(heap, &place, &action, 1, true);
    if (error != 0)
        nvm_cancel(heap->nvm, block);
    else
        *address = caller_bytes(heap, block);
    return error;
}

int daisy_malloc_id(struct daisy *heap, uint32_t id, uint64_t size, bool zero,
                    void **address)
{
    int error = known_id(id);
    if (error != 0)
        return error;
    pthread_mutex_lock(id_lock(heap, id));
    error =
        make_with_id(heap, (struct daisy_header){size, id, UINT32_MAX}, zero, address);
    pthread_mutex_unlock(id_lock(heap, id));
    return error;
}

int daisy_free_id(struct daisy *heap, uint32_t id)
{
    int error = known_id(id);
    if (error != 0)
        return error;
    pthread_mutex_lock(id_lock(heap, id));
    const nvm_ref *entry = id_entry(heap, id);
    error = entry == NULL || *entry == 0 ? not_found(id) : id_free(heap, id);
    pthread_mutex_unlock(id_lock(heap, id));
    return error;
}

int daisy_find(struct daisy *heap, uint32_t id, struct daisy_node *node)
{
    int error = known_id(id);
    if (error != 0)
        return error;
    pthread_mutex_lock(id_lock(heap, id));
    const nvm_ref *place = id_entry(heap, id);
    const nvm_ref block = place != NULL ? *place : 0;
    const uint64_t usable = block != 0 ? usable_of(heap, block) : 0;
    if (usable != 0)
        *node = (struct daisy_node){caller_bytes(heap, block),
                                    daisy_header(heap, block)->size, usable};
    pthread_mutex_unlock(id_lock(heap, id));
    if (block == 0)
        return not_found(id);
    return usable != 0 ? 0
                       : daisy_fail(EUCLEAN, "id %u names %#llx, where no block is", id,
                                    (unsigned long long)block);
}

void *daisy_address(struct daisy *heap, uint32_t id)
{
    pthread_mutex_lock(id_lock(heap, id));
    const nvm_ref *entry = id_entry(heap, id);
    void *address = entry != NULL && *entry != 0 ? caller_bytes(heap, *entry) : NULL;
    pthread_mutex_unlock(id_lock(heap, id));
    return address;
}

/* ---- from one to the other ---- */

static void set_header(struct daisy *heap, nvm_ref block, struct daisy_header header)
{
    struct daisy_header *at = daisy_header(heap, block);
    *at = header;
    nvm_persist(heap->nvm, at, sizeof *at);
}

/* Moves the block of the anchor `from`, whose header names the id already, to the id's
   entry; what was there goes to another anchor.  Both locks are held. */
static int take_over(struct daisy *heap, const struct id_place *place, uint32_t from)
{
    struct nvm_action actions[2];
    size_t count = 0;
    uint32_t to = 0;
    const nvm_ref old = *place->entry;
    if (old != 0) {
        int error = anchor_take(heap, &to);
        if (error != 0)
            return error; /* the entry was there, and no leaf is reserved */
        struct daisy_header header = *daisy_header(heap, old);
        header.anchor = to;
        set_header(heap, old, header);
        actions[count++] = (struct nvm_action){
            .kind = NVM_ACT_MOVE, .slot = anchor_at(heap, to), .from = place->entry};
    }
    actions[count++] = (struct nvm_action){
        .kind = NVM_ACT_MOVE, .slot = place->entry, .from = anchor_at(heap, from)};
    int error = id_fill(heap, place, actions, count, old == 0);
    if (error == 0)
        anchor_give_back(heap, from);
    else if (old != 0)
        anchor_give_back(heap, to);
    return error;
}

/* EEXIST if an id owns the block, which no anchor does; else EINVAL. */
static int why_not_unbound(struct daisy *heap, nvm_ref block, const void *address)
{
    const uint32_t id = daisy_header(heap, block)->id;
    if (id >= 1 && id <= DAISY_MAX_ID &&
        daisy_address(heap, id) == caller_bytes(heap, block))
        return daisy_fail(EEXIST, "the block at %p has the id %u", address, id);
    return daisy_fail(EINVAL, "%p is not the address of a block", address);
}

/* The number that goes with an id of a block that it names already. True if it does. */
static bool renumber(struct daisy *heap, uint32_t id, nvm_ref block, uint64_t size)
{
    pthread_mutex_lock(id_lock(heap, id));
    const nvm_ref *entry = id_entry(heap, id);
    const bool named = entry != NULL && *entry == block;
    if (named) {
        struct daisy_header header = *daisy_header(heap, block);
        header.size = size;
        set_header(heap, block, header);
    }
    pthread_mutex_unlock(id_lock(heap, id));
    return named;
}

/* With the anchors' lock held. */
static int bind_unbound(struct daisy *heap, uint32_t id, nvm_ref block, uint64_t size)
{
    const uint32_t from = daisy_header(heap, block)->anchor;
    struct id_place place;
    pthread_mutex_lock(id_lock(heap, id));
    int error = id_prepare(heap, id, &place);
    if (error == 0) {
        set_header(heap, block, (struct daisy_header){size, id, from});
        error = take_over(heap, &place, from);
    }
    pthread_mutex_unlock(id_lock(heap, id));
    return error;
}

static bool is_unbound(struct daisy *heap, nvm_ref block)
{
    const nvm_ref *anchor = anchor_at(heap, daisy_header(heap, block)->anchor);
    return anchor != NULL && *anchor == block;
}

int daisy_bind(struct daisy *heap, uint32_t id, void *address, uint64_t size)
{
    int error = known_id(id);
    const nvm_ref block = error == 0 ? block_at(heap, address) : 0;
    if (block == 0)
        return EINVAL;
    if (size > usable_of(heap, block))
        return daisy_fail(EINVAL, "the block at %p holds %llu bytes, not %llu", address,
                          (unsigned long long)usable_of(heap, block),
                          (unsigned long long)size);
    pthread_mutex_lock(&heap->anchors_lock);
    if (is_unbound(heap, block))
        error = bind_unbound(heap, id, block, size);
    else if (!renumber(heap, id, block, size))
        error = why_not_unbound(heap, block, address);
    pthread_mutex_unlock(&heap->anchors_lock);
    return error;
}

/* ---- the whole heap ---- */

static int free_id(void *context, uint32_t id, nvm_ref block)
{
    (void)block;
    return id_free(context, id);
}

static int free_anchor(void *context, uint32_t number, nvm_ref *anchor)
{
    (void)number;
    return free_from(context, anchor);
}

int daisy_clear(struct daisy *heap)
{
    struct daisy_root *root = heap->root;
    root->clearing = 1;
    nvm_persist(heap->nvm, &root->clearing, sizeof root->clearing);
    int error = id_each(heap, free_id, heap);
    if (error == 0)
        error = anchor_each(heap, free_anchor, heap);
    if (error == 0) {
        root->clearing = 0;
        nvm_persist(heap->nvm, &root->clearing, sizeof root->clearing);
    }
    /* The chain is read anew: that finds all anchors vacant, and any leaf. */
    anchors_drop(heap);
    return error == 0 ? anchors_mount(heap) : error;
}
