/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_gc_close.c - a GC heap that was killed, recovered and closed cleanly.
 *
 * The close writes down what is live; the next open believes it.  So it must write the
 * slabs, too, that nobody has touched since the recovery.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define SLOTS 64u

static char path[64];

/* Of slot i: many size classes, and extents. */
static size_t size_of(unsigned i)
{
    return (size_t)(i + 1) * (i < SLOTS / 2 ? 40 : 30000);
}

/* Fills the slots, frees every third again, and dies. */
static void live_and_die(void)
{
    nvm_heap *heap;
    struct nvm_options options = {.size = (size_t)64 << 20, .mode = NVM_GC};
    if (nvm_create_with(path, &options, &heap) != 0)
        _exit(1);
    nvm_ref *slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    for (unsigned i = 0; i < SLOTS; i++)
        if (nvm_malloc_to(heap, &slots[i], size_of(i)) != 0)
            _exit(1);
    for (unsigned i = 0; i < SLOTS; i += 3)
        if (nvm_free_from(heap, &slots[i]) != 0)
            _exit(1);
    kill(getpid(), SIGKILL);
}

static void check_blocks(nvm_heap *heap)
{
    nvm_ref *slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    struct nvm_heap_stats stats;
    assert_non_null(slots);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (i % 3 == 0)
            assert_int_equal(slots[i], 0);
        else
            assert_in_range(nvm_usable_size(heap, slots[i]), size_of(i), SIZE_MAX);
    }
    nvm_stats(heap, &stats);
    assert_int_equal(stats.live_blocks, SLOTS - (SLOTS + 2) / 3 + 1); /* and the root */
    assert_int_equal(nvm_check(heap), 0);
}

static void test_what_recovery_found_survives_the_next_clean_close(void **state)
{
    nvm_heap *heap;
    struct nvm_heap_stats stats;
    int status;
    (void)state;
    unlink(path);
    pid_t child = fork();
    if (child == 0)
        live_and_die();
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    for (int opened = 0; opened < 3; opened++) {
        assert_int_equal(nvm_open(path, &heap), 0);
        nvm_stats(heap, &stats);
        assert_int_equal(stats.recovered, opened == 0);
        if (opened != 0) /* the first time nothing is touched, so no slab is scanned */
            check_blocks(heap);
        assert_int_equal(nvm_close(heap), 0);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_recovery_found_survives_the_next_clean_close),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-gc-close-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
