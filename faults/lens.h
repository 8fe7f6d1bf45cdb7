// SPDX-License-Identifier: Apache-2.0
/*
 * lens.h - sees what an allocator does to its heap.
 *
 * Compiled lens.  The allocator is compiled with -fsanitize=thread and linked without
 * the sanitizer's runtime: ours (lens_tsan.c) has the __tsan_ entry points, which the
 * compiler calls before each load and store.  lens_wrap.c stands in for the functions
 * of the C library that store for the allocator, for mmap() (where does the heap lie?)
 * and for mutexes (schedule.h).  Flushes, fences and non-temporal stores come from the
 * adapter's observe().
 * Call stacks are walked by frame pointers, which instrumented code keeps and the lens
 * too; so the compiler need not report each call (`nvlab flags`).
 *
 * Library lens.  Of an allocator that is not instrumented only these events are seen.
 * At each of them the heap is compared with a shadow: a line that differs is dirty, and
 * is recorded as one store of the whole line (its parts may have reached the cache in
 * an order that nobody saw, so only "old" and "new" are legal for sure).
 *
 * Deferred capture.  A store is announced before it happens, so its content is taken at
 * the *next* call of the lens by the same thread: nothing of that thread lies between.
 * Threads run one at a time (schedule.h), and a store is captured before the turn passes
 * on; so the recorded order is the order in which the stores became visible.
 *
 * Modes:
 *   ASLEEP  the entry points do nothing.
 *   RECORD  every event goes to the sink.
 *   CHECK   the heap is an image that must be put back: the old content of a line is
 *           saved before the first store into it (undo), and the first load from a
 *           *watched* line is noted (which lines does recovery read?).  Events go to the
 *           sink only if there is one (crashes during recovery).
 *
 * The lens is one, global: the compiler's calls have no context.
 */
#ifndef NVL_LENS_H
#define NVL_LENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"
#include "pool.h"
#include "trace.h"

enum nvl_lens_mode { NVL_ASLEEP = 0, NVL_RECORD, NVL_CHECK };

/* Flags of a line in CHECK. */
enum {
    NVL_LINE_SAVED = 1,   /* its old content is in the undo log */
    NVL_LINE_WATCHED = 2, /* it may differ between states */
    NVL_LINE_READ = 4,    /* a watched one, loaded since the run began */
    NVL_LINE_HIDDEN = 16, /* watched, but not by the crash that is looked at: point.h */
    NVL_LINE_HIDDEN2 = 32,
};

/* What the sink is told; `frames` are absolute return addresses, innermost first. */
struct nvl_sighted {
    enum nvl_event_kind kind;
    uint32_t thread;
    uint64_t offset, length;
    const uint8_t *data;
    uint32_t frame_count;
    uintptr_t frames[NVL_FRAMES];
};
typedef void nvl_sink_fn(void *context, const struct nvl_sighted *sighted);

struct nvl_saved {
    uint32_t line;
    uint8_t content[64];
};

struct nvl_read {
    uint32_t line;
    uintptr_t frames[2]; /* where it was loaded first */
};

struct nvl_lens {
    /* What each access looks at comes first: it shares a line. */
    uintptr_t base; /* of the heap's image in memory */
    size_t quick;   /* CHECK: size, and most accesses need no note; else 0 */
    size_t size;    /* 0: the entry points see nothing */
    uint8_t *flags; /* [size / 64], CHECK only */
    nvl_sink_fn *sink;
    uintptr_t last_access; /* return address of the last one */
    bool calls;            /* call stacks are wanted, for the sink's frames */
    /* RECORD: other mappings of parts of the file (a header that is looked at first). */
    struct {
        uintptr_t start, end;
        uint64_t offset;
    } also[4];
    unsigned also_count;
    enum nvl_lens_mode mode;
    enum nvl_lens_kind kind;
    void *sink_context;
    struct nvl_saved *saved; /* undo log of the run */
    size_t saved_count, saved_capacity;
    struct nvl_read *reads; /* watched lines in the order of their first load */
    size_t read_count, read_capacity;
    unsigned modules; /* instrumented ones that were loaded so far */
    const char *path; /* RECORD: of the heap's file, to know its mapping by */
    uint8_t *shadow;  /* [shadow_size]: the heap as recorded so far */
    size_t shadow_size;
    uint64_t blind_offset; /* a store was missed here; UINT64_MAX: none was */
    uintptr_t blind_frames[2];
};

extern struct nvl_lens nvl_lens;

/* ---- RECORD ---- */

/* Starts to record the heap in the file at path, which need not exist yet.  `shadow`
   holds what it contains, shadow_size bytes; both must outlive the recording. */
void nvl_lens_record(enum nvl_lens_kind kind, const char *path, nvl_sink_fn *sink,
                     void *context, uint8_t *shadow, size_t shadow_size);
/* Captures what is still deferred; library lens: and what differs from the shadow. */
void nvl_lens_settle(void);
/* Compares all of the heap with the shadow, tells the sink of SYNCED lines where they
   differ, and returns how many did: compiled lens: stores that it did not see. */
size_t nvl_lens_synchronise(void);
/* The application is about to store these bytes itself. */
void nvl_lens_application_store(const void *address, size_t length);

/* ---- CHECK ---- */

/* The heap is `size` bytes at base, with flags for its lines. */
void nvl_lens_check(void *base, size_t size, uint8_t *flags);
/* Who is told of events from now on; NULL: nobody. At the allocator's boundary only.
   Without `frames` an event names the innermost place only. */
void nvl_lens_sink(nvl_sink_fn *sink, void *context, bool frames);
/* The oracle itself is about to load these bytes. */
void nvl_lens_note_read(const void *address, size_t length);
/* Forgets all loads but the first `keep`. */
void nvl_lens_forget_reads(size_t keep);
/* Puts the image back and forgets what was read. */
void nvl_lens_undo(void);

void nvl_lens_sleep(void);

/* The adapter's observer (nvc_event_fn); context is ignored. */
void nvl_lens_event(void *context, enum nvc_event event, const void *address,
                    size_t length);

/* ---- for lens_tsan.c and lens_wrap.c ---- */

void nvl_lens_load(const void *address, size_t length, uintptr_t from);
void nvl_lens_store(const void *address, size_t length, uintptr_t from);
void nvl_lens_locked(uintptr_t from);

/* The same for at most 16 bytes, with what most accesses of a checked state are decided
   in place: nothing is to be noted.  These run some thousand times a state.  A load from
   outside the heap is nobody's business: a page of the pool that was only loaded from is
   still zero. */
static inline __attribute__((always_inline)) void
nvl_lens_load_small(const void *address, size_t length, uintptr_t from)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (offset < nvl_lens.quick) {
        nvl_lens.last_access = from;
        uint8_t flags = nvl_lens.flags[offset / 64] & (NVL_LINE_WATCHED | NVL_LINE_READ);
        if (flags != NVL_LINE_WATCHED && offset % 64 + length <= 64)
            return;
    } else if (nvl_lens.quick != 0) {
        return;
    }
    nvl_lens_load(address, length, from);
}

static inline __attribute__((always_inline)) void
nvl_lens_store_small(const void *address, size_t length, uintptr_t from)
{
    uint64_t offset = (uintptr_t)address - nvl_lens.base;
    if (offset < nvl_lens.quick) {
        nvl_lens.last_access = from;
        if (nvl_lens.sink == NULL && (nvl_lens.flags[offset / 64] & NVL_LINE_SAVED) &&
            offset % 64 + length <= 64)
            return;
    } else if (nvl_lens.quick != 0) {
        nvl_pool_touch(address);
        return;
    }
    nvl_lens_store(address, length, from);
}
/* mmap and munmap of anything in the process. */
void nvl_lens_mapped(void *address, size_t length, int fd, uint64_t offset);
void nvl_lens_unmapping(void *address, size_t length);

/* The thread's number, set by who starts it. */
extern _Thread_local uint32_t nvl_lens_thread;

#endif
