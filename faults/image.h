// SPDX-License-Identifier: Apache-2.0
/*
 * image.h - one heap image that many states are tried on, and how a heap gets there.
 *
 * The image is a file on tmpfs, mapped once.  A state is made by overwriting the lines
 * that differ from the floor, looked at, and put back line by line.
 *
 *   ATTACH   the adapter takes the mapping itself (attach, detach): fastest.
 *   ALIAS    it is instrumented but opens a file: it maps the image's file, shared, at
 *            a place of its own; the lens follows it there, the undo log puts back.
 *   RESTORE  it is not instrumented: likewise, but nobody sees what it stores, so the
 *            image is compared with a copy after each state, page by page, and what it
 *            reads is not known.
 */
#ifndef NVL_IMAGE_H
#define NVL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"

enum nvl_mounting { NVL_MOUNT_ATTACH, NVL_MOUNT_ALIAS, NVL_MOUNT_RESTORE };

struct nvl_image {
    char path[4096]; /* of its file */
    int fd;
    uint8_t *base;
    size_t size;
    uint8_t *flags; /* of its lines, for the lens */
    uint8_t *copy;  /* RESTORE: what the image must be put back to; else NULL */
    enum nvl_mounting mounting;
    const struct nvc_adapter *adapter;
    struct nvc_options options;
};

/* Makes the image's file in `folder`; 0 or an errno value. */
int nvl_image_make(struct nvl_image *image, const char *folder, size_t size,
                   const struct nvc_adapter *adapter, const char *extra,
                   bool instrumented);
void nvl_image_drop(struct nvl_image *image);

/* Opens (recovers) the heap in the image as it is; 0 or an errno value. */
int nvl_image_mount(struct nvl_image *image, struct nvc_heap **heap);
/* Leaves the heap as a crash would where that is possible, else closes it. */
void nvl_image_unmount(struct nvl_image *image, struct nvc_heap *heap);
/* Closes it cleanly and mounts it again; where attach() is used there is no close, and
   it is one more crash. */
int nvl_image_remount(struct nvl_image *image, struct nvc_heap **heap);

/* RESTORE: takes the copy, and puts the image back to it. */
void nvl_image_keep(struct nvl_image *image);
void nvl_image_restore(struct nvl_image *image);

/* For lens_wrap.c. */
void nvl_image_mapped(void *address, size_t length, int fd, uint64_t offset);

#endif
