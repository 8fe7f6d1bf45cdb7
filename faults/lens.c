// SPDX-License-Identifier: Apache-2.0
/*
 * lens.c - the lens's three modes; lens.h has the theory.
 */
#include "lens.h"

#include <execinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "mutate.h"
#include "schedule.h"

enum {
    own_frames_max = 16, /* of the lens, between an entry point and take_frames() */
};

struct nvl_lens nvl_lens = {.blind_offset = UINT64_MAX};
_Thread_local uint32_t nvl_lens_thread;

/* The store that the thread announced last. */
static _Thread_local struct {
    struct nvl_sighted deferred;
    bool has_deferred;
    bool inside; /* the lens itself is at work */
} me;

static void *must(void *pointer)
{
    if (pointer == NULL)
        abort();
    return pointer;
}

/* ---- sites ---- */

/* A stack frame of code that keeps frame pointers: instrumented code and the lens do. */
struct frame {
    const struct frame *outer;
    uintptr_t returns_to;
};

static bool is_ours(uintptr_t code)
{
    extern const char __executable_start[], etext[]; /* the linker's */
    return code >= (uintptr_t)__executable_start && code < (uintptr_t)etext;
}

/* The place `from`, and the calls that led there, out to the first that is our own: code
   beyond it, or in between (a callback of libc's), need not keep frame pointers.  A frame
   lies above the one it called, and not far. */
static uint32_t walk_frames(const struct frame *frame, uintptr_t from, uintptr_t *frames,
                            uint32_t max)
{
    uint32_t count = 0, own = 0;
    if (from == 0)
        return 0;
    frames[count++] = from;
    while (frame->returns_to != from && own++ < own_frames_max &&
           is_ours(frame->returns_to))
        frame = frame->outer;
    if (frame->returns_to != from)
        return count;
    while (count < max && !is_ours(frames[count - 1])) {
        const struct frame *outer = frame->outer;
        if ((uintptr_t)outer <= (uintptr_t)frame ||
            (uintptr_t)outer - (uintptr_t)frame > 65536 || (uintptr_t)outer % 8 != 0)
            break;
        frames[count++] = outer->returns_to;
        frame = outer;
    }
    return count;
}

static __attribute__((noinline)) void take_frames(struct nvl_sighted *sighted,
                                                  uintptr_t from)
{
    sighted->frame_count = 0;
    if (!nvl_lens.calls) {
        sighted->frames[0] = from;
        sighted->frame_count = from != 0;
    } else {
        sighted->frame_count =
            walk_frames(__builtin_frame_address(0), from, sighted->frames, NVL_FRAMES);
    }
}

/* Uninstrumented code says nothing of its calls: the unwinder does. */
static void unwind(struct nvl_sighted *sighted)
{
    void *frames[NVL_FRAMES + 4];
    int count = backtrace(frames, NVL_FRAMES + 4);
    sighted->frame_count = 0;
    /* The first are unwind() and the observer. */
    for (int i = 2; i < count && sighted->frame_count < NVL_FRAMES; i++)
        sighted->frames[sighted->frame_count++] = (uintptr_t)frames[i];
}

/* ---- where the heap lies ---- */

/* The offset in the heap's file; UINT64_MAX if it is no part of it. */
static uint64_t offset_of(const void *address)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (offset < nvl_lens.size)
        return offset;
    for (unsigned i = 0; i < nvl_lens.also_count; i++) {
        if ((uintptr_t)address >= nvl_lens.also[i].start &&
            (uintptr_t)address < nvl_lens.also[i].end)
            return (uintptr_t)address - nvl_lens.also[i].start + nvl_lens.also[i].offset;
    }
    return UINT64_MAX;
}

/* ---- capture ---- */

static const uint8_t *memory(uint64_t offset)
{
    return (const uint8_t *)(nvl_lens.base + offset);
}

static void tell(const struct nvl_sighted *sighted)
{
    if (nvl_lens.sink == NULL)
        return;
    if (nvl_mutation_active)
        nvl_mutation_pass(sighted, nvl_lens.sink, nvl_lens.sink_context);
    else
        nvl_lens.sink(nvl_lens.sink_context, sighted);
}

/* The deferred store has happened by now. */
static void capture(void)
{
    if (!me.has_deferred)
        return;
    me.has_deferred = false;
    struct nvl_sighted *store = &me.deferred;
    if (store->offset >= nvl_lens.size || store->length > nvl_lens.size - store->offset)
        return; /* unmapped since */
    store->data = memory(store->offset);
    if (nvl_lens.shadow != NULL)
        memcpy(nvl_lens.shadow + store->offset, store->data, store->length);
    tell(store);
}

/* Another thread may flush the line of the deferred store in its turn, or store to it: so
   that is captured first.  But a non-temporal store is announced before what it stores is
   even loaded: there are no turns until it surely has happened. */
static void let_others_run(void)
{
    if (!nvl_schedule.running ||
        (me.has_deferred && me.deferred.kind == NVL_EVENT_STORE_NT))
        return;
    capture();
    nvl_schedule_point();
}

static void defer(enum nvl_event_kind kind, uint64_t offset, uint64_t length,
                  uintptr_t from)
{
    capture();
    me.deferred = (struct nvl_sighted){
        .kind = kind, .thread = nvl_lens_thread, .offset = offset, .length = length};
    take_frames(&me.deferred, from);
    me.has_deferred = true;
}

/* Library lens: lines of [from, to) that differ from the shadow are stores. */
static void capture_differences(uint64_t from, uint64_t to, uint32_t frame_count,
                                const uintptr_t *frames)
{
    for (uint64_t page = from & ~UINT64_C(4095); page < to; page += 4096) {
        uint64_t end = page + 4096 < nvl_lens.size ? page + 4096 : nvl_lens.size;
        if (memcmp(memory(page), nvl_lens.shadow + page, end - page) == 0)
            continue;
        for (uint64_t line = page; line < end; line += 64) {
            if (memcmp(memory(line), nvl_lens.shadow + line, 64) == 0)
                continue;
            struct nvl_sighted store = {.kind = NVL_EVENT_STORE_WHOLE,
                                        .thread = nvl_lens_thread,
                                        .offset = line,
                                        .length = 64,
                                        .data = memory(line),
                                        .frame_count = frame_count};
            memcpy(store.frames, frames, frame_count * sizeof *frames);
            memcpy(nvl_lens.shadow + line, memory(line), 64);
            tell(&store);
        }
    }
}

void nvl_lens_settle(void)
{
    capture();
    if (nvl_lens.mode == NVL_RECORD && nvl_lens.kind == NVL_LENS_LIBRARY &&
        nvl_lens.size > 0)
        capture_differences(0, nvl_lens.size, 0, NULL);
}

/* Compiled lens: a flushed line that is not what was recorded had a store that nobody
   announced. */
static void look_for_blindness(uint64_t offset, uint64_t length,
                               const struct nvl_sighted *at)
{
    uint64_t line = offset & ~UINT64_C(63);
    for (; line < offset + length && line + 64 <= nvl_lens.size; line += 64) {
        if (memcmp(memory(line), nvl_lens.shadow + line, 64) == 0)
            continue;
        if (nvl_lens.blind_offset == UINT64_MAX) {
            nvl_lens.blind_offset = line;
            for (uint32_t i = 0; i < 2 && i < at->frame_count; i++)
                nvl_lens.blind_frames[i] = at->frames[i];
        }
        memcpy(nvl_lens.shadow + line, memory(line), 64);
        struct nvl_sighted store = *at;
        store.kind = NVL_EVENT_STORE_WHOLE;
        store.offset = line;
        store.length = 64;
        store.data = memory(line);
        tell(&store);
    }
}

size_t nvl_lens_synchronise(void)
{
    size_t differing = 0;
    capture();
    for (uint64_t line = 0; line + 64 <= nvl_lens.size; line += 64) {
        if (memcmp(memory(line), nvl_lens.shadow + line, 64) == 0)
            continue;
        differing++;
        memcpy(nvl_lens.shadow + line, memory(line), 64);
        tell(&(struct nvl_sighted){.kind = NVL_EVENT_SYNCED,
                                   .thread = nvl_lens_thread,
                                   .offset = line,
                                   .length = 64,
                                   .data = memory(line)});
    }
    return differing;
}

/* ---- RECORD ---- */

void nvl_lens_record(enum nvl_lens_kind kind, const char *path, nvl_sink_fn *sink,
                     void *context, uint8_t *shadow, size_t shadow_size)
{
    nvl_lens.path = path;
    nvl_lens.mode = NVL_RECORD;
    nvl_lens.quick = 0;
    nvl_lens.calls = true;
    nvl_lens.kind = kind;
    nvl_lens.sink = sink;
    nvl_lens.sink_context = context;
    nvl_lens.shadow = shadow;
    nvl_lens.shadow_size = shadow_size;
    nvl_lens.size = 0;
    nvl_lens.also_count = 0;
    nvl_lens.blind_offset = UINT64_MAX;
}

static bool is_heap(int fd)
{
    struct stat heap, mapped;
    return fd >= 0 && fstat(fd, &mapped) == 0 && stat(nvl_lens.path, &heap) == 0 &&
           heap.st_dev == mapped.st_dev && heap.st_ino == mapped.st_ino;
}

static void keep_also(uintptr_t start, uintptr_t end, uint64_t offset)
{
    if (nvl_lens.also_count == sizeof nvl_lens.also / sizeof nvl_lens.also[0])
        return;
    nvl_lens.also[nvl_lens.also_count].start = start;
    nvl_lens.also[nvl_lens.also_count].end = end;
    nvl_lens.also[nvl_lens.also_count++].offset = offset;
}

void nvl_lens_mapped(void *address, size_t length, int fd, uint64_t offset)
{
    if (nvl_lens.mode != NVL_RECORD || offset >= nvl_lens.shadow_size || !is_heap(fd))
        return;
    uintptr_t base = (uintptr_t)address - offset;
    size_t end = offset + length;
    if (end > nvl_lens.shadow_size)
        end = nvl_lens.shadow_size;
    /* A heap is mapped in one piece, or in pieces that lie as in the file; a look at
       its first bytes elsewhere is none of it. */
    if (base == nvl_lens.base && end > nvl_lens.size) {
        nvl_lens.size = end;
    } else if (end > nvl_lens.size) {
        nvl_lens_settle();
        if (nvl_lens.size > 0)
            keep_also(nvl_lens.base, nvl_lens.base + nvl_lens.size, 0);
        nvl_lens.base = base;
        nvl_lens.size = end;
    } else if (base != nvl_lens.base) {
        keep_also((uintptr_t)address, (uintptr_t)address + length, offset);
    }
}

void nvl_lens_unmapping(void *address, size_t length)
{
    uintptr_t start = (uintptr_t)address;
    if (nvl_lens.mode != NVL_RECORD)
        return;
    for (unsigned i = nvl_lens.also_count; i > 0; i--) {
        if (nvl_lens.also[i - 1].start >= start &&
            nvl_lens.also[i - 1].start < start + length)
            nvl_lens.also[i - 1] = nvl_lens.also[--nvl_lens.also_count];
    }
    if (nvl_lens.size == 0 || start >= nvl_lens.base + nvl_lens.size ||
        start + length <= nvl_lens.base)
        return;
    nvl_lens_settle();
    nvl_lens.size = 0;
}

void nvl_lens_application_store(const void *address, size_t length)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (nvl_lens.mode == NVL_RECORD && nvl_lens.kind == NVL_LENS_COMPILED &&
        offset < nvl_lens.size) {
        defer(NVL_EVENT_STORE, offset, length, 0);
    }
}

/* ---- CHECK ---- */

void nvl_lens_check(void *base, size_t size, uint8_t *flags)
{
    nvl_lens.mode = NVL_CHECK;
    nvl_lens.sink = NULL;
    nvl_lens.shadow = NULL;
    nvl_lens.also_count = 0;
    nvl_lens.base = (uintptr_t)base;
    nvl_lens.size = size;
    nvl_lens.flags = flags;
    nvl_lens.saved_count = 0;
    nvl_lens.read_count = 0;
    nvl_lens.quick = size;
    nvl_lens.calls = false;
    me.has_deferred = false;
}

void nvl_lens_sink(nvl_sink_fn *sink, void *context, bool frames)
{
    nvl_lens.sink = sink;
    nvl_lens.sink_context = context;
    /* A mutation finds its place by the frames. */
    nvl_lens.calls = sink != NULL && (frames || nvl_mutation_active);
}

static void save_line(uint32_t line)
{
    if (nvl_lens.saved_count == nvl_lens.saved_capacity) {
        nvl_lens.saved_capacity = 2 * nvl_lens.saved_capacity + 1024;
        nvl_lens.saved = must(
            realloc(nvl_lens.saved, nvl_lens.saved_capacity * sizeof *nvl_lens.saved));
    }
    struct nvl_saved *saved = &nvl_lens.saved[nvl_lens.saved_count++];
    saved->line = line;
    memcpy(saved->content, memory((uint64_t)line * 64), 64);
    nvl_lens.flags[line] |= NVL_LINE_SAVED;
}

static void save(uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) / 64;
    if (last >= nvl_lens.size / 64)
        last = nvl_lens.size / 64 - 1;
    for (uint64_t line = offset / 64; line <= last; line++) {
        if (!(nvl_lens.flags[line] & NVL_LINE_SAVED))
            save_line((uint32_t)line);
    }
}

static void note_line_read(uint32_t line, uintptr_t from)
{
    if (nvl_lens.read_count == nvl_lens.read_capacity) {
        nvl_lens.read_capacity = 2 * nvl_lens.read_capacity + 256;
        nvl_lens.reads = must(
            realloc(nvl_lens.reads, nvl_lens.read_capacity * sizeof *nvl_lens.reads));
    }
    struct nvl_read *read = &nvl_lens.reads[nvl_lens.read_count++];
    *read = (struct nvl_read){.line = line, .frames = {from}};
    if (nvl_lens.calls)
        walk_frames(__builtin_frame_address(0), from, read->frames, 2);
    nvl_lens.flags[line] |= NVL_LINE_READ;
}

static void look(uint64_t offset, uint64_t length, uintptr_t from)
{
    uint64_t last = (offset + length - 1) / 64;
    if (last >= nvl_lens.size / 64)
        last = nvl_lens.size / 64 - 1;
    for (uint64_t line = offset / 64; line <= last; line++) {
        uint8_t flags = nvl_lens.flags[line];
        if ((flags & NVL_LINE_WATCHED) && !(flags & NVL_LINE_READ))
            note_line_read((uint32_t)line, from);
    }
}

void nvl_lens_note_read(const void *address, size_t length)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (nvl_lens.mode == NVL_CHECK && offset < nvl_lens.size && length > 0)
        look(offset, length, (uintptr_t)__builtin_return_address(0));
}

void nvl_lens_forget_reads(size_t keep)
{
    while (nvl_lens.read_count > keep)
        nvl_lens.flags[nvl_lens.reads[--nvl_lens.read_count].line] &=
            (uint8_t)~NVL_LINE_READ;
}

void nvl_lens_undo(void)
{
    me.has_deferred = false;
    for (size_t i = nvl_lens.saved_count; i > 0; i--) {
        const struct nvl_saved *saved = &nvl_lens.saved[i - 1];
        memcpy((uint8_t *)nvl_lens.base + (size_t)saved->line * 64, saved->content, 64);
        nvl_lens.flags[saved->line] &= (uint8_t)~NVL_LINE_SAVED;
    }
    nvl_lens.saved_count = 0;
    nvl_lens_forget_reads(0);
}

void nvl_lens_sleep(void)
{
    nvl_lens.mode = NVL_ASLEEP;
    nvl_lens.quick = 0;
    nvl_lens.calls = false;
    nvl_lens.size = 0;
    nvl_lens.sink = NULL;
    me.has_deferred = false;
}

/* ---- entry points ---- */

void nvl_lens_load(const void *address, size_t length, uintptr_t from)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (offset >= nvl_lens.size) {
        let_others_run();
        return;
    }
    if (nvl_lens.mode == NVL_CHECK) {
        nvl_lens.last_access = from;
        if (offset / 64 == (offset + length - 1) / 64) {
            uint8_t flags = nvl_lens.flags[offset / 64];
            if ((flags & (NVL_LINE_WATCHED | NVL_LINE_READ)) == NVL_LINE_WATCHED)
                note_line_read((uint32_t)(offset / 64), from);
        } else if (length > 0) {
            look(offset, length, from);
        }
        return;
    }
    capture();
    if (nvl_schedule.running)
        nvl_schedule_point();
}

void nvl_lens_store(const void *address, size_t length, uintptr_t from)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (offset >= nvl_lens.size && nvl_lens.also_count > 0)
        offset = offset_of(address);
    if (offset >= nvl_lens.size || length == 0) {
        nvl_pool_touch_range(address, length);
        let_others_run();
        return;
    }
    if (length > nvl_lens.size - offset)
        length = nvl_lens.size - offset;
    if (nvl_lens.mode == NVL_CHECK) {
        nvl_lens.last_access = from;
        save(offset, length);
        if (nvl_lens.sink != NULL)
            defer(NVL_EVENT_STORE, offset, length, from);
        return;
    }
    let_others_run();
    if (nvl_lens.mode == NVL_RECORD && nvl_lens.kind == NVL_LENS_COMPILED)
        defer(NVL_EVENT_STORE, offset, length, from);
}

void nvl_lens_locked(uintptr_t from)
{
    capture();
    if (nvl_lens.sink != NULL) {
        struct nvl_sighted sighted = {.kind = NVL_EVENT_LOCKED,
                                      .thread = nvl_lens_thread};
        take_frames(&sighted, from);
        tell(&sighted);
    }
    if (nvl_schedule.running)
        nvl_schedule_point();
}

void nvl_lens_event(void *context, enum nvc_event event, const void *address,
                    size_t length)
{
    (void)context;
    uintptr_t from = (uintptr_t)__builtin_return_address(0);
    uint64_t offset = offset_of(address);
    bool inside = event == NVC_EVENT_FENCE || (offset < nvl_lens.size && length > 0 &&
                                               length <= nvl_lens.size - offset);
    if (nvl_lens.mode == NVL_CHECK && inside && event == NVC_EVENT_NT_STORE)
        save(offset, length);
    if (nvl_lens.sink == NULL || !inside)
        return;
    capture();
    if (nvl_schedule.running)
        nvl_schedule_point();
    struct nvl_sighted sighted = {.kind = event == NVC_EVENT_FENCE ? NVL_EVENT_FENCE
                                                                   : NVL_EVENT_FLUSH,
                                  .thread = nvl_lens_thread,
                                  .offset = event == NVC_EVENT_FENCE ? 0 : offset,
                                  .length = event == NVC_EVENT_FENCE ? 0 : length};
    bool library = nvl_lens.mode == NVL_RECORD && nvl_lens.kind == NVL_LENS_LIBRARY;
    if (library)
        unwind(&sighted);
    else
        take_frames(&sighted, from);
    if (library && nvl_lens.size > 0)
        capture_differences(0, nvl_lens.size, sighted.frame_count, sighted.frames);
    if (event == NVC_EVENT_NT_STORE)
        defer(NVL_EVENT_STORE_NT, offset, length, from);
    else if (event == NVC_EVENT_FLUSH && nvl_lens.mode == NVL_RECORD && !library)
        look_for_blindness(offset, length, &sighted);
    if (event != NVC_EVENT_NT_STORE)
        tell(&sighted);
}
