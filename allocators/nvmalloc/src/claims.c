/* SPDX-License-Identifier: Apache-2.0 */
/* claims.c - see claims.h. */
#include "claims.h"

#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "heap.h"

static void set_flags(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    for (uint32_t i = unit; i < unit + units; i++)
        heap->unit_flags[i] =
            (uint8_t)((heap->unit_flags[i] & ~NVM_UNIT_CLAIM) | NVM_UNIT_CLAIMED);
    heap->unit_flags[unit] |= NVM_UNIT_CLAIM;
}

static void clear_flags(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    for (uint32_t i = unit; i < unit + units; i++)
        heap->unit_flags[i] &= (uint8_t) ~(NVM_UNIT_CLAIM | NVM_UNIT_CLAIMED);
}

void nvm_claims_note(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    set_flags(heap, unit, units);
}

int nvm_claims_make(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    if (units == 0)
        return 0;
    if (!nvm_numa_claim(heap->free_units, unit, units))
        return nvm_fail(ENOMEM, "no memory for the segment of unit %u", unit);
    set_flags(heap, unit, units);
    return 0;
}

void nvm_claims_release(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    uint32_t first = unit, end = unit + units;
    while (!(heap->unit_flags[first] & NVM_UNIT_CLAIM))
        first--;
    while (end < heap->super.units && (heap->unit_flags[end] & NVM_UNIT_CLAIMED) &&
           !(heap->unit_flags[end] & NVM_UNIT_CLAIM))
        end++;
    nvm_numa_free(heap->free_units, first, end - first);
    clear_flags(heap, first, end - first);
    /* The segment that was freed, and the two at its sides which it may have merged
       with, leave the arena more structures than two claims need; so these succeed. */
    if (nvm_claims_make(heap, first, unit - first) != 0 ||
        nvm_claims_make(heap, unit + units, end - (unit + units)) != 0)
        abort(); /* else memory in use would count as free */
}
