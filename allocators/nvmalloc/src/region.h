/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.h - the heap file and its mapping.
 *
 * A file is created exclusively, mode 0600, every byte allocated by
 * posix_fallocate() before it is mapped, so that no store can raise a bus
 * error for want of space; an existing file is never truncated.  It is mapped
 * MAP_SHARED_VALIDATE | MAP_SYNC, and where that is refused (tmpfs, or no
 * DAX) MAP_SHARED, which `map_sync` tells.  An open-file-description lock
 * refuses a second opener in this process or another, and goes with a crash.
 */
#ifndef NVM_REGION_H
#define NVM_REGION_H

#include <stdbool.h>
#include <stdint.h>

struct nvm_region {
    int fd;
    char *base; /* page-aligned */
    uint64_t size;
    bool map_sync;
};

/* errno values; *region is undefined after a failure, and nothing is left. */
int nvm_region_create(const char *path, uint64_t size, struct nvm_region *region);
int nvm_region_open(const char *path, struct nvm_region *region);
/* Read-only, private, without the lock: what nvm-inspect looks through. */
int nvm_region_open_read_only(const char *path, struct nvm_region *region);
void nvm_region_close(struct nvm_region *region);

#endif
