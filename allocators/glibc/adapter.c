/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's malloc. Its figures (volatile_stats) are those of the whole
   process: the driver's own blocks are among them. */
#include <gnu/libc-version.h>
#include <malloc.h>
#include <stdlib.h>

#include "adapter.h"

static inline void *volatile_alloc(size_t size)
{
    return malloc(size);
}

static inline void volatile_free(void *block)
{
    free(block);
}

static inline size_t volatile_usable(void *block)
{
    return malloc_usable_size(block);
}

static const char *volatile_version(void)
{
    return gnu_get_libc_version();
}

static void volatile_stats(struct nvc_stats *stats)
{
    struct mallinfo2 info = mallinfo2();
    stats->heap_bytes = info.arena + info.hblkhd;
    /* Chunks in the thread caches count as in use, those in the fast bins as
       free; neither serves another size. */
    stats->used_bytes = info.uordblks + info.fsmblks + info.hblkhd;
}

#define VOLATILE_NAME    "glibc"
#define VOLATILE_LIBRARY "libc.so"
#define VOLATILE_SERVES  malloc
#include "../volatile_adapter.h"
