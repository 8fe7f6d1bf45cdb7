// SPDX-License-Identifier: Apache-2.0
/* history_plan.c: a function of the seed, within its bounds, of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "history_plan.h"

static void a_seed_fixes_the_plan(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct nvd_generation one = nvd_history_plan(seed, 1, 4);
        struct nvd_generation same = nvd_history_plan(seed, 1, 4);
        struct nvd_generation next = nvd_history_plan(seed, 2, 4);
        assert_int_equal(one.seed, same.seed);
        assert_int_equal(one.event, same.event);
        assert_int_equal(one.threads, same.threads);
        assert_true(one.delay == same.delay);
        assert_int_not_equal(one.seed, next.seed);
    }
}

static void every_kind_occurs_within_its_bounds(void **state)
{
    (void)state;
    unsigned kinds[3] = {0}, threads[5] = {0}, recovery[NVD_RECOVERY_KILLS_MAX + 1] = {0};
    for (uint64_t seed = 0; seed < 1000; seed++) {
        struct nvd_generation plan = nvd_history_plan(seed, (uint32_t)(seed % 5), 4);
        assert_in_range(plan.kill, NVD_KILL_INSTANT, NVD_KILL_NONE);
        assert_in_range(plan.threads, 1, 4);
        assert_true(plan.delay >= 0 && plan.delay < 0.040);
        assert_true(plan.event >= 1 && plan.ops >= 1);
        assert_in_range(plan.recovery_kills, 0, NVD_RECOVERY_KILLS_MAX);
        for (uint32_t i = 0; i < plan.recovery_kills; i++)
            assert_true(plan.recovery[i].event >= 1 && plan.recovery[i].delay < 0.005);
        kinds[plan.kill]++;
        threads[plan.threads]++;
        recovery[plan.recovery_kills]++;
    }
    assert_in_range(kinds[NVD_KILL_EVENT], 400, 600);
    assert_in_range(kinds[NVD_KILL_INSTANT], 330, 550);
    assert_true(kinds[NVD_KILL_NONE] > 20);
    for (int i = 1; i <= 4; i++)
        assert_true(threads[i] > 150);
    assert_true(recovery[0] > 500 && recovery[1] > 80 && recovery[2] > 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_fixes_the_plan),
        cmocka_unit_test(every_kind_occurs_within_its_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
