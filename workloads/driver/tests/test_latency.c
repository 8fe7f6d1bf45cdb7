// SPDX-License-Identifier: Apache-2.0
/*
 * latency.c: the buckets tile the values, percentiles read from them agree
 * with exact ones to three digits, and the JSON says what was recorded.
 * clock.c: a tick lasts what the operating system says it lasts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "driver.h"
#include "latency.h"

static const struct nvd_clock no_clock;

static void buckets_tile_the_values(void **state)
{
    (void)state;
    assert_int_equal(nvd_latency_lowest(0), 0);
    for (size_t i = 1; i < NVD_LATENCY_BUCKETS; i++) {
        uint64_t lowest = nvd_latency_lowest(i);
        assert_true(lowest > nvd_latency_lowest(i - 1));
        assert_int_equal(nvd_latency_index(lowest), i);
        assert_int_equal(nvd_latency_index(lowest - 1), i - 1);
    }
    assert_int_equal(nvd_latency_index(NVD_LATENCY_LIMIT - 1), NVD_LATENCY_BUCKETS - 1);
    assert_int_equal(nvd_latency_index(UINT64_MAX), NVD_LATENCY_BUCKETS - 1);
}

static void buckets_keep_three_digits(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < NVD_LATENCY_BUCKETS; i++) {
        uint64_t lowest = nvd_latency_lowest(i);
        uint64_t width = nvd_latency_lowest(i + 1) - lowest;
        assert_true(width == 1 || width * 1024 <= lowest);
    }
}

static int ascending(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t percentile(const struct nvd_latency *latency, double share)
{
    uint64_t rank = (uint64_t)(share * (double)latency->samples), seen = 0;
    for (size_t i = 0; i < NVD_LATENCY_BUCKETS; i++) {
        seen += latency->counts[i];
        if (seen > rank)
            return nvd_latency_lowest(i);
    }
    return 0;
}

static void percentiles_agree_with_exact_ones(void **state)
{
    (void)state;
    enum { SAMPLES = 200000 };
    uint64_t *exact = malloc(SAMPLES * sizeof *exact);
    struct nvd_latency *halves[2] = {nvd_latency_new(&no_clock),
                                     nvd_latency_new(&no_clock)};
    struct nvd_random random;
    nvd_random_seed(&random, 11);
    for (size_t i = 0; i < SAMPLES; i++) {
        /* Spread over 30 doublings, as latencies with their tails are. */
        exact[i] = nvd_random_next(&random) >> (34 + nvd_random_below(&random, 30));
        nvd_latency_record(halves[i % 2], exact[i]);
    }
    nvd_latency_add(halves[0], halves[1]);
    qsort(exact, SAMPLES, sizeof *exact, ascending);
    assert_int_equal(halves[0]->samples, SAMPLES);
    assert_true(halves[0]->max_ns == exact[SAMPLES - 1]);
    static const double shares[] = {0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        uint64_t truth = exact[(size_t)(shares[i] * SAMPLES)];
        uint64_t found = percentile(halves[0], shares[i]);
        assert_true(found <= truth);
        assert_true((truth - found) * 1000 <= truth);
    }
    free(exact);
    free(halves[0]);
    free(halves[1]);
}

static void json_lists_the_buckets_in_use(void **state)
{
    (void)state;
    struct nvd_latency *latency = nvd_latency_new(&no_clock);
    nvd_latency_record(latency, 40);
    nvd_latency_record(latency, 40);
    nvd_latency_record(latency, 5001); /* buckets of 4 ns */
    struct json_object *document = nvd_latency_json(latency);
    assert_string_equal(json_object_to_json_string_ext(document, JSON_C_TO_STRING_PLAIN),
                        "{\"counts\":[[40,2],[5000,1]],\"max_ns\":5001,\"samples\":3}");
    json_object_put(document);
    free(latency);
}

static void ticks_become_nanoseconds(void **state)
{
    (void)state;
    struct nvd_clock clock;
    nvd_clock_start(&clock);
    nvd_clock_settle(&clock);
    /* A window in which we were not preempted between the paired readings. */
    double best = 1;
    for (int i = 0; i < 20 && best > 0.01; i++) {
        uint64_t ns = nvd_monotonic_ns(), ticks = nvd_clock_ticks(&clock);
        while (nvd_monotonic_ns() - ns < 2000000)
            ;
        double measured = (double)nvd_clock_ns(&clock, nvd_clock_ticks(&clock) - ticks);
        double truth = (double)(nvd_monotonic_ns() - ns);
        double error = measured > truth ? measured / truth - 1 : truth / measured - 1;
        best = error < best ? error : best;
    }
    assert_true(best <= 0.01);
    assert_true(nvd_clock_overhead_ns(&clock) < 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_tile_the_values),
        cmocka_unit_test(buckets_keep_three_digits),
        cmocka_unit_test(percentiles_agree_with_exact_ones),
        cmocka_unit_test(json_lists_the_buckets_in_use),
        cmocka_unit_test(ticks_become_nanoseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
