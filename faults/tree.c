// SPDX-License-Identifier: Apache-2.0
/*
 * tree.c - the decision tree of tree.h.
 *
 * Nodes live in one array and are named by their index.  An edge holds the index of the
 * node below, `leaf`, or `untried`.  A node is *open* while it has an untried edge; open
 * nodes are on a stack, of which the top is worked on.  Invariant: a node is on the
 * stack iff its `next` edge exists; edges below `next` may have been tried out of turn
 * (by a sampled assignment), those are skipped.
 */
#include "tree.h"

#include <stdlib.h>

enum {
    untried = UINT32_MAX,
    leaf = UINT32_MAX - 1,
};

struct node {
    uint32_t line;
    uint32_t parent; /* untried: the root */
    uint32_t parent_edge;
    uint32_t next; /* first edge that may be untried */
    size_t edges;  /* where they begin */
};

struct nvl_tree {
    struct nvl_tree_lines lines;
    struct node *nodes;
    size_t node_count, node_capacity;
    uint32_t *edges;
    size_t edge_count, edge_capacity;
    uint32_t *open;
    size_t open_count, open_capacity;
    uint32_t root; /* as an edge */
    bool *read;    /* scratch, one a line */
};

static void *grown(void *array, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return array;
    size_t wanted = 2 * *capacity > needed ? 2 * *capacity : needed + 64;
    void *larger = realloc(array, wanted * size);
    if (larger == NULL)
        abort();
    *capacity = wanted;
    return larger;
}

struct nvl_tree *nvl_tree_new(const struct nvl_tree_lines *lines)
{
    struct nvl_tree *tree = calloc(1, sizeof *tree);
    if (tree == NULL)
        abort();
    tree->lines = *lines;
    tree->root = untried;
    tree->read = calloc((size_t)lines->count + 1, sizeof *tree->read);
    if (tree->read == NULL)
        abort();
    return tree;
}

void nvl_tree_free(struct nvl_tree *tree)
{
    free(tree->nodes);
    free(tree->edges);
    free(tree->open);
    free(tree->read);
    free(tree);
}

bool nvl_tree_decided(const struct nvl_tree *tree, const uint32_t *assignment)
{
    uint32_t at = tree->root;
    while (at != untried && at != leaf) {
        const struct node *node = &tree->nodes[at];
        at = tree->edges[node->edges + assignment[node->line]];
    }
    return at == leaf;
}

static uint32_t add_node(struct nvl_tree *tree, uint32_t line, uint32_t parent,
                         uint32_t parent_edge)
{
    uint32_t choices = tree->lines.choices[line];
    tree->nodes = grown(tree->nodes, &tree->node_capacity, tree->node_count + 1,
                        sizeof *tree->nodes);
    tree->edges = grown(tree->edges, &tree->edge_capacity, tree->edge_count + choices,
                        sizeof *tree->edges);
    tree->open =
        grown(tree->open, &tree->open_capacity, tree->open_count + 1, sizeof *tree->open);
    uint32_t index = (uint32_t)tree->node_count++;
    tree->nodes[index] = (struct node){line, parent, parent_edge, 0, tree->edge_count};
    for (uint32_t i = 0; i < choices; i++)
        tree->edges[tree->edge_count + i] = untried;
    tree->edge_count += choices;
    tree->open[tree->open_count++] = index;
    return index;
}

static void set_edge(struct nvl_tree *tree, uint32_t node, uint32_t edge, uint32_t value)
{
    if (node == untried)
        tree->root = value;
    else
        tree->edges[tree->nodes[node].edges + edge] = value;
}

/* Of the lines that were not read every choice counts, of the others the assigned one.
   A product of whole numbers, so exact while it fits the mantissa. */
static long double cylinder(const struct nvl_tree *tree, const uint32_t *assignment,
                            const uint32_t *reads, size_t read_count)
{
    long double size = 1;
    for (size_t i = 0; i < read_count; i++) {
        tree->read[reads[i]] = true;
        size *= tree->lines.weights[reads[i]][assignment[reads[i]]];
    }
    for (uint32_t i = 0; i < tree->lines.count; i++) {
        if (!tree->read[i])
            size *= tree->lines.legal[i];
        tree->read[i] = false;
    }
    return size;
}

long double nvl_tree_insert(struct nvl_tree *tree, const uint32_t *assignment,
                            const uint32_t *reads, size_t read_count, bool *sound)
{
    uint32_t at = tree->root, parent = untried, edge = 0;
    size_t i = 0;
    *sound = true;
    while (at != untried && at != leaf) {
        const struct node *node = &tree->nodes[at];
        if (i == read_count || reads[i] != node->line) {
            *sound = false;
            return 0;
        }
        parent = at;
        edge = assignment[node->line];
        at = tree->edges[node->edges + edge];
        i++;
    }
    if (at == leaf) {
        *sound = i == read_count;
        return 0;
    }
    for (; i < read_count; i++) {
        uint32_t below = add_node(tree, reads[i], parent, edge);
        set_edge(tree, parent, edge, below);
        parent = below;
        edge = assignment[reads[i]];
    }
    set_edge(tree, parent, edge, leaf);
    return cylinder(tree, assignment, reads, read_count);
}

bool nvl_tree_next(struct nvl_tree *tree, uint32_t *assignment)
{
    if (tree->root == untried)
        return true; /* nothing was run: any assignment will do */
    while (tree->open_count > 0) {
        uint32_t index = tree->open[tree->open_count - 1];
        struct node *node = &tree->nodes[index];
        while (node->next < tree->lines.choices[node->line] &&
               tree->edges[node->edges + node->next] != untried)
            node->next++;
        if (node->next == tree->lines.choices[node->line]) {
            tree->open_count--;
            continue;
        }
        assignment[node->line] = node->next;
        for (const struct node *up = node; up->parent != untried;) {
            uint32_t taken = up->parent_edge;
            up = &tree->nodes[up->parent];
            assignment[up->line] = taken;
        }
        return true;
    }
    return false;
}

bool nvl_tree_complete(const struct nvl_tree *tree)
{
    if (tree->root == untried)
        return false;
    for (size_t i = tree->open_count; i > 0; i--) {
        const struct node *node = &tree->nodes[tree->open[i - 1]];
        for (uint32_t e = node->next; e < tree->lines.choices[node->line]; e++) {
            if (tree->edges[node->edges + e] == untried)
                return false;
        }
    }
    return true;
}
