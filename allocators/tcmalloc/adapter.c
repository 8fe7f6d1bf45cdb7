/* SPDX-License-Identifier: Apache-2.0 */
/* gperftools' tcmalloc (the minimal build: no heap profiler in the way) through
   its tc_ functions, which no other library answers to. */
#include <gperftools/malloc_extension_c.h>
#include <gperftools/tcmalloc.h>

#include "adapter.h"

static inline void *volatile_alloc(size_t size)
{
    return tc_malloc(size);
}

static inline void volatile_free(void *block)
{
    tc_free(block);
}

static inline size_t volatile_usable(void *block)
{
    return tc_malloc_size(block);
}

static const char *volatile_version(void)
{
    return tc_version(NULL, NULL, NULL);
}

static void volatile_stats(struct nvc_stats *stats)
{
    size_t live, heap, free_pages, returned;
    if (MallocExtension_GetNumericProperty("generic.current_allocated_bytes", &live) !=
        0) {
        stats->live_bytes = live;
    }
    if (MallocExtension_GetNumericProperty("generic.heap_size", &heap) == 0) {
        return;
    }
    stats->heap_bytes = heap;
    if (MallocExtension_GetNumericProperty("tcmalloc.pageheap_free_bytes", &free_pages) !=
            0 &&
        MallocExtension_GetNumericProperty("tcmalloc.pageheap_unmapped_bytes",
                                           &returned) != 0) {
        stats->used_bytes = heap - free_pages - returned;
    }
}

#define VOLATILE_NAME    "tcmalloc"
#define VOLATILE_LIBRARY "libtcmalloc_minimal.so"
#define VOLATILE_SERVES  tc_malloc
#include "../volatile_adapter.h"
