/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_threads.c - 16 threads at once; threads that come and go; what the
 * dynamic linker allocates.  PRELOAD_STRESS: operations a thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "placement.h"

enum { THREADS = 16, SLOTS = 500, SHARED = 4096 };

/* What a thread takes out of a slot it owns: so blocks go from thread to thread. */
struct parcel {
    size_t size; /* of all of it */
    unsigned char content[];
};
static struct parcel *_Atomic shared[SHARED];
static _Atomic unsigned errors;

static struct parcel *pack(size_t size, uint64_t *random)
{
    struct parcel *parcel = NULL;
    size += sizeof(*parcel);
    switch (next_random(random) % 5) {
    case 0:
        parcel = calloc(1, size);
        for (size_t i = 0; parcel != NULL && i < size; i++)
            errors += ((unsigned char *)parcel)[i] != 0;
        break;
    case 1:
        parcel = memalign((size_t)16 << next_random(random) % 6, size);
        break;
    default:
        parcel = malloc(size);
    }
    if (parcel == NULL) {
        errors++;
        return NULL;
    }
    errors += malloc_usable_size(parcel) < size;
    parcel->size = size;
    fill(parcel->content, size - sizeof(*parcel));
    return parcel;
}

static void unpack(struct parcel *parcel)
{
    if (parcel != NULL)
        errors += !is_filled(parcel->content, parcel->size - sizeof(*parcel));
    free(parcel);
}

static struct parcel *repack(struct parcel *parcel, size_t size)
{
    const unsigned char *was = parcel->content;
    size_t old = parcel->size - sizeof(*parcel), kept = old < size ? old : size;
    parcel = realloc(parcel, size + sizeof(*parcel));
    errors += !is_filled_as(parcel->content, was, old, kept);
    parcel->size = size + sizeof(*parcel);
    fill(parcel->content, size);
    return parcel;
}

static size_t some_size(uint64_t *random)
{
    uint64_t kind = next_random(random) % 1000;
    return next_random(random) % (kind == 0 ? 1000000 : kind < 20 ? 40000 : 400);
}

static void *stress(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    const char *given = getenv("PRELOAD_STRESS");
    long operations = given != NULL ? strtol(given, NULL, 10) : 20000;
    struct parcel *own[SLOTS] = {0};
    for (long i = 0; i < operations; i++) {
        struct parcel **slot = &own[next_random(&random) % SLOTS];
        uint64_t what = next_random(&random) % 10;
        if (what < 2) { /* swaps with whoever comes by */
            *slot = atomic_exchange(&shared[next_random(&random) % SHARED], *slot);
        } else if (what < 4 && *slot != NULL) {
            *slot = repack(*slot, some_size(&random));
        } else {
            unpack(*slot);
            *slot = what < 9 ? pack(some_size(&random), &random) : NULL;
        }
    }
    for (int i = 0; i < SLOTS; i++)
        unpack(own[i]);
    return NULL;
}

static void run(void *(*function)(void *), uintptr_t seed)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, function, (void *)(seed + i)),
                         0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_stress(void **state)
{
    (void)state;
    size_t before = mallinfo2().uordblks;
    run(stress, 100);
    for (int i = 0; i < SHARED; i++)
        unpack(shared[i]);
    assert_int_equal(errors, 0);
    /* What is left is the C library's: the stacks' thread-local storage, kept for later
       threads. */
    assert_in_range(mallinfo2().uordblks, before, before + THREADS * 4096);
}

/* --- threads that come and go --- */

static pthread_key_t key;
static _Atomic unsigned late_frees;

/* Runs when the thread's cache may be gone already; asks for another round. */
static void last_words(void *value)
{
    uintptr_t *left = value;
    void *more = malloc(777);
    errors += more == NULL;
    free(more);
    late_frees++;
    if (--*left > 0)
        pthread_setspecific(key, value);
    else
        free(value);
}

static void *come_and_go(void *argument)
{
    uintptr_t *rounds = malloc(sizeof(*rounds));
    (void)argument;
    *rounds = 3;
    pthread_setspecific(key, rounds);
    for (size_t size = 1; size < 5000; size += 37)
        free(malloc(size));
    return NULL;
}

static void test_threads_leave_nothing(void **state)
{
    (void)state;
    assert_int_equal(pthread_key_create(&key, last_words), 0);
    run(come_and_go, 0); /* fills the C library's cache of stacks */
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 60; i++)
        run(come_and_go, 0);
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(late_frees, 61 * THREADS * 3);
    assert_int_equal(errors, 0);
    assert_in_range(after.uordblks, before.uordblks, before.uordblks + 16384);
    assert_in_range(after.arena + after.hblkhd, 0,
                    before.arena + before.hblkhd + ((size_t)4 << 20));
    pthread_key_delete(key);
}

/* --- the dynamic linker --- */

static char *(*plugin_storage)(void);

static void *use_plugin(void *argument)
{
    (void)argument;
    char *storage = plugin_storage();
    errors += !is_on_nvm(storage) || storage[99999] != 1;
    return NULL;
}

static void test_libraries_that_come_late(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        void *plugin = dlopen(getenv("PRELOAD_PLUGIN"), RTLD_NOW);
        assert_non_null(plugin);
        char **block = dlsym(plugin, "plugin_block");
        assert_true(is_on_nvm(*block));
        assert_int_equal((*block)[999], 'p');
        void *found = dlsym(plugin, "plugin_storage");
        memcpy(&plugin_storage, &found, sizeof(found));
        run(use_plugin, 0);
        assert_int_equal(errors, 0);
        dlclose(plugin);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stress),
        cmocka_unit_test(test_threads_leave_nothing),
        cmocka_unit_test(test_libraries_that_come_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
