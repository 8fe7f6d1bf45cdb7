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

static int map_file(struct nvm_region *region, int protection)
{
    void *base = MAP_FAILED;
    region->map_sync = false;
    if (protection & PROT_WRITE) {
        base = mmap(NULL, region->size, protection, MAP_SHARED_VALIDATE | MAP_SYNC,
                    region->fd, 0);
        region->map_sync = base != MAP_FAILED;
    }
    if (base == MAP_FAILED)
        base = mmap(NULL, region->size, protection,
                    protection & PROT_WRITE ? MAP_SHARED : MAP_PRIVATE, region->fd, 0);
    if (base == MAP_FAILED)
        return errno;
    region->base = base;
    return 0;
}

int nvm_region_create(const char *path, uint64_t size, struct nvm_region *region)
{
    region->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (region->fd < 0)
        return nvm_fail(errno, "%s: cannot create the heap file", path);
    region->size = size;
    int error = lock_file(region->fd);
    if (error == 0)
        error = posix_fallocate(region->fd, 0, (off_t)size);
    if (error == 0)
        error = map_file(region, PROT_READ | PROT_WRITE);
    if (error != 0) {
        unlink(path);
        close(region->fd);
        return nvm_fail(error, "%s: cannot allocate and map %llu bytes", path,
                        (unsigned long long)size);
    }
    return 0;
}

static int open_existing(const char *path, struct nvm_region *region, int flags)
{
    region->fd = open(path, flags | O_CLOEXEC);
    if (region->fd < 0)
        return nvm_fail(errno, "%s: cannot open the heap file", path);
    struct stat status;
    int error = fstat(region->fd, &status) == 0 ? 0 : errno;
    if (error == 0 && !S_ISREG(status.st_mode))
        error = EMEDIUMTYPE;
    if (error == 0 && status.st_size == 0)
        error = EMEDIUMTYPE;
    if (error != 0) {
        close(region->fd);
        return nvm_fail(error, "%s: not a heap file (a regular file that is not empty)",
                        path);
    }
    region->size = (uint64_t)status.st_size;
    return 0;
}

int nvm_region_open(const char *path, struct nvm_region *region)
{
    int error = open_existing(path, region, O_RDWR);
    if (error != 0)
        return error;
    error = lock_file(region->fd);
    if (error != 0)
        error = nvm_fail(
            error, "%s: the heap is open already, here or in another process", path);
    else if ((error = map_file(region, PROT_READ | PROT_WRITE)) != 0)
        error = nvm_fail(error, "%s: cannot map the heap file", path);
    if (error != 0)
        close(region->fd);
    return error;
}

int nvm_region_open_read_only(const char *path, struct nvm_region *region)
{
    int error = open_existing(path, region, O_RDONLY);
    if (error != 0)
        return error;
    error = map_file(region, PROT_READ);
    if (error != 0) {
        close(region->fd);
        return nvm_fail(error, "%s: cannot map the heap file", path);
    }
    return 0;
}

void nvm_region_close(struct nvm_region *region)
{
    munmap(region->base, region->size);
    close(region->fd); /* releases the lock */
}
