/* SPDX-License-Identifier: Apache-2.0 */
/* region.c - see region.h. */
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

static int lock_file(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? EBUSY : errno;
}

/* Addresses for `bytes` and nothing behind them. */
static char *reserve_addresses(uint64_t bytes)
{
    uint64_t span = bytes + NVM_REGION_ALIGNMENT;
    char *got =
        mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED)
        return NULL;
    char *base = got + (-(uintptr_t)got & (NVM_REGION_ALIGNMENT - 1));
    if (base != got)
        munmap(got, (size_t)(base - got));
    munmap(base + bytes, (size_t)(got + span - (base + bytes)));
    return base;
}

/* Maps file bytes [from, to) at their place. */
static int map_range(struct nvm_region *region, uint64_t from, uint64_t to,
                     int protection)
{
    void *at = region->base + from, *got = MAP_FAILED;
    bool writable = protection & PROT_WRITE;
    region->map_sync = false;
    if (writable) {
        got = mmap(at, to - from, protection, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED,
                   region->fd, (off_t)from);
        region->map_sync = got != MAP_FAILED;
    }
    if (got == MAP_FAILED)
        got = mmap(at, to - from, protection,
                   (writable ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED, region->fd,
                   (off_t)from);
    if (got == MAP_FAILED)
        return errno;
    madvise(at, to - from, MADV_DONTFORK);
    region->size = to;
    return 0;
}

static int map_file(struct nvm_region *region, uint64_t size, uint64_t reserved,
                    int protection)
{
    reserved = (reserved + 4095) & ~(uint64_t)4095;
    region->base = reserve_addresses(reserved);
    if (region->base == NULL)
        return ENOMEM;
    region->reserved = reserved;
    int error = map_range(region, 0, size, protection);
    if (error != 0)
        munmap(region->base, reserved);
    return error;
}

int nvm_region_create(const char *path, uint64_t size, uint64_t max_size,
                      struct nvm_region *region)
{
    region->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (region->fd < 0)
        return nvm_fail(errno, "%s: cannot create the heap file", path);
    int error = lock_file(region->fd);
    if (error == 0 && ftruncate(region->fd, (off_t)size) != 0)
        error = errno;
    if (error == 0)
        error = map_file(region, size, max_size, PROT_READ | PROT_WRITE);
    if (error != 0) {
        unlink(path);
        close(region->fd);
        return nvm_fail(error, "%s: cannot make and map %llu bytes", path,
                        (unsigned long long)size);
    }
    return 0;
}

static int open_existing(const char *path, int flags, int *fd, uint64_t *size)
{
    *fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return nvm_fail(errno, "%s: cannot open the heap file", path);
    struct stat status;
    int error = fstat(*fd, &status) == 0 ? 0 : errno;
    if (error == 0 && !S_ISREG(status.st_mode))
        error = EMEDIUMTYPE;
    if (error == 0 && status.st_size == 0)
        error = EMEDIUMTYPE;
    if (error != 0) {
        close(*fd);
        return nvm_fail(error, "%s: not a heap file (a regular file that is not empty)",
                        path);
    }
    *size = (uint64_t)status.st_size;
    return 0;
}

int nvm_region_open(const char *path, struct nvm_region *region)
{
    uint64_t size;
    int error = open_existing(path, O_RDWR, &region->fd, &size);
    if (error != 0)
        return error;
    error = lock_file(region->fd);
    if (error != 0)
        error = nvm_fail(
            error, "%s: the heap is open already, here or in another process", path);
    else if ((error = map_file(region, size, size, PROT_READ | PROT_WRITE)) != 0)
        error = nvm_fail(error, "%s: cannot map the heap file", path);
    if (error != 0)
        close(region->fd);
    return error;
}

int nvm_region_open_read_only(const char *path, struct nvm_region *region)
{
    uint64_t size;
    int error = open_existing(path, O_RDONLY, &region->fd, &size);
    if (error != 0)
        return error;
    error = map_file(region, size, size, PROT_READ);
    if (error != 0) {
        close(region->fd);
        return nvm_fail(error, "%s: cannot map the heap file", path);
    }
    return 0;
}

void nvm_region_close(struct nvm_region *region)
{
    if (region->fd < 0 && !region->detached)
        return;
    munmap(region->base, region->reserved);
    if (region->fd >= 0)
        close(region->fd); /* releases the lock */
}

void nvm_region_abandon(struct nvm_region *region)
{
    /* The mapping was not inherited; the descriptor shares the parent's lock. */
    if (region->fd >= 0)
        close(region->fd);
    region->fd = -1;
}

/* Allocates the pages of [offset, offset + length), as a store to each of them would. */
static int populate(const struct nvm_region *region, uint64_t offset, uint64_t length)
{
    while (madvise(region->base + offset, length, MADV_POPULATE_WRITE) != 0) {
        if (errno == EFAULT) /* the store would have raised SIGBUS */
            return ENOSPC;
        if (errno != EINTR && errno != EAGAIN)
            return errno;
    }
    return 0;
}

/* Maps all of the region's addresses to its file. */
static int map_whole(struct nvm_region *region)
{
    uint64_t size = region->size;
    int error = map_range(region, 0, region->reserved, PROT_READ | PROT_WRITE);
    region->size = size; /* which is what the heap may use */
    return error;
}

int nvm_region_detach(struct nvm_region *region)
{
    if (ftruncate(region->fd, (off_t)region->reserved) != 0)
        return errno;
    int error = map_whole(region);
    if (error == 0)
        error = populate(region, 0, 4096);
    if (error != 0)
        return error == EINVAL ? ENOTSUP : error;
    close(region->fd);
    region->fd = -1;
    region->detached = true;
    return 0;
}

int nvm_region_replace(struct nvm_region *region, int fd)
{
    region->fd = fd;
    int error = map_whole(region);
    close(fd);
    region->fd = -1;
    return error;
}

int nvm_region_reserve(struct nvm_region *region, uint64_t max_size)
{
    if (region->fd < 0 || max_size <= region->reserved)
        return 0;
    struct nvm_region now = *region;
    int error = map_file(region, now.size, max_size, PROT_READ | PROT_WRITE);
    if (error == 0)
        munmap(now.base, now.reserved);
    else
        *region = now;
    return error;
}

int nvm_region_allocate(struct nvm_region *region, uint64_t offset, uint64_t length)
{
    if (region->detached)
        return populate(region, offset, length);
    if (region->fd < 0)
        return 0;
    int error;
    do
        error = posix_fallocate(region->fd, (off_t)offset, (off_t)length);
    while (error == EINTR);
    /* A limit on the file or the user is as good as a full file system. */
    return error == EFBIG || error == EDQUOT ? ENOSPC : error;
}

int nvm_region_grow(struct nvm_region *region, uint64_t size)
{
    if (size <= region->size) /* grown before, by an open that crashed */
        return 0;
    if ((region->fd < 0 && !region->detached) || size > region->reserved)
        return ENOMEM;
    uint64_t old = region->size & ~(uint64_t)4095;
    int error = nvm_region_allocate(region, old, size - old);
    if (region->detached) { /* it is mapped already; a heap's sizes are whole pages */
        if (error == 0)
            region->size = size;
        else /* gives back what was allocated of it */
            (void)nvm_region_punch(region, region->size, size - region->size);
        return error;
    }
    if (error != 0) {
        /* Gives back what was allocated of it before the space ran out. */
        (void)!ftruncate(region->fd, (off_t)region->size);
        return error;
    }
    return map_range(region, old, size, PROT_READ | PROT_WRITE);
}

int nvm_region_punch(struct nvm_region *region, uint64_t offset, uint64_t length)
{
    if (region->detached)
        return madvise(region->base + offset, length, MADV_REMOVE) == 0 ? 0 : errno;
    if (region->fd < 0)
        return ENOTSUP;
    return fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     (off_t)offset, (off_t)length) == 0
               ? 0
               : errno;
}
