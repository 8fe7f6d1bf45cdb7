/* SPDX-License-Identifier: Apache-2.0 */
/* application.c - see application.h; its operations are in operations.c. */
#include "application.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations.h"

/* --- places --- */

static const char *const names[NAMED_SLOTS] = {"first", "second name", "third"};

nvm_ref *slot_at(nvm_heap *heap, unsigned root, bool create)
{
    if (root >= TABLE_SLOTS)
        return nvm_named(heap, names[root - TABLE_SLOTS], create);
    nvm_ref *table = nvm_root(heap, TABLE_BYTES);
    return table == NULL ? NULL : &table[root];
}

const char *name_of(unsigned root)
{
    return names[root - TABLE_SLOTS];
}

/* --- content --- */

static char byte_of(uint64_t stamp, size_t at)
{
    return (char)(stamp * 31 + at);
}

void fill_bytes(char *block, size_t from, size_t to, uint64_t stamp)
{
    for (size_t i = from; i < to; i++)
        block[i] = byte_of(stamp, i);
}

static bool bytes_fit(const char *block, const struct object *object)
{
    for (size_t i = OBJECT_SLOTS * sizeof(nvm_ref); i < object->size; i++)
        if (block[i] != byte_of(object->stamp, i))
            return false;
    return true;
}

/* --- comparing --- */

struct extent_of {
    const char *address;
    size_t usable;
};
struct comparison {
    nvm_heap *heap;
    const struct forest *forest;
    struct extent_of reached[OBJECTS + 1];
    size_t count;
    char *why;
    size_t size;
};

static bool differs(struct comparison *c, const char *what, nvm_ref ref, int object)
{
    snprintf(c->why, c->size, "%s (reference %llu, object %d)", what,
             (unsigned long long)ref, object);
    return false;
}

static bool reach(struct comparison *c, nvm_ref ref, int number)
{
    if ((ref == 0) != (number < 0))
        return differs(c, ref == 0 ? "a slot is empty" : "a slot is not empty", ref,
                       number);
    if (ref == 0)
        return true;
    const struct object *object = &c->forest->objects[number];
    size_t usable = nvm_usable_size(c->heap, ref);
    if (usable < object->size)
        return differs(c,
                       usable == 0 ? "refers to no live block" : "the block is too small",
                       ref, number);
    if (c->count > OBJECTS)
        return differs(c, "too many blocks", ref, number);
    const char *block = nvm_ptr(c->heap, ref);
    c->reached[c->count++] = (struct extent_of){block, usable};
    if (!object->durable)
        return true;
    if (!bytes_fit(block, object))
        return differs(c, "the content is another", ref, number);
    const nvm_ref *slots = (const nvm_ref *)block;
    for (unsigned i = 0; i < OBJECT_SLOTS; i++)
        if (!reach(c, slots[i], object->slot[i]))
            return false;
    return true;
}

static int by_address(const void *a, const void *b)
{
    const struct extent_of *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

struct walk {
    const struct comparison *c;
    size_t at;
    bool fits;
};

static int visit(void *context, void *address, size_t usable)
{
    struct walk *walk = context;
    const struct extent_of *next = &walk->c->reached[walk->at++];
    walk->fits =
        walk->at <= walk->c->count && next->address == address && next->usable == usable;
    return !walk->fits;
}

static bool holds(const struct forest *forest, nvm_heap *heap, char *why, size_t size)
{
    struct comparison c = {.heap = heap, .forest = forest, .why = why, .size = size};
    for (unsigned root = 0; root < ROOT_SLOTS; root++) {
        const nvm_ref *slot = slot_at(heap, root, false);
        if (slot == NULL && root < TABLE_SLOTS)
            return differs(&c, nvm_error(), 0, -1);
        if (!reach(&c, slot != NULL ? *slot : 0, forest->root[root]))
            return false;
    }
    const nvm_ref *table = slot_at(heap, 0, false);
    c.reached[c.count++] = (struct extent_of){
        (const char *)table, nvm_usable_size(heap, nvm_off(heap, table))};
    qsort(c.reached, c.count, sizeof(c.reached[0]), by_address);
    for (size_t i = 1; i < c.count; i++)
        if (c.reached[i - 1].address + c.reached[i - 1].usable > c.reached[i].address)
            return differs(&c, "two blocks overlap", nvm_off(heap, c.reached[i].address),
                           -1);
    struct walk walk = {.c = &c, .fits = true};
    int ended = nvm_walk(heap, visit, &walk);
    if (!walk.fits || ended != 0 || walk.at != c.count) {
        snprintf(why, size,
                 "the walk meets other blocks than are reached: number %zu of %zu",
                 walk.at, c.count);
        return false;
    }
    return true;
}

bool application_fits(const struct application *app, nvm_heap *heap, bool *happened,
                      char *why, size_t size)
{
    char otherwise[128];
    *happened = holds(&app->after, heap, why, size);
    if (*happened || holds(&app->before, heap, otherwise, sizeof(otherwise)))
        return true;
    size_t used = strlen(why);
    snprintf(why + used, size - used, "; nor as before: %s", otherwise);
    return false;
}

/* --- beginning --- */

void application_start(struct application *app, enum nvm_mode mode, uint64_t seed)
{
    memset(app, 0, sizeof(*app));
    app->mode = mode;
    app->random = seed * 0x9e3779b97f4a7c15u + 1;
    memset(app->after.root, -1, sizeof(app->after.root));
    app->before = app->after;
    app->phase = "start";
}

static void keep(const struct forest *forest, int number, bool *reached)
{
    reached[number] = true;
    for (unsigned i = 0; i < OBJECT_SLOTS; i++)
        if (forest->objects[number].slot[i] >= 0)
            keep(forest, forest->objects[number].slot[i], reached);
}

/* Forgets objects that were planned, but not published. */
static void forget_unreached(struct forest *forest)
{
    bool reached[OBJECTS] = {false};
    for (unsigned root = 0; root < ROOT_SLOTS; root++)
        if (forest->root[root] >= 0)
            keep(forest, forest->root[root], reached);
    for (unsigned i = 0; i < OBJECTS; i++)
        forest->objects[i].used &= reached[i];
}

/* What was not durable at the crash is written anew. */
static void mend(struct application *app, nvm_ref ref, int number)
{
    struct object *object = &app->after.objects[number];
    char *block = nvm_ptr(app->heap, ref);
    nvm_ref *slots = (nvm_ref *)block;
    if (object->durable) {
        for (unsigned i = 0; i < OBJECT_SLOTS; i++)
            if (slots[i] != 0)
                mend(app, slots[i], object->slot[i]);
        return;
    }
    memset(slots, 0, OBJECT_SLOTS * sizeof(*slots));
    fill_bytes(block, OBJECT_SLOTS * sizeof(*slots), object->size, object->stamp);
    nvm_persist(app->heap, block, object->size);
    object->durable = true;
}

void application_resume(struct application *app, nvm_heap *heap, bool happened)
{
    app->heap = heap;
    app->phase = "resume";
    memset(app->held, 0, sizeof(app->held));
    app->after = happened ? app->after : app->before;
    forget_unreached(&app->after);
    app->before = app->after;
    for (unsigned root = 0; root < ROOT_SLOTS; root++) {
        const nvm_ref *slot = slot_at(heap, root, false);
        if (slot != NULL && *slot != 0)
            mend(app, *slot, app->after.root[root]);
    }
    app->before = app->after;
}

static void trace_object(struct nvm_tracer *tracer, const void *block, size_t usable,
                         void *context)
{
    const nvm_ref *slots = block;
    (void)usable, (void)context;
    for (unsigned i = 0; i < OBJECT_SLOTS; i++)
        nvm_trace(tracer, slots[i], trace_object);
}

void application_trace(struct nvm_tracer *tracer, const void *block, size_t usable,
                       void *context)
{
    const nvm_ref *slots = block;
    unsigned count = usable >= TABLE_BYTES && slots[TABLE_SLOTS] == TABLE_MAGIC
                         ? TABLE_SLOTS
                         : OBJECT_SLOTS;
    (void)context;
    for (unsigned i = 0; i < count; i++)
        nvm_trace(tracer, slots[i], trace_object);
}
