// SPDX-License-Identifier: Apache-2.0
/*
 * point.c - assignments of one crash point; see point.h and, for the order in which they
 * are proposed, explore.h.
 */
#include "point.h"

#include <stdlib.h>
#include <string.h>

#include "lens.h"

enum {
    random_tries = 64, /* draws for one assignment that is not decided yet */
};

static void *zeroed(size_t count, size_t size)
{
    void *array = calloc(count + 1, size);
    if (array == NULL)
        abort();
    return array;
}

static void plant_tree(struct nvl_point *point)
{
    point->covered = 0;
    point->tree = nvl_tree_new(
        &(struct nvl_tree_lines){.count = point->count,
                                 .choices = point->choices,
                                 .weights = (const long double *const *)point->weights,
                                 .legal = point->line_legal});
}

void nvl_point_begin(struct nvl_point *point, struct px86 *model, uint8_t *flags,
                     uint64_t event)
{
    struct px86_line *const *dirty;
    size_t count = px86_dirty(model, &dirty);
    *point = (struct nvl_point){.event = event, .flags = flags, .legal = 1};
    point->lines = zeroed(count, sizeof *point->lines);
    point->choices = zeroed(count, sizeof *point->choices);
    point->weights = zeroed(count, sizeof *point->weights);
    point->line_legal = zeroed(count, sizeof *point->line_legal);
    point->assignment = zeroed(count, sizeof *point->assignment);
    point->applied = zeroed(count, sizeof *point->applied);
    point->reads = zeroed(count, sizeof *point->reads);
    for (size_t i = 0; i < count; i++) {
        const struct px86_line *line = dirty[i];
        point->legal *= line->legal;
        if (line->choice_count == 1)
            continue; /* its stores change nothing */
        uint32_t n = point->count++;
        point->lines[n] = line;
        point->choices[n] = line->choice_count;
        point->line_legal[n] = line->legal;
        point->weights[n] = zeroed(line->choice_count, sizeof **point->weights);
        for (uint32_t c = 0; c < line->choice_count; c++)
            point->weights[n][c] = line->choices[c].count;
        flags[line->index] |= NVL_LINE_WATCHED;
    }
    /* Lines that look the same in every state count into each cylinder. */
    point->same = point->legal;
    for (uint32_t i = 0; i < point->count; i++)
        point->same /= point->line_legal[i];
    point->floor_hash = point->hash = px86_floor_hash(model);
    plant_tree(point);
}

/* ---- proposals ---- */

static void all_to(struct nvl_point *point, bool last)
{
    for (uint32_t i = 0; i < point->count; i++)
        point->assignment[i] = last ? point->choices[i] - 1 : 0;
}

/* The floor, program order, each alone, all but one: 2 + 2 * count of them. */
static void fixed(struct nvl_point *point, uint64_t number)
{
    if (number < 2) {
        all_to(point, number == 1);
        return;
    }
    bool alone = number % 2 == 0;
    uint32_t line = (uint32_t)((number - 2) / 2);
    all_to(point, !alone);
    point->assignment[line] = alone ? point->choices[line] - 1 : 0;
}

static void random_assignment(struct nvl_point *point, struct nvd_random *random)
{
    for (uint32_t i = 0; i < point->count; i++) {
        uint64_t draw = nvd_random_below(random, 3);
        point->assignment[i] =
            draw == 0   ? 0
            : draw == 1 ? point->choices[i] - 1
                        : (uint32_t)nvd_random_below(random, point->choices[i]);
    }
}

bool nvl_point_propose(struct nvl_point *point, struct nvd_random *random, uint64_t limit)
{
    uint64_t listed = 2 + 2 * (uint64_t)point->count;
    while (point->proposed < listed && point->proposed < limit) {
        fixed(point, point->proposed++);
        if (!nvl_tree_decided(point->tree, point->assignment))
            return true;
    }
    point->proposed++;
    /* By lot and by gap in turn; when the lots find nothing new, gaps only. */
    if (point->proposed % 2 == 0) {
        for (int i = 0; i < random_tries; i++) {
            random_assignment(point, random);
            if (!nvl_tree_decided(point->tree, point->assignment))
                return true;
        }
    }
    return nvl_tree_next(point->tree, point->assignment);
}

/* ---- the image ---- */

uint64_t nvl_point_apply(struct nvl_point *point, uint8_t *image, uint8_t *copy)
{
    for (uint32_t i = 0; i < point->count; i++) {
        uint32_t from = point->applied[i], to = point->assignment[i];
        if (from == to)
            continue;
        const struct px86_line *line = point->lines[i];
        size_t at = (size_t)line->index * PX86_LINE;
        memcpy(image + at, line->choices[to].content, PX86_LINE);
        if (copy != NULL)
            memcpy(copy + at, line->choices[to].content, PX86_LINE);
        point->hash += line->choices[to].hash - line->choices[from].hash;
        point->applied[i] = to;
    }
    return point->hash;
}

void nvl_point_name(const struct nvl_point *point, struct nvl_crash *crash)
{
    crash->event = point->event;
    crash->count = 0;
    crash->truncated = false;
    crash->from_last = false;
    for (uint32_t i = 0; i < point->count; i++) {
        if (point->assignment[i] == 0)
            continue;
        if (crash->count == NVL_CRASH_LINES) {
            crash->truncated = true;
            return;
        }
        crash->set[crash->count].line = point->lines[i]->index;
        crash->set[crash->count++].choice = point->assignment[i];
    }
}

static uint32_t local(const struct nvl_point *point, uint32_t line)
{
    uint32_t low = 0, high = point->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (point->lines[middle]->index < line)
            low = middle + 1;
        else
            high = middle;
    }
    return low < point->count && point->lines[low]->index == line ? low : UINT32_MAX;
}

void nvl_point_assign(struct nvl_point *point, const struct nvl_crash *crash)
{
    all_to(point, crash->from_last);
    for (uint32_t i = 0; i < crash->count; i++) {
        uint32_t n = local(point, crash->set[i].line);
        if (n != UINT32_MAX && crash->set[i].choice < point->choices[n])
            point->assignment[n] = crash->set[i].choice;
    }
}

size_t nvl_point_reads(struct nvl_point *point, bool prune)
{
    if (!prune || point->plain) {
        for (uint32_t i = 0; i < point->count; i++)
            point->reads[i] = i;
        return point->count;
    }
    size_t count = 0;
    for (size_t i = 0; i < nvl_lens.read_count; i++) {
        uint32_t n = local(point, nvl_lens.reads[i].line);
        if (n != UINT32_MAX)
            point->reads[count++] = n;
    }
    return count;
}

void nvl_point_decide(struct nvl_point *point, size_t read_count)
{
    bool sound;
    point->covered += point->same * nvl_tree_insert(point->tree, point->assignment,
                                                    point->reads, read_count, &sound);
    if (sound)
        return;
    /* The same content was read in another order than before: no pruning here. */
    nvl_tree_free(point->tree);
    plant_tree(point);
    point->plain = true;
    point->proposed = 0;
}

void nvl_point_end(struct nvl_point *point, uint8_t *image, uint8_t *copy)
{
    all_to(point, false);
    nvl_point_apply(point, image, copy);
    for (uint32_t i = 0; i < point->count; i++) {
        point->flags[point->lines[i]->index] &= (uint8_t)~NVL_LINE_WATCHED;
        free(point->weights[i]);
    }
    nvl_tree_free(point->tree);
    free(point->lines);
    free(point->choices);
    free(point->weights);
    free(point->line_legal);
    free(point->assignment);
    free(point->applied);
    free(point->reads);
}

/* Eight lines at a time: WATCHED goes to HIDDEN, HIDDEN to HIDDEN2; and back. */
static const uint64_t each = UINT64_C(0x0101010101010101);

void nvl_flags_hide(uint8_t *flags, size_t size)
{
    for (size_t at = 0; at + 8 <= size / 64; at += 8) {
        uint64_t word;
        memcpy(&word, flags + at, 8);
        if (word == 0)
            continue;
        uint64_t watched = word & each * NVL_LINE_WATCHED,
                 hidden = word & each * NVL_LINE_HIDDEN;
        word &= ~(each * (NVL_LINE_WATCHED | NVL_LINE_HIDDEN | NVL_LINE_HIDDEN2));
        word |= watched << 3 | hidden << 1;
        memcpy(flags + at, &word, 8);
    }
}

void nvl_flags_show(uint8_t *flags, size_t size)
{
    for (size_t at = 0; at + 8 <= size / 64; at += 8) {
        uint64_t word;
        memcpy(&word, flags + at, 8);
        if (word == 0)
            continue;
        uint64_t hidden = word & each * NVL_LINE_HIDDEN,
                 hidden2 = word & each * NVL_LINE_HIDDEN2;
        word &= ~(each * (NVL_LINE_WATCHED | NVL_LINE_HIDDEN | NVL_LINE_HIDDEN2));
        word |= hidden >> 3 | hidden2 >> 1;
        memcpy(flags + at, &word, 8);
    }
}
