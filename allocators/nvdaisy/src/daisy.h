/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daisy.h - the Daisy heap without the globals of p_mmap.h.
 *
 * Every block has one owner
 * -------------------------
 * A block is owned by exactly one *place*: an owned slot of nvmalloc's (nvmalloc.h) that
 * refers to it.  Places are of two kinds: the entry of an id (id_table.c), or an *anchor*
 * (unbound.c), which owns a block without an id.  p_malloc() puts a block into a free
 * anchor, p_bind() moves it from there to the id's entry, and a block is freed from the
 * place that owns it; each is one nvm_publish(), so atomic.  So at every instant the live
 * blocks of nvmalloc's heap are those that places own, and those that the places lie in:
 * nothing can leak and nothing can have two owners.
 *
 * On media (all offsets in bytes)
 * -------------------------------
 * root     under the name "daisy"; published when it is complete
 *            0  u64  magic
 *            8  u64  format, 1
 *           16  u64  size that p_init() was given
 *           24  u64  clearing: not 0 while daisy_clear() has begun and not ended
 *           32       first leaf of anchors
 *         4128  ref  entries of the ids 1 .. 1024
 *        12320  ref  leaves of ids: 977, the first of which stays empty
 * id leaf    0  ref  entries: of leaf i, the ids 1024 i + 1 .. 1024 i + 1024
 * anchors    0  ref  next leaf
 *            8  ref  511 anchors
 * block      0  u64  size: what was asked for, or given to daisy_bind()
 *            8  u32  id     } the places that may own it
 *           12  u32  anchor }
 *           16       the caller's bytes
 *
 * A block's header is a hint and not the truth: the owner is the place that refers to the
 * block, and it is the entry of `id` or the anchor numbered `anchor`.  So a header can be
 * durable before the block moves to a new place, and it is: a crash between the two
 * leaves a header that names the old place still, as the other candidate.  Only `size`
 * means something by itself, and it means nothing while no id owns the block.
 *
 * What ends with the process
 * --------------------------
 * Blocks in anchors have no name that another process could ask for.  daisy_open() keeps
 * those that are reached from a block with an id by their offset (collect.c) and frees
 * the others.
 *
 * Locks, in this order: anchors, one id's (striped).  nvmalloc has its own.
 */
#ifndef DAISY_H
#define DAISY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvmalloc.h"

#define DAISY_MAX_ID 1000000u

struct daisy;

/* Makes a heap with room for `size` bytes of blocks. A crash leaves no file at path, or a
   whole heap.  0, or EEXIST, EINVAL, ENOSPC, ... */
int daisy_create(const char *path, uint64_t size, struct daisy **heap);
/* The same, of a file of `bytes`, at path from the beginning: a crash may leave a file
   that daisy_open() refuses. */
int daisy_create_file(const char *path, uint64_t bytes, struct daisy **heap);
int daisy_open(const char *path, struct daisy **heap);
int daisy_close(struct daisy *heap);
/* The same for a heap that is in memory: nvm_attach(), nvm_detach(). */
int daisy_attach(void *base, size_t size, struct daisy **heap);
void daisy_detach(struct daisy *heap);
/* The size that daisy_create() was given. */
uint64_t daisy_size(const struct daisy *heap);
/* The heap underneath. */
nvm_heap *daisy_nvm(const struct daisy *heap);

int daisy_clear(struct daisy *heap);

/* A block that an anchor owns. */
int daisy_malloc(struct daisy *heap, uint64_t size, void **address);
/* A block that an id owns; filled with zeros if asked. EEXIST. */
int daisy_malloc_id(struct daisy *heap, uint32_t id, uint64_t size, bool zero,
                    void **address);
int daisy_free(struct daisy *heap, void *address);
int daisy_free_id(struct daisy *heap, uint32_t id);
int daisy_bind(struct daisy *heap, uint32_t id, void *address, uint64_t size);

/* What an id names. */
struct daisy_node {
    void *address;
    uint64_t size;   /* asked for, or given with p_bind() */
    uint64_t usable; /* what the block holds */
};
/* ENOENT, EINVAL (no such id).  Takes the time of a lookup in an array. */
int daisy_find(struct daisy *heap, uint32_t id, struct daisy_node *node);
/* The address alone, or NULL without a reason. */
void *daisy_address(struct daisy *heap, uint32_t id);

/* Every block that a caller may have, whoever owns it; and so those that nobody owns,
   if the heap were to have such.  `ours`, a block of the caller's own, is left out. */
typedef int daisy_walk_fn(void *context, void *address, uint64_t usable);
int daisy_walk(struct daisy *heap, nvm_ref ours, daisy_walk_fn *visit, void *context);

/* The sum of what those blocks hold, headers not counted. */
int daisy_live(struct daisy *heap, nvm_ref ours, uint64_t *bytes);

/* 0, or EUCLEAN: a place refers to no live block, or to one whose header does not name
   the place. */
int daisy_check(struct daisy *heap);

/* Records why, for daisy_error(); returns error. */
int daisy_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *daisy_error(void);

#endif
