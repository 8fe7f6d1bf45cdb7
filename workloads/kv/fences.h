/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fences.h - the inner part of the B+-tree, in DRAM: which leaf has which keys.
 *
 * A leaf has the keys from its fence up to the next leaf's.  Fences are kept in
 * order, in groups of GROUP at most; the groups' first fences are in order, too.  So a
 * search is two binary searches, and an insertion moves a few KB at most: with groups of
 * 256, up to a million leaves it does what three levels of inner nodes do.
 * The first fence is 0, so every key has a leaf.
 *
 * Not locked; the tree does that.
 */
#ifndef NVK_FENCES_H
#define NVK_FENCES_H

#include <stdint.h>

struct nvk_fences;

/* NULL without memory. */
struct nvk_fences *nvk_fences_new(void);
void nvk_fences_free(struct nvk_fences *fences);
/* 0, EEXIST, or ENOMEM and nothing has changed. */
int nvk_fences_add(struct nvk_fences *fences, uint64_t fence, uint64_t leaf);
/* The leaf whose keys include this one; there must be a fence of 0. */
uint64_t nvk_fences_find(const struct nvk_fences *fences, uint64_t key);

#endif
