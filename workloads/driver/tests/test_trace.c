// SPDX-License-Identifier: Apache-2.0
/*
 * Traces: what the recorder's events become, which files are refused, and that a replay
 * does what the program did, by one thread and by several, on the fake adapter
 * ($NVDRIVE_FAKES).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "driver.h"
#include "trace.h"

static char directory[] = P_tmpdir "/nvdrive-trace-XXXXXX";
static char raw[64], path[64], heap[64];

static void write_raw(const struct nvd_raw_event *events, size_t count)
{
    const struct nvd_raw_head head = {NVD_RAW_MAGIC, 1};
    FILE *file = fopen(raw, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&head, sizeof head, 1, file), 1);
    assert_int_equal(fwrite(events, sizeof *events, count, file), count);
    fclose(file);
}

static struct nvd_trace_head convert(const struct nvd_raw_event *events, size_t count)
{
    struct nvd_trace_head head;
    write_raw(events, count);
    const char *wrong = nvd_trace_convert(raw, path, "a program", &head);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    return head;
}

#define CONVERT(events) convert(events, sizeof(events) / sizeof((events)[0]))

static void expect_op(const struct nvd_trace *trace, size_t at, enum nvd_op_kind kind,
                      uint32_t slot, uint32_t size)
{
    assert_true(at < trace->count);
    assert_int_equal(trace->ops[at].kind, kind);
    assert_int_equal(trace->ops[at].slot, slot);
    if (kind != NVD_OP_FREE)
        assert_int_equal(trace->ops[at].size, size);
}

static void addresses_become_slots(void **state)
{
    (void)state;
    static const struct nvd_raw_event events[] = {
        {0x1000, 0, 100, 0, NVD_RAW_ALLOC},
        {0x2000, 0, 3, 0, NVD_RAW_ALLOC}, /* raised to 8 when it is read */
        {0x9000, 0, 0, 0, NVD_RAW_FREE},  /* from before the recording */
        {0x1000, 0, 0, 0, NVD_RAW_FREE},
        {0x1000, 0, 50, 1, NVD_RAW_ALLOC}, /* the address again, the slot again */
        {0x2000, 0x2000, 7000, 1, NVD_RAW_REALLOC}, /* in place: another slot */
        {0x3000, 0x8000, 20, 0, NVD_RAW_REALLOC},   /* of a block not seen: an alloc */
        {0x1000, 0, 60, 0, NVD_RAW_ALLOC},          /* its free was missed */
        {0x2000, 0, 0, 0, NVD_RAW_FREE},
    };
    struct nvd_trace_head head = CONVERT(events);
    assert_int_equal(head.allocs, 5);
    assert_int_equal(head.frees, 3);
    assert_int_equal(head.reallocs, 1);
    assert_int_equal(head.dropped, 2);
    assert_int_equal(head.threads, 2);
    assert_int_equal(head.slots, 3);
    assert_int_equal(head.peak_bytes, 50 + 7000 + 20 + 60 - 50);

    struct nvd_trace trace;
    assert_null(nvd_trace_read(path, &trace));
    assert_string_equal(trace.head.program, "a program");
    assert_int_equal(trace.count, 10);
    expect_op(&trace, 0, NVD_OP_ALLOC, 0, 100);
    expect_op(&trace, 1, NVD_OP_ALLOC, 1, 8);
    expect_op(&trace, 2, NVD_OP_FREE, 0, 0);
    expect_op(&trace, 3, NVD_OP_ALLOC, 0, 50);
    expect_op(&trace, 4, NVD_OP_MOVE, 2, 7000);
    expect_op(&trace, 5, NVD_OP_FREE, 1, 0);
    expect_op(&trace, 6, NVD_OP_ALLOC, 1, 20);
    expect_op(&trace, 7, NVD_OP_FREE, 0, 0);
    expect_op(&trace, 8, NVD_OP_ALLOC, 0, 60);
    expect_op(&trace, 9, NVD_OP_FREE, 2, 0);
    static const uint16_t threads[] = {0, 0, 0, 1, 1, 1, 0, 0, 0, 0};
    assert_memory_equal(trace.threads, threads, sizeof threads);
    nvd_trace_free(&trace);
}

/* A model of the books: the converter's hash table against an array, over many blocks
   at clashing addresses. */
static void many_blocks_come_and_go(void **state)
{
    (void)state;
    enum { BLOCKS = 3000, EVENTS = 40000 };
    static struct nvd_raw_event events[EVENTS];
    static bool live[BLOCKS];
    struct nvd_random random;
    nvd_random_seed(&random, 7);
    size_t count = 0, most = 0;
    for (size_t i = 0; i < EVENTS; i++) {
        size_t block = nvd_random_below(&random, BLOCKS);
        events[i] = (struct nvd_raw_event){
            .address = 0x10000 + block * 0x1000,
            .size = 1 + block,
            .kind = live[block] ? NVD_RAW_FREE : NVD_RAW_ALLOC,
        };
        live[block] = !live[block];
        count += live[block] ? 1 : (size_t)-1;
        most = count > most ? count : most;
    }
    struct nvd_trace_head head = CONVERT(events);
    assert_int_equal(head.dropped, 0);
    assert_int_equal(head.slots, most);
    assert_int_equal(head.allocs - head.frees, count);
    struct nvd_trace trace;
    assert_null(nvd_trace_read(path, &trace));
    assert_int_equal(trace.count, EVENTS);
    static size_t owner[BLOCKS]; /* by slot: block + 1 */
    for (size_t i = 0; i < EVENTS; i++) {
        size_t block = (size_t)(events[i].address - 0x10000) / 0x1000;
        size_t *of = &owner[trace.ops[i].slot];
        assert_int_equal(*of, events[i].kind == NVD_RAW_FREE ? block + 1 : 0);
        *of = events[i].kind == NVD_RAW_FREE ? 0 : block + 1;
    }
    nvd_trace_free(&trace);
}

static void damaged_traces_are_refused(void **state)
{
    (void)state;
    static const struct nvd_raw_event events[] = {
        {0x1000, 0, 300, 0, NVD_RAW_ALLOC},
        {0x2000, 0, 300, 0, NVD_RAW_ALLOC},
        {0x2000, 0x1000, 300, 0, NVD_RAW_REALLOC},
        {0x2000, 0, 0, 0, NVD_RAW_FREE},
    };
    CONVERT(events);
    static char good[4096], bytes[4096];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(good, 1, sizeof good, file);
    fclose(file);
    struct nvd_trace trace;
    unsigned refused = 0;
    for (size_t at = 0; at < length; at++) {
        memcpy(bytes, good, length);
        bytes[at] = (char)(bytes[at] ^ 1 << at % 8);
        file = fopen(path, "wb");
        assert_int_equal(fwrite(bytes, 1, length, file), length);
        fclose(file);
        const char *wrong = nvd_trace_read(path, &trace);
        refused += wrong != NULL;
        if (wrong == NULL)
            nvd_trace_free(&trace);
    }
    /* A flip in the program's name, a size or a figure of the head that nobody relies on
       passes; none may do harm, which the sanitizers see. */
    assert_true(refused > 50);
    for (size_t cut = 0; cut < length; cut += 3) {
        file = fopen(path, "wb");
        assert_int_equal(fwrite(good, 1, cut, file), cut);
        fclose(file);
        assert_non_null(nvd_trace_read(path, &trace));
    }
    assert_non_null(nvd_trace_convert(path, raw, "", &(struct nvd_trace_head){0}));
}

/* The driver's last line; the code in *code. */
static struct json_object *replay(const char *threads, int *code)
{
    char command[1024], line[1 << 16] = "", last[1 << 16] = "";
    snprintf(
        command, sizeof command,
        "'%s' bench --adapter '%s/fake_heap.so' --heap '%s' --workload replay --input "
        "'%s' --threads %s --warmup 0.01 --seconds 0.05 --latency-seconds 0.01 2>&1",
        getenv("NVDRIVE"), getenv("NVDRIVE_FAKES"), heap, path, threads);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    while (fgets(line, sizeof line, output) != NULL)
        memcpy(last, line, sizeof last);
    int status = pclose(output);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    struct json_object *document = json_tokener_parse(last);
    if (document == NULL)
        fail_msg("the driver said '%s'", last);
    return document;
}

static uint64_t number(struct json_object *of, const char *key)
{
    return json_object_get_uint64(json_object_object_get(of, key));
}

/* Blocks of two threads that free each other's; the trace ends with some alive. */
static void make_busy_trace(void)
{
    enum { EVENTS = 700, BLOCKS = 60 };
    static struct nvd_raw_event events[EVENTS];
    static bool live[BLOCKS];
    struct nvd_random random;
    memset(live, 0, sizeof live);
    nvd_random_seed(&random, 11);
    for (size_t i = 0; i < EVENTS; i++) {
        size_t block = nvd_random_below(&random, BLOCKS);
        uint64_t address = 0x1000 * (block + 1);
        bool moves = live[block] && nvd_random_below(&random, 4) == 0;
        events[i] = (struct nvd_raw_event){
            .address = address,
            .old = moves ? address : 0,
            .size = 1 + nvd_random_below(&random, 2000),
            .thread = (uint32_t)nvd_random_below(&random, 3),
            .kind = moves         ? NVD_RAW_REALLOC
                    : live[block] ? NVD_RAW_FREE
                                  : NVD_RAW_ALLOC,
        };
        live[block] = moves || !live[block];
    }
    struct nvd_trace_head head = CONVERT(events);
    assert_int_equal(head.threads, 3);
    assert_true(head.reallocs > 50);
}

static void replays_are_whole_passes(void **state)
{
    (void)state;
    static const char *const threads[] = {"1", "2", "3"};
    make_busy_trace();
    struct nvd_trace trace;
    assert_null(nvd_trace_read(path, &trace));
    uint64_t allocs = trace.head.allocs + trace.head.reallocs;
    nvd_trace_free(&trace);
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        int code;
        struct json_object *result = replay(threads[t], &code);
        if (code != NVD_OK)
            fail_msg("%s", json_object_to_json_string(result));
        /* Every block that was allocated was freed, in whole passes. */
        assert_true(number(result, "allocs") == number(result, "frees"));
        assert_true(number(result, "allocs") > 0);
        assert_int_equal(number(result, "allocs") % allocs, 0);
        assert_int_equal(number(result, "requested_bytes"), 0);
        assert_int_equal(number(result, "live_bytes"), 0);
        json_object_put(result);
    }
}

static int make_directory(void **state)
{
    (void)state;
    if (getenv("NVDRIVE") == NULL || getenv("NVDRIVE_FAKES") == NULL) {
        fputs("NVDRIVE and NVDRIVE_FAKES must name the driver and the fakes\n", stderr);
        return -1;
    }
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(raw, sizeof raw, "%s/raw", directory);
    snprintf(path, sizeof path, "%s/trace", directory);
    snprintf(heap, sizeof heap, "%s/heap", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(raw);
    unlink(path);
    unlink(heap);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_become_slots),
        cmocka_unit_test(many_blocks_come_and_go),
        cmocka_unit_test(damaged_traces_are_refused),
        cmocka_unit_test(replays_are_whole_passes),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
