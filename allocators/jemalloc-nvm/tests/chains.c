/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chains.c - who called whom when jemalloc asked the system for memory.
 *
 * Linked with Debian's static jemalloc and --wrap=mmap,--wrap=sbrk, so that each such
 * call comes here first.  Prints a line for each: the phase of this program, the call,
 * its size, and the return addresses up to main(), which chains.py turns into names.
 */
#include <execinfo.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <jemalloc/jemalloc.h>

#define ROOM   ((size_t)64 << 20)
#define FRAMES 40

static const char *phase; /* NULL: not yet; backtrace() allocates when first called */

static void report(const char *call, size_t size)
{
    void *frames[FRAMES];
    if (phase == NULL)
        return;
    int depth = backtrace(frames, FRAMES);
    printf("%s %s %zu", phase, call, size);
    for (int i = 2; i < depth; i++) /* without report() and the wrapper */
        printf(" %" PRIxPTR, (uintptr_t)frames[i]);
    puts("");
}

void *__real_mmap(void *address, size_t size, int protection, int flags, int fd,
                  off_t offset);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd,
                  off_t offset);
void *__real_sbrk(intptr_t increment);
void *__wrap_sbrk(intptr_t increment);

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd,
                  off_t offset)
{
    report("mmap", size);
    return __real_mmap(address, size, protection, flags, fd, offset);
}

void *__wrap_sbrk(intptr_t increment)
{
    report("sbrk", (size_t)increment); /* 0: asks where the break is */
    return __real_sbrk(increment);
}

/* --- hooks that draw from one mapping, made beforehand ------------------------- */

static char *room, *next;

static void *hook_alloc(extent_hooks_t *hooks, void *at, size_t size, size_t align,
                        bool *zero, bool *commit, unsigned arena)
{
    (void)hooks, (void)arena;
    uintptr_t start = ((uintptr_t)next + align - 1) & ~(align - 1);
    if (at != NULL || start + size > (uintptr_t)room + ROOM)
        return NULL;
    report("hook", size);
    next = (char *)start + size;
    *zero = *commit = true;
    return (void *)start;
}

static bool hook_split(extent_hooks_t *hooks, void *address, size_t size, size_t size_a,
                       size_t size_b, bool committed, unsigned arena)
{
    (void)hooks, (void)address, (void)size, (void)size_a, (void)size_b, (void)committed;
    (void)arena;
    return false;
}

static extent_hooks_t table = {.alloc = hook_alloc, .split = hook_split};

static void take_blocks(const char *name, int flags)
{
    phase = name;
    for (size_t i = 0; i < 200; i++) {
        if (mallocx(100, flags) == NULL || mallocx(100000, flags) == NULL)
            abort();
    }
    phase = "other";
}

static unsigned made_arena(const char *name, extent_hooks_t *hooks)
{
    unsigned index;
    size_t size = sizeof index;
    phase = name;
    if (mallctl("arenas.create", &index, &size, hooks != NULL ? (void *)&hooks : NULL,
                hooks != NULL ? sizeof hooks : 0) != 0)
        abort();
    phase = "other";
    return index;
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0); /* or stdio would allocate at some time */
    void *frames[FRAMES];
    backtrace(frames, FRAMES);
    phase = "other";
    if (mallocx(1, 0) == NULL) /* jemalloc starts */
        return 1;
    room = __real_mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    if (room == MAP_FAILED)
        return 1;
    next = room;
    take_blocks("automatic", MALLOCX_TCACHE_NONE);

    /* Hooks from the beginning: metadata comes through them too. */
    unsigned both = made_arena("both-create", &table);
    take_blocks("both", MALLOCX_ARENA(both) | MALLOCX_TCACHE_NONE);

    /* Hooks afterwards: metadata comes from mmap(). */
    unsigned extents = made_arena("extents-create", NULL);
    char name[64];
    extent_hooks_t *hooks = &table;
    snprintf(name, sizeof name, "arena.%u.extent_hooks", extents);
    if (mallctl(name, NULL, NULL, &hooks, sizeof hooks) != 0)
        return 1;
    take_blocks("extents", MALLOCX_ARENA(extents) | MALLOCX_TCACHE_NONE);

    /* The break instead of mmap(). */
    unsigned broken = made_arena("break-create", NULL);
    const char *precedence = "primary";
    snprintf(name, sizeof name, "arena.%u.dss", broken);
    if (mallctl(name, NULL, NULL, &precedence, sizeof precedence) != 0)
        return 1;
    take_blocks("break", MALLOCX_ARENA(broken) | MALLOCX_TCACHE_NONE);
    return 0;
}
