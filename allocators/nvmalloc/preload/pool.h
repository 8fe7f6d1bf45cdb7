/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - memory for what is allocated before the heap can be made, and while
 * it, or a thread's cache, is being made.
 *
 * That is the dynamic linker's, before the C library has initialised itself
 * and can tell the environment, and whatever the C library wants meanwhile: a
 * few KiB.  It lies in the library's own static memory, which is DRAM, and is
 * never given back.  If it ends, the process does, with a message.
 */
#ifndef PRELOAD_POOL_H
#define PRELOAD_POOL_H

#include <stdbool.h>
#include <stddef.h>

/* size bytes, zeroed, at a multiple of alignment, a power of two; never NULL. */
void *preload_pool_take(size_t alignment, size_t size);
bool preload_pool_has(const void *block);
/* Bytes of a block of the pool. */
size_t preload_pool_size(const void *block);
/* Bytes that were taken. */
size_t preload_pool_used(void);

#endif
