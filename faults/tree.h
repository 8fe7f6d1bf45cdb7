// SPDX-License-Identifier: Apache-2.0
/*
 * tree.h - which of a crash point's states have been decided.
 *
 * A state assigns a choice to each dirty line.  The verdict on it depends on the lines
 * that recovery and the oracle *read*, and on nothing else (they are deterministic), so
 * one run decides every state that agrees with it on these lines: a cylinder.  The runs
 * form a decision tree, as in Jaaru (Gorjiara et al., ASPLOS 2021): an inner node is
 * the line that is read next, its edges are that line's choices, a leaf is a run.
 * Cylinders of different leaves are disjoint; their sizes add up to exactly the number
 * of legal states when no edge is left untried.
 *
 * Where reads are not known each line counts as read, in the order of the list, and the
 * tree is the plain product.
 */
#ifndef NVL_TREE_H
#define NVL_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nvl_tree;

/* choices[i], counts[i]: of line i the number of choices, and of each choice c the legal
   prefixes weights[i][c]; `legal[i]` is their sum.  The arrays must outlive the tree. */
struct nvl_tree_lines {
    uint32_t count;
    const uint32_t *choices;
    const long double *const *weights;
    const long double *legal;
};

struct nvl_tree *nvl_tree_new(const struct nvl_tree_lines *lines);
void nvl_tree_free(struct nvl_tree *tree);

/* True if a run has decided this assignment already. */
bool nvl_tree_decided(const struct nvl_tree *tree, const uint32_t *assignment);
/* A run of `assignment` read these lines, in this order: returns how many legal states
   that decides (0: it was decided before).  False in *sound if the order contradicts an
   earlier run that agrees up to there: recovery is not deterministic. */
long double nvl_tree_insert(struct nvl_tree *tree, const uint32_t *assignment,
                            const uint32_t *reads, size_t read_count, bool *sound);
/* Puts an assignment that no run has decided into *assignment (lines that do not matter
   keep what they hold); false if every state is decided. */
bool nvl_tree_next(struct nvl_tree *tree, uint32_t *assignment);
bool nvl_tree_complete(const struct nvl_tree *tree);

#endif
