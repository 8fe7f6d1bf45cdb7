/* SPDX-License-Identifier: Apache-2.0 */
/*
 * persist.h - the only code that flushes and fences.
 *
 * A store is durable once its line has been flushed (nvm_flush) after it, or
 * it was non-temporal (nvm_store_line_nt), *and* the same thread has fenced
 * (nvm_fence) after that.  One thread's fence never completes another's
 * flush; a flush covers whatever the line holds when it executes, stores of
 * other threads that are visible by then included.
 *
 * What a store to media costs is the number of *effective* fences: those with
 * something pending.  Hence every caller passes the struct nvm_persist that
 * counts for it (a lane's, or the heap's own under its lock); a struct is
 * used by one thread at a time.
 *
 * On eADR machines (NVM_PERSIST=none) flushes are left out, fences stay:
 * non-temporal stores need them there too.
 */
#ifndef NVM_PERSIST_H
#define NVM_PERSIST_H

#include <emmintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVM_LINE ((size_t)64)

enum nvm_flush_kind {
    NVM_FLUSH_CLWB,
    NVM_FLUSH_CLFLUSHOPT,
    NVM_FLUSH_CLFLUSH,
    NVM_FLUSH_NONE
};

enum nvm_persist_event {
    NVM_EVENT_FLUSH = 0,
    NVM_EVENT_FENCE = 1,
    NVM_EVENT_NT_STORE = 2
};

/* Counts since open. Owner: one thread at a time. */
struct nvm_persist {
    uint64_t flushes;
    uint64_t fences;
    uint64_t effective_fences;
    uint64_t nt_lines;
    bool pending; /* something that the next fence completes */
};

typedef void nvm_persist_observer(void *context, int kind, const void *address,
                                  size_t length);

extern enum nvm_flush_kind nvm_flush_chosen;
extern nvm_persist_observer *nvm_persist_observe_fn;
extern void *nvm_persist_observe_context;

/* Chooses the flush instruction by CPUID, or by NVM_PERSIST=clwb|clflushopt|
   clflush|none; idempotent, called by every create and open.  EINVAL: the
   variable names no instruction, or one that this CPU does not have. */
int nvm_persist_init(void);
const char *nvm_persist_name(void);

static inline void nvm_persist_add(struct nvm_persist *sum,
                                   const struct nvm_persist *part)
{
    sum->flushes += part->flushes;
    sum->fences += part->fences;
    sum->effective_fences += part->effective_fences;
    sum->nt_lines += part->nt_lines;
}

static inline void nvm_persist_notify(int kind, const void *address, size_t length)
{
    if (__builtin_expect(nvm_persist_observe_fn != NULL, 0))
        nvm_persist_observe_fn(nvm_persist_observe_context, kind, address, length);
}

/* Uncounted, for who has looked at nvm_flush_chosen. */
static inline void nvm_clwb(const void *address)
{
    __asm__ volatile("clwb %0" : "+m"(*(volatile char *)(uintptr_t)address));
}

static inline void nvm_flush_line(const void *line)
{
    volatile char *p = (volatile char *)(uintptr_t)line;
    switch (nvm_flush_chosen) {
    case NVM_FLUSH_CLWB:
        nvm_clwb(line);
        break;
    case NVM_FLUSH_CLFLUSHOPT:
        __asm__ volatile("clflushopt %0" : "+m"(*p));
        break;
    case NVM_FLUSH_CLFLUSH:
        __asm__ volatile("clflush %0" : "+m"(*p));
        break;
    case NVM_FLUSH_NONE:
        break;
    }
}

/* Flushes every line of [address, address + length); durable after nvm_fence(). */
static inline void nvm_flush(struct nvm_persist *persist, const void *address,
                             size_t length)
{
    uintptr_t line = (uintptr_t)address & ~(uintptr_t)(NVM_LINE - 1);
    uintptr_t end = (uintptr_t)address + length;
    nvm_persist_notify(NVM_EVENT_FLUSH, address, length);
    for (; line < end; line += NVM_LINE) {
        nvm_flush_line((const void *)line);
        persist->flushes++;
        persist->pending = true;
    }
}

/* The same for the one line that holds address. */
static inline void nvm_flush_one(struct nvm_persist *persist, const void *address)
{
    nvm_persist_notify(NVM_EVENT_FLUSH, address, 1);
    nvm_flush_line(address);
    persist->flushes++;
    persist->pending = true;
}

/* Completes the calling thread's flushes and non-temporal stores. */
static inline void nvm_fence(struct nvm_persist *persist)
{
    nvm_persist_notify(NVM_EVENT_FENCE, NULL, 0);
    persist->fences++;
    persist->effective_fences += persist->pending;
    persist->pending = false;
    _mm_sfence();
}

/* How a whole line is written past the caches (nvm_store_line). */
enum nvm_line_store {
    NVM_LINE_MOVDIR64B, /* one store of 64 bytes, not torn by a crash */
    NVM_LINE_MOVNTI,    /* eight of 8 bytes, in any order */
};
extern enum nvm_line_store nvm_line_store_chosen;

static inline __attribute__((always_inline)) void nvm_movdir64b(void *line,
                                                                const uint64_t from[8])
{
    /* movdir64b (%rsi), %rdi; older assemblers do not know its name. */
    __asm__ volatile(".byte 0x66, 0x0f, 0x38, 0xf8, 0x3e"
                     :
                     : "D"(line), "S"(from), "m"(*(const struct { uint64_t w[8]; } *)from)
                     : "memory");
}

static inline void nvm_copy_line_past_caches(void *line, const uint64_t from[8])
{
    if (nvm_line_store_chosen == NVM_LINE_MOVDIR64B)
        nvm_movdir64b(line, from);
    else
        for (unsigned i = 0; i < 8; i++)
            _mm_stream_si64((long long *)line + i, (long long)from[i]);
}

/*
 * Writes the 64 bytes at `from` to `line`, both aligned to a line, past the
 * caches.  Durable after nvm_fence(); until then any 8-byte unit of it may be
 * missing (movdir64b writes all or nothing, but nobody may rely on it).
 *
 * movdir64b where there is one: a locked instruction that comes near eight
 * movnti flushes the write-combining buffer before it is full, which costs
 * three fences' time (measured: 590 ns instead of 195 for line, fence, lock).
 */
static inline void nvm_store_line(struct nvm_persist *persist, void *line,
                                  const uint64_t from[8])
{
    nvm_persist_notify(NVM_EVENT_NT_STORE, line, NVM_LINE);
    nvm_copy_line_past_caches(line, from);
    persist->nt_lines++;
    persist->pending = true;
}

static inline bool nvm_persist_observed(void)
{
    return nvm_persist_observe_fn != NULL;
}

/* Sets the observer; NULL: none.  Whoever calls this tells the open heaps
   (nvm_registry_refresh). */
void nvm_persist_observe(nvm_persist_observer *fn, void *context);

/* Whether the shortest way to write a line is not the right one: an observer wants to
   know of it, or there is no movdir64b. */
extern bool nvm_persist_unusual;

/* The same with the fence after it, uncounted: for the lane, which counts its
   records anyway (each a line and an effective fence), and whose every
   instruction each operation pays.  unusual: false if nvm_persist_unusual is,
   which a fast path knows by heap->fast_id. */
static inline __attribute__((always_inline)) void
nvm_log_line(void *line, const uint64_t from[8], bool unusual)
{
    if (unusual) {
        nvm_persist_notify(NVM_EVENT_NT_STORE, line, NVM_LINE);
        nvm_copy_line_past_caches(line, from);
        nvm_persist_notify(NVM_EVENT_FENCE, NULL, 0);
    } else {
        nvm_movdir64b(line, from);
    }
    _mm_sfence();
}

#endif
