/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect_view.h - what is on media in a heap file, without changing or believing it.
 *
 * A view is read through a private, read-only mapping.  Nothing is replayed, and nothing
 * is followed that does not validate by the rules of layout.h; what does not is *damage*,
 * listed with its offset in the file.  Bitmaps are shown as they are on media: while
 * records are pending they lag behind, and in a GC heap that was not closed they mean
 * nothing (`marks_count` is false then).
 */
#ifndef NVM_INSPECT_VIEW_H
#define NVM_INSPECT_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include "heap.h"

struct view {
    struct nvm_heap heap; /* of it: region, super, and where the areas are */
    struct json_object *damage;
    bool doubtful;    /* a superblock copy is damaged */
    bool marks_count; /* the bitmaps on media tell what is live */
    uint64_t watermark;
    char *map;     /* one character a unit */
    uint32_t *run; /* by unit: 1 + first unit of its run; 0: the walk came not here */
    struct nvm_numa *in; /* the arenas of units that an open would make; NULL: none */
    uint64_t free_units, free_runs, largest_free, free_run;
    uint64_t live_blocks, live_bytes, extents, extent_units;
    struct {
        uint64_t slabs, blocks, live;
    } classes[NVM_CLASSES];
};

/* Maps the file and judges its superblocks: 0, or why there is nothing to show. */
int view_open(struct view *view, const char *path);
void view_close(struct view *view);

/* Walks over everything; what it finds is in the view and in the documents below, which
   are to be asked for afterwards and belong to the caller. */
void view_read(struct view *view);

struct json_object *view_classes(const struct view *view);
struct json_object *view_extents(const struct view *view);
/* {"count","used","ring","records","pending","watermark"} and, in *by_lane, the lanes
   that have pending records. */
struct json_object *view_lanes(const struct view *view, struct json_object **by_lane);
/* The root block first, then names in the order of the table. */
struct json_object *view_roots(struct view *view);
/* {"possible","allocated_bytes"}: whether free units may be holes, and what the file
   system has allocated of the file. */
struct json_object *view_holes(const struct view *view);

#endif
