/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.c - see fork.h.
 *
 * The heap is a shared mapping of a file.  A child that inherited it would
 * write into its parent's blocks; so it does not (MADV_DONTFORK), and goes on
 * with a copy of the file at the same address:
 *
 *   prepare  takes every lock of the heap, so that what is in DRAM, which the
 *            child inherits copied on write, meets its invariants; makes a file
 *            and copies to it all units in use, and the metadata in front
 *   parent   forgets the copy, releases the locks
 *   child    maps the copy where the heap was, notes that what was free has no
 *            pages yet, releases the locks
 *
 * 1. When it is copied.  Before the fork and not by the child, which runs beside
 *    its parent, whose stores it would see.  Our handlers are registered first
 *    of all, so ours is the last to prepare: whatever is kept from changing by
 *    a lock that the forking thread holds, or by other handlers, is copied as
 *    it is when the process forks.  What other threads change without one is
 *    copied at some instant before: POSIX lets such a child use nothing but
 *    async-signal-safe functions, to which it means nothing.
 *
 * 2. Before the child's handler.  In a program with threads, the C library's
 *    fork() resets the locks of all streams in the child, and their structs are
 *    blocks of the heap, before it calls a handler.  Nothing is mapped there
 *    then, so the first access raises SIGSEGV, which for so long we catch: the
 *    copy is mapped, and the access made again.
 *
 * 3. What the child loses: blocks in other threads' caches.  They are neither
 *    free nor live there, for good.  Their owners may have been halfway through
 *    an operation, so the caches are not to be trusted.
 *
 * 4. No room.  A handler cannot make fork() fail.  So without a copy the child
 *    ends at once, and our fork() reaps it and returns ENOMEM.
 *
 * vfork() and posix_spawn() share the parent's memory until the child has
 * become another program, and cost nothing.  _Fork() may interrupt anything,
 * takes no lock, and gives a child which may not allocate.  A thread whose
 * stack lies in the heap cannot fork: the child would begin on a page that is
 * not mapped.
 *
 * Other ways, and why not.  A clone of the file by the file system (FICLONE)
 * takes a descriptor of the heap file, which we do not keep, and no file system
 * with DAX on ext4 has it.  A private mapping for the child would put its
 * stores in DRAM, and show it its parent's.  Copying on demand takes a fault
 * for every page and fails where the kernel reads memory for a system call,
 * as execve() does at once.
 */
#include "fork.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nvmalloc.h"
#include "process_heap.h"
#include "registry.h"
#include "vmem.h"

#define EXPORT __attribute__((visibility("default")))

/* The fork that is under way; one at a time. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int fd;    /* of the copy; -1: there is none, and `error` says why */
    int error; /* errno value */
    pid_t parent;
    bool trapping;
    struct sigaction before; /* SIGSEGV's */
} next;
static struct preload_fork_costs costs;

/* Why the fork() that the calling thread is in has no copy; 0: it has. */
static _Thread_local int refusal __attribute__((tls_model("initial-exec")));

struct preload_fork_costs preload_fork_costs(void)
{
    return costs;
}

/* --- locks: heap.h has the order; the registry takes its own --- */

static void lock_heap(struct nvm_heap *heap)
{
    pthread_mutex_lock(&heap->root_lock);
    pthread_mutex_lock(&heap->threads_lock);
    for (uint32_t arena = 0; arena < heap->arena_count; arena++)
        for (unsigned klass = 0; klass < NVM_CLASSES; klass++)
            pthread_mutex_lock(&heap->arenas[arena].bins[klass].lock);
    pthread_mutex_lock(&heap->units_lock);
    pthread_mutex_lock(&heap->chunk_lock);
    vmem_lockup();
    pthread_mutex_lock(&heap->super_lock);
}

static void unlock_heap(struct nvm_heap *heap)
{
    pthread_mutex_unlock(&heap->super_lock);
    vmem_release();
    pthread_mutex_unlock(&heap->chunk_lock);
    pthread_mutex_unlock(&heap->units_lock);
    for (uint32_t arena = 0; arena < heap->arena_count; arena++)
        for (unsigned klass = 0; klass < NVM_CLASSES; klass++)
            pthread_mutex_unlock(&heap->arenas[arena].bins[klass].lock);
    pthread_mutex_unlock(&heap->threads_lock);
    pthread_mutex_unlock(&heap->root_lock);
}

/* --- the copy --- */

/* Writes the heap's bytes [from, to) to the same place of the file. */
static int copy_range(const struct nvm_heap *heap, int fd, uint64_t from, uint64_t to)
{
    costs.bytes += to - from;
    while (from < to) {
        ssize_t done = pwrite(fd, heap->base + from, to - from, (off_t)from);
        if (done > 0)
            from += (uint64_t)done;
        else if (done == 0 || errno != EINTR)
            return done == 0 ? ENOSPC : errno;
    }
    return 0;
}

static bool is_free(const struct nvm_heap *heap, uint64_t unit)
{
    return nvm_unit_kind(nvm_unit_get(heap, (uint32_t)unit)) == NVM_UNIT_FREE;
}

static int copy_units(const struct nvm_heap *heap, int fd)
{
    uint64_t units = heap->super.units;
    int error = 0;
    for (uint64_t unit = 0; unit < units && error == 0; unit++) {
        uint64_t first = unit;
        while (unit < units && !is_free(heap, unit))
            unit++;
        if (unit > first)
            error = copy_range(heap, fd, nvm_unit_offset(heap, (uint32_t)first),
                               nvm_unit_offset(heap, (uint32_t)unit));
    }
    return error;
}

/* What a heap that is never closed has in front of its units: superblocks, names and the
   chunk table; neither lanes nor marks. */
static int copy_metadata(const struct nvm_heap *heap, int fd)
{
    const struct nvm_super *super = &heap->super;
    int error = copy_range(heap, fd, 0, super->lanes_offset);
    if (error == 0)
        error = copy_range(heap, fd, super->chunk_offset,
                           super->chunk_offset + super->units * sizeof(uint64_t));
    return error;
}

static bool is_in_heap(const struct nvm_heap *heap, const void *address)
{
    return (uintptr_t)address - (uintptr_t)heap->base < heap->region.reserved;
}

/* Makes the copy; its descriptor in *fd, or an errno value. */
static int copy_heap(const struct nvm_heap *heap, int *fd)
{
    struct timespec begin, end;
    *fd = -1;
    if (is_in_heap(heap, &begin))
        return ENOTSUP; /* the stack */
    clock_gettime(CLOCK_MONOTONIC, &begin);
    *fd = preload_make_file(heap->region.reserved);
    if (*fd < 0)
        return errno;
    int error = copy_metadata(heap, *fd);
    if (error == 0)
        error = copy_units(heap, *fd);
    if (error != 0) {
        close(*fd);
        *fd = -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    costs.copies++;
    costs.nanoseconds += (uint64_t)(end.tv_sec - begin.tv_sec) * 1000000000u +
                         (uint64_t)end.tv_nsec - (uint64_t)begin.tv_nsec;
    return error;
}

/* In the child: the copy becomes the heap.  Async-signal-safe. */
static void adopt(struct nvm_heap *heap, int fd, int error)
{
    if (fd < 0)
        preload_die("a forked child cannot have a copy of its parent's heap, beside "
                    "%s: %s",
                    preload_prefix(), strerrorname_np(error));
    error = nvm_region_replace(&heap->region, fd);
    if (error != 0)
        preload_die("a forked child cannot map its copy of the heap: %s",
                    strerrorname_np(error));
}

/* Units that were not copied are allocated in the file when they are used. */
static void note_holes(struct nvm_heap *heap)
{
    for (uint64_t unit = 0; unit < heap->super.units; unit++)
        if (is_free(heap, unit))
            heap->unit_flags[unit] |= NVM_UNIT_HOLE;
    heap->super.flags |= NVM_SUPER_HOLES;
}

/* --- the trap (2) --- */

static void adopt_next(void)
{
    int fd = next.fd;
    next.fd = -1;
    next.parent = 0; /* done */
    adopt(preload_heap, fd, next.error);
}

static void trapped(int signal, siginfo_t *info, void *context)
{
    (void)context;
    int saved = errno;
    if (next.parent != 0 && getpid() != next.parent && info->si_code > 0 &&
        is_in_heap(preload_heap, info->si_addr)) {
        adopt_next();
    } else {
        /* As if we were not here: the access is made again. */
        sigaction(signal, &next.before, NULL);
        if (info->si_code <= 0)
            raise(signal);
    }
    errno = saved;
}

static void set_trap(void)
{
    struct sigaction action = {.sa_sigaction = trapped,
                               .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    next.trapping =
        !__libc_single_threaded && sigaction(SIGSEGV, &action, &next.before) == 0;
}

static void clear_trap(void)
{
    if (next.trapping)
        sigaction(SIGSEGV, &next.before, NULL);
    next.trapping = false;
}

/* --- fork() --- */

static void prepare(void)
{
    int saved = errno;
    if (!preload_is_made())
        return;
    pthread_mutex_lock(&turn);
    lock_heap(preload_heap);
    next.parent = getpid();
    next.error = refusal = copy_heap(preload_heap, &next.fd);
    set_trap();
    errno = saved;
}

static void in_parent(void)
{
    int saved = errno;
    if (!preload_is_made())
        return;
    clear_trap();
    if (next.fd >= 0)
        close(next.fd);
    unlock_heap(preload_heap);
    pthread_mutex_unlock(&turn);
    errno = saved;
}

static void in_child(void)
{
    int saved = errno;
    if (!preload_is_made())
        return;
    if (next.parent != 0)
        adopt_next();
    clear_trap();
    note_holes(preload_heap);
    costs = (struct preload_fork_costs){0};
    unlock_heap(preload_heap);
    pthread_mutex_unlock(&turn);
    errno = saved;
}

void preload_watch_forks(void)
{
    nvm_registry_locks_vmem = false; /* lock_heap() does, in its order */
    pthread_atfork(prepare, in_parent, in_child);
}

/* The C library's, under its other name. */
extern pid_t __fork(void);

EXPORT pid_t fork(void)
{
    refusal = 0;
    pid_t pid = __fork();
    if (pid <= 0 || refusal == 0)
        return pid;
    waitpid(pid, NULL, 0); /* it ended as soon as it began */
    errno = ENOMEM;
    return -1;
}

/* --- _Fork() --- */

typedef pid_t fork_fn(void);
static fork_fn *real_Fork;

void preload_find_functions(void)
{
    void *found = dlsym(RTLD_NEXT, "_Fork");
    memcpy(&real_Fork, &found, sizeof(found)); /* ISO C has no cast for it */
}

EXPORT pid_t _Fork(void)
{
    int fd;
    if (real_Fork == NULL) {
        errno = ENOSYS;
        return -1;
    }
    if (!preload_is_made())
        return real_Fork();
    int error = copy_heap(preload_heap, &fd);
    if (error != 0) {
        errno = ENOMEM;
        return -1;
    }
    pid_t pid = real_Fork();
    if (pid == 0) {
        adopt(preload_heap, fd, 0);
        note_holes(preload_heap);
    } else {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return pid;
}
