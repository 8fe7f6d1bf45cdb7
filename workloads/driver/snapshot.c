// SPDX-License-Identifier: Apache-2.0
/*
 * snapshot.c - the copy of snapshot.h.
 *
 * Taken before every recovery, so it has to be quick: SEEK_DATA leaves out what
 * was never written (tmpfs knows that of fallocated pages too), and of the rest
 * a chunk of zeros is not written again.  Reading through a mapping spares a
 * copy; nobody writes the file meanwhile, its last user is dead.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdbool.h>
#include <stddef.h>

#include "snapshot.h"

enum {
    chunk = 4096,
};

static bool all_zero(const unsigned char *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

static int write_all(int fd, const unsigned char *bytes, size_t length, off_t at)
{
    while (length > 0) {
        ssize_t written = pwrite(fd, bytes, length, at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? errno : EIO;
        bytes += written;
        at += written;
        length -= (size_t)written;
    }
    return 0;
}

/* Bytes [from, to) of a stretch of data: runs of chunks that are not zero. */
static int copy_stretch(int out, const unsigned char *base, size_t from, size_t to)
{
    size_t run = from;
    for (size_t at = from; at < to;) {
        size_t length = to - at < chunk ? to - at : chunk;
        bool zero = all_zero(base + at, length);
        if (zero && run < at) {
            int error = write_all(out, base + run, at - run, (off_t)run);
            if (error != 0)
                return error;
        }
        at += length;
        if (zero)
            run = at;
    }
    return run < to ? write_all(out, base + run, to - run, (off_t)run) : 0;
}

static int copy_data(int in, int out, size_t length)
{
    unsigned char *base = mmap(NULL, length, PROT_READ, MAP_SHARED, in, 0);
    if (base == MAP_FAILED)
        return errno;
    int error = 0;
    off_t at = 0;
    while (error == 0 && (size_t)at < length) {
        off_t data = lseek(in, at, SEEK_DATA);
        if (data < 0) {
            if (errno != ENXIO) /* ENXIO: only a hole is left */
                error = errno;
            break;
        }
        off_t hole = lseek(in, data, SEEK_HOLE);
        if (hole < 0)
            error = errno;
        else
            error = copy_stretch(out, base, (size_t)data, (size_t)hole);
        at = hole;
    }
    munmap(base, length);
    return error;
}

int nvd_snapshot(const char *from, const char *to)
{
    struct stat status;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return errno;
    int error = 0, out = -1;
    if (fstat(in, &status) != 0) {
        error = errno;
    } else {
        out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (out < 0 || ftruncate(out, status.st_size) != 0)
            error = errno;
    }
    if (error == 0 && status.st_size > 0)
        error = copy_data(in, out, (size_t)status.st_size);
    if (out >= 0 && close(out) != 0 && error == 0)
        error = errno;
    close(in);
    return error;
}
