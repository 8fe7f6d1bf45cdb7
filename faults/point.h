// SPDX-License-Identifier: Apache-2.0
/*
 * point.h - one crash point: its lines, its states, what was tried of them.
 */
#ifndef NVL_POINT_H
#define NVL_POINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver.h"
#include "px86.h"
#include "recording.h"
#include "tally.h"
#include "tree.h"

struct nvl_point {
    uint64_t event;
    uint8_t *flags;                 /* of the image's lines */
    uint32_t count;                 /* lines with states that differ */
    const struct px86_line **lines; /* by index */
    uint32_t *choices;              /* how many each has */
    long double **weights;
    long double *line_legal;
    uint32_t *assignment; /* to be tried */
    uint32_t *applied;    /* what the image holds */
    uint32_t *reads;
    uint64_t floor_hash, hash; /* of the floor; of what is applied */
    long double legal;         /* states of the point */
    long double covered;       /* of them, decided */
    long double same;          /* legal states of the lines that are not listed */
    struct nvl_tree *tree;
    uint64_t proposed; /* assignments from the fixed list so far */
    bool plain;        /* recovery is not deterministic: no pruning */
};

/* Until nvl_point_end() the model may not change. */
void nvl_point_begin(struct nvl_point *point, struct px86 *model, uint8_t *flags,
                     uint64_t event);
/* The next assignment that is worth trying; false if all states are decided. */
bool nvl_point_propose(struct nvl_point *point, struct nvd_random *random,
                       uint64_t limit);
/* Puts the assignment into the image, and its copy if there is one; the image's hash
 * then. */
uint64_t nvl_point_apply(struct nvl_point *point, uint8_t *image, uint8_t *copy);
/* Says which lines the assignment has above their floor. */
void nvl_point_name(const struct nvl_point *point, struct nvl_crash *crash);
/* The reverse. */
void nvl_point_assign(struct nvl_point *point, const struct nvl_crash *crash);
/* Fetches what the lens saw read; without pruning: every line. */
size_t nvl_point_reads(struct nvl_point *point, bool prune);
/* Notes that the assignment was tried. */
void nvl_point_decide(struct nvl_point *point, size_t read_count);
/* Puts the floor back and frees. */
void nvl_point_end(struct nvl_point *point, uint8_t *image, uint8_t *copy);

/* Outer points' watched lines, out of sight while a recovery is explored. */
void nvl_flags_hide(uint8_t *flags, size_t size);
void nvl_flags_show(uint8_t *flags, size_t size);

#endif
