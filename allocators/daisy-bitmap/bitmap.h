/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap.h - the first Daisy heap: a bitmap, searched next-fit.
 *
 * A granule is 8 bytes.  A set bit says that its granule is in use; which
 * granules belong together no bit says.  A block is a run of granules, the first
 * of which holds the size that was asked for; the address that the caller gets
 * lies behind it.  p_free() believes that size.
 *
 * Layout
 *   offset 0    first line (native_heap.h)
 *          64   bind nodes: slots x {u64 offset of the block, u64 size}; offset 0: empty
 *               bitmap, a bit for each granule behind it, rounded up to lines
 *               granules
 *
 * Search: from the granule behind the last run that was handed out to the end of
 * the heap, then from its beginning.  The search looks at 64 granules at a time
 * and takes time in proportion to the heap where the heap is full of short gaps.
 * A gap that adjoins another is one gap: free runs coalesce by themselves.
 *
 * Stores of one allocation, each on media before the next is made:
 *   1. the run's bits   2. the size   3. the bind node (p_bind)
 * and of one release:   1. the bind node   2. the run's bits.
 * A crash between two of them leaves granules that belong to nobody, and between
 * 1 and 2 of an allocation a run of unknown length.  Nothing repairs that.
 */
#ifndef DAISY_BITMAP_H
#define DAISY_BITMAP_H

#include <pthread.h>

#include "../daisy-region/native_heap.h"

#define BITMAP_GRANULE 8

struct bind_node {
    uint64_t offset;
    uint64_t size;
};

struct nvc_heap {
    struct native_heap region;
    struct bind_node *nodes;
    uint64_t *bits;
    unsigned char *granules;
    uint64_t count; /* granules */
    uint64_t next;  /* where the next search begins; DRAM only, as in the notes */
    uint64_t used;  /* granules in use */
    uint64_t live;  /* usable bytes of the blocks in use, as far as they are known */
    pthread_mutex_t lock;
};

/* Lays the parts out in a mapped region and counts what is in use.  EINVAL if the
   region is too small for the slots. */
int bitmap_mount(struct nvc_heap *heap);

/* The new block's offset in the file; 0: no gap is long enough. */
uint64_t bitmap_malloc(struct nvc_heap *heap, uint64_t size);
/* EINVAL if no run can begin there, or its size is none. */
int bitmap_free(struct nvc_heap *heap, uint64_t offset);

/* Usable bytes of the block at an offset; 0 if it cannot be a block. */
uint64_t bitmap_usable(const struct nvc_heap *heap, uint64_t offset);

/* Every run, by the sizes in them; EUCLEAN where one is no size of a run. */
int bitmap_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context);

#endif
