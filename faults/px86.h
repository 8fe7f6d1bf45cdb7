// SPDX-License-Identifier: Apache-2.0
/*
 * px86.h - which states of non-volatile memory a power cut may leave on x86.
 *
 * The model is Px86: A. Raad, J. Wickerson, G. Neiger, V. Vafeiadis, "Persistency
 * Semantics of the Intel-x86 Architecture", POPL 2020; A. Khyzha, O. Lahav, "Taming
 * x86-TSO Persistency", POPL 2021; for non-temporal stores A. Raad, L. Maranget,
 * V. Vafeiadis, "Extending Intel-x86 Consistency and Persistency", POPL 2022.
 *
 * Rules (design: the numbers are those of docs/power-fail.md)
 *  1. Stores become visible in TSO order: one FIFO buffer a thread (px86_buffer.h).
 *     Everything in *this* file happens when a store leaves the buffer.
 *  2. A line (64 bytes) is a sequence of *units*, one a visible store of an aligned
 *     piece of at most 8 bytes.  A wider or misaligned store is several units, in any
 *     order among themselves: a *group*.  movdir64b is one unit of 64 bytes.
 *  3. At a crash a line holds a prefix of its units (of the last group in it: any part),
 *     whatever the other lines hold.  The *floor* is the prefix that surely is on media.
 *  4. clwb, clflushopt by thread t note: t's next fence covers the line's units so far.
 *  5. sfence, mfence, any locked instruction by t: the floor of each line rises to what
 *     t has noted.  One thread's fence never completes another's flush.
 *  6. clflush: the floor rises to all of the line's units at once.
 *  7. Non-temporal stores: units of one line are in one group, across stores, until t's
 *     next fence, which covers them.  Another thread's flush does not cover them.
 *  8. eADR: the floor rises with each cached store; rule 7 stays.
 *  9. The last legal state of every line together is what SIGKILL leaves: program order.
 *
 * Units of one *chain* (the same 8-byte place, twice in one group) stay in order.
 *
 * Invariant (px86_check): a line is in the dirty list iff it has units above its floor;
 * the image holds every line's floor; the hash is the sum of the image's line hashes.
 *
 * One thread at a time.  ENOMEM ends the process: there is no verdict without a model.
 */
#ifndef PX86_H
#define PX86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PX86_LINE = 64,
    PX86_THREADS = 8,
    /* Choices of one line that are told apart; beyond, a spread over all of them. */
    PX86_CHOICES_MAX = 1024,
};

enum px86_domain {
    PX86_ADR,  /* caches are lost */
    PX86_EADR, /* caches are kept */
};

struct px86_unit {
    uint64_t event; /* of the trace; the caller's */
    uint32_t site;  /* the caller's */
    uint32_t group; /* units with equal numbers are one group */
    uint8_t thread;
    uint8_t at, length; /* bytes [at, at + length) of the line */
    bool nontemporal;   /* and not fenced yet */
    uint8_t data[PX86_LINE];
};

/* One state that a line may be in. */
struct px86_choice {
    uint8_t content[PX86_LINE];
    uint64_t hash;     /* of the content at this line */
    long double count; /* legal prefixes that look like this */
    uint32_t whole;    /* one of them: all units of the first groups, this many, ... */
    uint64_t part;     /* ... and these of the next group (bit: unit within it) */
};

/* The states of one line: choices[0] is the floor, the last one is program order. */
struct px86_line {
    uint32_t index;
    uint32_t unit_count, unit_capacity;
    struct px86_unit *units; /* above the floor, in visible order */
    uint64_t dropped;        /* units that were above the floor once */
    uint32_t dirty_at;       /* position in the dirty list */
    uint32_t choice_count;   /* 0: to be computed */
    long double legal;       /* prefixes, exact up to 2^63 */
    struct px86_choice *choices;
};

struct px86;

/* A model over an image of `size` bytes (a multiple of 64), which it keeps at the floor.
   The image is the caller's, and so is its hash now: px86_hash_image(). */
struct px86 *px86_new(void *image, size_t size, enum px86_domain domain, uint64_t hash);
/* Forgets all lines, as after a crash and a restart from the image as it is. */
void px86_restart(struct px86 *model, uint64_t hash);
void px86_free(struct px86 *model);

/* What follows is by thread t < PX86_THREADS and concerns bytes [offset, offset + length)
   of the image. */
struct px86_store {
    uint32_t thread;
    uint32_t site;
    uint64_t event;
    size_t offset, length;
    const void *data;
};
void px86_store(struct px86 *model, const struct px86_store *store);
/* movdir64b, or a line of which only old and new are known: one unit within one line. */
void px86_store_whole(struct px86 *model, const struct px86_store *store);
void px86_store_nontemporal(struct px86 *model, const struct px86_store *store);
/* Every line of the range; true if one of them had anything to flush. */
bool px86_flush(struct px86 *model, uint32_t thread, size_t offset, size_t length);
bool px86_clflush(struct px86 *model, size_t offset, size_t length);
/* True if something was pending. */
bool px86_fence(struct px86 *model, uint32_t thread);

/* True if the thread's next fence would raise a floor. */
bool px86_fence_matters(const struct px86 *model, uint32_t thread);

/* The lines with more than one legal state, in a stable order until the next event;
   their choices are computed. */
size_t px86_dirty(struct px86 *model, struct px86_line *const **lines);
/* Product of the lines' numbers of legal states. */
long double px86_legal(struct px86 *model);
/* Hash of the floor image; a line's part in it is px86_hash_line(). */
uint64_t px86_floor_hash(const struct px86 *model);
uint64_t px86_hash_line(uint32_t index, const void *content);
uint64_t px86_hash_image(const void *image, size_t size);

/* Aborts if the invariant does not hold. */
void px86_check(const struct px86 *model);

#endif
