/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_threads.c - eight threads on one heap, in each mode, using each other's blocks.
 *
 * The oracle: a slot is one thread's while it holds its lock; the block of a slot
 * begins with the slot's number and is filled to its end with it, so a block that two
 * slots share does not go unseen.  Between rounds the heap is checked, and opened
 * anew: closed cleanly, or as a SIGKILL leaves it.  Threads end and begin with the
 * rounds, and some leave the heap in between.  Built with ThreadSanitizer and
 * AddressSanitizer too.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"
#include "power.h"

#define SLOTS   1024u
#define THREADS 8u
#define ROUNDS  3u

static char path[64];
static nvm_heap *heap;
static enum nvm_mode mode;
static nvm_ref *slots;
static atomic_flag busy[SLOTS];
static uint32_t sizes[SLOTS]; /* of the slots' blocks; its holder's */
static _Atomic unsigned wrong;
static unsigned steps;

static void fault(const char *what, unsigned slot, int error)
{
    if (atomic_fetch_add(&wrong, 1) < 5)
        fprintf(stderr, "mode %d, slot %u: %s (%d: %s)\n", (int)mode, slot, what, error,
                error != 0 ? nvm_error() : "");
}

static uint32_t draw_size(uint64_t *random)
{
    uint64_t kind = power_draw(random) % 32;
    if (kind == 0)
        return 8 + (uint32_t)(power_draw(random) % (900 << 10));
    if (kind < 6)
        return 8 + (uint32_t)(power_draw(random) % 6000);
    return 8 + (uint32_t)(power_draw(random) % 300);
}

static void write_block(unsigned slot, void *block, uint32_t size)
{
    memset(block, (int)(slot * 7 + 1), size);
    memcpy(block, &slot, sizeof(slot));
    sizes[slot] = size;
}

static void check_block(unsigned slot)
{
    const unsigned char *block = nvm_ptr(heap, slots[slot]);
    unsigned number;
    uint32_t size = sizes[slot];
    memcpy(&number, block, sizeof(number));
    if (number != slot || nvm_usable_size(heap, slots[slot]) < size)
        fault("another's block", slot, 0);
    for (uint32_t at = sizeof(number); at < size; at += 61)
        if (block[at] != (unsigned char)(slot * 7 + 1)) {
            fault("another's content", slot, 0);
            break;
        }
}

static bool take(unsigned slot)
{
    return !atomic_flag_test_and_set_explicit(&busy[slot], memory_order_acquire);
}

static void give(unsigned slot)
{
    atomic_flag_clear_explicit(&busy[slot], memory_order_release);
}

/* --- operations on a slot that the thread has taken --- */

static void allocate(unsigned slot, uint64_t *random)
{
    uint32_t size = draw_size(random);
    int error = power_draw(random) % 8 != 0
                    ? nvm_malloc_to(heap, &slots[slot], size)
                    : nvm_aligned_malloc_to(heap, &slots[slot], 256, size);
    if (error == 0)
        write_block(slot, nvm_ptr(heap, slots[slot]), size);
    else if (error != ENOMEM)
        fault("allocation", slot, error);
}

static void release(unsigned slot)
{
    int error = 0;
    check_block(slot);
    if (mode == NVM_GC && slot % 2 != 0) {
        void *block = nvm_ptr(heap, slots[slot]);
        slots[slot] = 0;
        nvm_persist(heap, &slots[slot], sizeof(nvm_ref));
        error = nvm_free(heap, block);
    } else {
        error = nvm_free_from(heap, &slots[slot]);
    }
    if (error != 0)
        fault("free", slot, error);
}

static void resize(unsigned slot, uint64_t *random)
{
    uint32_t size = draw_size(random);
    check_block(slot);
    int error = nvm_realloc_to(heap, &slots[slot], size);
    if (error == 0) {
        sizes[slot] = size < sizes[slot] ? size : sizes[slot];
        check_block(slot);
        write_block(slot, nvm_ptr(heap, slots[slot]), size);
    } else if (error != ENOMEM) {
        fault("realloc", slot, error);
    }
}

/* With a second slot: the block moves there, or both change at once. */
static void with_another(unsigned slot, uint64_t *random)
{
    unsigned other = (unsigned)(power_draw(random) % SLOTS);
    if (other == slot || !take(other))
        return;
    struct nvm_action actions[2];
    uint32_t size = draw_size(random);
    int error = 0;
    if (slots[slot] != 0 && slots[other] == 0) {
        error = nvm_move_to(heap, &slots[slot], &slots[other]);
        write_block(other, nvm_ptr(heap, slots[other]), sizes[slot]);
    } else if (slots[slot] != 0) {
        check_block(slot);
        check_block(other);
        actions[0] = (struct nvm_action){NVM_ACT_FREE, &slots[slot], NULL, 0};
        actions[1] = (struct nvm_action){NVM_ACT_FREE, &slots[other], NULL, 0};
        error = nvm_publish(heap, actions, 2);
    } else if (slots[other] == 0) {
        nvm_ref first = nvm_reserve(heap, size), second = nvm_reserve(heap, size);
        if (first != 0 && second != 0) {
            write_block(slot, nvm_ptr(heap, first), size);
            write_block(other, nvm_ptr(heap, second), size);
            actions[0] = (struct nvm_action){NVM_ACT_ALLOC, &slots[slot], NULL, first};
            actions[1] = (struct nvm_action){NVM_ACT_ALLOC, &slots[other], NULL, second};
            error = nvm_publish(heap, actions, 2);
        } else if (first != 0) {
            error = nvm_cancel(heap, first);
        }
    }
    if (error != 0)
        fault("a group", slot, error);
    give(other);
}

static void *work(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument * 0x9e3779b97f4a7c15u + 1;
    for (unsigned i = 0; i < steps; i++) {
        unsigned slot = (unsigned)(power_draw(&random) % SLOTS);
        if (!take(slot))
            continue;
        uint64_t kind = power_draw(&random) % 10;
        if (kind < 2 && mode != NVM_GC)
            with_another(slot, &random);
        else if (slots[slot] == 0)
            allocate(slot, &random);
        else if (kind < 4)
            resize(slot, &random);
        else
            release(slot);
        give(slot);
        if (power_draw(&random) % 4096 == 0)
            nvm_thread_leave(heap);
        if (power_draw(&random) % 8192 == 0 && nvm_trim(heap, NULL) != 0)
            fault("trim", slot, errno);
    }
    return NULL;
}

/* --- rounds --- */

static int count(void *context, void *block, size_t usable)
{
    (void)block, (void)usable;
    ++*(unsigned *)context;
    return 0;
}

static void check_all(const char *when)
{
    unsigned expected = 1, found = 0; /* the root */
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i] != 0) {
            check_block(i);
            expected++;
        }
    assert_int_equal(nvm_walk(heap, count, &found), 0);
    if (found != expected)
        fail_msg("%s: %u blocks are live, %u are reached", when, found, expected);
    if (nvm_check(heap) != 0)
        fail_msg("%s: %s", when, nvm_error());
    assert_int_equal(wrong, 0);
}

static void copy_file(const char *from, const char *to)
{
    static char buffer[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    for (size_t got; (got = fread(buffer, 1, sizeof(buffer), in)) != 0;)
        assert_int_equal(fwrite(buffer, 1, got, out), got);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

/* The heap again, from the file as it is now, before or after a clean close. */
static void reopen(bool clean)
{
    char left[80];
    snprintf(left, sizeof(left), "%s.left", path);
    if (!clean)
        copy_file(path, left);
    assert_int_equal(nvm_close(heap), 0);
    if (!clean)
        assert_int_equal(rename(left, path), 0);
    if (nvm_open(path, &heap) != 0)
        fail_msg("%s", nvm_error());
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    assert_non_null(slots);
}

static void run(enum nvm_mode which)
{
    const char *budget = getenv("NVM_TEST_STEPS");
    struct nvm_options options = {
        .size = (size_t)16 << 20, .max_size = (size_t)48 << 20, .mode = which};
    mode = which;
    steps = budget != NULL ? (unsigned)strtoul(budget, NULL, 10) : 6000;
    unlink(path);
    assert_int_equal(nvm_create_with(path, &options, &heap), 0);
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    assert_non_null(slots);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        for (uintptr_t i = 0; i < THREADS; i++)
            assert_int_equal(
                pthread_create(&threads[i], NULL, work, (void *)(round * 100 + i + 1)),
                0);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        check_all("after the threads");
        reopen(round % 2 == 0);
        check_all("after the open");
    }
    assert_int_equal(nvm_close(heap), 0);
    unlink(path);
}

static void test_owned(void **state)
{
    (void)state;
    run(NVM_LOG_OWNED);
}

static void test_strict(void **state)
{
    (void)state;
    run(NVM_LOG_STRICT);
}

static void test_gc(void **state)
{
    (void)state;
    run(NVM_GC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owned),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_gc),
    };
    for (unsigned i = 0; i < SLOTS; i++)
        atomic_flag_clear(&busy[i]);
    snprintf(path, sizeof(path), "/dev/shm/nvm-threads-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
