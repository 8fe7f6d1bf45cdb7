/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.c - the file, its mapping, and its pages.
 *
 * Who gives back what.  jemalloc asks for an extent, cuts it up, joins pieces of it
 * with pieces of its neighbours, and returns whatever it then has.  vmem takes back
 * exactly what it handed out.  So giving a range back is done in three steps for
 * each segment of vmem that the range touches: free the segment whole, then allocate
 * anew what stays taken to the left and to the right of the range, at the addresses
 * where it is.  Under the lock nobody sees the moment in which that was free.  The
 * alternative, to tell vmem of each split and each merge, would put a lock and two
 * searches on a path that jemalloc runs ten thousand times as often.
 *
 * Invariants, outside the lock (region_check() is their executable twin)
 *   1. the allocated segments of vmem are the ranges from a bit of `first` to the
 *      next bit of `last`, and there is no other bit in either;
 *   2. every page of an allocated segment has its bit in `written`;
 *   3. a page without its bit in `written` reads as zero: it is as posix_fallocate()
 *      made it.
 *
 * Why region_give() cannot fail half-way.  The addresses are free for the taking,
 * since the lock is held; what vmem may lack is memory for its own structures.  So
 * that is asked for first, while giving up still changes nothing, and the two
 * allocations after it wait for memory (VM_SLEEP) instead of failing.
 *
 * Lock order: jemalloc's own locks (its hooks are called under some), then
 * region->lock, then vmem's.  No function here calls jemalloc, or any malloc.
 */
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define WORD_BITS 64

/* --- bitmaps --------------------------------------------------------------- */

static bool bit(const uint64_t *map, size_t page)
{
    return map[page / WORD_BITS] >> page % WORD_BITS & 1;
}

static void flip(uint64_t *map, size_t page)
{
    map[page / WORD_BITS] ^= UINT64_C(1) << page % WORD_BITS;
}

/* The next set bit at or after page; words * WORD_BITS if there is none. */
static size_t next_bit(const uint64_t *map, size_t words, size_t page)
{
    size_t word = page / WORD_BITS;
    if (word >= words)
        return words * WORD_BITS;
    uint64_t bits = map[word] & UINT64_MAX << page % WORD_BITS;
    while (bits == 0) {
        if (++word == words)
            return words * WORD_BITS;
        bits = map[word];
    }
    return word * WORD_BITS + (size_t)__builtin_ctzll(bits);
}

/* The last set bit at or before page; SIZE_MAX if there is none. */
static size_t previous_bit(const uint64_t *map, size_t page)
{
    size_t word = page / WORD_BITS;
    uint64_t bits = map[word] & UINT64_MAX >> (WORD_BITS - 1 - page % WORD_BITS);
    while (bits == 0) {
        if (word-- == 0)
            return SIZE_MAX;
        bits = map[word];
    }
    return word * WORD_BITS + WORD_BITS - 1 - (size_t)__builtin_clzll(bits);
}

static size_t page_of(const struct region *region, const void *address)
{
    return (size_t)((const char *)address - region->base) / REGION_PAGE;
}

static char *address_of(const struct region *region, size_t page)
{
    return region->base + page * REGION_PAGE;
}

/* --- the file -------------------------------------------------------------- */

/* A mapping that begins at a multiple of HUGE_PAGE, where the kernel leaves the choice
   to us: within a reservation that is large enough for any beginning. */
static int map_file(struct region *region, int fd)
{
    size_t reserved = region->size + HUGE_PAGE;
    char *room = mmap(NULL, reserved, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return errno;
    char *base = room + (-(uintptr_t)room & (HUGE_PAGE - 1));
    int protection = PROT_READ | PROT_WRITE;
    region->map_sync = true;
    void *mapped = mmap(base, region->size, protection,
                        MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED && (errno == EOPNOTSUPP || errno == EINVAL)) {
        region->map_sync = false; /* no DAX here, or a kernel before 4.15 */
        mapped = mmap(base, region->size, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    }
    int error = mapped == MAP_FAILED ? errno : 0;
    if (error != 0) {
        munmap(room, reserved);
        return error;
    }
    if (base != room)
        munmap(room, (size_t)(base - room));
    char *end = base + region->size;
    munmap(end, (size_t)(room + reserved - end));
    region->base = base;
    return 0;
}

/* Only speed depends on it, so a kernel that can't (before 5.14) is no error. */
static void touch_every_page(const struct region *region)
{
#ifdef MADV_POPULATE_WRITE
    if (madvise(region->base, region->size, MADV_POPULATE_WRITE) == 0)
        return;
#endif
    for (size_t at = 0; at < region->size; at += REGION_PAGE)
        *(volatile char *)(region->base + at) = 0;
}

/* vmem and the bitmaps of a region that is mapped. */
static int manage(struct region *region)
{
    region->words = (region->size / REGION_PAGE + WORD_BITS - 1) / WORD_BITS;
    region->first = calloc(3 * region->words, sizeof *region->first);
    if (region->first == NULL)
        return ENOMEM;
    region->last = region->first + region->words;
    region->written = region->last + region->words;
    region->vmem = vmem_create("jemalloc-nvm", region->base, region->size, REGION_PAGE,
                               NULL, NULL, NULL, 0, VM_NOSLEEP);
    int error = region->vmem == NULL ? errno : 0;
    if (error == 0)
        error = pthread_mutex_init(&region->lock, NULL);
    if (error != 0) {
        if (region->vmem != NULL)
            vmem_destroy(region->vmem);
        free(region->first);
    }
    return error;
}

int region_create(const char *path, size_t size, bool prefault, struct region *region)
{
    *region = (struct region){.size = size & ~(REGION_PAGE - 1)};
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return errno;
    int error = posix_fallocate(fd, 0, (off_t)region->size);
    if (error == 0)
        error = map_file(region, fd);
    close(fd); /* the mapping keeps the file */
    if (error == 0) {
        error = manage(region);
        if (error != 0)
            munmap(region->base, region->size);
    }
    if (error != 0) {
        unlink(path);
        return error;
    }
    if (prefault)
        touch_every_page(region);
    return 0;
}

void region_close(struct region *region)
{
    vmem_destroy(region->vmem);
    pthread_mutex_destroy(&region->lock);
    munmap(region->base, region->size);
    free(region->first);
}

/* --- pages ----------------------------------------------------------------- */

/* Whether all pages of [page, end) were fresh; they are not from now on.  Those that
   were not are cleared first if `clear`. */
static bool use_pages(struct region *region, size_t page, size_t end, bool clear)
{
    bool fresh = true;
    for (; page < end; page++) {
        if (!bit(region->written, page)) {
            flip(region->written, page);
        } else {
            fresh = false;
            if (clear)
                memset(address_of(region, page), 0, REGION_PAGE);
        }
    }
    return fresh;
}

void *region_take(struct region *region, void *at, size_t size, size_t align, bool *zero)
{
    char *end = at != NULL ? (char *)at + size : NULL;
    if (size == 0 || size > region->size ||
        (at != NULL && !region_holds(region, at, size)))
        return NULL;
    if (align < REGION_PAGE)
        align = REGION_PAGE;
    pthread_mutex_lock(&region->lock);
    char *taken = vmem_xalloc(region->vmem, size, align, 0, 0, at, end, VM_NOSLEEP);
    if (taken != NULL) {
        size_t page = page_of(region, taken), pages = size / REGION_PAGE;
        flip(region->first, page);
        flip(region->last, page + pages - 1);
        bool fresh = use_pages(region, page, page + pages, *zero);
        *zero |= fresh;
    }
    pthread_mutex_unlock(&region->lock);
    return taken;
}

__attribute__((noreturn)) static void not_taken(const struct region *region, size_t page)
{
    fprintf(
        stderr,
        "jemalloc-nvm: page %zu of the region at %p (address %p) is given back, but is "
        "not taken\n",
        page, (void *)region->base, (void *)address_of(region, page));
    abort();
}

/* Allocates [page, end), which was freed under the lock that is still held. */
static void retake(struct region *region, size_t page, size_t end)
{
    if (page >= end)
        return;
    char *at = address_of(region, page), *limit = address_of(region, end);
    if (vmem_xalloc(region->vmem, (size_t)(limit - at), 0, 0, 0, at, limit, VM_SLEEP) !=
        at)
        not_taken(region, page);
    flip(region->first, page);
    flip(region->last, end - 1);
}

/* Frees [page, end) of the one segment that `page` lies in; returns where that ends, or
   end if it comes first. */
static size_t give_from_segment(struct region *region, size_t page, size_t end)
{
    size_t first = previous_bit(region->first, page);
    size_t last = first == SIZE_MAX ? 0 : next_bit(region->last, region->words, first);
    if (first == SIZE_MAX || last < page)
        not_taken(region, page);
    size_t stop = last + 1 < end ? last + 1 : end;
    flip(region->first, first);
    flip(region->last, last);
    vmem_xfree(region->vmem, address_of(region, first), (last + 1 - first) * REGION_PAGE);
    retake(region, first, page);
    retake(region, stop, last + 1);
    return stop;
}

bool region_give(struct region *region, void *address, size_t size)
{
    if (!region_holds(region, address, size) || size % REGION_PAGE != 0 ||
        (uintptr_t)address % REGION_PAGE != 0)
        not_taken(region, page_of(region, address));
    size_t page = page_of(region, address), end = page + size / REGION_PAGE;
    pthread_mutex_lock(&region->lock);
    bool can = vmem_populate(region->vmem, VM_NOSLEEP);
    while (can && page < end)
        page = give_from_segment(region, page, end);
    pthread_mutex_unlock(&region->lock);
    return can;
}

bool region_holds(const struct region *region, const void *address, size_t size)
{
    uintptr_t offset = (uintptr_t)address - (uintptr_t)region->base;
    return offset < region->size && size <= region->size - offset;
}

size_t region_taken(struct region *region)
{
    return vmem_size(region->vmem, VMEM_ALLOC);
}

/* --- the invariants' executable twin --------------------------------------- */

struct survey {
    const struct region *region;
    size_t segments;
    const char *wrong;
};

static void survey_segment(void *context, void *start, size_t size)
{
    struct survey *survey = context;
    const struct region *region = survey->region;
    size_t first = page_of(region, start), end = first + size / REGION_PAGE;
    survey->segments++;
    if (!bit(region->first, first) || !bit(region->last, end - 1))
        survey->wrong = "a segment of vmem without its first or last bit";
    for (size_t page = first; page < end; page++)
        if (!bit(region->written, page))
            survey->wrong = "a taken page that is not marked as written";
}

static size_t count_bits(const uint64_t *map, size_t words)
{
    size_t count = 0;
    for (size_t i = 0; i < words; i++)
        count += (size_t)__builtin_popcountll(map[i]);
    return count;
}

bool region_check(struct region *region, char *why, size_t length)
{
    struct survey survey = {.region = region};
    pthread_mutex_lock(&region->lock);
    bool right = vmem_check(region->vmem, why, length);
    if (right) {
        vmem_walk(region->vmem, VMEM_ALLOC, survey_segment, &survey);
        if (count_bits(region->first, region->words) != survey.segments ||
            count_bits(region->last, region->words) != survey.segments)
            survey.wrong = "a first or last bit where vmem has no segment";
        right = survey.wrong == NULL;
        if (!right)
            snprintf(why, length, "%s", survey.wrong);
    }
    pthread_mutex_unlock(&region->lock);
    return right;
}
