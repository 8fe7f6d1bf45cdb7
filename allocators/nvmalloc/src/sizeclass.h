/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sizeclass.h - which block sizes there are, and how slabs are cut into them.
 *
 * 16, 32, 48, 64, then eight classes a doubling up to 512 KiB, so internal
 * waste is at most 1/9 of the block from 64 B up (the worst case is a request
 * of one byte more than a class: (s/8 - 1) / (9/8 s) < 1/9).  Four a doubling,
 * jemalloc's spacing, would waste up to 1/5.  A class is a multiple of the
 * largest power of two <= 16 that divides every request it serves exactly, so
 * a request that is a multiple of 16 is served 16-aligned.
 *
 * A slab of class c is `units` whole units that hold `blocks` blocks of
 * `size` bytes from its first byte on; what is left at its end is < 1/32 of
 * the slab where some unit count <= 16 allows it.  One bitmap of 4096 bits
 * serves every class: blocks <= 4096.
 *
 * Larger requests are extents: whole units, waste <= 64 KiB / 576 KiB = 1/9.
 *
 * Marks of blocks up to NVM_LATE_MAX are applied late, when a lane settles
 * (lane.h); those of larger ones by the operation itself: their slabs have few
 * blocks and change hands often, for which all lanes must be settled.
 */
#ifndef NVM_SIZECLASS_H
#define NVM_SIZECLASS_H

#include <stddef.h>
#include <stdint.h>

#define NVM_CLASSES      108u /* 4 + 13 doublings * 8 */
#define NVM_SMALL_MAX    ((size_t)512 << 10)
#define NVM_LATE_MAX     ((size_t)2 << 10)
#define NVM_LATE_CLASSES 44u /* classes up to NVM_LATE_MAX */

struct nvm_class {
    uint64_t reciprocal; /* ceil(2^44 / size) */
    uint32_t size;       /* bytes of a block */
    uint32_t units;      /* units of a slab */
    uint32_t blocks;     /* blocks of a slab */
    uint32_t cache;      /* blocks that a thread cache holds at most */
    uint32_t words;      /* words of a slab's bitmap */
    uint32_t unused;
};
_Static_assert(sizeof(struct nvm_class) == 32, "indexed by a shift");

extern struct nvm_class nvm_classes[NVM_CLASSES];
/* Class of sizes up to NVM_LATE_MAX, by (size + 7) / 8. */
extern uint8_t nvm_class_of_small[NVM_LATE_MAX / 8 + 1];

/* Fills nvm_classes; idempotent and thread safe. */
void nvm_sizeclass_init(void);

/* Smallest class whose blocks hold size bytes; 1 <= size <= NVM_SMALL_MAX. */
static inline unsigned nvm_sizeclass_of(size_t size)
{
    if (size <= 64)
        return (unsigned)((size - 1) / 16);
    unsigned shift = 60u - (unsigned)__builtin_clzl(size - 1); /* log2(spacing) */
    return (unsigned)((size - 1) >> shift) + (shift - 3) * 8 - 4;
}

/* The same for 1 <= size <= NVM_LATE_MAX, in four instructions. */
static inline unsigned nvm_sizeclass_of_small(size_t size)
{
    return nvm_class_of_small[(size + 7) / 8];
}

/* Index of the block that holds byte `offset` of a slab.  Exact because
   offset < 2^20 and the reciprocal's error, < size <= 2^19, adds less than
   2^39 / 2^44 to the quotient. */
static inline uint32_t nvm_sizeclass_index(const struct nvm_class *klass, uint64_t offset)
{
    return (uint32_t)((offset * klass->reciprocal) >> 44);
}

/* Smallest class whose blocks hold size bytes and are multiples of alignment (a
   power of two) long, so that each begins at one; NVM_CLASSES: there is none. */
unsigned nvm_sizeclass_aligned(size_t size, size_t alignment);

#endif
