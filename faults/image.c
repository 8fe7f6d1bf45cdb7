// SPDX-License-Identifier: Apache-2.0
/*
 * image.c - the image's file, its mapping, and the three ways of mounting it.
 */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lens.h"

enum {
    page_bytes = 4096,
};

/* The image that mappings are compared with; one a process. */
static struct nvl_image *current;

static bool is_image(int fd)
{
    struct stat ours, theirs;
    return current != NULL && fd >= 0 && fd != current->fd && fstat(fd, &theirs) == 0 &&
           fstat(current->fd, &ours) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

void nvl_image_mapped(void *address, size_t length, int fd, uint64_t offset)
{
    (void)length;
    if (current != NULL && current->mounting == NVL_MOUNT_ALIAS && is_image(fd) &&
        nvl_lens.mode == NVL_CHECK)
        nvl_lens.base = (uintptr_t)address - offset;
}

int nvl_image_make(struct nvl_image *image, const char *folder, size_t size,
                   const struct nvc_adapter *adapter, const char *extra,
                   bool instrumented)
{
    *image = (struct nvl_image){.fd = -1, .size = size, .adapter = adapter};
    image->options.extra = extra;
    image->mounting = !instrumented             ? NVL_MOUNT_RESTORE
                      : adapter->attach != NULL ? NVL_MOUNT_ATTACH
                                                : NVL_MOUNT_ALIAS;
    int length =
        snprintf(image->path, sizeof image->path, "%s/image-%ld", folder, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof image->path)
        return ENAMETOOLONG;
    image->fd = open(image->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (image->fd < 0)
        return errno;
    int error = posix_fallocate(image->fd, 0, (off_t)size);
    if (error == 0) {
        image->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                           image->fd, 0);
        if (image->base == MAP_FAILED)
            error = errno;
    }
    image->flags = calloc(size / 64, 1);
    image->copy = instrumented ? NULL : malloc(size);
    if (error != 0 || image->flags == NULL || (!instrumented && image->copy == NULL)) {
        unlink(image->path);
        return error != 0 ? error : ENOMEM;
    }
    current = image;
    return 0;
}

void nvl_image_drop(struct nvl_image *image)
{
    current = NULL;
    munmap(image->base, image->size);
    close(image->fd);
    unlink(image->path);
    free(image->flags);
    free(image->copy);
}

int nvl_image_mount(struct nvl_image *image, struct nvc_heap **heap)
{
    int error =
        image->mounting == NVL_MOUNT_ATTACH
            ? image->adapter->attach(image->base, image->size, &image->options, heap)
            : image->adapter->open(image->path, &image->options, heap);
    if (error == 0 && image->adapter->thread_enter != NULL)
        error = image->adapter->thread_enter(*heap);
    return error;
}

static void leave(struct nvl_image *image, struct nvc_heap *heap)
{
    if (image->adapter->thread_leave != NULL)
        image->adapter->thread_leave(heap);
}

void nvl_image_unmount(struct nvl_image *image, struct nvc_heap *heap)
{
    if (image->mounting == NVL_MOUNT_ATTACH) {
        image->adapter->detach(heap); /* in a crash no thread takes its leave */
    } else {
        leave(image, heap);
        image->adapter->close(heap);
    }
    nvl_lens.base = (uintptr_t)image->base;
}

int nvl_image_remount(struct nvl_image *image, struct nvc_heap **heap)
{
    int error = 0;
    if (image->mounting == NVL_MOUNT_ATTACH) {
        image->adapter->detach(*heap);
    } else {
        leave(image, *heap);
        error = image->adapter->close(*heap);
    }
    nvl_lens.base = (uintptr_t)image->base;
    return error != 0 ? error : nvl_image_mount(image, heap);
}

void nvl_image_keep(struct nvl_image *image)
{
    if (image->copy != NULL)
        memcpy(image->copy, image->base, image->size);
}

void nvl_image_restore(struct nvl_image *image)
{
    for (size_t at = 0; image->copy != NULL && at < image->size; at += page_bytes) {
        size_t length = image->size - at < page_bytes ? image->size - at : page_bytes;
        if (memcmp(image->base + at, image->copy + at, length) != 0)
            memcpy(image->base + at, image->copy + at, length);
    }
}
