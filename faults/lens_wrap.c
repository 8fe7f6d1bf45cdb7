// SPDX-License-Identifier: Apache-2.0
/*
 * lens_wrap.c - C library functions as an allocator under the lens sees them.
 *
 * An instrumented adapter is linked with -Wl,--wrap=NAME for the names below, so its
 * calls of memcpy() come to __wrap_memcpy().  mmap() and munmap() are replaced for the
 * whole process, uninstrumented libraries included: whoever maps the heap's file tells
 * the lens where it lies.
 */
/* Both names of mmap() are defined here, so neither may stand for the other. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "image.h"
#include "lens.h"
#include "payload.h"
#include "schedule.h"

#define HERE   ((uintptr_t)__builtin_return_address(0))
#define EXPORT __attribute__((visibility("default")))

EXPORT void *__wrap_memcpy(void *to, const void *from, size_t length);
EXPORT void *__wrap_memcpy(void *to, const void *from, size_t length)
{
    if (length > 0) {
        nvl_lens_load(from, length, HERE);
        nvl_lens_store(to, length, HERE);
        memcpy(to, from, length);
    }
    return to;
}

EXPORT void *__wrap_memmove(void *to, const void *from, size_t length);
EXPORT void *__wrap_memmove(void *to, const void *from, size_t length)
{
    if (length > 0) {
        nvl_lens_load(from, length, HERE);
        nvl_lens_store(to, length, HERE);
        memmove(to, from, length);
    }
    return to;
}

EXPORT void *__wrap_memset(void *to, int byte, size_t length);
EXPORT void *__wrap_memset(void *to, int byte, size_t length)
{
    if (length > 0) {
        nvl_lens_store(to, length, HERE);
        memset(to, byte, length);
    }
    return to;
}

EXPORT char *__wrap_strcpy(char *to, const char *from);
EXPORT char *__wrap_strcpy(char *to, const char *from)
{
    size_t length = strlen(from) + 1;
    nvl_lens_load(from, length, HERE);
    nvl_lens_store(to, length, HERE);
    memcpy(to, from, length);
    return to;
}

EXPORT char *__wrap_strncpy(char *to, const char *from, size_t length);
EXPORT char *__wrap_strncpy(char *to, const char *from, size_t length)
{
    size_t used = strnlen(from, length);
    nvl_lens_load(from, used, HERE);
    nvl_lens_store(to, length, HERE);
    memcpy(to, from, used);
    memset(to + used, 0, length - used);
    return to;
}

EXPORT int __wrap_memcmp(const void *left, const void *right, size_t length);
EXPORT int __wrap_memcmp(const void *left, const void *right, size_t length)
{
    nvl_lens_load(left, length, HERE);
    nvl_lens_load(right, length, HERE);
    return memcmp(left, right, length);
}

/* The driver's payloads (workloads/driver/payload.h) in a heap under the lens. */
EXPORT void nvl_payload_fill(void *block, size_t from, size_t to, uint32_t slot,
                             uint64_t seq);
EXPORT void nvl_payload_fill(void *block, size_t from, size_t to, uint32_t slot,
                             uint64_t seq)
{
    if (to > from)
        nvl_lens_store((char *)block + from, to - from, HERE);
    nvd_payload_fill(block, from, to, slot, seq);
}

/* A mutex of the C library holds no locked instruction while the process has one thread,
   so it is no fence; an allocator that takes it for one is wrong. */
EXPORT int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
EXPORT int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    nvl_pool_touch_range(mutex, sizeof *mutex);
    if (!nvl_schedule.running)
        return pthread_mutex_lock(mutex);
    int error;
    while ((error = pthread_mutex_trylock(mutex)) == EBUSY) {
        nvl_lens_settle();
        nvl_schedule_yield();
    }
    return error;
}

EXPORT int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
EXPORT int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int error = pthread_mutex_unlock(mutex);
    if (nvl_schedule.running) {
        nvl_lens_settle();
        nvl_schedule_point();
    }
    return error;
}

static void *map(void *address, size_t length, int protection, int flags, int fd,
                 off_t offset)
{
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd,
                  off_t offset)
{
    void *pooled = nvl_pool_map(address, length, protection, flags, fd);
    if (pooled != NULL)
        return pooled;
    void *mapped = map(address, length, protection, flags, fd, offset);
    if (mapped != MAP_FAILED) {
        nvl_image_mapped(mapped, length, fd, (uint64_t)offset);
        nvl_lens_mapped(mapped, length, fd, (uint64_t)offset);
    }
    return mapped;
}

EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd,
                    off_t offset)
{
    return mmap(address, length, protection, flags, fd, offset);
}

EXPORT int munmap(void *address, size_t length)
{
    if (nvl_pool_unmap(address, length))
        return 0;
    nvl_lens_unmapping(address, length);
    return (int)syscall(SYS_munmap, address, length);
}
