// SPDX-License-Identifier: Apache-2.0
/*
 * recorder.c - a library to preload, which writes down what a program allocates.
 *
 *   LD_PRELOAD=libnvrecord.so NVC_RECORD=FILE PROGRAM...
 *
 * FILE must not exist: so the program is recorded, and those that it starts (which
 * inherit the environment) are not; but one that the process turns into by exec() is.
 * Events are written in the order in which they happened (trace.h, the raw format),
 * because one lock is held
 *   - from before a block is given back, until that is written down, and
 *   - from after a block was handed out, until that is written down;
 * so nobody can be handed a block, and write that down, before its former owner has
 * written down that he gave it back.  A realloc, which does both, holds it throughout.
 *
 * The lock makes the program slower, and its threads wait for each other; sizes,
 * lifetimes and order, which are what a trace is for, stay its own.
 *
 * Recorded: malloc, free, calloc, realloc, reallocarray, memalign, aligned_alloc,
 * posix_memalign, valloc, pvalloc (an alignment is not kept).  After a fork() the child
 * is not recorded.  Nothing here allocates.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trace.h"

#define VISIBLE  __attribute__((visibility("default")))
#define BUFFERED 8192u
/* dlsym() may allocate before we know how: from here, and it is never freed. */
#define FIRST_BYTES 65536u

static struct {
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
} real;

static atomic_bool ready, recording;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int file = -1;
static struct nvd_raw_event buffer[BUFFERED];
static size_t buffered;
static atomic_uint threads;
/* Zero, else the thread's number plus one.  Of the initial-exec model, which needs no
   memory when a thread first looks at it. */
static _Thread_local unsigned me __attribute__((tls_model("initial-exec")));

static _Alignas(16) char first[FIRST_BYTES];
static atomic_size_t first_used;

static void *take_first(size_t size)
{
    size_t rounded = (size + 15) & ~(size_t)15;
    size_t at = atomic_fetch_add(&first_used, rounded);
    return at + rounded <= FIRST_BYTES ? first + at : NULL;
}

static bool is_first(const void *block)
{
    return (const char *)block >= first && (const char *)block < first + FIRST_BYTES;
}

/* The lock is held. */
static void write_out(void)
{
    const char *from = (const char *)buffer;
    size_t left = buffered * sizeof buffer[0];
    while (left > 0) {
        ssize_t done = write(file, from, left);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            static const char text[] =
                "libnvrecord: cannot write the recording; it ends here\n";
            ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
            (void)ignored;
            atomic_store(&recording, false);
            break;
        }
        from += done;
        left -= (size_t)done;
    }
    buffered = 0;
}

/* The lock is held. */
static void note(enum nvd_raw_kind kind, const void *block, const void *old, size_t size)
{
    if (!atomic_load_explicit(&recording, memory_order_relaxed))
        return;
    if (me == 0)
        me = atomic_fetch_add(&threads, 1) + 1;
    buffer[buffered++] = (struct nvd_raw_event){
        .address = (uintptr_t)block,
        .old = (uintptr_t)old,
        .size = size,
        .thread = me - 1,
        .kind = kind,
    };
    if (buffered == BUFFERED)
        write_out();
}

static void stop_in_child(void)
{
    atomic_store(&recording, false);
}

static void resolve(void)
{
    /* POSIX has dlsym() return functions as void *; ISO C has no such cast. */
#define FIND(name)                                                                       \
    do {                                                                                 \
        void *found = dlsym(RTLD_NEXT, #name);                                           \
        memcpy(&real.name, &found, sizeof found);                                        \
    } while (0)
    FIND(malloc);
    FIND(free);
    FIND(calloc);
    FIND(realloc);
    FIND(memalign);
    FIND(aligned_alloc);
    FIND(posix_memalign);
    FIND(valloc);
    FIND(pvalloc);
#undef FIND
    atomic_store(&ready, true);
}

/* A new file, or the one that this very process made before it became another program
   (a script that ends in exec): then the recording begins anew. */
static bool open_file(const char *path, uint64_t process)
{
    struct nvd_raw_head head;
    file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file >= 0)
        return true;
    file = open(path, O_RDWR | O_CLOEXEC);
    return file >= 0 && read(file, &head, sizeof head) == (ssize_t)sizeof head &&
           head.magic == NVD_RAW_MAGIC && head.process == process &&
           ftruncate(file, 0) == 0 && lseek(file, 0, SEEK_SET) == 0;
}

__attribute__((constructor)) static void begin(void)
{
    resolve();
    const char *path = getenv("NVC_RECORD");
    if (path == NULL)
        return;
    const struct nvd_raw_head head = {NVD_RAW_MAGIC, (uint64_t)getpid()};
    if (!open_file(path, head.process) ||
        write(file, &head, sizeof head) != (ssize_t)sizeof head)
        return;
    pthread_atfork(NULL, NULL, stop_in_child);
    atomic_store(&recording, true);
}

__attribute__((destructor)) static void end(void)
{
    if (!atomic_load(&recording))
        return;
    pthread_mutex_lock(&lock);
    write_out();
    atomic_store(&recording, false);
    pthread_mutex_unlock(&lock);
}

/* A block was handed out. */
static void *gained(void *block, size_t size)
{
    if (block != NULL && atomic_load_explicit(&recording, memory_order_relaxed)) {
        int error = errno;
        pthread_mutex_lock(&lock);
        note(NVD_RAW_ALLOC, block, NULL, size);
        pthread_mutex_unlock(&lock);
        errno = error;
    }
    return block;
}

static void *allocate(size_t size)
{
    return atomic_load(&ready) ? gained(real.malloc(size), size) : take_first(size);
}

VISIBLE void *malloc(size_t size)
{
    return allocate(size);
}

VISIBLE void *calloc(size_t count, size_t size)
{
    if (!atomic_load(&ready)) /* zeroed, and never used before */
        return size != 0 && count > SIZE_MAX / size ? NULL : take_first(count * size);
    return gained(real.calloc(count, size), count * size);
}

VISIBLE void free(void *block)
{
    if (block == NULL || is_first(block))
        return;
    if (!atomic_load_explicit(&recording, memory_order_relaxed)) {
        real.free(block);
        return;
    }
    pthread_mutex_lock(&lock);
    note(NVD_RAW_FREE, block, NULL, 0);
    pthread_mutex_unlock(&lock);
    real.free(block);
}

/* Of a block that dlsym() got: its length is not known, but it is not more than what
   lies behind it. */
static void *move_first(const void *block, size_t size)
{
    size_t most = (size_t)(first + FIRST_BYTES - (const char *)block);
    void *moved = allocate(size);
    if (moved != NULL)
        memcpy(moved, block, size < most ? size : most);
    return moved;
}

static void *resize(void *block, size_t size)
{
    if (block == NULL)
        return allocate(size);
    if (is_first(block))
        return move_first(block, size);
    if (!atomic_load_explicit(&recording, memory_order_relaxed))
        return real.realloc(block, size);
    pthread_mutex_lock(&lock);
    uintptr_t old = (uintptr_t)block;
    void *moved = real.realloc(block, size);
    int error = errno;
    if (moved != NULL)
        note(NVD_RAW_REALLOC, moved, (void *)old, size);
    else if (size == 0)
        note(NVD_RAW_FREE, (void *)old, NULL, 0); /* glibc frees then */
    pthread_mutex_unlock(&lock);
    errno = error;
    return moved;
}

VISIBLE void *realloc(void *block, size_t size)
{
    return resize(block, size);
}

VISIBLE void *reallocarray(void *block, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size) {
        errno = ENOMEM;
        return NULL;
    }
    return resize(block, count * size);
}

VISIBLE void *memalign(size_t alignment, size_t size)
{
    return gained(real.memalign(alignment, size), size);
}

VISIBLE void *aligned_alloc(size_t alignment, size_t size)
{
    return gained(real.aligned_alloc(alignment, size), size);
}

VISIBLE int posix_memalign(void **block, size_t alignment, size_t size)
{
    int error = real.posix_memalign(block, alignment, size);
    if (error == 0)
        gained(*block, size);
    return error;
}

VISIBLE void *valloc(size_t size)
{
    return gained(real.valloc(size), size);
}

VISIBLE void *pvalloc(size_t size)
{
    return gained(real.pvalloc(size), size);
}
