/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native_heap.c - file, lock, mapping and write-back; native_heap.h has the theory.
 */
#include "native_heap.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE 64

struct first_line {
    uint64_t magic;
    uint64_t bytes;
    uint64_t slots;
};
_Static_assert(sizeof(struct first_line) <= NATIVE_HEAP_FIRST, "it is one line");
_Static_assert(offsetof(struct first_line, slots) == 16, "as in native_heap.h");

static _Thread_local char last_error[512];
static nvc_event_fn *event_fn;
static void *event_context;
static _Atomic uint64_t flushes, fences;

int native_heap_fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

const char *native_heap_last_error(void)
{
    return last_error;
}

/* ---- write-back ---- */

enum flush { FLUSH_UNKNOWN, FLUSH_CLFLUSH, FLUSH_CLFLUSHOPT, FLUSH_CLWB };
static const char *const flush_names[] = {"", "clflush", "clflushopt", "clwb"};

__attribute__((target("clwb"))) static void clwb(const void *line)
{
    _mm_clwb((void *)(uintptr_t)line);
}

__attribute__((target("clflushopt"))) static void clflushopt(const void *line)
{
    _mm_clflushopt((void *)(uintptr_t)line);
}

static enum flush best_flush(void)
{
    static _Atomic int known;
    if (known == FLUSH_UNKNOWN) {
        unsigned eax, ebx = 0, ecx, edx;
        if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0)
            ebx = 0;
        known = (ebx & bit_CLWB) != 0         ? FLUSH_CLWB
                : (ebx & bit_CLFLUSHOPT) != 0 ? FLUSH_CLFLUSHOPT
                                              : FLUSH_CLFLUSH;
    }
    return (enum flush)known;
}

void native_heap_persist(const void *address, size_t length)
{
    const enum flush flush = best_flush();
    const uintptr_t end = (uintptr_t)address + length;
    uintptr_t line = (uintptr_t)address & ~(uintptr_t)(LINE - 1);
    if (length == 0)
        return;
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_FLUSH, address, length);
    atomic_fetch_add_explicit(&flushes, (end - line + LINE - 1) / LINE,
                              memory_order_relaxed);
    for (; line < end; line += LINE) {
        if (flush == FLUSH_CLWB)
            clwb((const void *)line);
        else if (flush == FLUSH_CLFLUSHOPT)
            clflushopt((const void *)line);
        else
            _mm_clflush((const void *)line);
    }
    if (event_fn != NULL)
        event_fn(event_context, NVC_EVENT_FENCE, NULL, 0);
    atomic_fetch_add_explicit(&fences, 1, memory_order_relaxed);
    _mm_sfence();
}

int native_heap_observe(nvc_event_fn *fn, void *context)
{
    event_context = context;
    event_fn = fn;
    return 0;
}

void native_heap_stats(const struct native_heap *heap, struct nvc_stats *stats)
{
    stats->heap_bytes = heap->bytes;
    stats->flushes = flushes;
    stats->fences = fences;
    stats->nt_lines = 0;
    stats->map_sync = heap->map_sync;
    snprintf(stats->flush, sizeof stats->flush, "%s", flush_names[best_flush()]);
}

/* ---- file ---- */

/* Locks and maps an open file; the descriptor is closed on failure. */
static int adopt(const char *path, int fd, size_t bytes, struct native_heap *heap)
{
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return native_heap_fail(EBUSY, "%s: another process has the heap open", path);
    }
    int how = MAP_SHARED_VALIDATE | MAP_SYNC;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, how, fd, 0);
    heap->map_sync = base != MAP_FAILED;
    if (base == MAP_FAILED) /* no DAX here */
        base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        close(fd);
        return native_heap_fail(error, "%s: mapping %zu bytes: %s", path, bytes,
                                strerror(error));
    }
    heap->base = base;
    heap->bytes = bytes;
    heap->fd = fd;
    return 0;
}

int native_heap_create(const char *path, size_t bytes, size_t slots,
                       struct native_heap *heap)
{
    if (bytes < NATIVE_HEAP_MIN)
        return native_heap_fail(EINVAL, "%s: %zu bytes are too few; a heap takes %d",
                                path, bytes, NATIVE_HEAP_MIN);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return native_heap_fail(errno, "%s: %s", path, strerror(errno));
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error != 0) {
        close(fd);
        native_heap_fail(error, "%s: no %zu bytes of space: %s", path, bytes,
                         strerror(error));
    } else {
        error = adopt(path, fd, bytes, heap);
    }
    if (error != 0) {
        unlink(path);
        return error;
    }
    struct first_line *first = (struct first_line *)heap->base;
    first->bytes = bytes;
    first->slots = heap->slots = slots;
    native_heap_persist(first, sizeof *first);
    return 0;
}

void native_heap_finish(struct native_heap *heap, uint64_t magic)
{
    struct first_line *first = (struct first_line *)heap->base;
    first->magic = magic;
    native_heap_persist(first, sizeof *first);
}

void native_heap_discard(const char *path, struct native_heap *heap)
{
    native_heap_close(heap);
    unlink(path);
}

int native_heap_open(const char *path, uint64_t magic, struct native_heap *heap)
{
    struct stat status;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return native_heap_fail(error, "%s: %s", path, strerror(error));
    }
    size_t bytes = (size_t)status.st_size;
    if (!S_ISREG(status.st_mode) || bytes < NATIVE_HEAP_FIRST) {
        close(fd);
        return native_heap_fail(EMEDIUMTYPE, "%s: %zu bytes are too few for a heap", path,
                                bytes);
    }
    int error = adopt(path, fd, bytes, heap);
    if (error != 0)
        return error;
    const struct first_line *first = (const struct first_line *)heap->base;
    if (first->magic != magic)
        error = native_heap_fail(
            EMEDIUMTYPE, "%s: not a heap of this design: magic %#llx, not %#llx", path,
            (unsigned long long)first->magic, (unsigned long long)magic);
    else if (first->bytes != bytes || first->slots > bytes)
        error = native_heap_fail(
            EUCLEAN, "%s: %zu bytes, where the heap says %llu (with %llu slots)", path,
            bytes, (unsigned long long)first->bytes, (unsigned long long)first->slots);
    heap->slots = first->slots;
    if (error != 0)
        native_heap_close(heap);
    return error;
}

void native_heap_close(struct native_heap *heap)
{
    munmap(heap->base, heap->bytes);
    close(heap->fd);
}
