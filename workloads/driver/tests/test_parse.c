// SPDX-License-Identifier: Apache-2.0
/* parse.c: what is taken, what is refused, and that a refusal writes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver.h"

#define UNTOUCHED UINT64_C(0xdeadbeef)

static void integers(void **state)
{
    (void)state;
    uint64_t value = UNTOUCHED;
    assert_true(nvd_parse_u64("0", 0, 9, &value));
    assert_int_equal(value, 0);
    assert_true(nvd_parse_u64("18446744073709551615", 0, UINT64_MAX, &value));
    assert_true(value == UINT64_MAX);
    assert_true(nvd_parse_u64("007", 7, 7, &value));
    assert_int_equal(value, 7);

    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "-1",
                                      "+1",
                                      "1x",
                                      "x",
                                      "0x1",
                                      "1.0",
                                      "18446744073709551616",
                                      "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        value = UNTOUCHED;
        assert_false(nvd_parse_u64(bad[i], 0, UINT64_MAX, &value));
        assert_true(value == UNTOUCHED);
    }
    assert_false(nvd_parse_u64("4", 5, 9, &value));
    assert_false(nvd_parse_u64("10", 5, 9, &value));
}

static void sizes(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"17", 17},
                {"64K", 65536},
                {"512M", UINT64_C(512) << 20},
                {"2g", UINT64_C(2) << 30},
                {"17179869183G", UINT64_C(17179869183) << 30}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(nvd_parse_size(good[i].text, &bytes));
        assert_true(bytes == good[i].bytes);
    }
    static const char *const bad[] = {"",    "K",  "1T",   "1KB",
                                      "1 K", "-1", "1.5M", "17179869184G"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bytes = UNTOUCHED;
        assert_false(nvd_parse_size(bad[i], &bytes));
        assert_true(bytes == UNTOUCHED);
    }
}

static void seconds(void **state)
{
    (void)state;
    double value = 0;
    assert_true(nvd_parse_seconds("2", &value));
    assert_true(value == 2.0);
    assert_true(nvd_parse_seconds("0.25", &value));
    assert_true(value == 0.25);
    assert_true(nvd_parse_seconds("1e-3", &value));
    assert_true(value == 1e-3);

    static const char *const bad[] = {"",    "-1", " 1",     "1s",   "nan", "inf",
                                      "0x8", "e",  "1e9999", "1..2", "--"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        value = -7;
        assert_false(nvd_parse_seconds(bad[i], &value));
        assert_true(value == -7);
    }
}

static void cpu_lists(void **state)
{
    (void)state;
    int cpus[4] = {0};
    assert_int_equal(nvd_parse_cpus("3", cpus, 4), 1);
    assert_int_equal(cpus[0], 3);
    assert_int_equal(nvd_parse_cpus("0,4-6", cpus, 4), 4);
    assert_int_equal(cpus[0], 0);
    assert_int_equal(cpus[1], 4);
    assert_int_equal(cpus[3], 6);
    assert_int_equal(nvd_parse_cpus("1,1", cpus, 4), 2);

    static const char *const bad[] = {"",    ",", "1,", ",1",  "2-1",     "1-",
                                      "0-4", "a", "-1", "1;2", "0,1-2-3", "99999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(nvd_parse_cpus(bad[i], cpus, 4), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(sizes),
        cmocka_unit_test(seconds),
        cmocka_unit_test(cpu_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
