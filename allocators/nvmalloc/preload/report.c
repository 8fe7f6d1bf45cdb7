/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.c - what can be asked of the heap: mallinfo2(), malloc_stats(),
 * malloc_trim(), and the report at exit.
 *
 * NVM use is what is allocated in the heap file: all units that were ever
 * added, and their metadata, less the holes.  It shrinks only by malloc_trim(),
 * so its peak is the largest of what it was before each, and what it is now.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build.h"
#include "extent.h"
#include "fork.h"
#include "nvmalloc.h"
#include "pool.h"
#include "process_heap.h"

#define EXPORT __attribute__((visibility("default")))

static _Atomic uint64_t peak_before_trims;

struct usage {
    struct nvm_heap *heap;
    uint64_t file_bytes; /* allocated in the heap file */
    uint64_t live_bytes, live_blocks;
    uint64_t extent_bytes, extents; /* of which have units of their own */
};

static int count_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    struct usage *usage = context;
    uint64_t bytes = (uint64_t)chunk.units << NVM_UNIT_SHIFT;
    nvm_unit member = nvm_unit_get(heap, unit);
    uint64_t tag = nvm_unit_tag(member);
    if (chunk.state == NVM_CHUNK_SLAB) {
        const struct nvm_class *klass = &nvm_classes[chunk.klass];
        uint64_t live = 0;
        for (uint32_t word = 0; word < klass->words; word++)
            live += (uint64_t)__builtin_popcountl(nvm_slab_live(heap, tag, word));
        usage->live_blocks += live;
        usage->live_bytes += live * klass->size;
    } else if (nvm_unit_kind(member) == NVM_UNIT_EXTENT) {
        usage->live_blocks++;
        usage->live_bytes += bytes;
        usage->extents++;
        usage->extent_bytes += bytes;
    }
    return 0;
}

static uint64_t file_bytes(struct nvm_heap *heap)
{
    const struct nvm_super *super = &heap->super;
    uint64_t present = 0;
    pthread_mutex_lock(&heap->units_lock);
    for (uint64_t unit = 0; unit < super->units; unit++)
        present += !(heap->unit_flags[unit] & NVM_UNIT_HOLE);
    uint64_t tables = super->units * (sizeof(uint64_t) + NVM_BITMAP_BYTES);
    pthread_mutex_unlock(&heap->units_lock);
    return super->lanes_offset + tables + (present << NVM_UNIT_SHIFT);
}

static struct usage take_stock(void)
{
    struct usage usage = {.heap = preload_heap};
    if (!preload_is_made())
        return usage;
    usage.file_bytes = file_bytes(usage.heap);
    /* Runs change under this lock only; blocks may meanwhile. */
    pthread_mutex_lock(&usage.heap->chunk_lock);
    nvm_heap_each_run(usage.heap, count_run, &usage);
    pthread_mutex_unlock(&usage.heap->chunk_lock);
    return usage;
}

static uint64_t peak_bytes(uint64_t now)
{
    uint64_t before = atomic_load(&peak_before_trims);
    return before > now ? before : now;
}

EXPORT int malloc_trim(size_t pad)
{
    (void)pad; /* what stays free stays in thread caches, if at all */
    size_t freed = 0;
    int saved = errno;
    if (preload_is_made()) {
        uint64_t now = file_bytes(preload_heap), before = atomic_load(&peak_before_trims);
        while (now > before &&
               !atomic_compare_exchange_weak(&peak_before_trims, &before, now))
            ;
        nvm_trim(preload_heap, &freed);
    }
    errno = saved;
    return freed != 0;
}

EXPORT struct mallinfo2 mallinfo2(void)
{
    struct usage usage = take_stock();
    return (struct mallinfo2){
        .arena = usage.file_bytes - usage.extent_bytes,
        .hblks = usage.extents,
        .hblkhd = usage.extent_bytes,
        .uordblks = usage.live_bytes,
        .fordblks = usage.file_bytes - usage.live_bytes,
    };
}

/* Its fields are of type int; what does not fit wraps around, as glibc's does. */
EXPORT struct mallinfo mallinfo(void)
{
    struct mallinfo2 info = mallinfo2();
    return (struct mallinfo){
        .arena = (int)info.arena,
        .hblks = (int)info.hblks,
        .hblkhd = (int)info.hblkhd,
        .uordblks = (int)info.uordblks,
        .fordblks = (int)info.fordblks,
    };
}

EXPORT void malloc_stats(void)
{
    struct usage usage = take_stock();
    preload_say("%llu bytes in %llu blocks are live, of %llu allocated in the heap file",
                (unsigned long long)usage.live_bytes,
                (unsigned long long)usage.live_blocks,
                (unsigned long long)usage.file_bytes);
}

/* --- the report at exit --- */

static void append_line(const char *path, const struct usage *usage)
{
    struct preload_fork_costs forks = preload_fork_costs();
    char line[1024], program[256];
    size_t length = 0;
    /* A name is not escaped: what JSON would have escaped becomes a '?'. */
    for (const char *c = program_invocation_short_name;
         *c != '\0' && length < sizeof(program) - 1; c++)
        program[length++] = *c;
    program[length] = '\0';
    for (size_t i = 0; i < length; i++)
        if (program[i] == '"' || program[i] == '\\' || (unsigned char)program[i] < 0x20)
            program[i] = '?';
    int bytes = snprintf(
        line, sizeof(line),
        "{\"pid\":%d,\"program\":\"%s\",\"peak_bytes\":%llu,\"file_bytes\":%llu,"
        "\"live_bytes\":%llu,\"live_blocks\":%llu,\"max_bytes\":%llu,\"map_sync\":%s,"
        "\"pool_bytes\":%zu,\"forks\":%llu,\"fork_bytes\":%llu,\"fork_ns\":%llu}\n",
        (int)getpid(), program, (unsigned long long)peak_bytes(usage->file_bytes),
        (unsigned long long)usage->file_bytes, (unsigned long long)usage->live_bytes,
        (unsigned long long)usage->live_blocks,
        (unsigned long long)usage->heap->super.max_size,
        usage->heap->region.map_sync ? "true" : "false", preload_pool_used(),
        (unsigned long long)forks.copies, (unsigned long long)forks.bytes,
        (unsigned long long)forks.nanoseconds);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0 || write(fd, line, (size_t)bytes) != bytes)
        preload_say("NVM_MALLOC_REPORT=%s: cannot write it (%s)", path,
                    strerrorname_np(errno));
    if (fd >= 0)
        close(fd);
}

static void tell(const struct usage *usage)
{
    uint64_t peak = peak_bytes(usage->file_bytes);
    preload_say("%s (process %d): peak NVM use %llu bytes (%llu.%llu MiB), in %s.*; "
                "%llu bytes in %llu blocks are live at exit",
                program_invocation_short_name, (int)getpid(), (unsigned long long)peak,
                (unsigned long long)(peak >> 20),
                (unsigned long long)((peak & 0xfffff) * 10 >> 20), preload_prefix(),
                (unsigned long long)usage->live_bytes,
                (unsigned long long)usage->live_blocks);
}

__attribute__((destructor)) static void report(void)
{
    const char *wanted = getenv("NVM_MALLOC_REPORT");
    if (wanted == NULL || *wanted == '\0' || strcmp(wanted, "0") == 0 ||
        !preload_is_made())
        return;
    struct usage usage = take_stock();
    if (strcmp(wanted, "1") == 0)
        tell(&usage);
    else
        append_line(wanted, &usage);
}
