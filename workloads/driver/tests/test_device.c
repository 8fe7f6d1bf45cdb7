/* SPDX-License-Identifier: Apache-2.0 */
/* The device model against waits that were worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "device.h"

static const struct nvd_device_figures figures = {
    .name = "test",
    .fence_ns = 100,
    .line_ns = 10,
    .reflush_ns = 1000,
    .read_ns = 50,
    .read_buffered_ns = 20,
    .media_write_ns = 200,
    .unit_bytes = 256,
    .units = 2,
    .flush_evicts = 1,
};

static struct nvd_device *device;

static int fresh_device(void **state)
{
    (void)state;
    device = aligned_alloc(_Alignof(struct nvd_device), sizeof *device);
    assert_non_null(device);
    memset(device, 0, sizeof *device);
    return 0;
}

static int drop_device(void **state)
{
    (void)state;
    free(device);
    return 0;
}

static uint64_t at(uint64_t now, enum nvc_event event, uintptr_t address, size_t length)
{
    return nvd_device_follow(device, &figures, true, event, (const void *)address, length,
                             now);
}

static uint64_t flush(uintptr_t address)
{
    return at(0, NVC_EVENT_FLUSH, address, 8);
}

static uint64_t fence_at(uint64_t now)
{
    return at(now, NVC_EVENT_FENCE, 0, 0);
}

static void only_effective_fences_wait(void **state)
{
    (void)state;
    assert_int_equal(fence_at(0), 0);
    assert_int_equal(flush(0x1000), 0);
    assert_int_equal(fence_at(0), 100);
    assert_int_equal(fence_at(100), 0);
    assert_int_equal(at(0, NVC_EVENT_NT_STORE, 0x103c, 8), 0); /* two lines */
    assert_int_equal(fence_at(1000), 110);
    assert_int_equal(device->counts.delays, 2);
    assert_int_equal(device->counts.delayed_ns, 210);
}

static void a_reflush_waits_within_the_window_only(void **state)
{
    (void)state;
    flush(0x1000);
    assert_int_equal(fence_at(0), 100);
    flush(0x1000);
    assert_int_equal(fence_at(1000), 1100);
    for (uintptr_t i = 1; i <= NVD_REFLUSH_WINDOW; i++)
        flush(0x1000 + 64 * i);
    assert_int_equal(fence_at(2000), 100 + 3 * 10);
    flush(0x1000);
    assert_int_equal(fence_at(9000), 100);
    assert_int_equal(device->counts.reflushes, 1);
}

static void a_line_that_left_the_cache_is_read_again(void **state)
{
    (void)state;
    assert_int_equal(flush(0x1000), 0);  /* never seen: who knows where it was */
    assert_int_equal(flush(0x1000), 20); /* its unit is in the buffer */
    flush(0x2000);
    flush(0x3000);
    assert_int_equal(flush(0x1000), 50);                        /* and now it is not */
    assert_int_equal(at(0, NVC_EVENT_NT_STORE, 0x2000, 64), 0); /* nothing is read */
    assert_int_equal(device->counts.buffered_reads, 1);
    assert_int_equal(device->counts.media_reads, 1);
}

static void a_flush_that_keeps_the_line_costs_no_read(void **state)
{
    (void)state;
    struct nvd_device_figures keeping = figures;
    keeping.flush_evicts = 0;
    const void *line = (const void *)0x1000;
#define FOLLOW(event) nvd_device_follow(device, &keeping, true, event, line, 8, 0)
    assert_int_equal(FOLLOW(NVC_EVENT_FLUSH), 0);
    assert_int_equal(FOLLOW(NVC_EVENT_FLUSH), 0);
    assert_int_equal(FOLLOW(NVC_EVENT_NT_STORE), 0);
    assert_int_equal(FOLLOW(NVC_EVENT_FLUSH), 20);
    assert_int_equal(FOLLOW(NVC_EVENT_FLUSH), 0);
#undef FOLLOW
}

static void media_writes_are_absorbed_until_the_buffer_is_full(void **state)
{
    (void)state;
    /* Four lines of one unit are one media write. */
    assert_int_equal(at(0, NVC_EVENT_FLUSH, 0x1000, 256), 0);
    assert_int_equal(fence_at(0), 100 + 3 * 10);
    assert_int_equal(device->counts.media_writes, 1);
    /* Five more units at time 0: six are due, 1200 ns; the buffer holds two, 400. */
    for (uintptr_t i = 0; i < 5; i++)
        flush(0x10000 + 256 * i);
    assert_int_equal(fence_at(0), 100 + 4 * 10 + 800);
    /* When they are written, a unit is absorbed again. */
    flush(0x20000);
    assert_int_equal(fence_at(1200), 100);
    assert_int_equal(device->counts.media_writes, 7);
}

static void what_is_not_counted_still_waits(void **state)
{
    (void)state;
    const void *line = (const void *)0x1000;
    nvd_device_follow(device, &figures, false, NVC_EVENT_FLUSH, line, 8, 0);
    assert_int_equal(
        nvd_device_follow(device, &figures, false, NVC_EVENT_FENCE, NULL, 0, 0), 100);
    assert_int_equal(device->counts.delays, 0);
    assert_int_equal(device->counts.media_writes, 0);
}

#define REST                                                                             \
    ",line_ns=0,reflush_ns=700,read_ns=204,read_buffered_ns=88,media_write_ns=111,"      \
    "units=64,flush_evicts=1"

static void figures_are_parsed_whole_or_not_at_all(void **state)
{
    (void)state;
    struct nvd_device_figures parsed = {.name = ""};
    assert_null(nvd_device_parse("name=optane,fence_ns=5,unit_bytes=256" REST, &parsed));
    assert_string_equal(parsed.name, "optane");
    assert_int_equal(parsed.fence_ns, 5);
    assert_int_equal(parsed.reflush_ns, 700);
    assert_int_equal(parsed.unit_bytes, 256);
    assert_int_equal(parsed.units, 64);
    static const char *const bad[] = {
        "",
        "name=optane,fence_ns=5",                            /* figures are missing */
        "fence_ns=5,unit_bytes=256" REST,                    /* the name is */
        "name=x,fence_ns=5,fence_ns=5,unit_bytes=256" REST,  /* twice */
        "name=x,fence_ns=5,unit_bytes=192" REST,             /* no power of two */
        "name=x,fence_ns=5,unit_bytes=32" REST,              /* less than a line */
        "name=x,fence_ns=-5,unit_bytes=256" REST,            /* */
        "name=x,fence_ns=5,unit_bytes=256,colour=blue" REST, /* unknown */
        "name=,fence_ns=5,unit_bytes=256" REST,              /* */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_non_null(nvd_device_parse(bad[i], &parsed));
}

static void the_thread_really_waits(void **state)
{
    (void)state;
    struct nvd_device_figures slow = figures;
    slow.fence_ns = 3000000;
    nvd_device_start(&slow, false);
    nvd_device_observe(NULL, NVC_EVENT_FLUSH, (const void *)0x1000, 8);
    uint64_t before = nvd_monotonic_ns();
    nvd_device_observe(NULL, NVC_EVENT_FENCE, NULL, 0);
    /* The clock that waits was settled in 20 ms; it is off by 10^-5 of a part. */
    assert_true(nvd_monotonic_ns() - before >= 2990000);
}

int main(void)
{
#define DEVICE_TEST(test) cmocka_unit_test_setup_teardown(test, fresh_device, drop_device)
    const struct CMUnitTest tests[] = {
        DEVICE_TEST(only_effective_fences_wait),
        DEVICE_TEST(a_reflush_waits_within_the_window_only),
        DEVICE_TEST(a_line_that_left_the_cache_is_read_again),
        DEVICE_TEST(a_flush_that_keeps_the_line_costs_no_read),
        DEVICE_TEST(media_writes_are_absorbed_until_the_buffer_is_full),
        DEVICE_TEST(what_is_not_counted_still_waits),
        cmocka_unit_test(figures_are_parsed_whole_or_not_at_all),
        cmocka_unit_test(the_thread_really_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
