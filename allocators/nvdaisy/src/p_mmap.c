/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p_mmap.c - the Daisy interface: one heap a process, -1 and NULL for errors.
 */
#include "p_mmap.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daisy.h"

_Static_assert(P_MAX_ID == DAISY_MAX_ID, "one limit");

/* The interface has one heap a process and no handle for it; this is the only place that
   knows. */
static struct daisy *the_heap;
/* This process was forked from one that had a heap open, and has opened none since. */
static bool orphaned;

static int failed(int error)
{
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

static void *failed_address(int error)
{
    errno = error;
    return NULL;
}

/* 0 if the heap is open and the size, if one is asked for, is a size. */
static int ready(void)
{
    if (the_heap != NULL)
        return 0;
    return orphaned
               ? daisy_fail(EPERM, "the heap is its parent's: this process was forked")
               : daisy_fail(EINVAL, "no heap is open: call p_init first");
}

static int ready_for(int64_t size, int64_t least)
{
    int error = ready();
    if (error == 0 && size < least)
        error = daisy_fail(EINVAL, "a size of %lld bytes", (long long)size);
    return error;
}

/* ---- the heap ---- */

static void heap_path(char *path, size_t capacity)
{
    static const char *const folders[] = {"/mnt/pmem0", "/mnt/pmem1", "/dev/shm"};
    const char *named = getenv("P_HEAP");
    if (named != NULL && named[0] != '\0') {
        snprintf(path, capacity, "%s", named);
        return;
    }
    size_t i = 0;
    while (i + 1 < sizeof folders / sizeof *folders && access(folders[i], W_OK) != 0)
        i++;
    snprintf(path, capacity, "%s/daisy-%u.heap", folders[i], (unsigned)getuid());
}

static int open_or_create(uint64_t size)
{
    char path[PATH_MAX];
    heap_path(path, sizeof path);
    int error = daisy_open(path, &the_heap);
    if (error == ENOENT) {
        error = daisy_create(path, size, &the_heap);
        if (error == EEXIST) /* another process made it meanwhile */
            error = daisy_open(path, &the_heap);
    }
    if (error != 0) {
        the_heap = NULL;
        return error;
    }
    if (daisy_size(the_heap) >= size)
        return 0;
    const uint64_t made_for = daisy_size(the_heap);
    daisy_close(the_heap);
    the_heap = NULL;
    return daisy_fail(
        EFBIG,
        "%s was made by p_init(%llu), and is asked for %llu bytes: move the "
        "data to a new heap, or ask for less",
        path, (unsigned long long)made_for, (unsigned long long)size);
}

/* nvmalloc leaves the heap to the parent; here it is forgotten. */
static void after_fork_in_child(void)
{
    orphaned |= the_heap != NULL;
    the_heap = NULL;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

int p_init(int64_t size)
{
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    if (the_heap != NULL)
        return failed(daisy_fail(EALREADY, "the heap is open: p_init was called before"));
    if (size < 1)
        return failed(daisy_fail(EINVAL, "a heap of %lld bytes", (long long)size));
    return failed(open_or_create((uint64_t)size));
}

int p_clear(void)
{
    int error = ready();
    return failed(error != 0 ? error : daisy_clear(the_heap));
}

int p_close(void)
{
    int error = ready();
    if (error == 0) {
        error = daisy_close(the_heap);
        the_heap = NULL;
    }
    return failed(error);
}

void *p_get_base(void)
{
    int error = ready();
    if (error != 0)
        return failed_address(error);
    void *base;
    size_t length;
    nvm_range(daisy_nvm(the_heap), &base, &length);
    return base;
}

int p_persist(const void *address, int64_t size)
{
    int error = ready_for(size, 0);
    if (error == 0)
        nvm_persist(daisy_nvm(the_heap), address, (size_t)size);
    return failed(error);
}

const char *p_error(void)
{
    return daisy_error();
}

/* ---- blocks without an id ---- */

void *p_malloc(int64_t size)
{
    void *address = NULL;
    int error = ready_for(size, 1);
    if (error == 0)
        error = daisy_malloc(the_heap, (uint64_t)size, &address);
    return error == 0 ? address : failed_address(error);
}

int p_free(void *address)
{
    int error = ready();
    return failed(error != 0 ? error : daisy_free(the_heap, address));
}

int p_bind(int id, void *address, int64_t size)
{
    int error = ready_for(size, 0);
    if (error == 0)
        error = daisy_bind(the_heap, (uint32_t)id, address, (uint64_t)size);
    return failed(error);
}

void *(p_get_bind_node)(int id, int64_t *size)
{
    struct daisy_node node;
    int error = ready();
    if (error == 0)
        error = daisy_find(the_heap, (uint32_t)id, &node);
    if (error != 0)
        return failed_address(error);
    if (size != NULL)
        *size = (int64_t)node.size;
    return node.address;
}

void *p_get_bind_node_int(int id, int *size)
{
    int64_t wide;
    void *address = (p_get_bind_node)(id, &wide);
    if (address == NULL || size == NULL)
        return address;
    if (wide > INT_MAX)
        return failed_address(daisy_fail(EOVERFLOW,
                                         "id %d has %lld bytes, which an int can't tell",
                                         id, (long long)wide));
    *size = (int)wide;
    return address;
}

/* ---- blocks made with their id ---- */

static void *made(int id, int64_t size, bool zero)
{
    void *address = NULL;
    int error = ready_for(size, 1);
    if (error == 0)
        error = daisy_malloc_id(the_heap, (uint32_t)id, (uint64_t)size, zero, &address);
    return error == 0 ? address : failed_address(error);
}

void *p_new(int id, int64_t size)
{
    return made(id, size, true);
}

void *p_malloc_id(int id, int64_t size)
{
    return made(id, size, false);
}

int p_delete(int id)
{
    int error = ready();
    return failed(error != 0 ? error : daisy_free_id(the_heap, (uint32_t)id));
}

int p_free_id(int id)
{
    return p_delete(id);
}

/* The block of an id, if it has `least` bytes. */
static int found(int id, uint64_t least, void **address)
{
    struct daisy_node node;
    int error = ready();
    if (error == 0)
        error = daisy_find(the_heap, (uint32_t)id, &node);
    if (error == 0 && node.usable < least)
        error = daisy_fail(EINVAL, "id %d has %llu bytes, not %llu", id,
                           (unsigned long long)node.usable, (unsigned long long)least);
    if (error == 0)
        *address = node.address;
    return error;
}

void *p_get(int id, int64_t size)
{
    void *address;
    int error = ready_for(size, 0);
    if (error == 0)
        error = found(id, (uint64_t)size, &address);
    return error == 0 ? address : failed_address(error);
}

void *p_get_malloc(int id)
{
    return p_get(id, 0);
}

int p_get_small_region(int id, int64_t size)
{
    void *address;
    int error = ready_for(size, 1);
    if (error == 0)
        error = found(id, (uint64_t)size, &address);
    if (error == ENOENT) {
        error = daisy_malloc_id(the_heap, (uint32_t)id, (uint64_t)size, true, &address);
        if (error == EEXIST) /* another thread made it meanwhile */
            error = found(id, (uint64_t)size, &address);
    }
    return failed(error);
}

void *p_mmap(void *address, size_t length, int protection, int id)
{
    (void)address;
    int error = ready();
    if (error == 0 && protection != (PROT_READ | PROT_WRITE))
        error = daisy_fail(ENOTSUP, "protection %#x: a block is PROT_READ | PROT_WRITE",
                           (unsigned)protection);
    void *block;
    if (error == 0)
        error = found(id, length, &block);
    return error == 0 ? block : failed_address(error);
}
