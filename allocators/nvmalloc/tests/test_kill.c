/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kill.c - kills a process at every one of its persistence events.
 *
 * A child does one operation after another and dies by SIGKILL at its Nth
 * event, N = 1, 2, ... until it gets to the end; after each death the parent
 * opens the heap and checks it.  Then the same for the recovery itself.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define SLOTS 16u

static char path[64];
static uint64_t events_left;

static void die_at_event(void *context, int kind, const void *address, size_t length)
{
    (void)context, (void)kind, (void)address, (void)length;
    if (events_left-- == 0)
        raise(SIGKILL);
}

/* Fills and empties all slots; every prefix is a legal state. */
static void work(nvm_heap *heap, nvm_ref *slots)
{
    static const size_t sizes[] = {16, 700, 3000, 70000, 600000};
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i] == 0)
            nvm_malloc_to(heap, &slots[i], sizes[i % 5]);
    for (unsigned i = 0; i < SLOTS; i++)
        nvm_free_from(heap, &slots[i]);
}

static int count_block(void *context, void *block, size_t usable)
{
    (void)block, (void)usable;
    ++*(unsigned *)context;
    return 0;
}

static void check_heap(void)
{
    nvm_heap *heap;
    unsigned blocks = 0, full = 0;
    if (nvm_open(path, &heap) != 0)
        fail_msg("%s", nvm_error());
    nvm_ref *slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    for (unsigned i = 0; i < SLOTS; i++) {
        full += slots[i] != 0;
        assert_true(slots[i] == 0 || nvm_usable_size(heap, slots[i]) > 0);
    }
    assert_int_equal(nvm_walk(heap, count_block, &blocks), 0);
    assert_int_equal(blocks, full + 1); /* and the root */
    if (nvm_check(heap) != 0)
        fail_msg("%s", nvm_error());
    nvm_close(heap);
}

/* Runs a child that dies at its nth event from open on; 1 if it got to the end. */
static int run_child(uint64_t nth, int from_open)
{
    pid_t child = fork();
    if (child == 0) {
        nvm_heap *heap;
        events_left = nth;
        if (from_open)
            nvm_observe(die_at_event, NULL);
        if (nvm_open(path, &heap) != 0)
            _exit(2);
        nvm_ref *slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
        nvm_observe(die_at_event, NULL);
        work(heap, slots);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return 1;
    }
    assert_int_equal(WTERMSIG(status), SIGKILL);
    return 0;
}

static void fresh_heap(void)
{
    nvm_heap *heap;
    unlink(path);
    assert_int_equal(nvm_create(path, 4 << 20, &heap), 0);
    assert_non_null(nvm_root(heap, SLOTS * sizeof(nvm_ref)));
    nvm_close(heap);
}

static void test_every_event_of_work(void **state)
{
    (void)state;
    uint64_t deaths = 0;
    for (fresh_heap(); !run_child(deaths, 0); fresh_heap(), deaths++)
        check_heap();
    check_heap();
    /* Each of the 2 * SLOTS operations has a line and a fence at least. */
    assert_true(deaths >= 4 * SLOTS);
}

static void test_every_event_of_recovery(void **state)
{
    (void)state;
    uint64_t nth = 0;
    for (int done = 0; !done; nth++) {
        fresh_heap();
        assert_int_equal(run_child(60, 0), 0); /* leaves a log to replay */
        done = run_child(nth, 1);
        if (!done)
            run_child(nth / 2, 1); /* and once more */
        check_heap();
    }
    /* Replay flushes a slot and a mark for each of over 20 records. */
    assert_true(nth > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_event_of_work),
        cmocka_unit_test(test_every_event_of_recovery),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-kill-%d", (int)getpid());
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failures;
}
