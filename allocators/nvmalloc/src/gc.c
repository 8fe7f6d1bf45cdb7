/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gc.c - nvm_malloc() and nvm_free(): the thread's cache, and nothing on media.
 */
#include <errno.h>

#include "alloc.h"
#include "error.h"

static __attribute__((noinline)) void *malloc_generally(struct nvm_heap *heap,
                                                        size_t alignment, size_t size)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_block block = {0};
    int error = 0;
    NVM_WINDOW(heap);
    if (tcache == NULL)
        error = nvm_tcache_refused(heap);
    else if (!tcache->gc)
        error = nvm_fail(ENOTSUP, "nvm_malloc() needs a heap of mode NVM_GC");
    else if (alignment == 0 || (alignment & (alignment - 1)) != 0 ||
             alignment > NVM_ALIGNMENT_MAX)
        error = nvm_misuse(tcache, "the alignment is no power of two up to 2 MiB");
    else if ((error = nvm_reserve_block(tcache, size, alignment, &block)) != 0)
        error = nvm_no_room(error, size);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    *nvm_block_state(heap, block.tag) = NVM_BLOCK_LIVE;
    return nvm_heap_at(heap, block.offset);
}

void *nvm_malloc(nvm_heap *heap, size_t size)
{
    /* size - 1: 0 counts as 1, and goes the general way. */
    if (__builtin_expect(nvm_tcache_last.gc_id != heap->id || size - 1 >= NVM_SMALL_MAX,
                         0))
        return malloc_generally(heap, 1, size);
    unsigned klass = __builtin_expect(size <= NVM_LATE_MAX, 1)
                         ? nvm_sizeclass_of_small(size)
                         : nvm_sizeclass_of(size);
    struct nvm_tcache_bin *bin = &nvm_tcache_last.tcache->bins[klass];
    if (__builtin_expect(bin->top == bin->bottom, 0))
        return malloc_generally(heap, 1, size);
    struct nvm_block block = *--bin->top;
    *nvm_block_state(heap, block.tag) = NVM_BLOCK_LIVE;
    return nvm_heap_at(heap, block.offset);
}

void *nvm_aligned_malloc(nvm_heap *heap, size_t alignment, size_t size)
{
    return malloc_generally(heap, alignment, size);
}

static __attribute__((noinline)) int free_generally(struct nvm_heap *heap, void *address)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_block block;
    NVM_WINDOW(heap);
    if (address == NULL)
        return 0;
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    if (!tcache->gc)
        return nvm_fail(ENOTSUP, "nvm_free() needs a heap of mode NVM_GC");
    if (!nvm_find_block(heap, nvm_heap_offset(heap, address), NVM_BLOCK_LIVE, &block))
        return nvm_misuse(tcache, "the address is that of no live block");
    nvm_cancel_block(tcache, block);
    return 0;
}

int nvm_free(nvm_heap *heap, void *address)
{
    struct nvm_block block;
    if (__builtin_expect(
            nvm_tcache_last.gc_id != heap->id ||
                !nvm_block_find_live(heap, nvm_heap_offset(heap, address), &block),
            0))
        return free_generally(heap, address);
    *nvm_block_state(heap, block.tag) = NVM_BLOCK_IDLE;
    return nvm_tcache_push(nvm_tcache_last.tcache, block);
}
