/* SPDX-License-Identifier: Apache-2.0 */
/* mimalloc through its mi_ functions, which no other library answers to. */
#include <mimalloc.h>
#include <stdio.h>

#include "adapter.h"

static inline void *volatile_alloc(size_t size)
{
    return mi_malloc(size);
}

static inline void volatile_free(void *block)
{
    mi_free(block);
}

static inline size_t volatile_usable(void *block)
{
    return mi_usable_size(block);
}

static const char *volatile_version(void)
{
    /* 209 is 2.0.9. */
    static char text[16];
    int version = mi_version();
    snprintf(text, sizeof text, "%d.%d.%d", version / 100, version / 10 % 10,
             version % 10);
    return text;
}

static void volatile_stats(struct nvc_stats *stats)
{
    size_t ignored, commit = 0;
    mi_process_info(&ignored, &ignored, &ignored, &ignored, &ignored, &commit, &ignored,
                    &ignored);
    stats->heap_bytes = commit;
}

#define VOLATILE_NAME    "mimalloc"
#define VOLATILE_LIBRARY "libmimalloc.so"
#define VOLATILE_SERVES  mi_malloc
#include "../volatile_adapter.h"
