/* SPDX-License-Identifier: Apache-2.0 */
/* sizeclass.c - computes the class table; see sizeclass.h for the rules. */
#include "sizeclass.h"

#include <pthread.h>

#include "mark.h"

#define SLAB_MAX_UNITS  16u
#define SLAB_MAX_BLOCKS NVM_SLAB_BLOCKS
/* A thread's cache of one class holds about this much, within these bounds. */
#define CACHE_BYTES ((uint32_t)64 << 10)
#define CACHE_MAX   128u
#define CACHE_MIN   2u

struct nvm_class nvm_classes[NVM_CLASSES];
uint8_t nvm_class_of_small[NVM_LATE_MAX / 8 + 1];

static uint32_t class_size(unsigned index)
{
    if (index < 4)
        return 16 * (index + 1);
    unsigned doubling = (index - 4) / 8;
    unsigned step = (index - 4) % 8 + 1;
    return (64u << doubling) + step * (8u << doubling);
}

/* Fewest units whose tail waste is below 1/32, else those that waste least. */
static uint32_t slab_units(uint32_t size)
{
    uint32_t best = 0;
    uint64_t best_waste = 0;
    for (uint32_t units = 1; units <= SLAB_MAX_UNITS; units++) {
        uint64_t bytes = units * NVM_UNIT_BYTES;
        if (bytes < size)
            continue;
        uint64_t waste = bytes % size;
        if (waste * 32 < bytes)
            return units;
        if (best == 0 || waste * best < best_waste * units) {
            best = units;
            best_waste = waste;
        }
    }
    return best;
}

static void compute(void)
{
    for (unsigned i = 0; i < NVM_CLASSES; i++) {
        struct nvm_class *klass = &nvm_classes[i];
        klass->size = class_size(i);
        klass->units = slab_units(klass->size);
        uint64_t blocks = klass->units * NVM_UNIT_BYTES / klass->size;
        klass->blocks = blocks < SLAB_MAX_BLOCKS ? (uint32_t)blocks : SLAB_MAX_BLOCKS;
        klass->reciprocal = (((uint64_t)1 << 44) + klass->size - 1) / klass->size;
        klass->words = nvm_mark_words(klass->blocks);
        uint32_t cache = CACHE_BYTES / klass->size;
        cache = cache > CACHE_MAX ? CACHE_MAX : cache;
        klass->cache = cache < CACHE_MIN ? CACHE_MIN : cache;
    }
    for (size_t size = 8; size <= NVM_LATE_MAX; size += 8)
        nvm_class_of_small[size / 8] = (uint8_t)nvm_sizeclass_of(size);
}

void nvm_sizeclass_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, compute);
}

unsigned nvm_sizeclass_aligned(size_t size, size_t alignment)
{
    unsigned klass = size > NVM_SMALL_MAX ? NVM_CLASSES : nvm_sizeclass_of(size);
    while (klass < NVM_CLASSES && nvm_classes[klass].size % alignment != 0)
        klass++;
    return klass;
}
