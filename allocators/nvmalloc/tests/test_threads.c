/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_threads.c - eight threads on one heap, freeing each other's blocks,
 * with a reopen between rounds.  Built with ThreadSanitizer
 * and AddressSanitizer too.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define SLOTS   4096u
#define THREADS 8u
#define STEPS   20000u
#define ROUNDS  4u

static char path[64];
static nvm_heap *heap;
static nvm_ref *slots;
static _Atomic char busy[SLOTS];
static _Atomic unsigned corrupt, refused;

static size_t draw_size(unsigned *seed)
{
    if (rand_r(seed) % 16 == 0)
        return (size_t)rand_r(seed) % (900 << 10);
    return 16 + (size_t)rand_r(seed) % 300;
}

static void step(unsigned slot, unsigned *seed)
{
    if (slots[slot] != 0) {
        corrupt += *(unsigned *)nvm_ptr(heap, slots[slot]) != slot;
        refused += nvm_free_from(heap, &slots[slot]) != 0;
    } else if (nvm_malloc_to(heap, &slots[slot], draw_size(seed)) == 0) {
        *(unsigned *)nvm_ptr(heap, slots[slot]) = slot;
    }
}

static void *work(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned slot = (unsigned)rand_r(&seed) % SLOTS;
        if (atomic_exchange(&busy[slot], 1))
            continue;
        step(slot, &seed);
        atomic_store(&busy[slot], 0);
    }
    return NULL;
}

static void test_eight_threads(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(nvm_create(path, (size_t)64 << 20, &heap), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
        assert_non_null(slots);
        for (uintptr_t i = 0; i < THREADS; i++)
            assert_int_equal(
                pthread_create(&threads[i], NULL, work, (void *)(round * 100 + i + 1)),
                0);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(corrupt, 0);
        assert_int_equal(refused, 0);
        if (nvm_check(heap) != 0)
            fail_msg("round %u: %s", round, nvm_error());
        nvm_close(heap);
        assert_int_equal(nvm_open(path, &heap), 0);
    }
    nvm_close(heap);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_eight_threads)};
    snprintf(path, sizeof(path), "/dev/shm/nvm-threads-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
