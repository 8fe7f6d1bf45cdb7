// SPDX-License-Identifier: Apache-2.0
/*
 * trace_convert.c - from the recorder's raw events to a trace (trace.h).
 *
 * Addresses become slots by a hash table of the live blocks (open addressing, linear
 * probing; Knuth, The Art of Computer Programming 3, 6.4, with deletion by algorithm R).
 * What the recorder cannot have seen from its beginning is left out and counted: frees
 * of blocks that were allocated before it was loaded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

static _Thread_local char complaint[512];

#define COMPLAIN(...) (snprintf(complaint, sizeof complaint, __VA_ARGS__), complaint)

/* A live block; address 0: none. */
struct block {
    uint64_t address;
    uint32_t slot;
    uint64_t size;
};

struct converter {
    struct block *blocks; /* a power of two of them, half of them empty at least */
    size_t capacity, count;
    uint32_t *free_slots; /* a stack */
    size_t free_count, free_capacity;
    uint64_t live_bytes;
    uint32_t thread; /* of the last operation */
    FILE *out;
    struct nvd_trace_head head;
    bool failed; /* no memory */
};

static size_t home_of(const struct converter *converter, uint64_t address)
{
    return (size_t)(address * UINT64_C(0x9e3779b97f4a7c15) >> 20) &
           (converter->capacity - 1);
}

static struct block *find(struct converter *converter, uint64_t address)
{
    size_t at = home_of(converter, address);
    while (converter->blocks[at].address != 0 && converter->blocks[at].address != address)
        at = (at + 1) & (converter->capacity - 1);
    return &converter->blocks[at];
}

static bool grow(struct converter *converter)
{
    struct block *old = converter->blocks;
    size_t old_capacity = converter->capacity;
    converter->capacity = old_capacity == 0 ? 1 << 16 : 2 * old_capacity;
    converter->blocks = calloc(converter->capacity, sizeof *converter->blocks);
    if (converter->blocks == NULL) {
        converter->blocks = old;
        converter->capacity = old_capacity;
        return false;
    }
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].address != 0)
            *find(converter, old[i].address) = old[i];
    free(old);
    return true;
}

/* Leaves no gap on the way to a block that was put behind it. */
static void forget(struct converter *converter, struct block *block)
{
    const size_t mask = converter->capacity - 1;
    size_t gap = (size_t)(block - converter->blocks), at = gap;
    for (;;) {
        at = (at + 1) & mask;
        struct block *next = &converter->blocks[at];
        if (next->address == 0)
            break;
        if (((at - home_of(converter, next->address)) & mask) >= ((at - gap) & mask)) {
            converter->blocks[gap] = *next;
            gap = at;
        }
    }
    converter->blocks[gap].address = 0;
    converter->count--;
}

static bool free_slot(struct converter *converter, uint32_t slot)
{
    if (converter->free_count == converter->free_capacity) {
        size_t capacity =
            converter->free_capacity == 0 ? 1 << 12 : 2 * converter->free_capacity;
        uint32_t *slots = realloc(converter->free_slots, capacity * sizeof *slots);
        if (slots == NULL)
            return false;
        converter->free_slots = slots;
        converter->free_capacity = capacity;
    }
    converter->free_slots[converter->free_count++] = slot;
    return true;
}

static void put(struct converter *converter, uint64_t value)
{
    do {
        unsigned char byte = value & 0x7f;
        value >>= 7;
        putc(byte | (value != 0 ? 0x80 : 0), converter->out);
        converter->head.bytes++;
    } while (value != 0);
}

static void name_thread(struct converter *converter, uint32_t thread)
{
    if (thread == converter->thread)
        return;
    converter->thread = thread;
    if (thread >= converter->head.threads)
        converter->head.threads = thread + 1;
    put(converter, (uint64_t)thread << 2 | 3);
}

/* Takes the block out of the books; false if it is not in them. */
static bool lose(struct converter *converter, uint64_t address, uint32_t *slot)
{
    struct block *block = find(converter, address);
    if (address == 0 || block->address == 0)
        return false;
    *slot = block->slot;
    converter->live_bytes -= block->size;
    forget(converter, block);
    return true;
}

/* Enters a block, and gives it a slot. */
static uint32_t gain(struct converter *converter, uint64_t address, uint64_t size)
{
    if (2 * (converter->count + 1) > converter->capacity && !grow(converter)) {
        converter->failed = true;
        return 0;
    }
    uint32_t slot = converter->free_count > 0
                        ? converter->free_slots[--converter->free_count]
                        : (uint32_t)converter->head.slots++;
    *find(converter, address) = (struct block){address, slot, size};
    converter->count++;
    converter->live_bytes += size;
    if (converter->live_bytes > converter->head.peak_bytes)
        converter->head.peak_bytes = converter->live_bytes;
    return slot;
}

static void convert_free(struct converter *converter, uint64_t address, uint32_t thread)
{
    uint32_t slot;
    if (!lose(converter, address, &slot)) {
        converter->head.dropped++;
        return;
    }
    name_thread(converter, thread);
    put(converter, (uint64_t)slot << 2);
    converter->head.frees++;
    converter->failed |= !free_slot(converter, slot);
}

static void convert_alloc(struct converter *converter, const struct nvd_raw_event *event)
{
    uint32_t stale;
    if (lose(converter, event->address, &stale)) {
        /* Its free was missed (a function that the recorder does not know): it was freed
           by now. */
        name_thread(converter, event->thread);
        put(converter, (uint64_t)stale << 2);
        converter->head.frees++;
        converter->failed |= !free_slot(converter, stale);
    }
    uint32_t slot = gain(converter, event->address, event->size);
    name_thread(converter, event->thread);
    put(converter, (uint64_t)slot << 2 | 1);
    put(converter, event->size);
    converter->head.allocs++;
}

static void convert_realloc(struct converter *converter,
                            const struct nvd_raw_event *event)
{
    uint32_t old;
    if (!lose(converter, event->old, &old)) {
        converter->head.dropped++;
        convert_alloc(converter, event);
        return;
    }
    uint32_t slot = gain(converter, event->address, event->size);
    name_thread(converter, event->thread);
    put(converter, (uint64_t)slot << 2 | 2);
    put(converter, event->size);
    put(converter, old);
    converter->head.reallocs++;
    converter->failed |= !free_slot(converter, old);
}

static void convert_event(struct converter *converter, const struct nvd_raw_event *event)
{
    if (event->kind == NVD_RAW_FREE)
        convert_free(converter, event->address, event->thread);
    else if (event->size > UINT32_MAX)
        converter->head.dropped++; /* no slot takes so much; its free is dropped, too */
    else if (event->kind == NVD_RAW_ALLOC)
        convert_alloc(converter, event);
    else
        convert_realloc(converter, event);
}

static const char *convert(struct converter *converter, FILE *raw, const char *raw_path)
{
    struct nvd_raw_head head;
    struct nvd_raw_event event;
    if (fread(&head, sizeof head, 1, raw) != 1 || head.magic != NVD_RAW_MAGIC)
        return COMPLAIN("'%s' is not what the recorder writes", raw_path);
    if (!grow(converter))
        return COMPLAIN("no memory");
    converter->head.threads = 1;
    while (!converter->failed && fread(&event, sizeof event, 1, raw) == 1)
        convert_event(converter, &event);
    if (converter->failed)
        return COMPLAIN("no memory for %zu live blocks", converter->count);
    if (converter->head.allocs == 0)
        return COMPLAIN("'%s' has no allocations: was the program linked statically, or "
                        "set-user-id?",
                        raw_path);
    return NULL;
}

const char *nvd_trace_convert(const char *raw_path, const char *path, const char *program,
                              struct nvd_trace_head *head)
{
    struct converter converter = {0};
    FILE *raw = fopen(raw_path, "rbe");
    if (raw == NULL)
        return COMPLAIN("cannot read '%s': %s", raw_path, strerror(errno));
    converter.out = fopen(path, "wbe");
    if (converter.out == NULL) {
        fclose(raw);
        return COMPLAIN("cannot write '%s': %s", path, strerror(errno));
    }
    /* A place for the head, which is known at the end only. */
    const struct nvd_trace_head nothing = {0};
    bool written = fwrite(&nothing, sizeof nothing, 1, converter.out) == 1;
    const char *wrong = convert(&converter, raw, raw_path);
    converter.head.magic = NVD_TRACE_MAGIC;
    converter.head.version = NVD_TRACE_VERSION;
    snprintf(converter.head.program, sizeof converter.head.program, "%s", program);
    written = written && fseek(converter.out, 0, SEEK_SET) == 0 &&
              fwrite(&converter.head, sizeof converter.head, 1, converter.out) == 1;
    written &= !ferror(converter.out);
    written &= fclose(converter.out) == 0;
    if (wrong == NULL && !written)
        wrong = COMPLAIN("cannot write '%s': %s", path, strerror(errno));
    fclose(raw);
    free(converter.blocks);
    free(converter.free_slots);
    *head = converter.head;
    return wrong;
}
