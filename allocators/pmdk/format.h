/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h - what the pmdk adapter reads of libpmemobj's file format itself.
 *
 * libpmemobj says EINVAL to a foreign file, to a damaged one and to one of a
 * newer format alike, raises SIGBUS on an empty one, and has no call that tells
 * how much of a heap is taken.  The file answers all of this.
 */
#ifndef PMDK_FORMAT_H
#define PMDK_FORMAT_H

#include <stddef.h>
#include <stdint.h>

/* What the first bytes of a file show it to be. */
enum pmdk_kind {
    PMDK_UNREADABLE, /* errno says why */
    PMDK_FOREIGN,    /* no pool of libpmemobj, or one with another layout name */
    PMDK_SHORT,      /* a pool cut off within what every pool has */
    PMDK_NEWER,      /* a pool of a format that we don't know */
    PMDK_POOL,       /* a pool with this layout name: worth opening */
};

/* Reads path, never writes it.  A name of "" stands for a file whose creation
   was cut short before the layout name was there: that is PMDK_FOREIGN too. */
enum pmdk_kind pmdk_identify(const char *path, const char *layout);

/* Bytes of an open pool mapped at [pool, pool + size) that are in no free chunk:
   a free chunk can serve a request of any size, the free part of a run can't.
   UINT64_MAX if the format is not the one described in format.c.  It may be
   called while others allocate; then the figure is off by what they do. */
uint64_t pmdk_used_bytes(const void *pool, size_t size);

#endif
