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

static inline void nvm_persist_notify(int kind, const void *address, size_t length)
{
    if (__builtin_expect(nvm_persist_observe_fn != NULL, 0))
        nvm_persist_observe_fn(nvm_persist_observe_context, kind, address, length);
}

static inline void nvm_flush_line(const void *line)
{
    volatile char *p = (volatile char *)(uintptr_t)line;
    switch (nvm_flush_chosen) {
    case NVM_FLUSH_CLWB:
        __asm__ volatile("clwb %0" : "+m"(*p));
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

/* Writes one whole line past the caches; line aligned to a line, words to 8.
   Durable after nvm_fence(); until then any 8-byte unit of it may be torn. */
static inline void nvm_store_line_nt(struct nvm_persist *persist, void *line,
                                     const uint64_t words[8])
{
    nvm_persist_notify(NVM_EVENT_NT_STORE, line, NVM_LINE);
    for (unsigned i = 0; i < 8; i++)
        _mm_stream_si64((long long *)line + i, (long long)words[i]);
    persist->nt_lines++;
    persist->pending = true;
}

/* The same with the fence after it, and words 5 and 6 zero.  Uncounted: for
   the lane, which counts its records anyway (each one non-temporal line and
   one effective fence), and whose every instruction each operation pays. */
static inline __attribute__((always_inline)) void
nvm_log_line(void *line, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3,
             uint64_t word4, uint64_t word7)
{
    long long *to = line;
    nvm_persist_notify(NVM_EVENT_NT_STORE, line, NVM_LINE);
    _mm_stream_si64(to, (long long)word0);
    _mm_stream_si64(to + 1, (long long)word1);
    _mm_stream_si64(to + 2, (long long)word2);
    _mm_stream_si64(to + 3, (long long)word3);
    _mm_stream_si64(to + 4, (long long)word4);
    _mm_stream_si64(to + 5, 0);
    _mm_stream_si64(to + 6, 0);
    _mm_stream_si64(to + 7, (long long)word7);
    nvm_persist_notify(NVM_EVENT_FENCE, NULL, 0);
    _mm_sfence();
}

#endif
