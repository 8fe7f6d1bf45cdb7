/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.h - the second Daisy heap: one list of chunks, searched first-fit.
 *
 * The whole heap is a sequence of chunks, each with a header that says whose it
 * is; id 0 is a free one.  An allocation takes the first free chunk that is large
 * enough and cuts it in two; a release, and the look-up of an id, walk the list
 * from its beginning until they meet the id.  There is no other index.
 *
 * Header of a chunk (24 bytes; the payload follows, a multiple of 8 bytes)
 *   offset 0   u64 id     whose it is; 0: free
 *          8   u64 size   bytes of the payload
 *         16   u64 next   offset of the next chunk in the file; 0: this is the last
 * The list is whole iff each next is the end of its chunk, and the last chunk ends
 * where the file does.
 *
 * Stores of one allocation: the header of the chunk that is handed out, then that of
 * the free chunk behind it: the order of the notes, which leaves a list without a
 * tail to a crash between the two.  Of a release: zeros over the payload, then the
 * header.  A crash between the two leaves a block that lost what was in it.
 *
 * The notes leave the merging of neighbouring free chunks for later, so a chunk
 * once cut stays cut: a heap that once held small blocks holds no large one any
 * more.  With `merge`, the search for a chunk joins the free ones that it passes; it
 * is what the notes had in mind, and not what they have.
 */
#ifndef DAISY_LIST_H
#define DAISY_LIST_H

#include <pthread.h>
#include <stdbool.h>

#include "../daisy-region/native_heap.h"

struct chunk {
    uint64_t id;
    uint64_t size;
    uint64_t next;
};
_Static_assert(sizeof(struct chunk) == 24, "as in the table above");

struct nvc_heap {
    struct native_heap region;
    bool merge;
    uint64_t *addresses; /* the driver's slots, in DRAM: of id i + 1, the offset of the
                            payload, which the application keeps; 0: none */
    uint64_t live;       /* payload bytes in chunks with an id */
    uint64_t unused;     /* payload bytes in chunks without one */
    pthread_mutex_t lock;
};

/* One free chunk, the whole heap. */
void list_clear(struct nvc_heap *heap);

/* Reads the list once, as p_get_malloc() of every id would: fills `addresses` and
   the sums.  EUCLEAN if the list is not whole. */
int list_mount(struct nvc_heap *heap);

/* The new payload's offset in the file; 0: no free chunk is large enough.
   EUCLEAN in *error if the list is not whole, else 0. */
uint64_t list_malloc(struct nvc_heap *heap, uint64_t id, uint64_t size, int *error);
/* EINVAL if no chunk has the id. */
int list_free(struct nvc_heap *heap, uint64_t id);

/* Payload bytes of the chunk whose payload is at an offset. */
uint64_t list_usable(const struct nvc_heap *heap, uint64_t payload);

/* Every chunk with an id. */
int list_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context);

#endif
