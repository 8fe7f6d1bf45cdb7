// SPDX-License-Identifier: Apache-2.0
/*
 * pool.h - anonymous memory for allocators that are attached thousands of times a second.
 *
 * An allocator that keeps its state in DRAM maps memory when it is attached and unmaps it
 * when it is detached: system calls, page faults, TLB flushes, for every state.  While
 * states are checked, an instrumented allocator's anonymous mappings come from one
 * reserved area instead, and go back to it.  Memory from it is zero, as new memory is:
 * the lens notes which pages are touched (every store of instrumented code, and every
 * range that the wrapped functions are given), and those are cleared when they return.
 *
 * Invariant: a page of the area that is not in use is zero.  It breaks when only code
 * that is not instrumented stores to a page; nvl_pool_is_zero() finds that.
 * Only for the thread that checks; what does not fit is mapped by the kernel.
 */
#ifndef NVL_POOL_H
#define NVL_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NVL_POOL_PAGES = 1 << 14, /* 64 MiB of address space */
    NVL_POOL_PAGE = 4096,
};

struct nvl_pool {
    uintptr_t base; /* 0: there is none */
    uint8_t touched[NVL_POOL_PAGES];
};

extern struct nvl_pool nvl_pool;

/* From now on the pool serves; to be called once, in a worker. */
void nvl_pool_open(void);
/* NULL if the request is none for the pool, or does not fit. */
void *nvl_pool_map(void *address, size_t length, int protection, int flags, int fd);
/* True if the range was the pool's. */
bool nvl_pool_unmap(void *address, size_t length);

/* Whether the invariant holds, of all that was ever used. */
bool nvl_pool_is_zero(void);

/* Code that may be instrumented writes there (at most 16 bytes). */
static inline void nvl_pool_touch(const void *address)
{
    uintptr_t offset = (uintptr_t)address - nvl_pool.base;
    if (offset < (uintptr_t)NVL_POOL_PAGES * NVL_POOL_PAGE)
        nvl_pool.touched[offset / NVL_POOL_PAGE] = 1;
}
void nvl_pool_touch_range(const void *address, size_t length);

#endif
