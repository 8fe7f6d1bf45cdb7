/* SPDX-License-Identifier: Apache-2.0 */
/* jemalloc through its non-standard API, which no other library answers to. */
#include <jemalloc/jemalloc.h>
#include <stdint.h>

#include "adapter.h"

static inline void *volatile_alloc(size_t size)
{
    return mallocx(size, 0);
}

static inline void volatile_free(void *block)
{
    dallocx(block, 0);
}

static inline size_t volatile_usable(void *block)
{
    return sallocx(block, 0);
}

static const char *volatile_version(void)
{
    static const char *version;
    size_t size = sizeof version;
    return mallctl("version", &version, &size, NULL, 0) == 0 ? version : "unknown";
}

static uint64_t read_bytes(const char *name)
{
    size_t value;
    size_t size = sizeof value;
    return mallctl(name, &value, &size, NULL, 0) == 0 ? value : UINT64_MAX;
}

static void volatile_stats(struct nvc_stats *stats)
{
    uint64_t epoch = 1; /* any value: the write is what refreshes the figures */
    size_t size = sizeof epoch;
    if (mallctl("epoch", &epoch, &size, &epoch, size) != 0) {
        return;
    }
    /* stats.allocated counts what thread caches hold as allocated: not live_bytes. */
    uint64_t active = read_bytes("stats.active");
    uint64_t metadata = read_bytes("stats.metadata");
    stats->heap_bytes = read_bytes("stats.mapped");
    if (active != UINT64_MAX && metadata != UINT64_MAX) {
        stats->used_bytes = active + metadata;
    }
}

#define VOLATILE_NAME    "jemalloc"
#define VOLATILE_LIBRARY "libjemalloc.so"
#define VOLATILE_SERVES  mallocx
#include "../volatile_adapter.h"
