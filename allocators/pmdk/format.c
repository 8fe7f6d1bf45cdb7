/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.c - the parts of libpmemobj's file format, major version 6, that the
 * adapter reads (format.h says what for).  All integers little-endian.
 *
 *   pool   offset     0  signature "PMEMOBJ\0"
 *                     8  u32 major version of the format
 *                  4096  layout name, 1024 bytes, padded with zeros
 *                  5136  u64 offset of the heap
 *   heap   offset     0  signature "MEMORY_HEAP_HDR\0"
 *                    40  u64 bytes of a chunk
 *                    48  u64 chunks of a zone at most
 *                  1024  zones, one after the other, all but the last full
 *   zone   offset     0  u32 magic; 0 while the zone was never used
 *                     4  u32 chunks in this zone
 *                    64  chunk headers, 8 bytes each, for the most chunks
 *                        u16 type (2: free), u16 flags, u32 length in chunks
 *                   ...  the chunks
 *
 * A zone's header is valid iff its magic is right, its count is within the
 * maximum and the file, and the lengths of its chunks, followed from the first,
 * end exactly at the count.  Anything else makes the whole answer "unknown":
 * a figure for a table is not worth a wild read.
 */
#include "format.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libpmemobj.h>

#if __BYTE_ORDER != __LITTLE_ENDIAN
#error "the fields are read in place, and the format is little-endian"
#endif

#define MAJOR_KNOWN      6u
#define OFFSET_MAJOR     8
#define OFFSET_LAYOUT    4096
#define OFFSET_HEAP      5136
#define HEAP_CHUNK_BYTES 40
#define HEAP_CHUNKS_MAX  48
#define HEAP_ZONES       1024
#define ZONE_MAGIC       0xC3F0A2D2u
#define ZONE_CHUNKS      64
#define CHUNK_FREE       2

static const char pool_signature[8] = "PMEMOBJ";
static const char heap_signature[16] = "MEMORY_HEAP_HDR";

static uint64_t load(const unsigned char *from, size_t bytes)
{
    uint64_t value = 0;
    memcpy(&value, from, bytes);
    return value;
}

enum pmdk_kind pmdk_identify(const char *path, const char *layout)
{
    unsigned char head[OFFSET_LAYOUT + PMEMOBJ_MAX_LAYOUT] = {0};
    struct stat status;
    /* O_NONBLOCK: a FIFO of that name must not hold us up. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return PMDK_UNREADABLE;
    }
    if (fstat(fd, &status) != 0 ||
        (S_ISREG(status.st_mode) && pread(fd, head, sizeof head, 0) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return PMDK_UNREADABLE;
    }
    close(fd);
    if (!S_ISREG(status.st_mode) ||
        memcmp(head, pool_signature, sizeof pool_signature) != 0) {
        return PMDK_FOREIGN;
    }
    if (load(head + OFFSET_MAJOR, 4) > MAJOR_KNOWN) {
        return PMDK_NEWER;
    }
    if ((uint64_t)status.st_size < PMEMOBJ_MIN_POOL) {
        return PMDK_SHORT;
    }
    const char *name = (const char *)head + OFFSET_LAYOUT;
    return strncmp(name, layout, PMEMOBJ_MAX_LAYOUT) == 0 ? PMDK_POOL : PMDK_FOREIGN;
}

/* Free chunks of a zone that has `room` bytes left in the file; UINT64_MAX if
   its header is not valid. */
static uint64_t zone_free_chunks(const unsigned char *zone, uint64_t room,
                                 uint64_t chunk_bytes, uint64_t meta_bytes)
{
    uint64_t count = load(zone + 4, 4);
    uint64_t most = (room - meta_bytes) / chunk_bytes;
    if (load(zone, 4) == 0) {
        return most;
    }
    if (load(zone, 4) != ZONE_MAGIC || count > most) {
        return UINT64_MAX;
    }
    uint64_t free_chunks = 0;
    uint64_t at = 0;
    while (at < count) {
        const unsigned char *header = zone + ZONE_CHUNKS + at * 8;
        uint64_t length = load(header + 4, 4);
        if (length == 0 || length > count - at) {
            return UINT64_MAX;
        }
        free_chunks += load(header, 2) == CHUNK_FREE ? length : 0;
        at += length;
    }
    return free_chunks;
}

uint64_t pmdk_used_bytes(const void *pool, size_t size)
{
    const unsigned char *base = pool;
    uint64_t heap = load(base + OFFSET_HEAP, 8);
    if (load(base + OFFSET_MAJOR, 4) != MAJOR_KNOWN || heap > size ||
        size - heap < HEAP_ZONES ||
        memcmp(base + heap, heap_signature, sizeof heap_signature) != 0) {
        return UINT64_MAX;
    }
    uint64_t chunk_bytes = load(base + heap + HEAP_CHUNK_BYTES, 8);
    uint64_t chunks_max = load(base + heap + HEAP_CHUNKS_MAX, 8);
    if (chunk_bytes == 0 || chunk_bytes > size || chunks_max == 0 ||
        chunks_max > UINT16_MAX) {
        return UINT64_MAX;
    }
    uint64_t meta_bytes = ZONE_CHUNKS + chunks_max * 8;
    uint64_t zone_bytes = meta_bytes + chunks_max * chunk_bytes;
    uint64_t free_bytes = 0;
    uint64_t at = heap + HEAP_ZONES;
    while (size - at >= meta_bytes + chunk_bytes) {
        uint64_t room = size - at < zone_bytes ? size - at : zone_bytes;
        uint64_t chunks = zone_free_chunks(base + at, room, chunk_bytes, meta_bytes);
        if (chunks == UINT64_MAX) {
            return UINT64_MAX;
        }
        free_bytes += chunks * chunk_bytes;
        at += room;
    }
    return size - free_bytes;
}
