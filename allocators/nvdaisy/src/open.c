/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open.c - making, opening and closing a Daisy heap.
 *
 * A heap is made under another name, PATH.new, and linked to PATH when it is whole: so a
 * process that is killed meanwhile leaves no half heap where the next one looks.  It
 * holds a lock on the folder while it makes one, which the kernel gives back if it dies:
 * who has the lock may remove a PATH.new that it finds.
 */
#include "places.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static void drop(struct daisy *heap)
{
    anchors_drop(heap);
    pthread_mutex_destroy(&heap->anchors_lock);
    for (unsigned i = 0; i < DAISY_STRIPES; i++)
        pthread_mutex_destroy(&heap->stripes[i]);
    free(heap);
}

static int adopt(nvm_heap *nvm, struct daisy_root *root, struct daisy **out)
{
    struct daisy *heap = calloc(1, sizeof *heap);
    if (heap == NULL)
        return daisy_fail(ENOMEM, "no DRAM for the heap's handle");
    heap->nvm = nvm;
    heap->root = root;
    pthread_mutex_init(&heap->anchors_lock, NULL);
    for (unsigned i = 0; i < DAISY_STRIPES; i++)
        pthread_mutex_init(&heap->stripes[i], NULL);
    int error = anchors_mount(heap);
    if (error != 0)
        drop(heap);
    else
        *out = heap;
    return error;
}

int daisy_close(struct daisy *heap)
{
    nvm_heap *nvm = heap->nvm;
    drop(heap);
    int error = nvm_close(nvm);
    return error == 0 ? 0 : daisy_fail(error, "%s", nvm_error());
}

/* ---- opening ---- */

/* Holds the root of an open nvmalloc heap to daisy.h's table. */
static int check_root(const char *path, nvm_heap *nvm)
{
    const nvm_ref *slot = nvm_named(nvm, DAISY_NAME, 0);
    if (slot == NULL || *slot == 0) {
        if (slot == NULL && errno == EUCLEAN)
            return daisy_fail(EUCLEAN, "%s: %s", path, nvm_error());
        return daisy_fail(EMEDIUMTYPE, "%s: a heap of nvmalloc's, but not a Daisy heap",
                          path);
    }
    const struct daisy_root *root = nvm_ptr(nvm, *slot);
    if (nvm_usable_size(nvm, *slot) < sizeof *root)
        return daisy_fail(EUCLEAN, "%s: the root is not a block of %zu bytes", path,
                          sizeof *root);
    if (root->magic != DAISY_MAGIC)
        return daisy_fail(EUCLEAN, "%s: the root begins with %#llx, not %#llx", path,
                          (unsigned long long)root->magic,
                          (unsigned long long)DAISY_MAGIC);
    if (root->format != DAISY_FORMAT)
        return daisy_fail(ENOTSUP, "%s: format %llu of the Daisy heap; this is format %u",
                          path, (unsigned long long)root->format, DAISY_FORMAT);
    for (unsigned i = 0; i < DAISY_ID_LEAVES; i++) {
        const nvm_ref leaf = root->leaves[i];
        if (leaf != 0 && nvm_usable_size(nvm, leaf) < DAISY_LEAF_IDS * sizeof(nvm_ref))
            return daisy_fail(EUCLEAN, "%s: table %u of ids is not at %#llx", path, i,
                              (unsigned long long)leaf);
    }
    return 0;
}

/* Completes what was begun, frees what ended with its process. */
static int mount(const char *path, nvm_heap *nvm, struct daisy **out)
{
    int error = check_root(path, nvm);
    if (error == 0)
        error = adopt(nvm, nvm_ptr(nvm, *nvm_named(nvm, DAISY_NAME, 0)), out);
    if (error != 0)
        return error;
    error = (*out)->root->clearing != 0 ? daisy_clear(*out) : daisy_collect(*out);
    if (error != 0)
        drop(*out);
    return error;
}

int daisy_open(const char *path, struct daisy **heap)
{
    nvm_heap *nvm;
    int error = nvm_open(path, &nvm);
    if (error != 0)
        return daisy_fail(error, "%s", nvm_error());
    error = mount(path, nvm, heap);
    if (error != 0)
        nvm_close(nvm);
    return error;
}

int daisy_attach(void *base, size_t size, struct daisy **heap)
{
    const struct nvm_options options = {0};
    nvm_heap *nvm;
    int error = nvm_attach(base, size, &options, &nvm);
    if (error != 0)
        return daisy_fail(error, "%s", nvm_error());
    error = mount("image", nvm, heap);
    if (error != 0)
        nvm_detach(nvm);
    return error;
}

void daisy_detach(struct daisy *heap)
{
    nvm_heap *nvm = heap->nvm;
    drop(heap);
    nvm_detach(nvm);
}

/* ---- making ---- */

/* Reserved, filled, then named: who finds the name finds a whole root. */
static int make_root(nvm_heap *nvm, uint64_t size, struct daisy_root **root)
{
    nvm_ref *slot = nvm_named(nvm, DAISY_NAME, 1);
    nvm_ref block = slot != NULL ? nvm_reserve(nvm, sizeof **root) : 0;
    if (block == 0)
        return daisy_fail(errno, "no room for the root: %s", nvm_error());
    *root = nvm_ptr(nvm, block);
    memset(*root, 0, sizeof **root);
    (*root)->magic = DAISY_MAGIC;
    (*root)->format = DAISY_FORMAT;
    (*root)->size = size;
    nvm_persist(nvm, *root, sizeof **root);
    struct nvm_action action = {.kind = NVM_ACT_ALLOC, .slot = slot, .ref = block};
    int error = nvm_publish(nvm, &action, 1);
    return error == 0 ? 0 : daisy_fail(error, "the root: %s", nvm_error());
}

/* Makes a heap in a file that is not there. */
static int make_heap(const char *path, uint64_t bytes, uint64_t size, struct daisy **out)
{
    nvm_heap *nvm;
    struct daisy_root *root = NULL;
    int error = nvm_create(path, bytes, &nvm);
    if (error != 0)
        return daisy_fail(error, "%s", nvm_error());
    error = make_root(nvm, size, &root);
    if (error == 0)
        error = adopt(nvm, root, out);
    if (error != 0) {
        nvm_close(nvm);
        unlink(path);
    }
    return error;
}

static int lock_folder(const char *path, int *fd)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    const char *folder = dirname(copy);
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || flock(*fd, LOCK_EX) != 0) {
        int error = errno;
        if (*fd >= 0)
            close(*fd);
        return daisy_fail(error, "the folder %s: %s", folder, strerror(error));
    }
    return 0;
}

/* With the folder locked. */
static int make_and_link(const char *path, uint64_t bytes, uint64_t size,
                         struct daisy **out)
{
    char fresh[PATH_MAX];
    if (snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh)
        return daisy_fail(ENAMETOOLONG, "%s: the path is too long", path);
    if (access(path, F_OK) == 0)
        return daisy_fail(EEXIST, "%s: there is a file", path);
    unlink(fresh); /* of a process that died */
    int error = make_heap(fresh, bytes, size, out);
    if (error != 0)
        return error;
    if (link(fresh, path) != 0) {
        error = daisy_fail(errno, "%s: %s", path, strerror(errno));
        daisy_close(*out);
    }
    unlink(fresh);
    return error;
}

int daisy_create_file(const char *path, uint64_t bytes, struct daisy **heap)
{
    return make_heap(path, bytes, bytes, heap);
}

int daisy_create(const char *path, uint64_t size, struct daisy **heap)
{
    /* A quarter more for what size classes round up and tables take; and what
       nvmalloc needs for itself in the smallest heap, several times over. */
    const uint64_t more = size / 4 + (UINT64_C(1) << 20);
    if (size == 0 || size > INT64_MAX - more)
        return daisy_fail(EINVAL, "a heap of %llu bytes", (unsigned long long)size);
    int folder;
    int error = lock_folder(path, &folder);
    if (error != 0)
        return error;
    error = make_and_link(path, size + more, size, heap);
    close(folder);
    return error;
}
