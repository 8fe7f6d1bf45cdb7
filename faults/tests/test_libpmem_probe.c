/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_libpmem_probe.c - the probe against the instructions that really run.
 *
 *   LD_PRELOAD=libpmem-probe.so test_libpmem_probe PMDK-ADAPTER.so
 *
 * Each operation runs twice from the same start: here, where the probe reports its
 * events, and in a process of its own without the probe, single-stepped.  Flushed lines,
 * fences and lines written non-temporally must be the same.  So the model of the copy
 * functions is held to libpmem itself, whichever version and instruction set is there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <cpuid.h>
#include <libpmem.h>

#include "libpmem_probe.h"
#include "stepped.h"

#define LINE 64u

/* An allocation and its free (size), or a libpmem copy (size, offset, flags). */
struct operation {
    char kind; /* 'a', or 'c' memcpy, 'm' memmove, 's' memset */
    size_t size;
    size_t offset;
    unsigned flags;
};

static char *self;
static const struct nvc_adapter *adapter;
static const char *adapter_path;

static const struct nvc_adapter *load(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle != NULL ? dlsym(handle, NVC_ADAPTER_SYMBOL) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    nvc_adapter_get_fn *get;
    memcpy(&get, &symbol, sizeof get);
    return get();
}

/* --- one operation, prepared and done --------------------------------------- */

struct stage {
    struct operation operation;
    char path[64];
    struct nvc_heap *heap;
    unsigned char *slot;
    unsigned char *target;
    unsigned char source[4096];
};

static void prepare(struct stage *stage, struct operation operation)
{
    enum { WARM = 64 };
    memset(stage, 0, sizeof *stage);
    stage->operation = operation;
    if (operation.kind != 'a') {
        stage->target = aligned_alloc(4096, 8192);
        memset(stage->target, 1, 8192);
        /* Two of them, so that the symbols are bound and libpmem is warm. */
        pmem_memcpy(stage->target, stage->source, 1, 0);
        pmem_memmove(stage->target, stage->source, 1, 0);
        pmem_memset(stage->target, 0, 1, 0);
        return;
    }
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir;
    snprintf(stage->path, sizeof stage->path, "%s/probe-%ld", folder, (long)getpid());
    struct nvc_options options = {.size = 32 << 20, .slots = WARM, .extra = ""};
    if (adapter->create(stage->path, &options, &stage->heap) != 0) {
        fprintf(stderr, "create: %s\n", adapter->last_error());
        exit(1);
    }
    unlink(stage->path); /* the mapping holds it: nothing is left behind by a kill */
    size_t count;
    stage->slot = adapter->slots(stage->heap, &count);
    for (size_t i = 0; i < WARM; i++) {
        adapter->alloc_to(stage->heap, stage->slot + i * adapter->slot_size,
                          operation.size);
    }
    for (size_t i = 0; i < WARM; i++) {
        adapter->free_from(stage->heap, stage->slot + i * adapter->slot_size);
    }
}

static void perform(struct stage *stage)
{
    struct operation operation = stage->operation;
    unsigned char *target = stage->target + operation.offset;
    switch (operation.kind) {
    case 'a':
        adapter->alloc_to(stage->heap, stage->slot, operation.size);
        adapter->free_from(stage->heap, stage->slot);
        break;
    case 'c':
        pmem_memcpy(target, stage->source, operation.size, operation.flags);
        break;
    case 'm':
        pmem_memmove(target, stage->source, operation.size, operation.flags);
        break;
    default:
        pmem_memset(target, 7, operation.size, operation.flags);
        break;
    }
}

static void clean_up(struct stage *stage)
{
    if (stage->heap != NULL) {
        adapter->close(stage->heap);
    }
    free(stage->target);
}

/* --- the two ways to count --------------------------------------------------- */

static void count_event(void *context, enum nvc_event event, const void *address,
                        size_t length)
{
    struct stepped_counts *counts = context;
    uintptr_t first = (uintptr_t)address / LINE;
    switch (event) {
    case NVC_EVENT_FLUSH:
        counts->flushes += ((uintptr_t)address + length - 1) / LINE - first + 1;
        break;
    case NVC_EVENT_FENCE:
        counts->fences++;
        break;
    case NVC_EVENT_NT_STORE:
        counts->nt_bytes += length;
        break;
    }
}

static struct stepped_counts probed(struct operation operation)
{
    static struct stage stage;
    struct stepped_counts counts = {0};
    prepare(&stage, operation);
    assert_int_equal(adapter->observe(count_event, &counts), 0);
    perform(&stage);
    assert_int_equal(adapter->observe(NULL, NULL), 0);
    struct stepped_counts kept = counts;
    perform(&stage);
    assert_memory_equal(&kept, &counts, sizeof counts); /* nobody listens any more */
    clean_up(&stage);
    return counts;
}

static struct stepped_counts stepped(struct operation operation)
{
    char kind[2] = {operation.kind, '\0'};
    char size[24], offset[24], flags[24];
    snprintf(size, sizeof size, "%zu", operation.size);
    snprintf(offset, sizeof offset, "%zu", operation.offset);
    snprintf(flags, sizeof flags, "%u", operation.flags);
    char *argv[] = {self, (char *)adapter_path, kind, size, offset, flags, NULL};
    static char *environment[1024];
    size_t kept = 0;
    for (char **variable = environ; *variable != NULL && kept < 1023; variable++) {
        /* Without the probe. */
        if (strncmp(*variable, "LD_PRELOAD=", 11) != 0) {
            environment[kept++] = *variable;
        }
    }
    environment[kept] = NULL;
    struct stepped_counts counts;
    int error = stepped_run(argv, environment, &counts);
    if (error == EPERM) {
        print_message("tracing a child is not allowed here\n");
        skip();
    }
    assert_int_equal(error, 0);
    return counts;
}

/* With clflush alone a drain is no instruction: the probe's header says so. */
static bool drains_are_fences(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
           (ebx & (bit_CLFLUSHOPT | bit_CLWB)) != 0;
}

static void expect_equal(struct operation operation)
{
    if (!drains_are_fences()) {
        print_message("this processor has clflush alone: nothing to compare\n");
        skip();
    }
    struct stepped_counts seen = probed(operation);
    struct stepped_counts truth = stepped(operation);
    if (seen.flushes != truth.flushes || seen.fences != truth.fences ||
        seen.nt_bytes != truth.nt_bytes) {
        fail_msg("operation %c, %zu bytes at %zu, flags %#x: the probe saw %lu flushes, "
                 "%lu fences, %lu bytes non-temporal; %lu, %lu, %lu ran",
                 operation.kind, operation.size, operation.offset, operation.flags,
                 seen.flushes, seen.fences, seen.nt_bytes, truth.flushes, truth.fences,
                 truth.nt_bytes);
    }
}

/* --- tests ------------------------------------------------------------------- */

static void an_allocation_costs_what_the_probe_says(void **state)
{
    (void)state;
    const size_t sizes[] = {64, 1000, 20000, 600000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct operation operation = {.kind = 'a', .size = sizes[i]};
        assert_true(probed(operation).fences > 0);
        expect_equal(operation);
    }
}

static void copies_go_the_way_the_probe_says(void **state)
{
    (void)state;
    const char kinds[] = {'c', 'm', 's'};
    const size_t lengths[] = {1, 8, 63, 64, 65, 128, 255, 256, 320, 400, 512};
    const size_t offsets[] = {0, 8};
    for (size_t kind = 0; kind < sizeof kinds; kind++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            for (size_t j = 0; j < sizeof offsets / sizeof *offsets; j++) {
                expect_equal((struct operation){kinds[kind], lengths[i], offsets[j], 0});
            }
        }
    }
}

static void flags_choose_the_way(void **state)
{
    (void)state;
    const unsigned flags[] = {
        PMEM_F_MEM_NODRAIN,
        PMEM_F_MEM_NOFLUSH,
        PMEM_F_MEM_NONTEMPORAL,
        PMEM_F_MEM_TEMPORAL,
        PMEM_F_MEM_WC | PMEM_F_MEM_NODRAIN,
        PMEM_F_MEM_WB | PMEM_F_MEM_NODRAIN,
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        expect_equal((struct operation){'c', 64, 0, flags[i]});
        expect_equal((struct operation){'m', 512, 0, flags[i]});
        expect_equal((struct operation){'s', 200, 16, flags[i]});
    }
}

static void parts_of_a_line_go_the_way_the_probe_says(void **state)
{
    (void)state;
    const size_t lengths[] = {4, 8, 12, 16, 24, 32, 48, 72, 80, 96, 100};
    const size_t offsets[] = {0, 8, 60};
    const char kinds[] = {'m', 's'};
    for (size_t kind = 0; kind < sizeof kinds; kind++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            for (size_t j = 0; j < sizeof offsets / sizeof *offsets; j++) {
                expect_equal((struct operation){kinds[kind], lengths[i], offsets[j],
                                                PMEM_F_MEM_NONTEMPORAL});
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 6) {
        fprintf(stderr, "usage: %s ADAPTER.so [KIND SIZE OFFSET FLAGS]\n", argv[0]);
        return 2;
    }
    self = argv[0];
    adapter_path = argv[1];
    adapter = load(adapter_path);
    if (argc == 6) {
        static struct stage stage;
        struct operation operation = {argv[2][0], strtoull(argv[3], NULL, 10),
                                      strtoull(argv[4], NULL, 10),
                                      (unsigned)strtoul(argv[5], NULL, 10)};
        prepare(&stage, operation);
        STEPPED_MARK();
        perform(&stage);
        STEPPED_MARK();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allocation_costs_what_the_probe_says),
        cmocka_unit_test(copies_go_the_way_the_probe_says),
        cmocka_unit_test(flags_choose_the_way),
        cmocka_unit_test(parts_of_a_line_go_the_way_the_probe_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
