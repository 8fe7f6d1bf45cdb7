/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fork.c - after fork() parent and child each have their blocks, as they
 * were, and can allocate; and what a program does to its descriptors does not
 * matter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "placement.h"

enum { BLOCKS = 2000 };

static void *blocks[BLOCKS];
static size_t sizes[BLOCKS];

static void make_blocks(uint64_t seed)
{
    for (int i = 0; i < BLOCKS; i++) {
        sizes[i] = next_random(&seed) % (i % 100 == 0 ? 300000 : 1000) + 1;
        blocks[i] = malloc(sizes[i]);
        if (blocks[i] != NULL)
            fill(blocks[i], sizes[i]);
    }
}

static int bad_blocks(void)
{
    int bad = 0;
    for (int i = 0; i < BLOCKS; i++)
        bad += blocks[i] == NULL || !is_filled(blocks[i], sizes[i]);
    return bad;
}

static void free_blocks(void)
{
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

/* Overwrites and frees every other block, and makes others in their place. */
static void change_blocks(uint64_t seed)
{
    for (int i = 0; i < BLOCKS; i += 2) {
        memset(blocks[i], 0xee, sizes[i]);
        free(blocks[i]);
        sizes[i] = next_random(&seed) % 3000 + 1;
        blocks[i] = malloc(sizes[i]);
        fill(blocks[i], sizes[i]);
    }
}

/* Exit code of a child, or 1000 + the signal that ended it. */
static int reap(pid_t child)
{
    int status;
    if (child <= 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* --- one thread --- */

static void test_both_have_their_blocks(void **state)
{
    (void)state;
    int ready[2], go[2];
    char token;
    make_blocks(1);
    assert_int_equal(pipe(ready) | pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        /* Both change what they have, one after the other, and look again. */
        if (bad_blocks() != 0 || !is_on_nvm(blocks[0]))
            _exit(1);
        change_blocks(2);
        if (write(ready[1], "r", 1) != 1 || read(go[0], &token, 1) != 1)
            _exit(2);
        if (bad_blocks() != 0)
            _exit(3);
        free_blocks();
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(read(ready[0], &token, 1), 1);
    assert_int_equal(bad_blocks(), 0);
    change_blocks(3);
    assert_int_equal(write(go[1], "g", 1), 1);
    assert_int_equal(reap(child), 0);
    assert_int_equal(bad_blocks(), 0);
    free_blocks();
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
}

static int descend(int generations)
{
    make_blocks((uint64_t)generations);
    if (generations == 0)
        return bad_blocks() == 0 ? 0 : 1;
    pid_t child = fork();
    if (child == 0) {
        if (bad_blocks() != 0)
            _exit(2);
        _exit(descend(generations - 1));
    }
    int code = reap(child);
    return code != 0 ? code : bad_blocks() == 0 ? 0 : 3;
}

static void test_generations(void **state)
{
    (void)state;
    assert_int_equal(descend(5), 0);
    free_blocks();
}

static void test_child_fills_its_heap(void **state)
{
    (void)state;
    /* What was free in the parent has no pages in the child's file until it is used. */
    char *freed = malloc((size_t)50 << 20);
    memset(freed, 'f', (size_t)50 << 20);
    free(freed);
    pid_t child = fork();
    if (child == 0) {
        size_t size = (size_t)40 << 20;
        char *large = malloc(size), *more = malloc(size);
        if (large == NULL || more == NULL)
            _exit(1);
        fill(large, size);
        fill(more, size);
        _exit(is_filled(large, size) && is_filled(more, size) ? 0 : 2);
    }
    assert_int_equal(reap(child), 0);
}

static void test_no_room_for_a_copy(void **state)
{
    (void)state;
    struct rlimit before, none = {4096, 4096};
    make_blocks(4);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    errno = 0;
    pid_t child = fork(), again = _Fork();
    int error = errno;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    if (child == 0 || again == 0)
        _exit(0);
    assert_int_equal(child, -1);
    assert_int_equal(again, -1);
    assert_int_equal(error, ENOMEM);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    /* The next one works. */
    child = fork();
    if (child == 0)
        _exit(bad_blocks() == 0 ? 0 : 1);
    assert_int_equal(reap(child), 0);
    free_blocks();
}

static void test_Fork(void **state)
{
    (void)state;
    make_blocks(5);
    pid_t child = _Fork();
    if (child == 0) {
        int bad = bad_blocks();
        memset(blocks[7], 0, sizes[7]);
        _exit(bad == 0 ? 0 : 1);
    }
    assert_int_equal(reap(child), 0);
    assert_int_equal(bad_blocks(), 0);
    free_blocks();
}

static void test_other_programs(void **state)
{
    (void)state;
    /* They share this process's memory until they have their own. */
    char *arguments[] = {strdup("sh"), strdup("-c"), strdup("exit 7"), NULL};
    pid_t child;
    assert_int_equal(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ), 0);
    assert_int_equal(reap(child), 7);
    /* What is tested.  NOLINTNEXTLINE(clang-analyzer-security.insecureAPI.vfork) */
    child = vfork();
    if (child == 0) {
        execv("/bin/sh", arguments);
        _exit(100);
    }
    assert_int_equal(reap(child), 7);
    child = fork();
    if (child == 0) {
        execv("/bin/sh", arguments);
        _exit(100);
    }
    assert_int_equal(reap(child), 7);
    assert_int_equal(WEXITSTATUS(system("exit 5")), 5);
    FILE *output = popen("echo $((6 * 7))", "r");
    char line[10];
    assert_non_null(fgets(line, sizeof(line), output));
    assert_string_equal(line, "42\n");
    assert_int_equal(pclose(output), 0);
    for (int i = 0; i < 3; i++)
        free(arguments[i]);
}

/* --- several threads --- */

static atomic_bool stop;
static _Atomic unsigned rounds, thread_errors;

static void *churn(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    while (!stop) {
        void *mine[64];
        size_t bytes[64];
        for (int i = 0; i < 64; i++) {
            bytes[i] = next_random(&random) % (i % 32 == 0 ? 200000 : 500) + 1;
            mine[i] = malloc(bytes[i]);
            fill(mine[i], bytes[i]);
        }
        for (int i = 0; i < 64; i++) {
            thread_errors += !is_filled(mine[i], bytes[i]);
            free(mine[i]);
        }
        rounds++;
    }
    return NULL;
}

static void *fork_often(void *argument)
{
    /* Streams, whose locks the C library resets in the child before it calls anybody. */
    FILE *stream = argument;
    for (int i = 0; i < 15; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (bad_blocks() != 0)
                _exit(1);
            change_blocks(6);
            if (bad_blocks() != 0)
                _exit(2);
            if (fprintf(stream, "from a child\n") < 0 || fflush(stream) != 0)
                _exit(3);
            free_blocks();
            pid_t grandchild = fork();
            if (grandchild == 0)
                _exit(9);
            _exit(reap(grandchild) == 9 ? 0 : 4);
        }
        thread_errors += reap(child) != 0;
    }
    return NULL;
}

static void test_fork_beside_threads(void **state)
{
    (void)state;
    pthread_t churners[3], forkers[2];
    FILE *stream = tmpfile();
    pthread_key_t keys[60];
    assert_non_null(stream);
    make_blocks(7);
    stop = false;
    thread_errors = 0;
    /* Keys beyond the first 32, whose values the C library keeps in malloc's memory. */
    for (int i = 0; i < 60; i++) {
        assert_int_equal(pthread_key_create(&keys[i], NULL), 0);
        assert_int_equal(pthread_setspecific(keys[i], stream), 0);
    }
    for (uintptr_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&churners[i], NULL, churn, (void *)(i + 1)), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&forkers[i], NULL, fork_often, stream), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(forkers[i], NULL);
    unsigned before = rounds;
    while (rounds < before + 3)
        usleep(1000);
    stop = true;
    for (int i = 0; i < 3; i++)
        pthread_join(churners[i], NULL);
    assert_int_equal(thread_errors, 0);
    assert_int_equal(bad_blocks(), 0);
    fseek(stream, 0, SEEK_END);
    assert_int_equal(ftell(stream), 30 * (long)strlen("from a child\n"));
    fclose(stream);
    for (int i = 0; i < 60; i++)
        pthread_key_delete(keys[i]);
    free_blocks();
}

static volatile sig_atomic_t caught;

static void catch (int signal)
{
    caught = signal;
}

static void test_the_programs_handler_stays(void **state)
{
    (void)state;
    struct sigaction mine = {.sa_handler = catch}, now;
    struct sigaction before;
    pthread_t thread;
    stop = false;
    assert_int_equal(pthread_create(&thread, NULL, churn, (void *)9), 0);
    assert_int_equal(sigaction(SIGSEGV, &mine, &before), 0);
    pid_t child = fork();
    assert_int_equal(sigaction(SIGSEGV, NULL, &now), 0);
    if (child == 0) {
        raise(SIGSEGV);
        _exit(now.sa_handler == catch && caught == SIGSEGV ? 0 : 1);
    }
    stop = true;
    pthread_join(thread, NULL);
    assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
    assert_int_equal(reap(child), 0);
    assert_true(now.sa_handler == catch);
}

/* --- descriptors --- */

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count - 3; /* ., .. and its own */
}

static void test_no_descriptor_is_kept(void **state)
{
    (void)state;
    int before = count_descriptors();
    pid_t child = fork();
    if (child == 0) {
        if (count_descriptors() != before)
            _exit(1);
        /* A daemon closes whatever it finds, and goes on. */
        for (int fd = 0; fd < 1024; fd++)
            close(fd);
        make_blocks(8);
        pid_t grandchild = fork();
        if (grandchild == 0)
            _exit(bad_blocks() == 0 ? 0 : 1);
        _exit(reap(grandchild) == 0 && bad_blocks() == 0 ? 0 : 2);
    }
    assert_int_equal(reap(child), 0);
    assert_int_equal(count_descriptors(), before);
}

static void test_no_name_is_left(void **state)
{
    (void)state;
    char folder[4096];
    snprintf(folder, sizeof(folder), "%s", getenv("NVM_MALLOC_HEAP"));
    char *slash = strrchr(folder, '/');
    *slash = '\0';
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    char mine[64];
    snprintf(mine, sizeof(mine), "%s.%d.", slash + 1, (int)getpid());
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        assert_int_not_equal(strncmp(entry->d_name, mine, strlen(mine)), 0);
    closedir(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_have_their_blocks),
        cmocka_unit_test(test_generations),
        cmocka_unit_test(test_child_fills_its_heap),
        cmocka_unit_test(test_no_room_for_a_copy),
        cmocka_unit_test(test_Fork),
        cmocka_unit_test(test_other_programs),
        cmocka_unit_test(test_fork_beside_threads),
        cmocka_unit_test(test_the_programs_handler_stays),
        cmocka_unit_test(test_no_descriptor_is_kept),
        cmocka_unit_test(test_no_name_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
