/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_protect.c - a stray store into metadata traps; the library's own stores do not.
 *
 * Every operation is tried on a protected heap, and after each of them a store into each
 * part of the metadata must raise SIGSEGV: the window was there, and it was closed.  The
 * argument chooses the backend (protect.h): `mprotect`, which every machine has, or
 * `key`; without keys, the latter tests how they are missed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "heap.h"

#define HEAP_BYTES ((size_t)8 << 20)
#define SLOTS      64u

static char path[64], other_path[64];
static nvm_heap *heap;
static nvm_ref *slots;

/* --- stray stores --- */

static sigjmp_buf trap;

static void trapped(int signal)
{
    (void)signal;
    siglongjmp(trap, 1);
}

/* Writes back what is there; whether that raised SIGSEGV. */
static bool store_traps(void *address)
{
    struct sigaction action = {.sa_handler = trapped}, before;
    volatile uint64_t *word = address;
    volatile bool caught = true;
    sigaction(SIGSEGV, &action, &before);
    if (sigsetjmp(trap, 1) == 0) {
        *word = *word;
        caught = false;
    }
    sigaction(SIGSEGV, &before, NULL);
    return caught;
}

static void assert_metadata_traps(const nvm_heap *of)
{
    const struct nvm_super *super = &of->super;
    const uint64_t places[] = {
        0,
        NVM_PAGE,
        NVM_WATERMARK_OFFSET,
        NVM_ROOTS_OFFSET,
        super->lanes_offset,
        super->chunk_offset,
        super->bitmap_offset,
        super->data_offset - 8,
    };
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (!store_traps(of->base + places[i]))
            fail_msg("a store to offset %llu does not trap",
                     (unsigned long long)places[i]);
    assert_false(store_traps(of->base + super->data_offset));
}

/* --- set-up --- */

static nvm_heap *create(const char *at, enum nvm_mode mode, size_t size, size_t max_size)
{
    nvm_heap *made;
    struct nvm_options options = {
        .size = size, .max_size = max_size, .mode = mode, .flags = NVM_PROTECT};
    unlink(at);
    if (nvm_create_with(at, &options, &made) != 0)
        fail_msg("%s", nvm_error());
    return made;
}

static void set_up_mode(enum nvm_mode mode)
{
    heap = create(path, mode, HEAP_BYTES, HEAP_BYTES);
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    assert_non_null(slots);
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    unlink(other_path);
    return 0;
}

/* --- operations --- */

static const size_t sizes[] = {1, 64, 1000, 5000, 70000, 700000};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void allocate_and_free(void)
{
    for (unsigned i = 0; i < SIZES; i++) {
        assert_int_equal(nvm_malloc_to(heap, &slots[i], sizes[i]), 0);
        assert_metadata_traps(heap);
    }
    assert_int_equal(nvm_aligned_malloc_to(heap, &slots[SIZES], 4096, 100), 0);
    assert_metadata_traps(heap);
    for (unsigned i = 0; i <= SIZES; i++) {
        assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
        assert_metadata_traps(heap);
    }
    /* Caches are refilled and spilled, lanes staged. */
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < SLOTS; i++)
            assert_int_equal(nvm_malloc_to(heap, &slots[i], 16 + round), 0);
        for (unsigned i = 0; i < SLOTS; i++)
            assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
    }
    assert_metadata_traps(heap);
}

static void reserve_and_publish(void)
{
    for (unsigned i = 0; i < SIZES; i++) {
        nvm_ref kept = nvm_reserve(heap, sizes[i]), dropped = nvm_reserve(heap, sizes[i]);
        assert_metadata_traps(heap);
        assert_int_equal(nvm_cancel(heap, dropped), 0);
        assert_metadata_traps(heap);
        const struct nvm_action action = {
            .kind = NVM_ACT_ALLOC, .slot = &slots[i], .ref = kept};
        assert_int_equal(nvm_publish(heap, &action, 1), 0);
        assert_metadata_traps(heap);
        assert_int_equal(nvm_realloc_to(heap, &slots[i], 2 * sizes[i]), 0);
        assert_metadata_traps(heap);
        if (heap->super.mode != NVM_GC) {
            assert_int_equal(nvm_move_to(heap, &slots[i], &slots[SIZES]), 0);
            assert_metadata_traps(heap);
            assert_int_equal(nvm_move_to(heap, &slots[SIZES], &slots[i]), 0);
        }
    }
    nvm_ref *all[SIZES];
    size_t moved;
    for (unsigned i = 0; i < SIZES; i++)
        all[i] = &slots[i];
    assert_int_equal(nvm_defrag(heap, all, SIZES, &moved), 0);
    assert_metadata_traps(heap);
    for (unsigned i = 0; i < SIZES; i++)
        assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
}

static void name_and_keep_up(void)
{
    nvm_ref *slot = nvm_named(heap, "name", 1);
    assert_non_null(slot);
    assert_true(store_traps(slot)); /* a name's slot lies among the metadata */
    assert_int_equal(nvm_malloc_to(heap, slot, 100), 0);
    assert_int_equal(nvm_unname(heap, "name"), EINVAL);
    assert_metadata_traps(heap);
    assert_int_equal(nvm_free_from(heap, slot), 0);
    assert_int_equal(nvm_unname(heap, "name"), 0);
    assert_metadata_traps(heap);
    assert_null(nvm_named(heap, "name", 0));
    assert_int_equal(nvm_check(heap), 0);
    assert_metadata_traps(heap);
    int trimmed = nvm_trim(heap, NULL);
    assert_true(trimmed == 0 || trimmed == EOPNOTSUPP);
    assert_metadata_traps(heap);
    nvm_thread_leave(heap);
    assert_metadata_traps(heap);
}

static void misuse(void)
{
    nvm_ref nowhere = 0;
    assert_int_equal(nvm_malloc_to(heap, &nowhere, 8), EINVAL);
    assert_int_equal(nvm_free_from(heap, &slots[0]), EINVAL);
    assert_int_equal(nvm_cancel(heap, 12345), EINVAL);
    assert_int_equal(nvm_reserve(heap, HEAP_BYTES), 0);
    assert_metadata_traps(heap);
}

static void in_every_mode(void (*what)(void))
{
    for (enum nvm_mode mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        set_up_mode(mode);
        assert_metadata_traps(heap);
        what();
        assert_int_equal(nvm_check(heap), 0);
        assert_int_equal(nvm_close(heap), 0);
    }
}

/* --- tests --- */

static void test_allocation(void **state)
{
    (void)state;
    in_every_mode(allocate_and_free);
}

static void test_reservation(void **state)
{
    (void)state;
    in_every_mode(reserve_and_publish);
}

static void test_names_and_upkeep(void **state)
{
    (void)state;
    in_every_mode(name_and_keep_up);
}

static void test_a_refusal_closes_its_window(void **state)
{
    (void)state;
    in_every_mode(misuse);
}

static void test_gc_calls(void **state)
{
    void *blocks[SIZES];
    (void)state;
    set_up_mode(NVM_GC);
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < SIZES; i++)
            assert_non_null(blocks[i] = nvm_malloc(heap, sizes[i] + round));
        for (unsigned i = 0; i < SIZES; i++)
            assert_int_equal(nvm_free(heap, blocks[i]), 0);
    }
    assert_int_equal(nvm_free(heap, blocks[0]), EINVAL);
    assert_metadata_traps(heap);
    /* Whole slabs are emptied, and retired, from the fast path. */
    static void *many[20000];
    for (unsigned i = 0; i < 20000; i++)
        assert_non_null(many[i] = nvm_malloc(heap, 64));
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(nvm_free(heap, many[i]), 0);
    assert_metadata_traps(heap);
    assert_int_equal(nvm_close(heap), 0);
}

static void test_growth_keeps_it(void **state)
{
    struct nvm_heap_stats before, after;
    (void)state;
    heap = create(path, NVM_LOG_OWNED, 0, (size_t)64 << 20);
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    nvm_stats(heap, &before);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(nvm_malloc_to(heap, &slots[i], 1 << 20), 0);
    nvm_stats(heap, &after);
    assert_true(after.file_bytes > before.file_bytes + ((size_t)16 << 20));
    assert_metadata_traps(heap);
    assert_int_equal(nvm_close(heap), 0);
}

static void test_each_open_decides(void **state)
{
    const struct nvm_options protect = {.flags = NVM_PROTECT};
    struct nvm_heap_stats stats;
    (void)state;
    set_up_mode(NVM_LOG_OWNED);
    nvm_stats(heap, &stats);
    assert_int_equal(stats.protect, 1);
    assert_int_equal(nvm_close(heap), 0);
    assert_int_equal(nvm_open(path, &heap), 0);
    nvm_stats(heap, &stats);
    assert_int_equal(stats.protect, 0);
    assert_false(store_traps(heap->base));
    assert_int_equal(nvm_close(heap), 0);
    assert_int_equal(nvm_open_with(path, &protect, &heap), 0);
    assert_metadata_traps(heap);
    assert_int_equal(nvm_close(heap), 0);
    setenv("NVM_PROTECT", "1", 1);
    assert_int_equal(nvm_open(path, &heap), 0);
    unsetenv("NVM_PROTECT");
    nvm_stats(heap, &stats);
    assert_int_equal(stats.protect, 1);
    assert_metadata_traps(heap);
    assert_int_equal(nvm_close(heap), 0);
}

static void test_two_heaps(void **state)
{
    (void)state;
    set_up_mode(NVM_LOG_OWNED);
    nvm_heap *other = create(other_path, NVM_LOG_STRICT, HEAP_BYTES, HEAP_BYTES);
    nvm_ref *root = nvm_root(other, SLOTS * sizeof(nvm_ref));
    for (unsigned i = 0; i < SLOTS; i++) {
        assert_int_equal(nvm_malloc_to(heap, &slots[i], 100), 0);
        assert_int_equal(nvm_malloc_to(other, &root[i], 100), 0);
    }
    assert_metadata_traps(heap);
    assert_metadata_traps(other);
    assert_int_equal(nvm_close(other), 0);
    assert_metadata_traps(heap);
    assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
    assert_int_equal(nvm_close(heap), 0);
}

static void *work(void *argument)
{
    nvm_ref *own = argument;
    for (unsigned i = 0; i < 2000; i++)
        if (nvm_malloc_to(heap, own, 24 + i % 500) != 0 || nvm_free_from(heap, own) != 0)
            return own;
    return NULL;
}

static void test_threads_come_and_go(void **state)
{
    pthread_t threads[4];
    (void)state;
    set_up_mode(NVM_LOG_OWNED);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &slots[i]), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_metadata_traps(heap);
    assert_int_equal(nvm_close(heap), 0);
}

/* A thread that is older than the heap has no rights to its key until it calls. */
static pthread_barrier_t ready;

static void *read_first(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&ready); /* it is there */
    pthread_barrier_wait(&ready); /* so is the heap */
    return (void *)(uintptr_t)(nvm_usable_size(heap, nvm_off(heap, slots)) + slots[0]);
}

static void test_an_older_thread_may_read(void **state)
{
    pthread_t thread;
    void *usable;
    (void)state;
    pthread_barrier_init(&ready, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, read_first, NULL), 0);
    pthread_barrier_wait(&ready);
    set_up_mode(NVM_LOG_OWNED);
    pthread_barrier_wait(&ready);
    pthread_join(thread, &usable);
    assert_true((uintptr_t)usable >= SLOTS * sizeof(nvm_ref));
    assert_int_equal(nvm_close(heap), 0);
}

/* The library's handler, which it installs once; cmocka installs its own before each
   test. */
static struct sigaction library_sigbus;

static void learn_sigbus_handler(void)
{
    if (nvm_create(path, NVM_MIN_HEAP, &heap) == 0) {
        nvm_check(heap);
        nvm_close(heap);
    }
    unlink(path);
    sigaction(SIGBUS, NULL, &library_sigbus);
}

/* The check's window, and a bitmap that can't be read any more. */
static void test_a_bad_page_closes_the_window(void **state)
{
    (void)state;
    sigaction(SIGBUS, &library_sigbus, NULL);
    set_up_mode(NVM_LOG_OWNED);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    uint64_t cut = heap->super.bitmap_offset;
    assert_int_equal(truncate(path, (off_t)cut), 0);
    assert_int_equal(nvm_check(heap), EUCLEAN);
    assert_true(store_traps(heap->base));
    assert_true(store_traps(heap->base + heap->super.chunk_offset));
    /* The heap is lost; the process that had it open goes on. */
    assert_int_equal(truncate(path, (off_t)HEAP_BYTES), 0);
    nvm_detach(heap);
}

static void test_a_stray_store_kills_who_does_not_catch_it(void **state)
{
    int status;
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        set_up_mode(NVM_LOG_OWNED);
        memset(slots, 0xff, SLOTS * sizeof(nvm_ref)); /* its own data */
        signal(SIGSEGV, SIG_DFL);
        memset(heap->base, 0xff, 64);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void test_a_child_is_told(void **state)
{
    int status;
    (void)state;
    set_up_mode(NVM_LOG_OWNED);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    pid_t child = fork();
    if (child == 0) {
        bool told = nvm_malloc_to(heap, slots, 8) == EPERM && nvm_check(heap) == EPERM &&
                    nvm_trim(heap, NULL) == EPERM &&
                    nvm_each_name(heap, NULL, NULL) == EPERM &&
                    nvm_named(heap, "a", 0) == NULL && nvm_close(heap) == 0;
        _exit(told ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_metadata_traps(heap);
    assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
    assert_int_equal(nvm_close(heap), 0);
}

static void test_an_image_is_the_caller_s_own(void **state)
{
    const struct nvm_options protect = {.flags = NVM_PROTECT};
    nvm_heap *attached;
    (void)state;
    void *image = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(nvm_attach(image, HEAP_BYTES, &protect, &attached), ENOTSUP);
    munmap(image, HEAP_BYTES);
}

/* --- without keys --- */

static void test_without_keys_it_is_refused(void **state)
{
    const struct nvm_options protect = {.size = HEAP_BYTES, .flags = NVM_PROTECT};
    (void)state;
    assert_int_equal(nvm_create_with(path, &protect, &heap), ENOTSUP);
    assert_non_null(strstr(nvm_error(), "no protection keys"));
    assert_int_equal(access(path, F_OK), -1); /* nothing was made */
    assert_int_equal(nvm_create(path, HEAP_BYTES, &heap), 0);
    assert_int_equal(nvm_close(heap), 0);
    assert_int_equal(nvm_open_with(path, &protect, &heap), ENOTSUP);
    assert_int_equal(nvm_open(path, &heap), 0);
    assert_int_equal(nvm_close(heap), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_allocation, tear_down),
        cmocka_unit_test_teardown(test_reservation, tear_down),
        cmocka_unit_test_teardown(test_names_and_upkeep, tear_down),
        cmocka_unit_test_teardown(test_a_refusal_closes_its_window, tear_down),
        cmocka_unit_test_teardown(test_gc_calls, tear_down),
        cmocka_unit_test_teardown(test_growth_keeps_it, tear_down),
        cmocka_unit_test_teardown(test_each_open_decides, tear_down),
        cmocka_unit_test_teardown(test_two_heaps, tear_down),
        cmocka_unit_test_teardown(test_threads_come_and_go, tear_down),
        cmocka_unit_test_teardown(test_an_older_thread_may_read, tear_down),
        cmocka_unit_test_teardown(test_a_bad_page_closes_the_window, tear_down),
        cmocka_unit_test_teardown(test_a_stray_store_kills_who_does_not_catch_it,
                                  tear_down),
        cmocka_unit_test_teardown(test_a_child_is_told, tear_down),
        cmocka_unit_test_teardown(test_an_image_is_the_caller_s_own, tear_down),
    };
    const struct CMUnitTest without[] = {
        cmocka_unit_test_teardown(test_without_keys_it_is_refused, tear_down),
    };
    bool stand_in = argc == 2 && strcmp(argv[1], "mprotect") == 0;
    if (!stand_in && !(argc == 2 && strcmp(argv[1], "key") == 0)) {
        fprintf(stderr, "usage: test_protect mprotect|key\n");
        return 2;
    }
    unsetenv("NVM_PROTECT");
    setenv("NVM_PROTECT_BACKEND", stand_in ? "mprotect" : "", 1);
    const char *folder = getenv("NVM_TEST_DIR");
    folder = folder != NULL ? folder : "/dev/shm";
    snprintf(path, sizeof(path), "%s/nvm-protect-%d", folder, (int)getpid());
    snprintf(other_path, sizeof(other_path), "%s/nvm-protect2-%d", folder, (int)getpid());
    learn_sigbus_handler();
    if (!stand_in && nvm_protect_init() != 0)
        return cmocka_run_group_tests_name("protect, no keys here", without, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
