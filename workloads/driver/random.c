// SPDX-License-Identifier: Apache-2.0
/*
 * random.c - the driver's only source of randomness.
 *
 * xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", ACM TOMS 47(4), 2021), its state filled by splitmix64 (Steele,
 * Lea and Flood, OOPSLA 2014) as its authors advise, so that neighbouring
 * seeds give unrelated streams and no seed gives the forbidden all-zero state.
 */
#include "driver.h"

static uint64_t rotate_left(uint64_t value, unsigned by)
{
    return (value << by) | (value >> (64 - by));
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void nvd_random_seed(struct nvd_random *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        random->state[i] = splitmix64(&seed);
}

uint64_t nvd_random_next(struct nvd_random *random)
{
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* Lemire's multiplication ("Fast random integer generation in an interval",
   ACM TOMACS 29(1), 2019): the rejection makes it exactly uniform, and the
   division is reached in a share of bound / 2^64 of the calls only. */
uint64_t nvd_random_below(struct nvd_random *random, uint64_t bound)
{
    unsigned __int128 product = (unsigned __int128)nvd_random_next(random) * bound;
    uint64_t low = (uint64_t)product;
    if (low < bound) {
        uint64_t threshold = -bound % bound;
        while (low < threshold) {
            product = (unsigned __int128)nvd_random_next(random) * bound;
            low = (uint64_t)product;
        }
    }
    return (uint64_t)(product >> 64);
}
