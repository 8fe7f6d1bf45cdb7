/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork() under load: with vmem_lockup() and vmem_release() around it, every child finds
 * all arenas and caches whole and free to use, whatever the other threads were doing.
 */
#include "test_vmem.h"

#include <pthread.h>
#include <stdatomic.h>

enum { FORKS = 60, WORKERS = 3 };

static vmem_t *parent_arena, *cached;
static objcache_t *objects;
static atomic_bool stop;

#if defined(__SANITIZE_THREAD__)
/* Its detector of lock cycles can't count as many locks as vmem_lockup() holds. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "detect_deadlocks=0";
}
#endif

static void *worker(void *arg)
{
    uint64_t rng = 4711 + (uintptr_t)arg;

    while (!atomic_load(&stop)) {
        size_t size = (1 + test_random(&rng) % 32) * 16;
        void *a = vmem_alloc(cached, size, VM_NOSLEEP);
        void *o = objcache_alloc(objects, VM_NOSLEEP);
        if (a != NULL)
            vmem_free(cached, a, size);
        if (o != NULL)
            objcache_free(objects, o);
        if (test_random(&rng) % 64 == 0)
            vmem_reap(cached);
    }
    return NULL;
}

static void *sleeper(void *arg)
{
    (void)arg;
    void *a = vmem_xalloc(parent_arena, 16 << 10, 0, 0, 0, NULL, NULL, VM_SLEEP);
    vmem_xfree(parent_arena, a, 16 << 10);
    return NULL;
}

static void use_everything(void)
{
    void *a[100];

    CHECK_ARENA(parent_arena);
    CHECK_ARENA(cached);
    for (size_t i = 0; i < 100; i++)
        a[i] = vmem_alloc(cached, (1 + i % 32) * 16, VM_NOSLEEP);
    for (size_t i = 0; i < 100; i++)
        if (a[i] != NULL)
            vmem_free(cached, a[i], (1 + i % 32) * 16);
    void *o = objcache_alloc(objects, VM_NOSLEEP);
    CHECK(o != NULL);
    objcache_free(objects, o);
    vmem_update(NULL);
    vmem_t *fresh = vmem_create("fresh", ADDR(1), 10, 1, NULL, NULL, NULL, 4, VM_NOSLEEP);
    CHECK(fresh != NULL && vmem_destroy(fresh) == 0);
    CHECK_ARENA(cached);
}

static void test_children_find_all_whole(void)
{
    pthread_t thread[WORKERS], waiting;

    parent_arena =
        vmem_create("parent", ADDR(16), 32 << 10, 16, NULL, NULL, NULL, 0, VM_SLEEP);
    cached = vmem_create("cached", NULL, 0, 16, vmem_alloc, vmem_free, parent_arena, 256,
                         VM_SLEEP);
    objects = objcache_create("objects", 100, 0, NULL, NULL, NULL, NULL, NULL, 0);
    void *plug = vmem_xalloc(parent_arena, 20 << 10, 0, 0, 0, NULL, NULL, VM_SLEEP);
    CHECK(pthread_create(&waiting, NULL, sleeper, NULL) == 0);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&thread[i], NULL, worker, (void *)i) == 0);

    CHECK(pthread_atfork(vmem_lockup, vmem_release, vmem_release) == 0);
    for (int i = 0; i < FORKS; i++) {
        int status;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            alarm(20); /* a lock that nobody holds any more would hang */
            use_everything();
            if (i % 2) /* with the sleeper's condition variable, that is gone */
                vmem_destroy(cached), vmem_destroy(parent_arena);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < WORKERS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    vmem_xfree(parent_arena, plug, 20 << 10);
    vmem_reap(cached);
    CHECK(pthread_join(waiting, NULL) == 0);
    use_everything();
    CHECK(objcache_destroy(objects) == 0);
    CHECK(vmem_destroy(cached) == 0);
    CHECK(vmem_destroy(parent_arena) == 0);
}

int main(void)
{
    RUN(test_children_find_all_whole);
    return 0;
}
