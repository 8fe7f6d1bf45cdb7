/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_space.c - growing, trimming, running out; many heaps, many threads, fork().
 *
 * "Full" is made in three ways: the heap's maximum; RLIMIT_FSIZE (with SIGXFSZ
 * ignored, a file system's EFBIG); and a small tmpfs, where this process may mount.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvmalloc.h"

#define SLOTS 2048u

static char path[80];

static nvm_heap *make_at(const char *file, size_t size, size_t max_size,
                         enum nvm_mode mode)
{
    struct nvm_options options = {.size = size, .max_size = max_size, .mode = mode};
    nvm_heap *heap;
    unlink(file);
    if (nvm_create_with(file, &options, &heap) != 0)
        fail_msg("%s", nvm_error());
    return heap;
}

static nvm_ref *slots_of(nvm_heap *heap)
{
    nvm_ref *slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    assert_non_null(slots);
    return slots;
}

static nvm_heap *open_at(const char *file)
{
    nvm_heap *heap;
    if (nvm_open(file, &heap) != 0)
        fail_msg("%s", nvm_error());
    return heap;
}

/* Fills empty slots with blocks that begin with the slot's number, until there is no
   room; the error that said so. */
static int fill(nvm_heap *heap, nvm_ref *slots, size_t size, unsigned *count)
{
    int error = 0;
    for (unsigned i = 0; i < SLOTS && error == 0; i++) {
        if (slots[i] != 0)
            continue;
        error = nvm_malloc_to(heap, &slots[i], size);
        if (error == 0) {
            memset(nvm_ptr(heap, slots[i]), (int)i, size);
            nvm_persist(heap, nvm_ptr(heap, slots[i]), size);
            ++*count;
        }
    }
    return error;
}

static void expect_content(nvm_heap *heap, const nvm_ref *slots, size_t size)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        const unsigned char *block = nvm_ptr(heap, slots[i]);
        for (size_t at = 0; block != NULL && at < size; at += 509)
            assert_int_equal(block[at], i & 255);
    }
}

static void empty(nvm_heap *heap, nvm_ref *slots)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i] != 0)
            assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
}

static void test_grows_to_its_maximum(void **state)
{
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        nvm_heap *heap = make_at(path, 1 << 20, 24 << 20, (enum nvm_mode)mode);
        nvm_ref *slots = slots_of(heap);
        struct nvm_heap_stats stats;
        unsigned count = 0;
        assert_int_equal(fill(heap, slots, 30000, &count), ENOMEM);
        nvm_stats(heap, &stats);
        assert_true(stats.file_bytes > 23 << 20 && stats.file_bytes <= 24 << 20);
        assert_int_equal(stats.max_bytes, 24 << 20);
        assert_true((size_t)count * 30000 > 22 << 20);
        assert_int_equal(nvm_check(heap), 0);
        assert_int_equal(nvm_close(heap), 0);
        heap = open_at(path);
        slots = slots_of(heap);
        expect_content(heap, slots, 30000);
        assert_int_equal(nvm_check(heap), 0);
        empty(heap, slots);
        /* One block of nearly all of it. */
        assert_int_equal(nvm_malloc_to(heap, &slots[0], 20 << 20), 0);
        assert_int_equal(nvm_close(heap), 0);
    }
    unlink(path);
}

/* Fills the file system; nothing is lost, and room is used when it is there again. */
static void exhaust(const char *file, void (*give_room)(void))
{
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        nvm_heap *heap = make_at(file, 1 << 20, 64 << 20, (enum nvm_mode)mode);
        nvm_ref *slots = slots_of(heap);
        unsigned count = 0, more = 0;
        int error = fill(heap, slots, 70000, &count);
        assert_true(error == ENOSPC || error == EFBIG);
        assert_true(count > 20);
        assert_true(strstr(nvm_error(), "cannot grow") != NULL);
        assert_int_equal(nvm_check(heap), 0);
        expect_content(heap, slots, 70000);
        assert_int_equal(nvm_realloc_to(heap, &slots[0], 40 << 20), error);
        assert_int_equal(nvm_free_from(heap, &slots[3]), 0);
        assert_int_equal(nvm_malloc_to(heap, &slots[3], 70000), 0);
        memset(nvm_ptr(heap, slots[3]), 3, 70000);
        nvm_persist(heap, nvm_ptr(heap, slots[3]), 70000);
        assert_int_equal(nvm_close(heap), 0);
        heap = open_at(file);
        slots = slots_of(heap);
        expect_content(heap, slots, 70000);
        assert_int_not_equal(fill(heap, slots, 70000, &more), 0);
        assert_int_equal(more, 0);
        if (give_room != NULL) {
            give_room();
            (void)fill(heap, slots, 70000, &more);
            assert_true(more > 10);
            expect_content(heap, slots, 70000);
        }
        assert_int_equal(nvm_check(heap), 0);
        assert_int_equal(nvm_close(heap), 0);
        unlink(file);
    }
}

static void test_file_size_limit(void **state)
{
    (void)state;
    struct rlimit limit = {.rlim_cur = 5 << 20, .rlim_max = RLIM_INFINITY}, was;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    limit.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    exhaust(path, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
}

static char mount_point[80], ballast[96];

static void give_room(void)
{
    unlink(ballast);
}

static void test_full_file_system(void **state)
{
    (void)state;
    char file[96];
    snprintf(mount_point, sizeof(mount_point), "/dev/shm/nvm-space-%d.mount",
             (int)getpid());
    snprintf(file, sizeof(file), "%s/heap", mount_point);
    snprintf(ballast, sizeof(ballast), "%s/ballast", mount_point);
    assert_int_equal(mkdir(mount_point, 0700), 0);
    if (mount("none", mount_point, "tmpfs", 0, "size=8m") != 0) {
        rmdir(mount_point);
        print_message("skipped: this process may not mount a tmpfs (%s)\n",
                      strerror(errno));
        skip();
    }
    FILE *stone = fopen(ballast, "wb");
    static char block[1 << 20];
    memset(block, 1, sizeof(block));
    assert_int_equal(fwrite(block, 1, sizeof(block), stone), sizeof(block));
    fclose(stone);
    exhaust(file, NULL);
    nvm_heap *heap = make_at(file, 1 << 20, 64 << 20, NVM_LOG_OWNED);
    nvm_ref *slots = slots_of(heap);
    unsigned count = 0, more = 0;
    assert_int_equal(fill(heap, slots, 70000, &count), ENOSPC);
    give_room();
    assert_int_equal(fill(heap, slots, 70000, &more), ENOSPC);
    assert_true(more > 8);
    /* Holes: the room is somebody else's when the heap wants it back. */
    size_t freed = 0;
    empty(heap, slots);
    assert_int_equal(nvm_trim(heap, &freed), 0);
    assert_true(freed > 4 << 20);
    stone = fopen(ballast, "wb");
    for (unsigned i = 0; i < 7; i++)
        (void)!fwrite(block, 1, sizeof(block), stone);
    fclose(stone);
    count = 0;
    assert_int_equal(fill(heap, slots, 70000, &count), ENOSPC);
    assert_int_equal(nvm_check(heap), 0);
    expect_content(heap, slots, 70000);
    give_room();
    assert_int_equal(fill(heap, slots, 70000, &count), ENOSPC);
    expect_content(heap, slots, 70000);
    assert_int_equal(nvm_check(heap), 0);
    assert_int_equal(nvm_close(heap), 0);
    unlink(file);
    assert_int_equal(umount(mount_point), 0);
    rmdir(mount_point);
}

static uint64_t blocks_of_file(const char *file)
{
    struct stat status;
    assert_int_equal(stat(file, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void test_trim_gives_pages_back(void **state)
{
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        nvm_heap *heap = make_at(path, 16 << 20, 0, (enum nvm_mode)mode);
        nvm_ref *slots = slots_of(heap);
        unsigned count = 0;
        size_t freed;
        assert_int_equal(fill(heap, slots, 30000, &count), ENOMEM);
        for (unsigned i = 0; i < SLOTS; i++)
            if (i % 64 != 0 && slots[i] != 0)
                assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
        assert_int_equal(nvm_trim(heap, &freed), 0);
        assert_true(freed > 8 << 20);
        assert_true(blocks_of_file(path) < 8 << 20);
        assert_int_equal(nvm_trim(heap, &freed), 0);
        assert_int_equal(freed, 0);
        assert_int_equal(nvm_check(heap), 0);
        expect_content(heap, slots, 30000);
        /* Holes are known after a reopen, too. */
        assert_int_equal(nvm_close(heap), 0);
        heap = open_at(path);
        slots = slots_of(heap);
        expect_content(heap, slots, 30000);
        count = 0;
        assert_int_equal(fill(heap, slots, 30000, &count), ENOMEM);
        assert_true(count > 400);
        assert_true(blocks_of_file(path) > 14 << 20);
        expect_content(heap, slots, 30000);
        assert_int_equal(nvm_check(heap), 0);
        assert_int_equal(nvm_close(heap), 0);
    }
    unlink(path);
}

/* Trimming while others allocate and free. */
static nvm_heap *busy_heap;
static atomic_bool busy;

static void *work_beside(void *argument)
{
    nvm_ref *slots = argument;
    unsigned seed = (unsigned)(uintptr_t)argument;
    while (busy) {
        unsigned i = (unsigned)rand_r(&seed) % 64;
        if (slots[i] != 0) {
            const size_t *block = nvm_ptr(busy_heap, slots[i]);
            if (*block != i)
                abort();
            if (nvm_free_from(busy_heap, &slots[i]) != 0)
                abort();
        } else if (nvm_malloc_to(busy_heap, &slots[i],
                                 8 + (size_t)rand_r(&seed) % 200000) == 0) {
            *(size_t *)nvm_ptr(busy_heap, slots[i]) = i;
        }
    }
    return NULL;
}

static void test_trim_beside_allocation(void **state)
{
    (void)state;
    pthread_t threads[3];
    busy_heap = make_at(path, 8 << 20, 32 << 20, NVM_LOG_OWNED);
    nvm_ref *slots = slots_of(busy_heap);
    busy = true;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work_beside, &slots[64 * i]),
                         0);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(nvm_trim(busy_heap, NULL), 0);
        usleep(1000);
    }
    busy = false;
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    if (nvm_check(busy_heap) != 0)
        fail_msg("%s", nvm_error());
    assert_int_equal(nvm_close(busy_heap), 0);
    unlink(path);
}

#define HEAPS 12u /* more than a thread remembers */

static void test_many_heaps(void **state)
{
    (void)state;
    nvm_heap *heaps[HEAPS];
    nvm_ref *slots[HEAPS];
    char files[HEAPS][96];
    for (unsigned i = 0; i < HEAPS; i++) {
        snprintf(files[i], sizeof(files[i]), "%s.%u", path, i);
        heaps[i] = make_at(files[i], 2 << 20, 0, (enum nvm_mode)(i % 3));
        slots[i] = slots_of(heaps[i]);
    }
    for (unsigned round = 0; round < 400; round++) {
        unsigned i = round * 7 % HEAPS, slot = round / HEAPS;
        assert_int_equal(nvm_malloc_to(heaps[i], &slots[i][slot], 200 + i), 0);
        *(unsigned *)nvm_ptr(heaps[i], slots[i][slot]) = i;
        nvm_persist(heaps[i], nvm_ptr(heaps[i], slots[i][slot]), sizeof(unsigned));
        assert_int_equal(nvm_free_from(heaps[(i + 1) % HEAPS], &slots[i][slot]), EINVAL);
    }
    for (unsigned i = 0; i < HEAPS; i++) {
        assert_int_equal(nvm_check(heaps[i]), 0);
        assert_int_equal(nvm_close(heaps[i]), 0);
        heaps[i] = open_at(files[i]);
        slots[i] = slots_of(heaps[i]);
        for (unsigned slot = 0; slot < 33; slot++)
            assert_int_equal(*(unsigned *)nvm_ptr(heaps[i], slots[i][slot]), i);
    }
    for (unsigned i = 0; i < HEAPS; i++) {
        assert_int_equal(nvm_close(heaps[i]), 0);
        unlink(files[i]);
    }
}

/* More threads than lanes: a small heap has 4, the last of them shared. */
#define CROWD 12u
static pthread_barrier_t crowded;

static void *crowd(void *argument)
{
    nvm_ref *slots = argument;
    for (unsigned i = 0; i < 300; i++) {
        nvm_ref *slot = &slots[i % 16];
        if ((*slot == 0 ? nvm_malloc_to(busy_heap, slot, 100)
                        : nvm_free_from(busy_heap, slot)) != 0)
            abort();
        if (i == 100) /* all are in it at once */
            pthread_barrier_wait(&crowded);
    }
    return NULL;
}

static void test_more_threads_than_lanes(void **state)
{
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_LOG_STRICT; mode++) {
        pthread_t threads[CROWD];
        struct nvm_heap_stats stats;
        busy_heap = make_at(path, 3 << 20, 0, (enum nvm_mode)mode);
        nvm_ref *slots = slots_of(busy_heap);
        pthread_barrier_init(&crowded, NULL, CROWD);
        for (unsigned i = 0; i < CROWD; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, crowd, &slots[16 * i]), 0);
        for (unsigned i = 0; i < CROWD; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&crowded);
        uint64_t live = 1;
        for (unsigned i = 0; i < SLOTS; i++)
            live += slots[i] != 0;
        nvm_stats(busy_heap, &stats);
        assert_int_equal(stats.live_blocks, live);
        if (nvm_check(busy_heap) != 0)
            fail_msg("%s", nvm_error());
        assert_int_equal(nvm_close(busy_heap), 0);
    }
    unlink(path);
}

/* --- fork --- */

static int visit_name(void *context, const char *name, nvm_ref *slot)
{
    (void)context, (void)name, (void)slot;
    return 1;
}

static int visit_block(void *context, void *block, size_t usable)
{
    (void)context, (void)block, (void)usable;
    return 1;
}

/* Every call fails with EPERM; the number of the first that does not. */
static int refused_everywhere(nvm_heap *heap, nvm_ref *slots)
{
    struct nvm_action action = {.kind = NVM_ACT_FREE, .slot = &slots[0]};
    struct nvm_heap_stats stats;
    nvm_ref *const list[] = {&slots[0]};
    const int results[] = {
        nvm_malloc_to(heap, &slots[1], 10),
        nvm_aligned_malloc_to(heap, &slots[1], 64, 10),
        nvm_free_from(heap, &slots[0]),
        nvm_realloc_to(heap, &slots[0], 1000),
        nvm_move_to(heap, &slots[0], &slots[1]),
        nvm_publish(heap, &action, 1),
        nvm_cancel(heap, 65536),
        nvm_defrag(heap, list, 1, NULL),
        nvm_check(heap),
        nvm_rebuild(heap),
        nvm_walk(heap, visit_block, NULL),
        nvm_each_name(heap, visit_name, NULL),
        nvm_unname(heap, "x"),
        nvm_trim(heap, NULL),
        nvm_free(heap, slots),
        nvm_reserve(heap, 10) == 0 ? errno : 0,
        nvm_root(heap, 10) == NULL ? errno : 0,
        nvm_named(heap, "x", 1) == NULL ? errno : 0,
        nvm_malloc(heap, 10) == NULL ? errno : 0,
        nvm_usable_size(heap, 65536) == 0 ? EPERM : 0,
    };
    for (unsigned i = 0; i < sizeof(results) / sizeof(results[0]); i++)
        if (results[i] != EPERM)
            return (int)i + 1;
    nvm_stats(heap, &stats);
    nvm_persist(heap, slots, 64);
    nvm_thread_leave(heap);
    return nvm_close(heap) == 0 ? 0 : 100;
}

static int wait_for(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_fork(void **state)
{
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        char other[96];
        snprintf(other, sizeof(other), "%s.other", path);
        nvm_heap *heap = make_at(path, 2 << 20, 0, (enum nvm_mode)mode);
        nvm_ref *slots = slots_of(heap);
        assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
        pid_t child = fork();
        if (child == 0) {
            int refused = refused_everywhere(heap, slots);
            if (refused != 0)
                _exit(refused);
            nvm_heap *own;
            unlink(other);
            if (nvm_create(other, 1 << 20, &own) != 0)
                _exit(201);
            nvm_ref *root = nvm_root(own, 64);
            if (root == NULL || nvm_malloc_to(own, root, 50) != 0 || nvm_close(own) != 0)
                _exit(202);
            if (nvm_open(path, &own) != EBUSY)
                _exit(203);
            _exit(0);
        }
        assert_int_equal(wait_for(child), 0);
        unlink(other);
        assert_int_equal(nvm_malloc_to(heap, &slots[1], 100), 0);
        assert_int_equal(nvm_check(heap), 0);
        assert_int_equal(nvm_close(heap), 0);
    }
    unlink(path);
}

/* Forks while others are in the heap: the child must get through close and exit. */
static void test_fork_beside_threads(void **state)
{
    (void)state;
    pthread_t threads[3];
    busy_heap = make_at(path, 16 << 20, 0, NVM_LOG_OWNED);
    nvm_ref *slots = slots_of(busy_heap);
    busy = true;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work_beside, &slots[64 * i]),
                         0);
    for (unsigned i = 0; i < 40; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            _exit(refused_everywhere(busy_heap, &slots[1000]));
        }
        assert_int_equal(wait_for(child), 0);
    }
    busy = false;
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(nvm_check(busy_heap), 0);
    assert_int_equal(nvm_close(busy_heap), 0);
    unlink(path);
}

/* The parent ends, its child lives on: the heap can be opened. */
static void test_lock_ends_with_the_parent(void **state)
{
    (void)state;
    int end[2], ready[2];
    char byte = 0;
    assert_int_equal(nvm_close(make_at(path, 2 << 20, 0, NVM_LOG_OWNED)), 0);
    assert_int_equal(pipe(end), 0);
    assert_int_equal(pipe(ready), 0);
    pid_t parent = fork();
    if (parent == 0) {
        nvm_heap *heap;
        close(end[1]);
        if (nvm_open(path, &heap) != 0)
            _exit(1);
        if (fork() == 0) {
            /* Here it has let go of the file. */
            if (write(ready[1], &byte, 1) != 1)
                _exit(1);
            _exit((int)read(end[0], &byte, 1)); /* until the test closes the pipe */
        }
        _exit(read(ready[0], &byte, 1) != 1);
    }
    close(end[0]);
    assert_int_equal(wait_for(parent), 0);
    assert_int_equal(nvm_close(open_at(path)), 0);
    close(end[1]);
    close(ready[0]);
    close(ready[1]);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_to_its_maximum),
        cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_full_file_system),
        cmocka_unit_test(test_trim_gives_pages_back),
        cmocka_unit_test(test_trim_beside_allocation),
        cmocka_unit_test(test_many_heaps),
        cmocka_unit_test(test_more_threads_than_lanes),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_fork_beside_threads),
        cmocka_unit_test(test_lock_ends_with_the_parent),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-space-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
