/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gc.c - nvm_malloc() and nvm_free(): the thread's cache, and nothing on media.
 */
#include <errno.h>

#include "alloc.h"
#include "error.h"
#include "gc.h"

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
    nvm_block_set_live(heap, block);
    return nvm_heap_at(heap, block.offset);
}

static __attribute__((noinline)) void *malloc_larger(struct nvm_heap *heap, size_t size)
{
    /* size - 1: 0 counts as 1, and goes the general way. */
    if (nvm_tcache_last.gc_id != heap->id || size - 1 >= NVM_SMALL_MAX)
        return malloc_generally(heap, 1, size);
    void *block = nvm_gc_pop(heap, &nvm_tcache_last.tcache->bins[nvm_sizeclass_of(size)]);
    return block != NULL ? block : malloc_generally(heap, 1, size);
}

void *nvm_malloc(nvm_heap *heap, size_t size)
{
    if (__builtin_expect(nvm_tcache_last.gc_id != heap->id || size - 1 >= NVM_LATE_MAX,
                         0))
        return malloc_larger(heap, size);
    void *block =
        nvm_gc_pop(heap, &nvm_tcache_last.tcache->bins[nvm_sizeclass_of_small(size)]);
    return __builtin_expect(block != NULL, 1) ? block : malloc_generally(heap, 1, size);
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

static inline __attribute__((always_inline)) int free_found(struct nvm_heap *heap,
                                                            struct nvm_gc_block block)
{
    struct nvm_tcache *tcache = nvm_tcache_last.tcache;
    if (nvm_gc_push(heap, tcache, block))
        return nvm_tcache_spill(tcache, (unsigned)block.klass);
    return 0;
}

/* A block that begins in the middle of its granule, or something else. */
static __attribute__((noinline)) int free_odd(struct nvm_heap *heap, void *address)
{
    struct nvm_gc_block block = {.offset = nvm_heap_offset(heap, address)};
    block.granule = nvm_block_granule(block.offset - 8);
    if (nvm_tcache_last.gc_id == heap->id &&
        block.granule < __atomic_load_n(&heap->granules, __ATOMIC_RELAXED)) {
        block.state = heap->state[block.granule];
        block.klass = block.state ^ (NVM_BLOCK_LIVE | NVM_BLOCK_ODD);
        if (block.klass < NVM_CLASSES)
            return free_found(heap, block);
    }
    return free_generally(heap, address);
}

int nvm_free(nvm_heap *heap, void *address)
{
    struct nvm_gc_block block;
    if (__builtin_expect(
            nvm_tcache_last.gc_id != heap->id || !nvm_gc_find(heap, address, &block), 0))
        return free_odd(heap, address);
    return free_found(heap, block);
}
