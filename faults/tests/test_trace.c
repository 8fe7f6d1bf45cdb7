// SPDX-License-Identifier: Apache-2.0
/*
 * test_trace.c - what is written is read, and a damaged trace is refused, whatever byte
 * of it is damaged; scripts survive being printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "script.h"
#include "trace.h"

enum { size = 16384, slots = 3, inner = 2 };

static char path[64];

static struct nvl_trace_header header_of(void)
{
    struct nvl_trace_header header = {
        .lens = NVL_LENS_COMPILED, .size = size, .seed = 77};
    strcpy(header.adapter, "someone");
    strcpy(header.extra, "mode=1");
    strcpy(header.script, "a0:64 f0");
    return header;
}

static void write_one(const uint8_t *image)
{
    struct nvl_trace_header header = header_of();
    struct nvl_ledger *ledger = nvl_ledger_new(slots, inner, 8, 8192);
    ledger->slot[1] = (struct nvl_slot){.seq = 5,
                                        .full = true,
                                        .size = 100,
                                        .usable = 128,
                                        .offset = 4096,
                                        .payload_id = 2,
                                        .payload_seq = 4,
                                        .payload_to = 128};
    ledger->inflight[1].active = true;
    ledger->inflight[1].op =
        (struct nvl_op){.kind = NVL_MOVE, .thread = 1, .count = 2, .id = {1, 2}};
    struct nvl_trace_writer *writer = nvl_trace_create(path, &header, ledger, image);
    assert_non_null(writer);
    uint32_t module = nvl_trace_module(writer, "/lib/x.so");
    assert_int_equal(nvl_trace_module(writer, "/lib/x.so"), module);
    struct nvl_site site = {.count = 2, .frame = {{module, 0x123}, {module, 0x456}}};
    uint32_t number = nvl_trace_site(writer, &site);
    assert_int_equal(number, 1);
    assert_int_equal(nvl_trace_site(writer, &site), number);
    static const uint8_t data[16] = {1, 2,  3,  4,  5,  6,  7,  8,
                                     9, 10, 11, 12, 13, 14, 15, 16};
    const struct nvl_event events[] = {
        {.kind = NVL_EVENT_STORE,
         .site = number,
         .offset = 9000,
         .length = 16,
         .data = data},
        {.kind = NVL_EVENT_STORE_NT,
         .thread = 1,
         .offset = 64,
         .length = 8,
         .data = data},
        {.kind = NVL_EVENT_FLUSH, .site = number, .offset = 9000, .length = 16},
        {.kind = NVL_EVENT_FENCE, .thread = 1},
        {.kind = NVL_EVENT_MARK, .mark = {.kind = NVL_MARK_READY}},
        {.kind = NVL_EVENT_MARK,
         .mark = {.kind = NVL_MARK_BEGIN,
                  .op = {.kind = NVL_ALLOC, .count = 1, .id = {4}, .size = {300}}}},
        {.kind = NVL_EVENT_MARK,
         .mark = {.kind = NVL_MARK_ACK, .place = {{.offset = -1, .usable = 304}}}},
        {.kind = NVL_EVENT_MARK,
         .mark = {.kind = NVL_MARK_PERSISTED,
                  .id = 4,
                  .payload_from = 16,
                  .payload_to = 304}},
    };
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        nvl_trace_write(writer, &events[i]);
    assert_int_equal(nvl_trace_close(writer), 0);
    free(ledger);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    uint8_t image[size] = {0}, read[size];
    char error[200];
    image[5000] = 42;
    image[size - 1] = 43;
    write_one(image);
    struct nvl_trace *trace = nvl_trace_load(path, error, sizeof error);
    assert_non_null(trace);
    assert_string_equal(trace->header.adapter, "someone");
    assert_string_equal(trace->header.extra, "mode=1");
    assert_string_equal(trace->header.script, "a0:64 f0");
    assert_int_equal(trace->header.seed, 77);
    assert_int_equal(trace->ledger->slot[1].offset, 4096);
    assert_int_equal(trace->ledger->slot[1].payload_seq, 4);
    assert_true(trace->ledger->inflight[1].active);
    assert_int_equal(trace->ledger->inflight[1].op.id[1], 2);
    nvl_trace_image(trace, read);
    assert_memory_equal(read, image, size);
    assert_int_equal(trace->site_count, 2);
    assert_int_equal(trace->sites[1].frame[1].offset, 0x456);
    assert_string_equal(trace->modules[0], "/lib/x.so");
    assert_int_equal(trace->event_count, 8);
    assert_int_equal(trace->events[0].offset, 9000);
    assert_int_equal(trace->events[0].data[15], 16);
    assert_int_equal(trace->events[1].offset, 64);
    assert_int_equal(trace->events[1].thread, 1);
    assert_int_equal(trace->events[2].length, 16);
    assert_int_equal(trace->events[5].mark.op.size[0], 300);
    assert_int_equal(trace->events[6].mark.place[0].offset, -1);
    assert_int_equal(trace->events[7].mark.payload_from, 16);
    nvl_trace_free(trace);
}

static size_t slurp(uint8_t *bytes, size_t capacity)
{
    FILE *file = fopen(path, "rb");
    size_t length = fread(bytes, 1, capacity, file);
    fclose(file);
    return length;
}

static void spill(const uint8_t *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
}

/* Each byte changed, each length cut: refused with a sentence, or read; never a crash. */
static void damage_is_survived(void **state)
{
    (void)state;
    static uint8_t bytes[65536];
    char error[200];
    write_one(NULL);
    size_t length = slurp(bytes, sizeof bytes);
    unsigned refused = 0;
    assert_true(length > 0);
    if (length == 0) {
        return; /* not reached: tells the static analyser what the assertion says */
    }
    for (size_t i = 0; i < 2 * length; i++) {
        bool cut = i >= length;
        uint8_t kept = bytes[i % length];
        bytes[i % length] = cut ? kept : (uint8_t)(kept ^ 0xff);
        spill(bytes, cut ? i - length : length);
        bytes[i % length] = kept;
        struct nvl_trace *trace = nvl_trace_load(path, error, sizeof error);
        if (trace == NULL) {
            assert_true(strlen(error) > 10);
            refused++;
        }
        nvl_trace_free(trace);
    }
    assert_true(refused > length / 4);
}

static void scripts_survive_printing(void **state)
{
    (void)state;
    static const char text[] =
        "a0:64 c1:200 a1.1:16 t1/f0 r1:4096 m0>2 g0:1,1.0:2 o f1.1";
    struct nvl_script script = {0};
    char error[200], printed[200], small[8];
    assert_true(nvl_script_parse(&script, text, slots, inner, error, sizeof error));
    assert_int_equal(script.count, 9);
    assert_true(script.ops[1].container);
    assert_int_equal(script.ops[3].thread, 1);
    assert_true(nvl_script_print(&script, slots, inner, printed, sizeof printed));
    assert_string_equal(printed, text);
    assert_false(nvl_script_print(&script, slots, inner, small, sizeof small));
    nvl_script_clear(&script);
    static const char *const wrong[] = {"a3:64", "a0",     "a0:0",  "x0", "a0:64f1",
                                        "m0",    "a0.2:8", "t9/f0", "g"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(
            nvl_script_parse(&script, wrong[i], slots, inner, error, sizeof error));
        assert_non_null(strstr(error, "expected"));
        nvl_script_clear(&script);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(damage_is_survived),
        cmocka_unit_test(scripts_survive_printing),
    };
    snprintf(path, sizeof path, "/dev/shm/nvl-test-trace-%d", (int)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
