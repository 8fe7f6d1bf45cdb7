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
static size_t used_end; /* of the pages ever in use */

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
    used_end = from + pages > used_end ? from + pages : used_end;
    return (void *)(nvl_pool.base + (uintptr_t)from * NVL_POOL_PAGE);
}

bool nvl_pool_unmap(void *address, size_t length)
{
    uintptr_t offset = (uintptr_t)address - nvl_pool.base;
    size_t pages = (length + NVL_POOL_PAGE - 1) / NVL_POOL_PAGE;
    if (nvl_pool.base == 0 || offset >= (uintptr_t)NVL_POOL_PAGES * NVL_POOL_PAGE)
        return false;
    uint32_t first = (uint32_t)(offset / NVL_POOL_PAGE);
    const uint8_t *end = nvl_pool.touched + first + pages;
    for (uint8_t *mark = nvl_pool.touched + first;
         (mark = memchr(mark, 1, (size_t)(end - mark))) != NULL; mark++) {
        size_t page = (size_t)(mark - nvl_pool.touched);
        memset((void *)(nvl_pool.base + page * NVL_POOL_PAGE), 0, NVL_POOL_PAGE);
        *mark = 0;
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

static bool is_zero(uint32_t page)
{
    const uint64_t *word = (const void *)(nvl_pool.base + (size_t)page * NVL_POOL_PAGE);
    uint64_t any = 0;
    for (size_t i = 0; i < NVL_POOL_PAGE / sizeof *word; i++)
        any |= word[i];
    return any == 0;
}

bool nvl_pool_is_zero(void)
{
    uint32_t page = 0;
    for (unsigned i = 0; i <= used_count; i++) {
        uint32_t end = i < used_count ? used[i].first : (uint32_t)used_end;
        for (; page < end; page++)
            if (!is_zero(page))
                return false;
        if (i < used_count)
            page = used[i].first + used[i].pages;
    }
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
