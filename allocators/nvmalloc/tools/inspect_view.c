/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_view.c - see inspect_view.h. */
#include "inspect_view.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "build.h"
#include "error.h"
#include "extent.h"
#include "mark.h"
#include "recover.h"
#include "root.h"
#include "sigbus.h"

#define DAMAGE_MAX 1000u

static void put(struct json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static void put_text(struct json_object *object, const char *key, const char *text)
{
    json_object_object_add(object, key, json_object_new_string(text));
}

__attribute__((format(printf, 3, 4))) static void
add_damage(struct view *view, uint64_t offset, const char *format, ...)
{
    char text[256];
    va_list arguments;
    size_t known = json_object_array_length(view->damage);
    if (known > DAMAGE_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    struct json_object *row = json_object_new_object();
    put(row, "offset", offset);
    put_text(row, "found", known < DAMAGE_MAX ? text : "and more: not listed");
    json_object_array_add(view->damage, row);
}

static uint64_t offset_of(const struct view *view, const void *address)
{
    return nvm_heap_offset(&view->heap, address);
}

/* --- opening --- */

int view_open(struct view *view, const char *path)
{
    struct nvm_heap *heap = &view->heap;
    struct nvm_sigbus guard;
    memset(view, 0, sizeof(*view));
    nvm_sizeclass_init();
    nvm_mark_init();
    int error = nvm_region_open_read_only(path, &heap->region);
    if (error != 0)
        return error;
    if (nvm_sigbus_caught(&guard))
        return nvm_fail(EUCLEAN, "the superblocks of %s cannot be read", path);
    error = nvm_super_read(&heap->region, &heap->super, &view->doubtful);
    nvm_sigbus_end(&guard);
    if (error != 0)
        return error;
    nvm_heap_place_media(heap);
    view->map = malloc(heap->super.units + 1);
    view->run = calloc(heap->super.units, sizeof(*view->run));
    view->damage = json_object_new_array();
    if (view->map == NULL || view->run == NULL)
        return nvm_fail(ENOMEM, "no memory for the map of %llu units",
                        (unsigned long long)heap->super.units);
    memset(view->map, '!', heap->super.units);
    view->map[heap->super.units] = '\0';
    view->in = nvm_numa_create("units", heap->super.units, heap->super.units, 0);
    view->marks_count =
        heap->super.mode != NVM_GC || (heap->super.flags & NVM_SUPER_CLEAN);
    return 0;
}

void view_close(struct view *view)
{
    if (view->in != NULL)
        nvm_numa_destroy(view->in);
    free(view->map);
    free(view->run);
    nvm_region_close(&view->heap.region);
}

/* --- units --- */

/* Live blocks by the bitmap on media; words that are damaged count for none. */
static uint32_t count_live(struct view *view, uint32_t unit,
                           const struct nvm_class *klass)
{
    const struct nvm_heap *heap = &view->heap;
    const uint64_t *bitmap = nvm_heap_bitmap(heap, unit);
    uint32_t live = 0;
    for (uint32_t word = 0; word < klass->words; word++) {
        uint64_t value = bitmap[word], blocks = value & NVM_MARK_BLOCKS;
        uint64_t number = (uint64_t)(bitmap + word - heap->bitmaps);
        if (!nvm_mark_valid(value, number, heap->salt))
            add_damage(
                view, offset_of(view, bitmap + word),
                "slab at unit %u (size %u): word %u of its bitmap does not fit its "
                "checksum",
                unit, klass->size, word);
        else if ((blocks & ~nvm_mark_capacity(word, klass->blocks)) != 0)
            add_damage(view, offset_of(view, bitmap + word),
                       "slab at unit %u (size %u): word %u of its bitmap has blocks past "
                       "the last",
                       unit, klass->size, word);
        else
            live += (uint32_t)__builtin_popcountl(blocks);
    }
    return live;
}

static void view_slab(struct view *view, uint32_t unit, struct nvm_chunk chunk)
{
    const struct nvm_class *klass = &nvm_classes[chunk.klass];
    view->classes[chunk.klass].slabs++;
    view->classes[chunk.klass].blocks += klass->blocks;
    memset(view->map + unit, '?', chunk.units);
    if (!view->marks_count)
        return;
    uint64_t before = json_object_array_length(view->damage);
    uint32_t live = count_live(view, unit, klass);
    view->classes[chunk.klass].live += live;
    view->live_blocks += live;
    view->live_bytes += (uint64_t)live * klass->size;
    char tenths = live >= klass->blocks ? '9' : (char)('0' + 10 * live / klass->blocks);
    bool damaged = json_object_array_length(view->damage) != before;
    memset(view->map + unit, damaged ? '!' : tenths, chunk.units);
}

static void view_free(struct view *view, uint32_t unit, struct nvm_chunk chunk)
{
    memset(view->map + unit, '.', chunk.units);
    view->free_units += chunk.units;
    view->free_runs += view->free_run == 0;
    view->free_run += chunk.units;
    if (view->free_run > view->largest_free)
        view->largest_free = view->free_run;
}

static int view_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                    void *context)
{
    struct view *view = context;
    (void)heap;
    for (uint32_t i = 0; i < chunk.units; i++)
        view->run[unit + i] = unit + 1;
    if (chunk.state == NVM_CHUNK_FREE) {
        view_free(view, unit, chunk);
        return 0;
    }
    view->free_run = 0;
    if (view->in != NULL && !nvm_numa_claim(view->in, unit, chunk.units)) {
        nvm_numa_destroy(view->in);
        view->in = NULL; /* no memory: do without */
    }
    if (chunk.state == NVM_CHUNK_SLAB) {
        view_slab(view, unit, chunk);
        return 0;
    }
    memset(view->map + unit, '#', chunk.units);
    view->extents++;
    view->extent_units += chunk.units;
    if (view->marks_count) {
        view->live_blocks++;
        view->live_bytes += (uint64_t)chunk.units << NVM_UNIT_SHIFT;
    }
    return 0;
}

static void read_units(struct view *view)
{
    const struct nvm_heap *heap = &view->heap;
    if (nvm_heap_each_run(&view->heap, view_run, view) == 0)
        return;
    uint32_t unit = 0;
    while (unit < heap->super.units && view->run[unit] != 0)
        unit++;
    add_damage(view, heap->super.chunk_offset + unit * sizeof(uint64_t),
               "%s; the units from %u on can't be shown", nvm_error(), unit);
}

/* --- superblocks and watermarks --- */

static void read_supers(struct view *view)
{
    for (unsigned copy = 0; view->doubtful && copy < 2; copy++) {
        struct nvm_super super;
        memcpy(&super, nvm_heap_at(&view->heap, NVM_SUPER_OFFSET(copy)), sizeof(super));
        if (super.crc == nvm_crc32c(1, &super, offsetof(struct nvm_super, crc)))
            continue;
        add_damage(view, NVM_SUPER_OFFSET(copy),
                   "superblock copy %u does not fit its checksum; the other one is shown",
                   copy);
    }
}

static void read_watermark(struct view *view)
{
    const struct nvm_heap *heap = &view->heap;
    const struct nvm_watermark *lines = nvm_heap_at(heap, NVM_WATERMARK_OFFSET);
    for (unsigned copy = 0; copy < 2; copy++) {
        const struct nvm_watermark *line = &lines[copy];
        if (line->crc !=
            nvm_crc32c(heap->salt, line, offsetof(struct nvm_watermark, crc)))
            add_damage(view, offset_of(view, line),
                       "watermark line %u does not fit its checksum", copy);
        else if (line->seq > view->watermark)
            view->watermark = line->seq;
    }
}

/* --- lanes --- */

static const struct nvm_record *records_of(const struct view *view, uint32_t lane)
{
    const struct nvm_record *records =
        nvm_heap_at(&view->heap, view->heap.super.lanes_offset);
    return records + (size_t)lane * view->heap.super.ring;
}

/* The newest records carry the watermark that counts, if no line does. */
static void read_carried_watermarks(struct view *view)
{
    const struct nvm_super *super = &view->heap.super;
    for (uint32_t lane = 0; lane < super->lanes_used; lane++) {
        const struct nvm_record *records = records_of(view, lane);
        for (uint32_t i = 0; i < super->ring; i++)
            if (records[i].watermark > view->watermark &&
                nvm_record_valid(&records[i], view->heap.salt))
                view->watermark = records[i].watermark;
    }
}

void view_read(struct view *view)
{
    struct nvm_sigbus guard;
    if (nvm_sigbus_caught(&guard)) {
        add_damage(view, offset_of(view, guard.address) & ~(NVM_PAGE - 1),
                   "the page can't be read; nothing behind it is shown");
        return;
    }
    read_supers(view);
    read_watermark(view);
    read_carried_watermarks(view);
    read_units(view);
    nvm_sigbus_end(&guard);
}

static struct json_object *lane_row(uint32_t lane, uint64_t records, uint64_t pending,
                                    uint64_t newest)
{
    struct json_object *row = json_object_new_object();
    put(row, "lane", lane);
    put(row, "records", records);
    put(row, "pending", pending);
    put(row, "newest", newest);
    return row;
}

static void count_records(const struct view *view, struct json_object *lanes,
                          struct json_object *by_lane)
{
    const struct nvm_super *super = &view->heap.super;
    uint64_t all = 0, all_pending = 0;
    for (uint32_t lane = 0; lane < super->lanes_used; lane++) {
        const struct nvm_record *records = records_of(view, lane);
        uint64_t valid = 0, pending = 0, newest = 0;
        for (uint32_t i = 0; i < super->ring; i++) {
            if (!nvm_record_valid(&records[i], view->heap.salt))
                continue;
            valid++;
            pending += records[i].seq > view->watermark;
            newest = records[i].seq > newest ? records[i].seq : newest;
        }
        if (pending != 0)
            json_object_array_add(by_lane, lane_row(lane, valid, pending, newest));
        all += valid;
        all_pending += pending;
    }
    put(lanes, "records", all);
    put(lanes, "pending", all_pending);
}

struct json_object *view_lanes(const struct view *view, struct json_object **by_lane)
{
    const struct nvm_super *super = &view->heap.super;
    struct json_object *lanes = json_object_new_object();
    struct nvm_sigbus guard;
    *by_lane = json_object_new_array();
    put(lanes, "count", super->lanes);
    put(lanes, "used", super->lanes_used);
    put(lanes, "ring", super->ring);
    put(lanes, "watermark", view->watermark);
    if (nvm_sigbus_caught(&guard))
        return lanes; /* view_read() has told of the page */
    count_records(view, lanes, *by_lane);
    nvm_sigbus_end(&guard);
    return lanes;
}

/* --- roots --- */

/* What begins at a reference, as far as media tells, or NULL: nothing does. */
static const char *target(const struct view *view, nvm_ref ref, char *text, size_t bytes)
{
    const struct nvm_heap *heap = &view->heap;
    if (!nvm_heap_in_data(heap, ref))
        return NULL;
    uint32_t run = view->run[nvm_heap_unit(heap, ref)];
    if (run == 0)
        return "unknown: beyond the damage";
    struct nvm_chunk chunk = nvm_extent_chunk(heap, run - 1);
    uint64_t within = ref - nvm_unit_offset(heap, run - 1);
    if (chunk.state == NVM_CHUNK_EXTENT && within == 0) {
        snprintf(text, bytes, "an extent of %u units", chunk.units);
        return text;
    }
    if (chunk.state != NVM_CHUNK_SLAB)
        return NULL;
    const struct nvm_class *klass = &nvm_classes[chunk.klass];
    uint32_t index = nvm_sizeclass_index(klass, within);
    if ((uint64_t)index * klass->size != within || index >= klass->blocks)
        return NULL;
    uint64_t word = nvm_heap_bitmap(heap, run - 1)[index / NVM_WORD_BLOCKS];
    bool live = (word >> index % NVM_WORD_BLOCKS) & 1;
    snprintf(text, bytes, "a block of %u bytes%s", klass->size,
             live || !view->marks_count ? "" : ", not marked");
    return text;
}

static void add_root(struct view *view, struct json_object *roots, unsigned index)
{
    const struct nvm_root_entry *entry =
        (const struct nvm_root_entry *)nvm_heap_at(&view->heap, NVM_ROOTS_OFFSET) + index;
    bool valid = nvm_root_valid(entry, view->heap.salt);
    char text[64], name[sizeof(entry->name) + 1];
    if (!valid && entry->ref != 0)
        add_damage(view, offset_of(view, entry),
                   "root entry %u does not fit its checksum, and its slot is not empty",
                   index);
    if (!valid)
        return;
    const char *what =
        entry->ref == 0 ? "nothing" : target(view, entry->ref, text, sizeof(text));
    if (what == NULL)
        add_damage(view, offset_of(view, entry),
                   "root entry %u refers to offset %llu, where no block begins", index,
                   (unsigned long long)entry->ref);
    memcpy(name, entry->name, sizeof(entry->name));
    name[sizeof(entry->name)] = '\0';
    struct json_object *row = json_object_new_object();
    put_text(row, "name", index == 0 ? "(the root block)" : name);
    put(row, "offset", entry->ref);
    put_text(row, "refers_to", what != NULL ? what : "no block");
    json_object_array_add(roots, row);
}

struct json_object *view_roots(struct view *view)
{
    struct json_object *roots = json_object_new_array();
    struct nvm_sigbus guard;
    if (nvm_sigbus_caught(&guard)) {
        add_damage(view, NVM_ROOTS_OFFSET, "the table of roots can't be read");
        return roots;
    }
    for (unsigned i = 0; i < view->heap.super.roots; i++)
        add_root(view, roots, i);
    nvm_sigbus_end(&guard);
    return roots;
}

/* --- occupancy --- */

struct json_object *view_classes(const struct view *view)
{
    struct json_object *classes = json_object_new_array();
    for (unsigned i = 0; i < NVM_CLASSES; i++) {
        if (view->classes[i].slabs == 0)
            continue;
        struct json_object *row = json_object_new_object();
        put(row, "size", nvm_classes[i].size);
        put(row, "slabs", view->classes[i].slabs);
        put(row, "blocks", view->classes[i].blocks);
        if (view->marks_count)
            put(row, "live", view->classes[i].live);
        json_object_array_add(classes, row);
    }
    return classes;
}

struct json_object *view_extents(const struct view *view)
{
    struct json_object *extents = json_object_new_object();
    put(extents, "count", view->extents);
    put(extents, "units", view->extent_units);
    return extents;
}

struct json_object *view_holes(const struct view *view)
{
    struct json_object *holes = json_object_new_object();
    struct stat status;
    json_object_object_add(
        holes, "possible",
        json_object_new_boolean(view->heap.super.flags & NVM_SUPER_HOLES));
    if (fstat(view->heap.region.fd, &status) == 0)
        put(holes, "allocated_bytes", (uint64_t)status.st_blocks * 512);
    return holes;
}
