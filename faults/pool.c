// SPDX-License-Identifier: Apache-2.0
/*
 * pool.c - first fit over pages; an attach takes a dozen ranges and returns them all.
 */
#include "pool.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ranges_max = 64,
};

struct nvl_pool nvl_pool;

/* Ranges in use, by page, in ascending order. */
static struct {
    uint32_t first, pages;
} used[ranges_max];
static unsigned used_count;

void nvl_pool_open(void)
{
    void *area = (void *)syscall(SYS_mmap, NULL, (size_t)NVL_POOL_PAGES * NVL_POOL_PAGE,
                                 PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    nvl_pool.base = area == MAP_FAILED ? 0 : (uintptr_t)area;
}

static void insert(unsigned at, uint32_t first, uint32_t pages)
{
    memmove(&used[at + 1], &used[at], (used_count - at) * sizeof used[0]);
    used[at].first = first;
    used[at].pages = pages;
    used_count++;
}

void *nvl_pool_map(void *address, size_t length, int protection, int flags, int fd)
{
    const int wanted = MAP_PRIVATE | MAP_ANONYMOUS;
    if (nvl_pool.base == 0 || address != NULL || fd != -1 || length == 0 ||
        protection != (PROT_READ | PROT_WRITE) ||
        (flags & ~(MAP_NORESERVE | MAP_STACK)) != wanted || used_count == ranges_max)
        return NULL;
    size_t pages = (length + NVL_POOL_PAGE - 1) / NVL_POOL_PAGE;
    uint32_t from = 0;
    unsigned i = 0;
    while (i < used_count && used[i].first - from < pages) {
        from = used[i].first + used[i].pages;
        i++;
    }
    if (pages > NVL_POOL_PAGES || from > NVL_POOL_PAGES - pages)
        return NULL;
    insert(i, from, (uint32_t)pages);
    return (void *)(nvl_pool.base + (uintptr_t)from * NVL_POOL_PAGE);
}

bool nvl_pool_unmap(void *address, size_t length)
{
    uintptr_t offset = (uintptr_t)address - nvl_pool.base;
    size_t pages = (length + NVL_POOL_PAGE - 1) / NVL_POOL_PAGE;
    if (nvl_pool.base == 0 || offset >= (uintptr_t)NVL_POOL_PAGES * NVL_POOL_PAGE)
        return false;
    uint32_t first = (uint32_t)(offset / NVL_POOL_PAGE);
    for (size_t page = first; page < first + pages; page++) {
        if (!nvl_pool.touched[page])
            continue;
        memset((void *)(nvl_pool.base + page * NVL_POOL_PAGE), 0, NVL_POOL_PAGE);
        nvl_pool.touched[page] = 0;
    }
    for (unsigned i = 0; i < used_count; i++) {
        if (used[i].first != first || used[i].pages != pages)
            continue;
        memmove(&used[i], &used[i + 1], (used_count - i - 1) * sizeof used[0]);
        used_count--;
        return true;
    }
    /* A part of a range: clean, and in use until the whole is returned. */
    return true;
}

void nvl_pool_touch_range(const void *address, size_t length)
{
    const char *byte = address;
    for (size_t at = 0; nvl_pool.base != 0 && at < length; at += NVL_POOL_PAGE)
        nvl_pool_touch(byte + at);
    if (nvl_pool.base != 0 && length > 0)
        nvl_pool_touch(byte + length - 1);
}
