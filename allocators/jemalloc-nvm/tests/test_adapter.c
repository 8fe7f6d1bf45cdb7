/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter.c - the adapter as the driver sees it, loaded with dlopen(); so jemalloc
 * is not this process's malloc, and threads are bound to arenas unless told otherwise.
 *
 *   test_adapter ADAPTER.so
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "adapter.h"

#define BYTES ((size_t)64 << 20)
#define SLOTS ((size_t)1 << 17)

static const struct nvc_adapter *adapter;
static char folder[256];
static char paths[2][300];

static int enter_folder(void **state)
{
    (void)state;
    const char *where = getenv("NVC_TEST_DIR");
    if (where == NULL)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir;
    snprintf(folder, sizeof folder, "%s/jemalloc-nvm-XXXXXX", where);
    if (mkdtemp(folder) == NULL)
        return -1;
    for (int i = 0; i < 2; i++)
        snprintf(paths[i], sizeof paths[i], "%s/heap%d", folder, i);
    return 0;
}

static int leave_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

struct heap {
    const char *path;
    struct nvc_heap *heap;
    void **table;
};

static struct heap opened(int which, const char *extra)
{
    struct heap made = {.path = paths[which]};
    struct nvc_options options = {.size = BYTES, .slots = SLOTS, .extra = extra};
    if (adapter->create(made.path, &options, &made.heap) != 0)
        fail_msg("create with '%s': %s", extra, adapter->last_error());
    size_t slots;
    made.table = adapter->slots(made.heap, &slots);
    assert_int_equal(slots, SLOTS);
    return made;
}

static void closed(struct heap *heap)
{
    if (adapter->check(heap->heap) != 0)
        fail_msg("%s", adapter->last_error());
    assert_int_equal(adapter->close(heap->heap), 0);
    assert_int_equal(unlink(heap->path), 0);
}

static bool inside(const struct heap *heap, const void *address, size_t size)
{
    struct nvc_block range = adapter->range(heap->heap);
    uintptr_t offset = (uintptr_t)address - (uintptr_t)range.address;
    return offset < range.usable && size <= range.usable - offset;
}

/* "RssAnon" or "RssShmem" of this process, in bytes. */
static size_t resident(const char *key)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[128];
    size_t kilobytes = 0;
    while (fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            kilobytes = strtoul(line + strlen(key) + 1, NULL, 10);
    fclose(status);
    return kilobytes * 1024;
}

/* Fills from slot 0 with blocks of `size`, touching each byte; returns how many. */
static size_t fill(struct heap *heap, size_t size)
{
    size_t count = 0;
    int error = 0;
    while (count < SLOTS && error == 0) {
        error = adapter->alloc_to(heap->heap, heap->table + count, size);
        if (error == 0) {
            struct nvc_block block = adapter->read(heap->heap, heap->table + count);
            assert_true(inside(heap, block.address, block.usable));
            memset(block.address, (int)(count % 251), block.usable);
            count++;
        }
    }
    assert_int_equal(error, ENOMEM);
    assert_true(strlen(adapter->last_error()) > 0);
    return count;
}

static void drain(struct heap *heap, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(adapter->free_from(heap->heap, heap->table + i), 0);
}

static const char *const choices[] = {
    "metadata=dram", "metadata=nvm", "metadata=dram,caches=own",
    "metadata=nvm,caches=own,arenas=1", "metadata=dram,prefault=1"};
enum { CHOICES = sizeof choices / sizeof *choices };

static void a_full_heap_says_so_and_takes_no_dram(void **state)
{
    (void)state;
    for (int i = 0; i < CHOICES; i++) {
        struct heap heap = opened(0, choices[i]);
        assert_int_equal(adapter->thread_enter(heap.heap), 0);
        size_t anonymous = resident("RssAnon");
        size_t count = fill(&heap, 4000); /* blocks of 4096 */
        if (count * 4096 < BYTES / 100 * 90)
            fail_msg("%s: full with %zu blocks of 4 KiB", choices[i], count);
        /* Headers of extents and of vmem's segments, no blocks. */
        size_t grown = resident("RssAnon") - anonymous;
        if (grown > BYTES / 8)
            fail_msg("%s: %zu bytes of DRAM for %zu of NVM", choices[i], grown, BYTES);
        assert_true(resident("RssShmem") + resident("RssFile") >= count * 4096);
        adapter->thread_leave(heap.heap);
        closed(&heap);
    }
}

static void a_drained_heap_serves_large_blocks(void **state)
{
    (void)state;
    for (int i = 0; i < CHOICES; i++) {
        struct heap heap = opened(0, choices[i]);
        assert_int_equal(adapter->thread_enter(heap.heap), 0);
        for (int round = 0; round < 3; round++) {
            drain(&heap, fill(&heap, round == 1 ? 700 : 70000));
            int error = adapter->alloc_to(heap.heap, heap.table, BYTES / 2);
            if (error != 0)
                fail_msg("%s, round %d: %s", choices[i], round, adapter->last_error());
            assert_int_equal(adapter->free_from(heap.heap, heap.table), 0);
        }
        adapter->thread_leave(heap.heap);
        closed(&heap);
    }
}

/* A thread's cache never carries a block from one heap into the other. */
static void heaps_do_not_mix(void **state)
{
    (void)state;
    for (int i = 0; i < CHOICES; i++) {
        struct heap heaps[2] = {opened(0, choices[i]), opened(1, choices[i])};
        assert_int_equal(adapter->thread_enter(heaps[0].heap), 0);
        assert_int_equal(adapter->thread_enter(heaps[1].heap), 0);
        for (size_t step = 0; step < 4000; step++) {
            struct heap *heap = &heaps[step / 7 % 2];
            void **slot = heap->table + step % 50;
            if (*slot != NULL)
                assert_int_equal(adapter->free_from(heap->heap, slot), 0);
            assert_int_equal(adapter->alloc_to(heap->heap, slot, 1 + step % 3000), 0);
            assert_true(inside(heap, *slot, adapter->read(heap->heap, slot).usable));
        }
        adapter->thread_leave(heaps[0].heap);
        assert_int_equal(adapter->alloc_to(heaps[1].heap, heaps[1].table + 60, 100), 0);
        assert_true(inside(&heaps[1], heaps[1].table[60], 100));
        closed(&heaps[0]);
        closed(&heaps[1]); /* without leaving: the caller's membership ends with it */
    }
}

static void refused(const char *path, size_t size, size_t slots, const char *extra,
                    int expected)
{
    struct nvc_options options = {.size = size, .slots = slots, .extra = extra};
    struct nvc_heap *heap = NULL;
    int error = adapter->create(path, &options, &heap);
    if (error != expected)
        fail_msg("size %zu, slots %zu, '%s': %s, not %s (%s)", size, slots, extra,
                 strerror(error), strerror(expected), adapter->last_error());
    assert_true(strlen(adapter->last_error()) > 0);
    if (expected != EEXIST && *path != '\0')
        assert_int_equal(access(path, F_OK), -1);
}

static void create_says_why_it_cannot(void **state)
{
    (void)state;
    char nowhere[400];
    snprintf(nowhere, sizeof nowhere, "%s/no/such/folder", folder);
    refused(paths[0], adapter->min_size - 1, 1, "", EINVAL);
    refused(paths[0], BYTES, 0, "", EINVAL);
    refused(paths[0], BYTES, BYTES, "", ENOMEM);
    refused(paths[0], BYTES, 1, "metadata=tape", EINVAL);
    refused(paths[0], BYTES, 1, "arenas=65", EINVAL);
    refused(paths[0], BYTES, 1, "arenas=-1", EINVAL);
    refused(paths[0], BYTES, 1, "prefault", EINVAL);
    refused(paths[0], BYTES, 1, "caches=shared", EINVAL);
    refused(nowhere, BYTES, 1, "", ENOENT);
    refused("", BYTES, 1, "", EINVAL);
    struct heap heap = opened(0, "");
    refused(paths[0], BYTES, 1, "", EEXIST);
    closed(&heap);
}

struct straggler {
    struct nvc_heap *heap;
    sem_t in, out;
};

static void *stay(void *argument)
{
    struct straggler *straggler = argument;
    adapter->thread_enter(straggler->heap);
    sem_post(&straggler->in);
    sem_wait(&straggler->out);
    return NULL;
}

/* Its arena can't be ended, and the region must outlive the arena. */
static void closing_under_a_thread_is_refused(void **state)
{
    (void)state;
    struct heap heap = opened(0, "caches=bound");
    struct straggler straggler = {.heap = heap.heap};
    sem_init(&straggler.in, 0, 0);
    sem_init(&straggler.out, 0, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stay, &straggler), 0);
    sem_wait(&straggler.in);
    void *base = adapter->range(heap.heap).address;
    assert_int_equal(adapter->close(heap.heap), EBUSY);
    *(volatile char *)base = 1; /* still mapped */
    sem_post(&straggler.out);
    pthread_join(thread, NULL);
    assert_int_equal(unlink(heap.path), 0);
}

/* A thread that exits without leaving takes nothing with it. */
static void a_thread_may_just_exit(void **state)
{
    (void)state;
    for (int i = 0; i < CHOICES; i++) {
        struct heap heap = opened(0, choices[i]);
        for (int n = 0; n < 10; n++) {
            struct straggler straggler = {.heap = heap.heap};
            sem_init(&straggler.in, 0, 0);
            sem_init(&straggler.out, 0, 1);
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, stay, &straggler), 0);
            pthread_join(thread, NULL);
        }
        assert_int_equal(adapter->alloc_to(heap.heap, heap.table, 100), 0);
        closed(&heap);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s ADAPTER.so\n", argv[0]);
        return 2;
    }
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle != NULL ? dlsym(handle, NVC_ADAPTER_SYMBOL) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    nvc_adapter_get_fn *get;
    memcpy(&get, &symbol, sizeof get);
    adapter = get();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_says_why_it_cannot),
        cmocka_unit_test(a_full_heap_says_so_and_takes_no_dram),
        cmocka_unit_test(a_drained_heap_serves_large_blocks),
        cmocka_unit_test(heaps_do_not_mix),
        cmocka_unit_test(a_thread_may_just_exit),
        cmocka_unit_test(closing_under_a_thread_is_refused),
    };
    return cmocka_run_group_tests_name("adapter", tests, enter_folder, leave_folder);
}
