/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvm-inspect HEAP - a heap file's health and map as one JSON document.
 *
 * Read-only: maps the file privately, takes no lock, replays nothing; it
 * shows what is on media.  Exit codes: 0 shown (damage, if any, is listed),
 * 2 usage, 3 no heap that can be shown ({"type":"error",...}).
 *
 * {"type":"heap","path","format","uuid","clean","generation","bytes",
 *  "units","free_units","largest_free_units","live_blocks","live_bytes",
 *  "used_bytes","classes":[{"size","slabs","blocks","live"}],
 *  "extents":{"count","units"},"map":"one character a unit: . free, 0-9 slab
 *  by tenths of live blocks, # extent, ! damaged",
 *  "lanes":{"count","ring","watermark","pending"},"roots":[{"offset","bytes"}],
 *  "damage":[...]}
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "build.h"
#include "error.h"
#include "extent.h"
#include "heap.h"
#include "mark.h"
#include "recover.h"
#include "root.h"
#include "sizeclass.h"

struct view {
    struct nvm_heap heap;
    struct json_object *damage; /* array of sentences */
    bool doubtful;              /* a superblock copy is damaged */
    char *map;
    uint64_t free_units, largest_free, free_run;
    uint64_t live_blocks, live_bytes, extents, extent_units;
    struct {
        uint64_t slabs, blocks, live;
    } classes[NVM_CLASSES];
};

static void put(struct json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static int fail(const char *path, int error)
{
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("error"));
    json_object_object_add(document, "where", json_object_new_string(path));
    put(document, "errno", (uint64_t)error);
    json_object_object_add(document, "error",
                           json_object_new_string(strerrorname_np(error)));
    json_object_object_add(document, "message", json_object_new_string(nvm_error()));
    puts(json_object_to_json_string_ext(document, JSON_C_TO_STRING_PLAIN));
    json_object_put(document);
    return 3;
}

/* Live blocks by the bitmap on media; words that are damaged count for none. */
static uint32_t count_live(struct view *view, uint32_t unit,
                           const struct nvm_class *klass)
{
    const struct nvm_heap *heap = &view->heap;
    const uint64_t *bitmap = nvm_heap_bitmap(heap, unit);
    uint32_t live = 0;
    for (uint32_t word = 0; word < klass->words; word++) {
        uint64_t number = (uint64_t)(bitmap + word - heap->bitmaps);
        if (nvm_mark_valid(bitmap[word], number, heap->salt)) {
            live += (uint32_t)__builtin_popcountl(bitmap[word] & NVM_MARK_BLOCKS);
            continue;
        }
        char text[128];
        snprintf(text, sizeof(text),
                 "slab at unit %u: word %u of its bitmap (offset %llu) is damaged", unit,
                 word, (unsigned long long)nvm_heap_offset(heap, bitmap + word));
        json_object_array_add(view->damage, json_object_new_string(text));
    }
    return live;
}

static void view_slab(struct view *view, uint32_t unit, struct nvm_chunk chunk)
{
    const struct nvm_class *klass = &nvm_classes[chunk.klass];
    uint32_t live = count_live(view, unit, klass);
    view->classes[chunk.klass].slabs++;
    view->classes[chunk.klass].blocks += klass->blocks;
    view->classes[chunk.klass].live += live;
    view->live_blocks += live;
    view->live_bytes += (uint64_t)live * klass->size;
    memset(view->map + unit,
           live >= klass->blocks ? '9' : (char)('0' + 10 * live / klass->blocks),
           chunk.units);
}

static int view_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                    void *context)
{
    struct view *view = context;
    (void)heap;
    if (chunk.state == NVM_CHUNK_FREE) {
        memset(view->map + unit, '.', chunk.units);
        view->free_units += chunk.units;
        view->free_run += chunk.units;
        if (view->free_run > view->largest_free)
            view->largest_free = view->free_run;
        return 0;
    }
    view->free_run = 0;
    if (chunk.state == NVM_CHUNK_SLAB) {
        view_slab(view, unit, chunk);
    } else {
        memset(view->map + unit, '#', chunk.units);
        view->extents++;
        view->extent_units += chunk.units;
        view->live_blocks++;
        view->live_bytes += (uint64_t)chunk.units << NVM_UNIT_SHIFT;
    }
    return 0;
}

static struct json_object *show_classes(const struct view *view)
{
    struct json_object *classes = json_object_new_array();
    for (unsigned i = 0; i < NVM_CLASSES; i++) {
        if (view->classes[i].slabs == 0)
            continue;
        struct json_object *row = json_object_new_object();
        put(row, "size", nvm_classes[i].size);
        put(row, "slabs", view->classes[i].slabs);
        put(row, "blocks", view->classes[i].blocks);
        put(row, "live", view->classes[i].live);
        json_object_array_add(classes, row);
    }
    return classes;
}

/* Records that an open would replay: those intact above the watermark. */
static struct json_object *show_lanes(const struct nvm_heap *heap, uint64_t watermark)
{
    const struct nvm_record *records = nvm_heap_at(heap, heap->super.lanes_offset);
    uint64_t pending = 0;
    for (uint64_t i = 0; i < (uint64_t)heap->super.lanes_used * heap->super.ring; i++)
        pending +=
            records[i].seq > watermark && nvm_record_valid(&records[i], heap->salt);
    struct json_object *lanes = json_object_new_object();
    put(lanes, "count", heap->super.lanes);
    put(lanes, "ring", heap->super.ring);
    put(lanes, "watermark", watermark);
    put(lanes, "pending", pending);
    return lanes;
}

static struct json_object *show_roots(const struct nvm_heap *heap,
                                      struct json_object *damage)
{
    const struct nvm_root_entry *entries = nvm_heap_at(heap, NVM_ROOTS_OFFSET);
    struct json_object *roots = json_object_new_array();
    for (unsigned i = 0; i < heap->super.roots; i++) {
        if (entries[i].ref == 0)
            continue;
        struct json_object *row = json_object_new_object();
        put(row, "offset", entries[i].ref);
        put(row, "bytes", entries[i].bytes);
        json_object_array_add(roots, row);
        if (entries[i].crc != nvm_root_crc(&entries[i], heap->salt)) {
            char text[64];
            snprintf(text, sizeof(text), "root entry %u: its checksum does not fit", i);
            json_object_array_add(damage, json_object_new_string(text));
        }
    }
    return roots;
}

static void show_super(struct json_object *document, const char *path,
                       const struct nvm_super *super)
{
    char uuid[2 * sizeof(super->uuid) + 1];
    for (unsigned i = 0; i < sizeof(super->uuid); i++)
        snprintf(uuid + 2 * i, 3, "%02x", super->uuid[i]);
    json_object_object_add(document, "type", json_object_new_string("heap"));
    json_object_object_add(document, "path", json_object_new_string(path));
    put(document, "format", super->version);
    json_object_object_add(document, "uuid", json_object_new_string(uuid));
    json_object_object_add(document, "clean",
                           json_object_new_boolean(super->flags & NVM_SUPER_CLEAN));
    put(document, "generation", super->generation);
    put(document, "bytes", super->size);
    put(document, "units", super->units);
}

static void show(struct view *view, const char *path)
{
    struct nvm_heap *heap = &view->heap;
    struct nvm_recovery recovery = {0};
    struct json_object *document = json_object_new_object();
    struct json_object *damage = view->damage = json_object_new_array();
    if (view->doubtful)
        json_object_array_add(damage,
                              json_object_new_string("a superblock copy is damaged"));
    if (nvm_watermark_read(heap, &recovery) != 0)
        json_object_array_add(damage, json_object_new_string(nvm_error()));
    if (nvm_heap_each_run(heap, view_run, view) != 0)
        json_object_array_add(damage, json_object_new_string(nvm_error()));
    show_super(document, path, &heap->super);
    put(document, "free_units", view->free_units);
    put(document, "largest_free_units", view->largest_free);
    put(document, "live_blocks", view->live_blocks);
    put(document, "live_bytes", view->live_bytes);
    put(document, "used_bytes", heap->super.size - (view->free_units << NVM_UNIT_SHIFT));
    json_object_object_add(document, "classes", show_classes(view));
    struct json_object *extents = json_object_new_object();
    put(extents, "count", view->extents);
    put(extents, "units", view->extent_units);
    json_object_object_add(document, "extents", extents);
    json_object_object_add(document, "map", json_object_new_string(view->map));
    json_object_object_add(document, "lanes", show_lanes(heap, recovery.watermark));
    json_object_object_add(document, "roots", show_roots(heap, damage));
    json_object_object_add(document, "damage", damage);
    puts(json_object_to_json_string_ext(document, JSON_C_TO_STRING_PLAIN));
    json_object_put(document);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: nvm-inspect HEAP\n");
        return 2;
    }
    static struct view view;
    struct nvm_heap *heap = &view.heap;
    nvm_sizeclass_init();
    int error = nvm_region_open_read_only(argv[1], &heap->region);
    if (error != 0)
        return fail(argv[1], error);
    bool doubtful;
    error = nvm_super_read(&heap->region, &heap->super, &doubtful);
    if (error != 0)
        return fail(argv[1], error);
    view.doubtful = doubtful;
    nvm_heap_place_media(heap);
    view.map = malloc(heap->super.units + 1);
    if (view.map == NULL)
        return fail(argv[1], ENOMEM);
    memset(view.map, '!', heap->super.units);
    view.map[heap->super.units] = '\0';
    show(&view, argv[1]);
    free(view.map);
    nvm_region_close(&heap->region);
    return 0;
}
