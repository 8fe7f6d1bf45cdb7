/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvm-inspect HEAP - a heap file's health and map as one JSON document.
 *
 * Read-only: maps the file privately, takes no lock, replays nothing in it.  Exit codes:
 * 0 shown (damage, if any, is listed), 2 usage, 3 no heap that can be shown
 * ({"type":"error",...}).
 *
 * {"type":"heap","path","format","mode":"owned"|"strict"|"gc","uuid","clean","in_use" (a
 *  process has it open: what is shown may be in the middle of a change),"generation",
 *  "bytes","max_bytes" (to which it may grow),"file_bytes","units","max_units",
 *  "free_units","free_runs","largest_free_units","used_bytes",
 *  "live_blocks","live_bytes" (as the bitmaps on media say; not of a GC heap that was not
 *  closed, whose bitmaps say nothing),
 *  "opened": what an open would find (inspect_opened.h),
 *  "classes":[{"size","slabs","blocks","live"}],"extents":{"count","units"},
 *  "map":"one character a unit: . free, 0-9 slab by tenths of live blocks, ? slab of
 * unknown occupancy, # extent, ! damaged or behind the damage",
 *  "holes":{"possible","allocated_bytes"},
 *  "lanes":{"count","used","ring","watermark","records","pending"},
 *  "pending_by_lane":[{"lane","records","pending","newest"}],
 *  "roots":[{"name","offset","refers_to"}],"arenas":[...] (inspect_arenas.h),
 *  "damage":[{"offset","found"}]}
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "inspect_arenas.h"
#include "inspect_opened.h"
#include "inspect_view.h"

static const char *const modes[] = {
    [NVM_LOG_OWNED] = "owned", [NVM_LOG_STRICT] = "strict", [NVM_GC] = "gc"};

static void put(struct json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static void put_text(struct json_object *object, const char *key, const char *text)
{
    json_object_object_add(object, key, json_object_new_string(text));
}

static void print(struct json_object *document)
{
    puts(json_object_to_json_string_ext(document, JSON_C_TO_STRING_PLAIN));
    json_object_put(document);
}

static int fail(const char *path, int error)
{
    struct json_object *document = json_object_new_object();
    put_text(document, "type", "error");
    put_text(document, "where", path);
    put(document, "errno", (uint64_t)error);
    put_text(document, "error", strerrorname_np(error));
    put_text(document, "message", nvm_error());
    print(document);
    return 3;
}

/* Whether somebody has the heap open; its lock says so. */
static bool in_use(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void show_super(struct json_object *document, const struct view *view)
{
    const struct nvm_super *super = &view->heap.super;
    char uuid[2 * sizeof(super->uuid) + 1];
    for (unsigned i = 0; i < sizeof(super->uuid); i++)
        snprintf(uuid + 2 * i, 3, "%02x", super->uuid[i]);
    put(document, "format", super->version);
    put_text(document, "mode", modes[super->mode]);
    put_text(document, "uuid", uuid);
    json_object_object_add(document, "clean",
                           json_object_new_boolean(super->flags & NVM_SUPER_CLEAN));
    json_object_object_add(document, "in_use",
                           json_object_new_boolean(in_use(view->heap.region.fd)));
    put(document, "generation", super->generation);
    put(document, "bytes", super->size);
    put(document, "max_bytes", super->max_size);
    put(document, "file_bytes", view->heap.region.size);
    put(document, "units", super->units);
    put(document, "max_units", super->max_units);
}

static void show_space(struct json_object *document, const struct view *view)
{
    put(document, "free_units", view->free_units);
    put(document, "free_runs", view->free_runs);
    put(document, "largest_free_units", view->largest_free);
    put(document, "used_bytes",
        view->heap.super.size - (view->free_units << NVM_UNIT_SHIFT));
    if (view->marks_count) {
        put(document, "live_blocks", view->live_blocks);
        put(document, "live_bytes", view->live_bytes);
    }
}

static void show(struct view *view, const char *path)
{
    struct json_object *document = json_object_new_object(), *by_lane;
    view_read(view);
    put_text(document, "type", "heap");
    put_text(document, "path", path);
    show_super(document, view);
    show_space(document, view);
    json_object_object_add(document, "opened", inspect_opened(path));
    json_object_object_add(document, "classes", view_classes(view));
    json_object_object_add(document, "extents", view_extents(view));
    put_text(document, "map", view->map);
    json_object_object_add(document, "holes", view_holes(view));
    json_object_object_add(document, "lanes", view_lanes(view, &by_lane));
    json_object_object_add(document, "pending_by_lane", by_lane);
    json_object_object_add(document, "roots", view_roots(view));
    if (view->in != NULL)
        json_object_object_add(document, "arenas", inspect_arenas(view->in));
    json_object_object_add(document, "damage", json_object_get(view->damage));
    print(document);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: nvm-inspect HEAP\n");
        return 2;
    }
    static struct view view;
    int error = view_open(&view, argv[1]);
    if (error != 0)
        return fail(argv[1], error);
    show(&view, argv[1]);
    json_object_put(view.damage);
    view_close(&view);
    return 0;
}
