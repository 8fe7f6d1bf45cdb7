/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.c - reserve, publish, cancel; moving blocks and references.
 *
 * Everything ends in one nvm_commit(): actions are judged first, in their
 * order, against the slots as the actions before them leave them, so that the
 * commit cannot fail.
 */
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "commit.h"
#include "error.h"
#include "extent.h"

/* --- reserve and cancel --- */

nvm_ref nvm_reserve(nvm_heap *heap, size_t size)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_block block;
    int error = tcache == NULL ? nvm_tcache_refused(heap)
                               : nvm_reserve_block(tcache, size, 1, &block);
    if (error != 0) {
        errno = tcache == NULL ? error : nvm_no_room(error, size);
        return 0;
    }
    *nvm_block_state(heap, block.offset) = NVM_BLOCK_RESERVED;
    return block.offset;
}

int nvm_cancel(nvm_heap *heap, nvm_ref reserved)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_block block;
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    if (!nvm_find_block(heap, reserved, NVM_BLOCK_RESERVED, &block))
        return nvm_misuse(tcache, "the reference names no reserved block");
    nvm_cancel_block(tcache, block);
    return 0;
}

/* --- publish --- */

/* What a slot holds after the effects so far. */
static nvm_ref value_after(const struct nvm_effect *effects, size_t count,
                           const nvm_ref *slot)
{
    for (size_t i = count; i-- > 0;) {
        if (effects[i].dest == slot)
            return effects[i].op == NVM_OP_FREE ? 0 : effects[i].block.offset;
        if (effects[i].op == NVM_OP_MOVE && effects[i].from == slot)
            return 0;
    }
    return *slot;
}

/* The one of the effects so far that allocates or frees the block, or NULL. */
static const struct nvm_effect *named_before(const struct nvm_effect *effects,
                                             size_t count, nvm_ref ref)
{
    for (size_t i = 0; i < count; i++)
        if (effects[i].op != NVM_OP_MOVE && effects[i].block.offset == ref)
            return &effects[i];
    return NULL;
}

/* Turns action i into effect i; NULL, or what is wrong with it. */
static const char *judge(struct nvm_heap *heap, const struct nvm_action *action,
                         struct nvm_effect *effects, size_t i)
{
    struct nvm_effect *effect = &effects[i];
    enum nvm_block_state wanted = NVM_BLOCK_LIVE;
    nvm_ref ref;
    effect->dest = action->slot;
    effect->from = NULL;
    if (!nvm_is_slot(heap, action->slot))
        return "the slot is not an aligned place in the heap";
    switch (action->kind) {
    case NVM_ACT_ALLOC:
        effect->op = NVM_OP_ALLOC;
        ref = action->ref;
        wanted = NVM_BLOCK_RESERVED;
        break;
    case NVM_ACT_FREE:
        effect->op = NVM_OP_FREE;
        ref = value_after(effects, i, action->slot);
        break;
    case NVM_ACT_MOVE:
        effect->op = NVM_OP_MOVE;
        effect->from = action->from;
        if (!nvm_is_slot(heap, action->from) || action->from == action->slot)
            return "the slot to move from is not another aligned place in the heap";
        ref = value_after(effects, i, action->from);
        break;
    default:
        return "an action of no known kind";
    }
    if (effect->op != NVM_OP_FREE && value_after(effects, i, action->slot) != 0)
        return "the slot is not empty";
    /* What an action before it allocates can be moved; what one frees cannot. */
    const struct nvm_effect *before = named_before(effects, i, ref);
    if (before != NULL && (effect->op != NVM_OP_MOVE || before->op == NVM_OP_FREE))
        return "two actions name one block";
    if (before != NULL)
        effect->block = before->block;
    else if (!nvm_find_block(heap, ref, wanted, &effect->block))
        return ref == 0                       ? "the slot is empty"
               : wanted == NVM_BLOCK_RESERVED ? "the reference names no reserved block"
                                              : "the slot refers to no live block";
    return NULL;
}

int nvm_publish(nvm_heap *heap, const struct nvm_action *actions, size_t count)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_effect effects[NVM_ACTIONS_MAX];
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    if (count > NVM_ACTIONS_MAX)
        return nvm_misuse(tcache, "more than NVM_ACTIONS_MAX actions");
    if (tcache->gc && (count > 1 || (count == 1 && actions[0].kind == NVM_ACT_MOVE)))
        return nvm_fail(ENOTSUP, "a GC heap publishes one slot at a time");
    for (size_t i = 0; i < count; i++) {
        const char *fault = judge(heap, &actions[i], effects, i);
        if (fault != NULL)
            return nvm_misuse(tcache, fault);
    }
    if (count == 0)
        return 0;
    nvm_commit(tcache, effects, (unsigned)count);
    for (size_t i = 0; i < count; i++)
        if (effects[i].op == NVM_OP_FREE)
            nvm_cancel_block(tcache, effects[i].block);
    return 0;
}

int nvm_move_to(nvm_heap *heap, nvm_ref *from, nvm_ref *to)
{
    return nvm_publish(
        heap, &(struct nvm_action){.kind = NVM_ACT_MOVE, .slot = to, .from = from}, 1);
}

/* --- moving blocks --- */

void nvm_replace_block(struct nvm_tcache *tcache, nvm_ref *slot, struct nvm_block from,
                       struct nvm_block to)
{
    struct nvm_heap *heap = tcache->heap;
    uint64_t old = nvm_block_bytes(heap, from), new = nvm_block_bytes(heap, to);
    uint64_t bytes = old < new ? old : new;
    void *target = nvm_heap_at(heap, to.offset);
    memcpy(target, nvm_heap_at(heap, from.offset), bytes);
    nvm_flush(&tcache->persist, target, bytes);
    /* The copy before the record that makes it reachable. */
    nvm_fence(&tcache->persist);
    const struct nvm_effect effects[] = {
        {.op = NVM_OP_FREE, .block = from, .dest = slot},
        {.op = NVM_OP_ALLOC, .block = to, .dest = slot},
    };
    nvm_commit(tcache, effects, 2);
    nvm_cancel_block(tcache, from);
}

/* Whether a block of `size` bytes would be no other. */
static bool fits_as_well(const struct nvm_heap *heap, struct nvm_block block, size_t size)
{
    uint64_t bytes = nvm_block_bytes(heap, block);
    if (size > bytes)
        return false;
    if (nvm_block_is_extent(block))
        return size > NVM_SMALL_MAX && bytes - size < NVM_UNIT_BYTES;
    return size <= NVM_SMALL_MAX &&
           nvm_sizeclass_of(size + (size == 0)) >= nvm_tag_class(block.tag);
}

int nvm_realloc_to(nvm_heap *heap, nvm_ref *dest, size_t size)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_block old, new;
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    if (!nvm_is_slot(heap, dest))
        return nvm_misuse(tcache, "the slot is not an aligned place in the heap");
    if (*dest == 0)
        return nvm_malloc_to(heap, dest, size);
    if (!nvm_find_block(heap, *dest, NVM_BLOCK_LIVE, &old))
        return nvm_misuse(tcache, "the slot refers to no live block");
    if (fits_as_well(heap, old, size))
        return 0;
    int error = nvm_reserve_block(tcache, size, 1, &new);
    if (error != 0)
        return nvm_no_room(error, size);
    nvm_replace_block(tcache, dest, old, new);
    return 0;
}
