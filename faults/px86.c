// SPDX-License-Identifier: Apache-2.0
/*
 * px86.c - lines, units, floors; px86.h has the rules.
 */
#include "px86.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A flush (or a non-temporal store) that the thread's next fence completes. */
struct note {
    uint32_t line;
    uint64_t upto; /* units of the line since the beginning */
};

struct px86 {
    uint8_t *image;
    size_t size;
    enum px86_domain domain;
    uint32_t next_group;
    uint64_t hash;
    struct px86_line **lines; /* by index; NULL: never written */
    struct px86_line **dirty;
    size_t dirty_count, dirty_capacity;
    uint32_t *touched; /* indices of the lines that are not NULL */
    size_t touched_count, touched_capacity;
    struct {
        struct note *notes;
        size_t count, capacity;
    } pending[PX86_THREADS];
};

static void *grown(void *array, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return array;
    size_t wanted = 2 * *capacity > needed ? 2 * *capacity : needed;
    void *larger = realloc(array, wanted * size);
    if (larger == NULL)
        abort();
    *capacity = wanted;
    return larger;
}

uint64_t px86_hash_line(uint32_t index, const void *content)
{
    /* Multiply-and-fold of 8 words (the mixer of Wang Yi's wyhash, with our own odd
       constants); the index enters so that equal lines elsewhere differ. */
    const uint8_t *bytes = content;
    uint64_t hash = (index + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < PX86_LINE; i += 16) {
        uint64_t a, b;
        memcpy(&a, bytes + i, 8);
        memcpy(&b, bytes + i + 8, 8);
        __extension__ unsigned __int128 product =
            (unsigned __int128)(a ^ hash ^ UINT64_C(0xd6e8feb86659fd93)) *
            (b ^ UINT64_C(0xa5a3564e27f8862b));
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ (hash << 23 | hash >> 41);
    }
    hash ^= hash >> 29;
    return hash * UINT64_C(0xbf58476d1ce4e5b9);
}

uint64_t px86_hash_image(const void *image, size_t size)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < size / PX86_LINE; i++)
        hash += px86_hash_line((uint32_t)i, (const uint8_t *)image + i * PX86_LINE);
    return hash;
}

struct px86 *px86_new(void *image, size_t size, enum px86_domain domain, uint64_t hash)
{
    struct px86 *model = calloc(1, sizeof *model);
    if (model == NULL || size % PX86_LINE != 0)
        abort();
    model->image = image;
    model->size = size;
    model->domain = domain;
    model->lines = calloc(size / PX86_LINE, sizeof *model->lines);
    if (model->lines == NULL)
        abort();
    model->hash = hash;
    return model;
}

void px86_restart(struct px86 *model, uint64_t hash)
{
    for (size_t i = 0; i < model->touched_count; i++) {
        struct px86_line *line = model->lines[model->touched[i]];
        model->lines[model->touched[i]] = NULL;
        free(line->units);
        free(line->choices);
        free(line);
    }
    model->touched_count = 0;
    model->dirty_count = 0;
    for (int t = 0; t < PX86_THREADS; t++)
        model->pending[t].count = 0;
    model->hash = hash;
}

void px86_free(struct px86 *model)
{
    if (model == NULL)
        return;
    px86_restart(model, 0);
    for (int t = 0; t < PX86_THREADS; t++)
        free(model->pending[t].notes);
    free(model->touched);
    free(model->lines);
    free(model->dirty);
    free(model);
}

static struct px86_line *line_at(struct px86 *model, uint32_t index)
{
    struct px86_line *line = model->lines[index];
    if (line == NULL) {
        line = calloc(1, sizeof *line);
        if (line == NULL)
            abort();
        line->index = index;
        model->lines[index] = line;
        model->touched = grown(model->touched, &model->touched_capacity,
                               model->touched_count + 1, sizeof *model->touched);
        model->touched[model->touched_count++] = index;
    }
    return line;
}

static uint8_t *floor_of(const struct px86 *model, const struct px86_line *line)
{
    return model->image + (size_t)line->index * PX86_LINE;
}

static void forget_choices(struct px86_line *line)
{
    line->choice_count = 0;
}

static void note(struct px86 *model, uint32_t thread, uint32_t line, uint64_t upto)
{
    size_t count = model->pending[thread].count;
    struct note *notes = model->pending[thread].notes;
    if (count > 0 && notes[count - 1].line == line) {
        if (upto > notes[count - 1].upto)
            notes[count - 1].upto = upto;
        return;
    }
    notes = grown(notes, &model->pending[thread].capacity, count + 1, sizeof *notes);
    notes[count] = (struct note){line, upto};
    model->pending[thread].notes = notes;
    model->pending[thread].count = count + 1;
}

static void become_dirty(struct px86 *model, struct px86_line *line)
{
    model->dirty = grown(model->dirty, &model->dirty_capacity, model->dirty_count + 1,
                         sizeof(struct px86_line *));
    line->dirty_at = (uint32_t)model->dirty_count;
    model->dirty[model->dirty_count++] = line;
}

static void become_clean(struct px86 *model, struct px86_line *line)
{
    struct px86_line *last = model->dirty[--model->dirty_count];
    model->dirty[line->dirty_at] = last;
    last->dirty_at = line->dirty_at;
}

/* ---- stores ---- */

static struct px86_unit *add_unit(struct px86 *model, const struct px86_store *store,
                                  uint32_t group, size_t at, size_t length)
{
    struct px86_line *line = line_at(model, (uint32_t)(at / PX86_LINE));
    size_t capacity = line->unit_capacity;
    line->units =
        grown(line->units, &capacity, (size_t)line->unit_count + 1, sizeof *line->units);
    line->unit_capacity = (uint32_t)capacity;
    if (line->unit_count == 0)
        become_dirty(model, line);
    struct px86_unit *unit = &line->units[line->unit_count++];
    *unit = (struct px86_unit){.event = store->event,
                               .site = store->site,
                               .group = group,
                               .thread = (uint8_t)store->thread,
                               .at = (uint8_t)(at % PX86_LINE),
                               .length = (uint8_t)length};
    memcpy(unit->data, (const uint8_t *)store->data + (at - store->offset), length);
    forget_choices(line);
    return unit;
}

/* The largest aligned piece of at most 8 bytes that begins at `at`. */
static size_t piece(size_t at, size_t end)
{
    size_t length = 8;
    while (at % length != 0 || length > end - at)
        length /= 2;
    return length;
}

/* Raises the floor of a line to its first `upto` units (counted from the beginning). */
static void raise_floor(struct px86 *model, struct px86_line *line, uint64_t upto)
{
    if (upto <= line->dropped)
        return;
    size_t count = (size_t)(upto - line->dropped);
    uint8_t *floor = floor_of(model, line);
    model->hash -= px86_hash_line(line->index, floor);
    for (size_t i = 0; i < count; i++)
        memcpy(floor + line->units[i].at, line->units[i].data, line->units[i].length);
    model->hash += px86_hash_line(line->index, floor);
    line->unit_count -= (uint32_t)count;
    memmove(line->units, line->units + count, line->unit_count * sizeof *line->units);
    line->dropped = upto;
    forget_choices(line);
    if (line->unit_count == 0)
        become_clean(model, line);
}

/* How many units of the line a flush by this thread covers: up to the first that
   another thread wrote past the caches and has not fenced. */
static uint64_t covered(const struct px86_line *line, uint32_t thread)
{
    uint32_t i = 0;
    while (i < line->unit_count &&
           !(line->units[i].nontemporal && line->units[i].thread != thread))
        i++;
    return line->dropped + i;
}

/* Rule 8.  The store is on media at once; what waits past the caches keeps waiting,
   but for the bytes that this store replaces. */
static void store_kept(struct px86 *model, const struct px86_store *store)
{
    const uint8_t *data = store->data;
    for (size_t at = store->offset; at < store->offset + store->length; at++) {
        struct px86_line *line = line_at(model, (uint32_t)(at / PX86_LINE));
        uint8_t in_line = (uint8_t)(at % PX86_LINE);
        uint8_t *floor = floor_of(model, line);
        model->hash -= px86_hash_line(line->index, floor);
        floor[in_line] = data[at - store->offset];
        model->hash += px86_hash_line(line->index, floor);
        for (uint32_t i = 0; i < line->unit_count; i++) {
            struct px86_unit *unit = &line->units[i];
            if (in_line >= unit->at && in_line < unit->at + unit->length)
                unit->data[in_line - unit->at] = floor[in_line];
        }
        forget_choices(line);
    }
}

void px86_store(struct px86 *model, const struct px86_store *store)
{
    if (model->domain == PX86_EADR) {
        store_kept(model, store);
        return;
    }
    size_t end = store->offset + store->length;
    uint32_t group = model->next_group++;
    for (size_t at = store->offset; at < end;) {
        size_t length = piece(at, end);
        add_unit(model, store, group, at, length);
        at += length;
    }
}

void px86_store_whole(struct px86 *model, const struct px86_store *store)
{
    if (model->domain == PX86_EADR)
        store_kept(model, store);
    else
        add_unit(model, store, model->next_group++, store->offset, store->length);
}

void px86_store_nontemporal(struct px86 *model, const struct px86_store *store)
{
    size_t end = store->offset + store->length;
    for (size_t at = store->offset; at < end;) {
        size_t length = piece(at, end);
        struct px86_line *line = line_at(model, (uint32_t)(at / PX86_LINE));
        const struct px86_unit *last =
            line->unit_count > 0 ? &line->units[line->unit_count - 1] : NULL;
        bool joins = last != NULL && last->nontemporal && last->thread == store->thread;
        uint32_t group = joins ? last->group : model->next_group++;
        add_unit(model, store, group, at, length)->nontemporal = true;
        note(model, store->thread, line->index, line->dropped + line->unit_count);
        at += length;
    }
}

/* ---- flushes and fences ---- */

bool px86_flush(struct px86 *model, uint32_t thread, size_t offset, size_t length)
{
    bool needed = false;
    for (size_t i = offset / PX86_LINE; length > 0 && i * PX86_LINE < offset + length;
         i++) {
        const struct px86_line *line = model->lines[i];
        if (line == NULL || line->unit_count == 0)
            continue;
        needed = true;
        note(model, thread, (uint32_t)i, covered(line, thread));
    }
    return needed;
}

bool px86_clflush(struct px86 *model, size_t offset, size_t length)
{
    bool needed = false;
    for (size_t i = offset / PX86_LINE; length > 0 && i * PX86_LINE < offset + length;
         i++) {
        struct px86_line *line = model->lines[i];
        if (line == NULL || line->unit_count == 0)
            continue;
        needed = true;
        /* Past the caches means past clflush, the thread's own included. */
        raise_floor(model, line, covered(line, PX86_THREADS));
    }
    return needed;
}

bool px86_fence_matters(const struct px86 *model, uint32_t thread)
{
    for (size_t i = 0; i < model->pending[thread].count; i++) {
        const struct note *note = &model->pending[thread].notes[i];
        if (note->upto > model->lines[note->line]->dropped)
            return true;
    }
    return false;
}

bool px86_fence(struct px86 *model, uint32_t thread)
{
    size_t count = model->pending[thread].count;
    for (size_t i = 0; i < count; i++) {
        const struct note *note = &model->pending[thread].notes[i];
        raise_floor(model, model->lines[note->line], note->upto);
    }
    model->pending[thread].count = 0;
    return count > 0;
}

/* ---- choices ---- */

/* A group's units in chains: places of 8 bytes, each with its units in order. */
struct chains {
    uint32_t count;
    struct {
        uint8_t place;
        uint32_t length;
        uint32_t units[32]; /* positions in the group */
    } chain[PX86_LINE / 8];
};

static void find_chains(const struct px86_line *line, uint32_t from, uint32_t to,
                        struct chains *chains)
{
    chains->count = 0;
    for (uint32_t i = from; i < to; i++) {
        uint8_t place = line->units[i].length > 8 ? 0 : line->units[i].at / 8;
        uint32_t c = 0;
        while (c < chains->count && chains->chain[c].place != place)
            c++;
        if (c == chains->count) {
            chains->chain[c].place = place;
            chains->chain[c].length = 0;
            chains->count++;
        }
        if (chains->chain[c].length < 32 && i - from < 64)
            chains->chain[c].units[chains->chain[c].length++] = i - from;
    }
}

struct chooser {
    struct px86_line *line;
    size_t capacity;
};

static void add_choice(struct chooser *chooser, const uint8_t *content, uint32_t whole,
                       uint64_t part)
{
    struct px86_line *line = chooser->line;
    uint64_t hash = px86_hash_line(line->index, content);
    for (uint32_t i = 0; i < line->choice_count; i++) {
        if (line->choices[i].hash == hash) {
            line->choices[i].count += 1;
            /* A later prefix that looks the same says more about what is missing. */
            line->choices[i].whole = whole;
            line->choices[i].part = part;
            return;
        }
    }
    /* The last place is kept for the program-order state. */
    if (line->choice_count >= PX86_CHOICES_MAX - 1)
        return;
    line->choices = grown(line->choices, &chooser->capacity,
                          (size_t)line->choice_count + 1, sizeof *line->choices);
    struct px86_choice *choice = &line->choices[line->choice_count++];
    *choice =
        (struct px86_choice){.hash = hash, .count = 1, .whole = whole, .part = part};
    memcpy(choice->content, content, PX86_LINE);
}

static void apply_part(const struct px86_line *line, uint32_t from, uint64_t part,
                       uint8_t *content)
{
    for (uint32_t bit = 0; part >> bit != 0 && bit < 64; bit++) {
        if (part >> bit & 1) {
            const struct px86_unit *unit = &line->units[from + bit];
            memcpy(content + unit->at, unit->data, unit->length);
        }
    }
}

/* All proper, non-empty parts of the group [from, to), and the whole of it last. */
static void choose_in_group(struct chooser *chooser, uint8_t *content, uint32_t group,
                            uint32_t from, uint32_t to)
{
    struct px86_line *line = chooser->line;
    struct chains chains;
    uint32_t taken[PX86_LINE / 8] = {0};
    find_chains(line, from, to, &chains);
    for (;;) {
        uint32_t c = 0;
        while (c < chains.count && ++taken[c] > chains.chain[c].length)
            taken[c++] = 0;
        if (c == chains.count)
            break;
        uint64_t part = 0;
        uint32_t units = 0;
        for (uint32_t i = 0; i < chains.count; i++) {
            for (uint32_t k = 0; k < taken[i]; k++)
                part |= UINT64_C(1) << chains.chain[i].units[k];
            units += taken[i];
        }
        if (units == to - from)
            continue; /* the whole group, below */
        uint8_t mixed[PX86_LINE];
        memcpy(mixed, content, PX86_LINE);
        apply_part(line, from, part, mixed);
        add_choice(chooser, mixed, group, part);
    }
    for (uint32_t i = from; i < to; i++)
        memcpy(content + line->units[i].at, line->units[i].data, line->units[i].length);
    add_choice(chooser, content, group + 1, 0);
}

/* Prefixes of a group that are neither nothing nor counted before: product - 1. */
static long double group_states(const struct px86_line *line, uint32_t from, uint32_t to)
{
    struct chains chains;
    long double product = 1;
    find_chains(line, from, to, &chains);
    for (uint32_t c = 0; c < chains.count; c++)
        product *= chains.chain[c].length + 1.0L;
    return product - 1;
}

static void compute_choices(const struct px86 *model, struct px86_line *line)
{
    uint8_t content[PX86_LINE];
    struct chooser chooser = {.line = line};
    free(line->choices);
    line->choices = NULL;
    line->choice_count = 0;
    line->legal = 1;
    memcpy(content, floor_of(model, line), PX86_LINE);
    add_choice(&chooser, content, 0, 0);
    uint32_t group = 0;
    for (uint32_t from = 0, to; from < line->unit_count; from = to, group++) {
        to = from + 1;
        while (to < line->unit_count && line->units[to].group == line->units[from].group)
            to++;
        line->legal += group_states(line, from, to);
        choose_in_group(&chooser, content, group, from, to);
    }
    /* Program order comes last, also where it looks like an earlier state. */
    uint64_t hash = px86_hash_line(line->index, content);
    for (uint32_t i = 0; i + 1 < line->choice_count; i++) {
        if (line->choices[i].hash == hash && i > 0) {
            struct px86_choice last = line->choices[i];
            line->choices[i] = line->choices[line->choice_count - 1];
            line->choices[line->choice_count - 1] = last;
            return;
        }
        if (line->choices[i].hash == hash)
            return; /* the floor itself: it stays first */
    }
    if (line->choices[line->choice_count - 1].hash != hash) { /* the table was full */
        line->choices = grown(line->choices, &chooser.capacity,
                              (size_t)line->choice_count + 1, sizeof *line->choices);
        struct px86_choice *last = &line->choices[line->choice_count++];
        *last = (struct px86_choice){.hash = hash, .count = 1, .whole = group};
        memcpy(last->content, content, PX86_LINE);
    }
}

static int by_index(const void *left, const void *right)
{
    uint32_t a = (*(struct px86_line *const *)left)->index;
    uint32_t b = (*(struct px86_line *const *)right)->index;
    return (a > b) - (a < b);
}

size_t px86_dirty(struct px86 *model, struct px86_line *const **lines)
{
    if (model->dirty_count > 0)
        qsort(model->dirty, model->dirty_count, sizeof(struct px86_line *), by_index);
    for (size_t i = 0; i < model->dirty_count; i++) {
        model->dirty[i]->dirty_at = (uint32_t)i;
        if (model->dirty[i]->choice_count == 0)
            compute_choices(model, model->dirty[i]);
    }
    *lines = model->dirty;
    return model->dirty_count;
}

long double px86_legal(struct px86 *model)
{
    struct px86_line *const *lines;
    size_t count = px86_dirty(model, &lines);
    long double product = 1;
    for (size_t i = 0; i < count; i++)
        product *= lines[i]->legal;
    return product;
}

uint64_t px86_floor_hash(const struct px86 *model)
{
    return model->hash;
}

static void broken(const char *what, size_t line)
{
    fprintf(stderr, "px86: %s (line %zu)\n", what, line);
    abort();
}

void px86_check(const struct px86 *model)
{
    uint64_t hash = px86_hash_image(model->image, model->size);
    size_t dirty = 0;
    for (size_t i = 0; i < model->size / PX86_LINE; i++) {
        const struct px86_line *line = model->lines[i];
        if (line == NULL || line->unit_count == 0)
            continue;
        dirty++;
        if (line->dirty_at >= model->dirty_count || model->dirty[line->dirty_at] != line)
            broken("a line with units is not in the dirty list", i);
    }
    if (dirty != model->dirty_count)
        broken("the dirty list holds a clean line", model->dirty_count);
    if (hash != model->hash)
        broken("the hash is not that of the image", 0);
}
