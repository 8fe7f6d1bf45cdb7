/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.c - malloc, free and the rest of their family, on the process's heap.
 *
 * The fast paths are those of gc.c, inlined, so that a malloc is one call: the
 * thread's cache, and a byte of DRAM that tells whether a block is live.
 * Everything else goes the general way, below.
 *
 * Alignment.  Every block is aligned to 16, as max_align_t: sizes are rounded up
 * to a multiple of 16, for which nvmalloc gives such blocks (sizeclass.h).
 *
 * Where a block comes from is told by its address: the pool (pool.h), or the
 * heap.  Whatever is given back and is no live block of either ends the process
 * with a message, as in other mallocs; it cannot be passed on to anyone.
 *
 * errno is ENOMEM after a failure, and else unchanged, by free() too.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "arena.h"
#include "block.h"
#include "nvmalloc.h"
#include "pool.h"
#include "process_heap.h"
#include "gc.h"
#include "tcache.h"

#define EXPORT     __attribute__((visibility("default")))
#define likely(x)  __builtin_expect(!!(x), 1)
#define NOT_INLINE __attribute__((noinline))

#define ALIGNMENT ((size_t)16)
#define PAGE      ((size_t)4096)
#define SIZE_MAX_ ((size_t)PTRDIFF_MAX - PAGE)

/* --- the general way --- */

/* alignment: a power of two */
static NOT_INLINE void *allocate(size_t alignment, size_t size)
{
    int saved = errno;
    if (size > SIZE_MAX_) {
        errno = ENOMEM;
        return NULL;
    }
    /* environ: NULL until the C library has initialised itself */
    if (preload_inside || (!preload_is_made() && environ == NULL))
        return preload_pool_take(alignment, size);
    if (!preload_is_made())
        preload_make_heap();
    size = (size + (size == 0) + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    preload_inside = true;
    void *block = alignment <= ALIGNMENT
                      ? nvm_malloc(preload_heap, size)
                      : nvm_aligned_malloc(preload_heap, alignment, size);
    preload_inside = false;
    errno = block != NULL ? saved : ENOMEM;
    return block;
}

static _Noreturn NOT_INLINE void no_block(const char *function, const void *block)
{
    preload_say("%s(%p): no live block begins there", function, block);
    abort();
}

/* The coordinates of a live block of the heap, or the process ends. */
static struct nvm_block find(const char *function, const void *address)
{
    struct nvm_block block;
    if (!preload_is_made() ||
        !nvm_find_block(preload_heap, nvm_heap_offset(preload_heap, address),
                        NVM_BLOCK_LIVE, &block))
        no_block(function, address);
    return block;
}

static NOT_INLINE void give_back(void *address)
{
    if (address == NULL || preload_pool_has(address))
        return;
    int saved = errno;
    struct nvm_heap *heap = preload_heap;
    struct nvm_block block = find("free", address);
    if (nvm_tcache_last.gc_id != heap->id && !nvm_block_is_extent(block)) {
        /* A thread that only frees, or whose cache has ended before it, needs none. */
        struct nvm_persist uncounted = {0};
        *nvm_block_state(heap, block.offset) = NVM_BLOCK_IDLE;
        nvm_arena_give(heap, &uncounted, &block, 1);
    } else {
        nvm_free(heap, address);
    }
    errno = saved;
}

static NOT_INLINE void spill(struct nvm_tcache *tcache, unsigned klass)
{
    int saved = errno;
    nvm_tcache_spill(tcache, klass);
    errno = saved;
}

/* --- malloc and free --- */

EXPORT void *malloc(size_t size)
{
    struct nvm_heap *heap = preload_heap;
    /* size - 1: 0 goes the general way. */
    if (likely(nvm_tcache_last.gc_id == heap->id && size - 1 < NVM_LATE_MAX)) {
        size = (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
        struct nvm_tcache_bin *bin =
            &nvm_tcache_last.tcache->bins[nvm_sizeclass_of_small(size)];
        void *block = nvm_gc_pop(heap, bin);
        if (likely(block != NULL))
            return block;
    }
    return allocate(ALIGNMENT, size);
}

EXPORT void free(void *address)
{
    struct nvm_heap *heap = preload_heap;
    struct nvm_gc_block block;
    if (likely(nvm_tcache_last.gc_id == heap->id && nvm_gc_find(heap, address, &block))) {
        struct nvm_tcache *tcache = nvm_tcache_last.tcache;
        if (nvm_gc_push(heap, tcache, block))
            spill(tcache, (unsigned)block.klass);
        return;
    }
    give_back(address);
}

/* Of programs that were linked before glibc 2.26. */
EXPORT void cfree(void *address)
{
    free(address);
}

EXPORT void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    void *block = malloc(bytes);
    /* Blocks are used again, and which never were is not known. */
    return block == NULL ? NULL : memset(block, 0, bytes);
}

/* --- realloc --- */

static size_t usable(const char *function, const void *address)
{
    return preload_pool_has(address)
               ? preload_pool_size(address)
               : nvm_block_bytes(preload_heap, find(function, address));
}

/* A block stays where it is as long as the size fits, and wastes no more than half of it:
   but for small ones, which cost more to move than they waste. */
static bool stays(size_t has, size_t size)
{
    return size <= has && (size >= has / 2 || has <= 128);
}

EXPORT void *realloc(void *old, size_t size)
{
    if (old == NULL)
        return malloc(size);
    if (size == 0) { /* as glibc does */
        free(old);
        return NULL;
    }
    size_t has = usable("realloc", old);
    if (stays(has, size))
        return old;
    void *block = malloc(size);
    if (block == NULL)
        return size <= has ? old : NULL; /* to shrink must not fail */
    memcpy(block, old, size < has ? size : has);
    free(old);
    return block;
}

EXPORT void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

/* --- aligned --- */

/* The alignment, made a power of two as glibc makes it; 0: there is none. */
static size_t round_alignment(size_t alignment)
{
    size_t power = ALIGNMENT;
    while (power < alignment && power != 0)
        power <<= 1;
    return power;
}

EXPORT void *memalign(size_t alignment, size_t size)
{
    alignment = round_alignment(alignment);
    if (alignment == 0 || alignment > NVM_ALIGNMENT_MAX) {
        errno = alignment == 0 ? EINVAL : ENOMEM;
        return NULL;
    }
    return alignment == ALIGNMENT ? malloc(size) : allocate(alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

EXPORT int posix_memalign(void **place, size_t alignment, size_t size)
{
    int saved = errno;
    if (alignment % sizeof(void *) != 0 || alignment == 0 ||
        (alignment & (alignment - 1)) != 0)
        return EINVAL;
    void *block = memalign(alignment, size);
    errno = saved;
    if (block == NULL)
        return ENOMEM;
    *place = block;
    return 0;
}

EXPORT void *valloc(size_t size)
{
    return memalign(PAGE, size);
}

EXPORT void *pvalloc(size_t size)
{
    if (size > SIZE_MAX_) {
        errno = ENOMEM;
        return NULL;
    }
    return memalign(PAGE, (size + (size == 0) + PAGE - 1) & ~(PAGE - 1));
}

EXPORT size_t malloc_usable_size(void *address)
{
    return address == NULL ? 0 : usable("malloc_usable_size", address);
}
