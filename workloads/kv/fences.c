// SPDX-License-Identifier: Apache-2.0
/* fences.c - see fences.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fences.h"

#define GROUP 256u

struct group {
    size_t count;
    uint64_t fences[GROUP];
    uint64_t leaves[GROUP];
};

struct nvk_fences {
    size_t count, capacity;
    struct group **groups; /* none is empty */
};

struct nvk_fences *nvk_fences_new(void)
{
    return calloc(1, sizeof(struct nvk_fences));
}

void nvk_fences_free(struct nvk_fences *fences)
{
    for (size_t i = 0; i < fences->count; i++)
        free(fences->groups[i]);
    free(fences->groups);
    free(fences);
}

/* How many of the fences are <= key. */
static size_t rank_in(const struct group *group, uint64_t key)
{
    size_t low = 0, high = group->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (group->fences[middle] <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The last group whose first fence is <= key, or the first group. */
static size_t group_of(const struct nvk_fences *fences, uint64_t key)
{
    size_t low = 0, high = fences->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (fences->groups[middle]->fences[0] <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? 0 : low - 1;
}

uint64_t nvk_fences_find(const struct nvk_fences *fences, uint64_t key)
{
    const struct group *group = fences->groups[group_of(fences, key)];
    return group->leaves[rank_in(group, key) - 1];
}

/* Puts an empty group at that place. */
static int add_group(struct nvk_fences *fences, size_t at)
{
    if (fences->count == fences->capacity) {
        size_t capacity = fences->capacity == 0 ? 16 : 2 * fences->capacity;
        struct group **groups = realloc(fences->groups, capacity * sizeof *groups);
        if (groups == NULL)
            return ENOMEM;
        fences->groups = groups;
        fences->capacity = capacity;
    }
    struct group *group = calloc(1, sizeof *group);
    if (group == NULL)
        return ENOMEM;
    memmove(fences->groups + at + 1, fences->groups + at,
            (fences->count - at) * sizeof *fences->groups);
    fences->groups[at] = group;
    fences->count++;
    return 0;
}

/* The upper half of a full group becomes the next one. */
static int split(struct nvk_fences *fences, size_t at)
{
    int error = add_group(fences, at + 1);
    if (error != 0)
        return error;
    struct group *low = fences->groups[at], *high = fences->groups[at + 1];
    const size_t kept = GROUP / 2;
    high->count = GROUP - kept;
    low->count = kept;
    memcpy(high->fences, low->fences + kept, high->count * sizeof *low->fences);
    memcpy(high->leaves, low->leaves + kept, high->count * sizeof *low->leaves);
    return 0;
}

int nvk_fences_add(struct nvk_fences *fences, uint64_t fence, uint64_t leaf)
{
    int error = fences->count == 0 ? add_group(fences, 0) : 0;
    if (error != 0)
        return error;
    size_t at = group_of(fences, fence);
    if (fences->groups[at]->count == GROUP) {
        error = split(fences, at);
        if (error != 0)
            return error;
        at = group_of(fences, fence);
    }
    struct group *group = fences->groups[at];
    size_t place = rank_in(group, fence), moved = group->count - place;
    if (place > 0 && group->fences[place - 1] == fence)
        return EEXIST;
    memmove(group->fences + place + 1, group->fences + place,
            moved * sizeof *group->fences);
    memmove(group->leaves + place + 1, group->leaves + place,
            moved * sizeof *group->leaves);
    group->fences[place] = fence;
    group->leaves[place] = leaf;
    group->count++;
    return 0;
}
