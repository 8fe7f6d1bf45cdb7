/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - see pool.h.  Blocks follow one another; the 16 bytes before each
 * hold its size.
 */
#include "pool.h"

#include <stdatomic.h>
#include <stdint.h>

#include "process_heap.h"

#define POOL_BYTES ((size_t)256 << 10)
#define HEAD       ((size_t)16)

static _Alignas(4096) char pool[POOL_BYTES];
static _Atomic size_t used;

void *preload_pool_take(size_t alignment, size_t size)
{
    if (alignment < HEAD)
        alignment = HEAD;
    if (alignment <= POOL_BYTES && size <= POOL_BYTES) {
        size_t before = atomic_load(&used), start, end;
        do {
            uintptr_t at = (uintptr_t)pool + before + HEAD;
            start =
                ((at + alignment - 1) & ~(uintptr_t)(alignment - 1)) - (uintptr_t)pool;
            end = start + ((size + HEAD - 1) & ~(HEAD - 1));
        } while (end <= POOL_BYTES && !atomic_compare_exchange_weak(&used, &before, end));
        if (end <= POOL_BYTES) {
            *(size_t *)(void *)(pool + start - HEAD) = size;
            return pool + start;
        }
    }
    preload_die("a block of %zu bytes was asked for before the heap is made, and %zu of "
                "the %zu bytes for that are in use",
                size, preload_pool_used(), POOL_BYTES);
}

bool preload_pool_has(const void *block)
{
    return (uintptr_t)block - (uintptr_t)pool < POOL_BYTES;
}

size_t preload_pool_size(const void *block)
{
    return *(const size_t *)(const void *)((const char *)block - HEAD);
}

size_t preload_pool_used(void)
{
    return atomic_load(&used);
}
