/* SPDX-License-Identifier: Apache-2.0 */
/*
 * operations.c - what the application of application.h does, one operation at a time.
 *
 * Each sets app->after to what will be, calls the heap, and makes it app->before
 * when the call has returned.
 */
#include "operations.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "power.h"

/* A slot: of the roots (owner -1) or of an object. */
struct place {
    int owner;
    unsigned index;
};

static uint64_t draw(struct application *app, uint64_t below)
{
    return power_draw(&app->random) % below;
}

static void expect(struct application *app, int error, int allowed)
{
    if (error == 0 || error == allowed)
        return;
    fprintf(stderr, "%s: %s\n", app->phase, nvm_error());
    abort();
}

static int *model_of(struct forest *forest, struct place place)
{
    return place.owner < 0 ? &forest->root[place.index]
                           : &forest->objects[place.owner].slot[place.index];
}

static bool holder_of(struct application *app, int object, struct place *place)
{
    for (unsigned i = 0; i < ROOT_SLOTS; i++)
        if (app->after.root[i] == object) {
            *place = (struct place){-1, i};
            return true;
        }
    for (int owner = 0; owner < (int)OBJECTS; owner++)
        for (unsigned i = 0; i < OBJECT_SLOTS; i++)
            if (app->after.objects[owner].used &&
                app->after.objects[owner].slot[i] == object) {
                *place = (struct place){owner, i};
                return true;
            }
    return false;
}

static nvm_ref *address_of(struct application *app, struct place place)
{
    if (place.owner < 0)
        return slot_at(app->heap, place.index, true);
    struct place outer;
    if (!holder_of(app, place.owner, &outer))
        abort();
    nvm_ref *slots = nvm_ptr(app->heap, *address_of(app, outer));
    return &slots[place.index];
}

static void done(struct application *app)
{
    app->before = app->after;
}

static void undo(struct application *app)
{
    app->after = app->before;
}

/* --- drawing --- */

static int draw_object(struct application *app)
{
    int start = (int)draw(app, OBJECTS);
    for (int i = 0; i < (int)OBJECTS; i++) {
        int object = (start + i) % (int)OBJECTS;
        if (app->after.objects[object].used)
            return object;
    }
    return -1;
}

static bool is_leaf(const struct object *object)
{
    return object->slot[0] < 0 && object->slot[1] < 0;
}

static int draw_leaf(struct application *app)
{
    for (int tries = 0; tries < 8; tries++) {
        int object = draw_object(app);
        if (object >= 0 && is_leaf(&app->after.objects[object]))
            return object;
    }
    return -1;
}

static bool draw_empty(struct application *app, struct place *place)
{
    for (int tries = 0; tries < 16; tries++) {
        int owner = draw(app, 3) == 0 ? -1 : draw_object(app);
        *place = owner < 0 ? (struct place){-1, (unsigned)draw(app, ROOT_SLOTS)}
                           : (struct place){owner, (unsigned)draw(app, OBJECT_SLOTS)};
        if (*model_of(&app->after, *place) < 0)
            return true;
    }
    return false;
}

static size_t draw_size(struct application *app)
{
    static const size_t limits[] = {64, 200, 1024, 2500, 8192, 40000, 150000};
    return OBJECT_MIN + draw(app, limits[draw(app, draw(app, 8) == 0 ? 7 : 5)]);
}

/* An object that is not in use yet. */
static int plan_object(struct application *app, size_t size, bool durable)
{
    for (int i = 0; i < (int)OBJECTS; i++) {
        struct object *object = &app->after.objects[i];
        if (object->used)
            continue;
        *object = (struct object){.used = true,
                                  .durable = durable,
                                  .size = size,
                                  .stamp = ++app->stamps,
                                  .slot = {-1, -1}};
        return i;
    }
    return -1;
}

static void write_object(struct application *app, char *block, int number)
{
    const struct object *object = &app->after.objects[number];
    memset(block, 0, OBJECT_SLOTS * sizeof(nvm_ref));
    fill_bytes(block, OBJECT_SLOTS * sizeof(nvm_ref), object->size, object->stamp);
    nvm_persist(app->heap, block, object->size);
}

/* A reserved block with the object's content, durable. */
static nvm_ref reserve_object(struct application *app, int number)
{
    nvm_ref ref = nvm_reserve(app->heap, app->after.objects[number].size);
    if (ref != 0)
        write_object(app, nvm_ptr(app->heap, ref), number);
    return ref;
}

/* --- one slot at a time --- */

static bool allocate(struct application *app)
{
    struct place place;
    if (app->mode == NVM_GC || !draw_empty(app, &place))
        return false;
    nvm_ref *slot = address_of(app, place);
    int number = plan_object(app, draw_size(app), false);
    if (slot == NULL || number < 0) {
        undo(app);
        return false;
    }
    struct object *object = &app->after.objects[number];
    size_t alignment = (size_t)1 << draw(app, 14);
    *model_of(&app->after, place) = number;
    int error = draw(app, 4) != 0
                    ? nvm_malloc_to(app->heap, slot, object->size)
                    : nvm_aligned_malloc_to(app->heap, slot, alignment, object->size);
    expect(app, error, ENOMEM);
    if (error != 0) {
        undo(app);
        return true;
    }
    done(app);
    write_object(app, nvm_ptr(app->heap, *slot), number);
    object->durable = true;
    done(app);
    return true;
}

static bool release(struct application *app)
{
    struct place place;
    int number = draw_leaf(app);
    if (number < 0 || !holder_of(app, number, &place))
        return false;
    nvm_ref *slot = address_of(app, place);
    *model_of(&app->after, place) = -1;
    app->after.objects[number].used = false;
    expect(app, nvm_free_from(app->heap, slot), 0);
    done(app);
    if (place.owner < 0 && place.index >= TABLE_SLOTS && draw(app, 2) == 0)
        expect(app, nvm_unname(app->heap, name_of(place.index)), 0);
    return true;
}

static bool resize(struct application *app)
{
    struct place place;
    int number = draw_object(app);
    if (number < 0 || !holder_of(app, number, &place))
        return false;
    nvm_ref *slot = address_of(app, place);
    struct object *object = &app->after.objects[number];
    size_t old = object->size, size = draw_size(app);
    object->size = size < old ? size : old;
    int error = nvm_realloc_to(app->heap, slot, size);
    expect(app, error, ENOMEM);
    if (error != 0) {
        undo(app);
        return true;
    }
    done(app);
    if (size > old) {
        char *block = nvm_ptr(app->heap, *slot);
        fill_bytes(block, old, size, object->stamp);
        nvm_persist(app->heap, block + old, size - old);
        object->size = size;
        done(app);
    }
    return true;
}

static bool is_below(const struct forest *forest, int object, int root)
{
    for (unsigned i = 0; i < OBJECT_SLOTS; i++) {
        int child = forest->objects[root].slot[i];
        if (child >= 0 && (child == object || is_below(forest, object, child)))
            return true;
    }
    return object == root;
}

static bool move(struct application *app)
{
    struct place from, to;
    int number = draw_object(app);
    if (app->mode == NVM_GC || number < 0 || !holder_of(app, number, &from) ||
        !draw_empty(app, &to) ||
        (to.owner >= 0 && is_below(&app->after, to.owner, number)))
        return false;
    nvm_ref *source = address_of(app, from), *target = address_of(app, to);
    if (target == NULL)
        return false;
    *model_of(&app->after, from) = -1;
    *model_of(&app->after, to) = number;
    expect(app, nvm_move_to(app->heap, source, target), 0);
    done(app);
    return true;
}

/* Strict: the application's own stores, in one line, right after an operation. */
static bool move_by_hand(struct application *app)
{
    unsigned line = (unsigned)draw(app, TABLE_SLOTS / 8) * 8;
    unsigned from = line + (unsigned)draw(app, 8), to = line + (unsigned)draw(app, 8);
    if (app->mode != NVM_LOG_STRICT || app->after.root[from] < 0 ||
        app->after.root[to] >= 0)
        return false;
    nvm_ref *table = slot_at(app->heap, 0, false);
    if (((uintptr_t)&table[from] ^ (uintptr_t)&table[to]) & ~(uintptr_t)63)
        return false;
    app->after.root[to] = app->after.root[from];
    app->after.root[from] = -1;
    table[to] = table[from];
    table[from] = 0;
    nvm_persist(app->heap, &table[to], sizeof(nvm_ref));
    done(app);
    return true;
}

/* GC: as in DRAM, and a slot by hand. */
static bool allocate_plainly(struct application *app)
{
    struct place place;
    if (app->mode != NVM_GC || !draw_empty(app, &place))
        return false;
    nvm_ref *slot = address_of(app, place);
    int number = plan_object(app, draw_size(app), true);
    void *block = slot == NULL || number < 0
                      ? NULL
                      : nvm_malloc(app->heap, app->after.objects[number].size);
    if (block == NULL) {
        undo(app);
        return slot != NULL && number >= 0;
    }
    write_object(app, block, number);
    *model_of(&app->after, place) = number;
    *slot = nvm_off(app->heap, block);
    nvm_persist(app->heap, slot, sizeof(*slot));
    done(app);
    return true;
}

static bool release_plainly(struct application *app)
{
    struct place place;
    int number = draw_leaf(app);
    if (app->mode != NVM_GC || number < 0 || !holder_of(app, number, &place))
        return false;
    nvm_ref *slot = address_of(app, place);
    void *block = nvm_ptr(app->heap, *slot);
    *model_of(&app->after, place) = -1;
    app->after.objects[number].used = false;
    *slot = 0;
    nvm_persist(app->heap, slot, sizeof(*slot));
    done(app);
    expect(app, nvm_free(app->heap, block), 0);
    return true;
}

/* --- fill first, then publish --- */

static bool hold(struct application *app)
{
    unsigned at = (unsigned)draw(app, HELD_MAX);
    if (app->held[at] != 0) {
        expect(app, nvm_cancel(app->heap, app->held[at]), 0);
        app->held[at] = 0;
        return true;
    }
    size_t size = draw_size(app);
    app->held[at] = nvm_reserve(app->heap, size);
    if (app->held[at] != 0) {
        memset(nvm_ptr(app->heap, app->held[at]), 0x5a, size);
        nvm_persist(app->heap, nvm_ptr(app->heap, app->held[at]), size);
    }
    return true;
}

/* Several new objects in one group. */
static bool publish_new(struct application *app)
{
    struct nvm_action actions[NVM_ACTIONS_MAX];
    unsigned wanted = app->mode == NVM_GC ? 1 : 1 + (unsigned)draw(app, 5), count = 0;
    for (; count < wanted; count++) {
        struct place place;
        nvm_ref *slot = draw_empty(app, &place) ? address_of(app, place) : NULL;
        /* Slots of objects that are to be published are not found by address_of(). */
        if (slot == NULL || (place.owner >= 0 && !app->before.objects[place.owner].used))
            break;
        int number = plan_object(app, draw_size(app), true);
        nvm_ref ref = number < 0 ? 0 : reserve_object(app, number);
        if (ref == 0) {
            if (number >= 0)
                app->after.objects[number].used = false;
            break;
        }
        *model_of(&app->after, place) = number;
        actions[count] = (struct nvm_action){NVM_ACT_ALLOC, slot, NULL, ref};
    }
    expect(app, nvm_publish(app->heap, actions, count), 0);
    done(app);
    return count != 0;
}

/* A new object at the head of the list that begins in a root slot. */
static bool push(struct application *app)
{
    unsigned head = (unsigned)draw(app, TABLE_SLOTS);
    int next = app->after.root[head];
    if (app->mode == NVM_GC || next < 0)
        return false;
    int number = plan_object(app, draw_size(app), true);
    nvm_ref ref = number < 0 ? 0 : reserve_object(app, number);
    if (ref == 0) {
        undo(app);
        return false;
    }
    nvm_ref *slot = slot_at(app->heap, head, false), *link = nvm_ptr(app->heap, ref);
    app->after.objects[number].slot[0] = next;
    app->after.root[head] = number;
    const struct nvm_action actions[] = {
        {NVM_ACT_MOVE, link, slot, 0},
        {NVM_ACT_ALLOC, slot, NULL, ref},
    };
    expect(app, nvm_publish(app->heap, actions, 2), 0);
    done(app);
    return true;
}

/* The head of a list leaves it and is freed. */
static bool pop(struct application *app)
{
    unsigned head = (unsigned)draw(app, TABLE_SLOTS);
    int number = app->after.root[head];
    if (app->mode == NVM_GC || number < 0 || app->after.objects[number].slot[0] < 0 ||
        app->after.objects[number].slot[1] >= 0)
        return false;
    nvm_ref *slot = slot_at(app->heap, head, false), *link = nvm_ptr(app->heap, *slot);
    app->after.root[head] = app->after.objects[number].slot[0];
    app->after.objects[number].used = false;
    const struct nvm_action actions[] = {
        {NVM_ACT_FREE, slot, NULL, 0},
        {NVM_ACT_MOVE, slot, link, 0},
    };
    expect(app, nvm_publish(app->heap, actions, 2), 0);
    done(app);
    return true;
}

/* An object with leaves, and these, at once. */
static bool release_family(struct application *app)
{
    struct nvm_action actions[OBJECT_SLOTS + 1];
    struct place place;
    unsigned count = 0;
    int number = draw_object(app);
    if (app->mode == NVM_GC || number < 0 || !holder_of(app, number, &place))
        return false;
    nvm_ref *slot = address_of(app, place), *slots = nvm_ptr(app->heap, *slot);
    for (unsigned i = 0; i < OBJECT_SLOTS; i++) {
        int child = app->after.objects[number].slot[i];
        if (child < 0)
            continue;
        if (!is_leaf(&app->after.objects[child])) {
            undo(app);
            return false;
        }
        app->after.objects[child].used = false;
        actions[count++] = (struct nvm_action){NVM_ACT_FREE, &slots[i], NULL, 0};
    }
    app->after.objects[number].used = false;
    *model_of(&app->after, place) = -1;
    actions[count++] = (struct nvm_action){NVM_ACT_FREE, slot, NULL, 0};
    expect(app, nvm_publish(app->heap, actions, count), 0);
    done(app);
    return true;
}

/* Two slots of the table change their blocks by way of a third. */
static bool swap(struct application *app)
{
    unsigned a = (unsigned)draw(app, TABLE_SLOTS), b = (unsigned)draw(app, TABLE_SLOTS);
    unsigned spare = (unsigned)draw(app, TABLE_SLOTS);
    nvm_ref *table = slot_at(app->heap, 0, false);
    if (app->mode == NVM_GC || a == b || app->after.root[a] < 0 ||
        app->after.root[b] < 0 || app->after.root[spare] >= 0)
        return false;
    const struct nvm_action actions[] = {
        {NVM_ACT_MOVE, &table[spare], &table[a], 0},
        {NVM_ACT_MOVE, &table[a], &table[b], 0},
        {NVM_ACT_MOVE, &table[b], &table[spare], 0},
    };
    int was = app->after.root[a];
    app->after.root[a] = app->after.root[b];
    app->after.root[b] = was;
    expect(app, nvm_publish(app->heap, actions, 3), 0);
    done(app);
    return true;
}

static bool leave(struct application *app)
{
    nvm_thread_leave(app->heap);
    return true;
}

static bool defragment(struct application *app)
{
    nvm_ref *slots[TABLE_SLOTS];
    nvm_ref *table = slot_at(app->heap, 0, false);
    for (unsigned i = 0; i < TABLE_SLOTS; i++)
        slots[i] = &table[i];
    expect(app, nvm_defrag(app->heap, slots, TABLE_SLOTS, NULL), 0);
    return true;
}

bool application_step(struct application *app)
{
    static const struct {
        const char *phase;
        bool (*perform)(struct application *app);
        unsigned weight;
    } kinds[] = {
        {"allocate", allocate, 8},
        {"release", release, 6},
        {"resize", resize, 4},
        {"move", move, 4},
        {"move by hand", move_by_hand, 4},
        {"allocate plainly", allocate_plainly, 6},
        {"release plainly", release_plainly, 4},
        {"hold", hold, 2},
        {"publish", publish_new, 4},
        {"push", push, 4},
        {"pop", pop, 4},
        {"release family", release_family, 3},
        {"swap", swap, 3},
        {"leave", leave, 1},
        {"defragment", defragment, 1},
    };
    unsigned sum = 0, at = 0;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        sum += kinds[i].weight;
    for (uint64_t drawn = draw(app, sum); drawn >= kinds[at].weight; at++)
        drawn -= kinds[at].weight;
    app->phase = kinds[at].phase;
    bool performed = kinds[at].perform(app);
    app->performed[at] += performed;
    return performed;
}
