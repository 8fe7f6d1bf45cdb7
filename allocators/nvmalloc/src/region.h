/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.h - the heap file and its mapping.
 *
 * A file is created exclusively, mode 0600; an existing file is never
 * truncated.  Every part of it is allocated by posix_fallocate() before it is
 * used, so that no store can raise a bus error for want of space.  Addresses
 * for all that it may grow to are reserved at once, so a heap never moves
 * while it is open.  It is mapped MAP_SHARED_VALIDATE | MAP_SYNC, and where
 * that is refused (tmpfs, or no DAX) MAP_SHARED, which `map_sync` tells.  An
 * open-file-description lock refuses a second opener in this process or
 * another, and goes with a crash.  A forked child does not inherit the
 * mapping, which would keep the file locked after its parent's end.
 *
 * A *detached* region has no descriptor any more, for programs that know
 * nothing of a heap and may close or reuse whatever descriptor they find: the
 * whole of what it may grow to is mapped, and pages are allocated by
 * populating the mapping (Linux 5.14).  It has no lock either: nobody but this
 * process may know the file's name.
 */
#ifndef NVM_REGION_H
#define NVM_REGION_H

#include <stdbool.h>
#include <stdint.h>

/* Alignment of the mapping. */
#define NVM_REGION_ALIGNMENT ((uint64_t)2 << 20)

struct nvm_region {
    int fd;            /* -1: an image that the caller mapped */
    char *base;        /* aligned to NVM_REGION_ALIGNMENT; an attached image to a page */
    uint64_t size;     /* bytes that are mapped */
    uint64_t reserved; /* bytes of addresses, from base on */
    bool map_sync;
    bool detached; /* fd is -1, and the mapping is a file's */
};

/* errno values; *region is undefined after a failure, and nothing is left.
   The file has `size` bytes, of which nothing is allocated yet. */
int nvm_region_create(const char *path, uint64_t size, uint64_t max_size,
                      struct nvm_region *region);
int nvm_region_open(const char *path, struct nvm_region *region);
/* Read-only, private, without the lock: what nvm-inspect looks through. */
int nvm_region_open_read_only(const char *path, struct nvm_region *region);
void nvm_region_close(struct nvm_region *region);
/* In a forked child: forgets the parent's file. */
void nvm_region_abandon(struct nvm_region *region);

/* Gives the descriptor up; 0, or an errno value with nothing changed but the file's
   size (ENOTSUP: the kernel or the file system allocates no page for a mapping). */
int nvm_region_detach(struct nvm_region *region);
/* Maps another file, of the same length, in a detached region's place; closes fd.
   Async-signal-safe. */
int nvm_region_replace(struct nvm_region *region, int fd);

/* Reserves addresses for max_size bytes; only while nothing refers to base. */
int nvm_region_reserve(struct nvm_region *region, uint64_t max_size);
/* Allocates [offset, offset + length) in the file; ENOSPC. */
int nvm_region_allocate(struct nvm_region *region, uint64_t offset, uint64_t length);
/* Makes the file, allocated from its old end on, and the mapping `size` bytes long. */
int nvm_region_grow(struct nvm_region *region, uint64_t size);
/* Gives the pages of [offset, offset + length) back; they read as 0. */
int nvm_region_punch(struct nvm_region *region, uint64_t offset, uint64_t length);

#endif
