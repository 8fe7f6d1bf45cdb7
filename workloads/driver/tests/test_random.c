// SPDX-License-Identifier: Apache-2.0
/* random.c against the published vectors of its generators, and its ranges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver.h"

static void seeding_is_splitmix64(void **state)
{
    (void)state;
    struct nvd_random random;
    nvd_random_seed(&random, 0);
    assert_true(random.state[0] == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(random.state[1] == UINT64_C(0x6e789e6aa1b965f4));
    assert_true(random.state[2] == UINT64_C(0x06c45d188009454f));
    assert_true(random.state[3] == UINT64_C(0xf88bb8a8724c81ec));
}

static void drawing_is_xoshiro256starstar(void **state)
{
    (void)state;
    static const uint64_t expected[] = {11520, 0, 1509978240,
                                        UINT64_C(1215971899390074240)};
    struct nvd_random random = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_true(nvd_random_next(&random) == expected[i]);
}

static void a_seed_fixes_the_stream(void **state)
{
    (void)state;
    struct nvd_random one, same, other;
    nvd_random_seed(&one, 42);
    nvd_random_seed(&same, 42);
    nvd_random_seed(&other, 43);
    int differences = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t drawn = nvd_random_below(&one, 1000003);
        assert_true(drawn == nvd_random_below(&same, 1000003));
        differences += drawn != nvd_random_below(&other, 1000003);
    }
    assert_true(differences > 990);
}

/* Pearson's statistic over 10 cells; 27.9 is exceeded with probability 0.001. */
static void below_is_uniform(void **state)
{
    (void)state;
    enum { CELLS = 10, DRAWS = 100000 };
    struct nvd_random random;
    nvd_random_seed(&random, 7);
    unsigned cells[CELLS] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint64_t drawn = nvd_random_below(&random, CELLS);
        assert_true(drawn < CELLS);
        cells[drawn]++;
    }
    double statistic = 0, expected = (double)DRAWS / CELLS;
    for (int i = 0; i < CELLS; i++)
        statistic += pow(cells[i] - expected, 2) / expected;
    assert_true(statistic < 27.9);
}

static void below_at_its_ends(void **state)
{
    (void)state;
    struct nvd_random random;
    nvd_random_seed(&random, 1);
    for (int i = 0; i < 100; i++) {
        assert_true(nvd_random_below(&random, 1) == 0);
        assert_true(nvd_random_below(&random, UINT64_MAX) < UINT64_MAX);
        /* Rejects half of what it draws. */
        assert_true(nvd_random_below(&random, (UINT64_C(1) << 63) + 1) <= UINT64_C(1)
                                                                              << 63);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeding_is_splitmix64),
        cmocka_unit_test(drawing_is_xoshiro256starstar),
        cmocka_unit_test(a_seed_fixes_the_stream),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(below_at_its_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
