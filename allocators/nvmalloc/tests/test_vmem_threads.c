/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads: sleeping and waking, and a stress over a tree of arenas with quantum caches.
 * The oracle of the stress is an owner's mark on every unit of the managed range: an
 * allocation claims its units with an atomic exchange, and a unit handed out twice is
 * seen at once. Meant to run under ThreadSanitizer too. argv[1]: operations a thread.
 */
#include "test_vmem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum { THREADS = 8, UNITS = 1 << 14, QUANTUM = 16, LIVE = 48 };

static _Atomic uint8_t owner[UNITS + 1];
static vmem_t *stress_top, *stress_mid, *stress_leaf;
static unsigned long stress_ops = 20000;

static void *add_later(void *arg)
{
    nanosleep(&(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL);
    CHECK(vmem_add(arg, ADDR(1000), 10, VM_NOSLEEP) != NULL);
    return NULL;
}

static void test_sleeper_wakes_when_a_span_is_added(void)
{
    vmem_t *vmp = vmem_create("sleepy", NULL, 0, 1, NULL, NULL, NULL, 0, VM_SLEEP);
    pthread_t thread;
    vmem_kstat_t ks;

    CHECK(pthread_create(&thread, NULL, add_later, vmp) == 0);
    CHECK(vmem_alloc(vmp, 10, VM_SLEEP) == ADDR(1000));
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_wait == 1 && ks.vk_fail == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    vmem_destroy(vmp);
}

typedef struct later {
    vmem_t *vmp;
    void *addr;
    size_t size;
} later_t;

static void *free_later(void *arg)
{
    later_t *later = arg;

    nanosleep(&(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL);
    vmem_free(later->vmp, later->addr, later->size);
    return NULL;
}

static void sleep_until_freed(vmem_t *freed, vmem_t *wanted, size_t size)
{
    later_t later = {.vmp = freed, .size = size};
    pthread_t thread;

    later.addr = vmem_alloc(freed, size, VM_NOSLEEP);
    CHECK(later.addr != NULL && vmem_alloc(wanted, size, VM_NOSLEEP) == NULL);
    CHECK(pthread_create(&thread, NULL, free_later, &later) == 0);
    void *a = vmem_alloc(wanted, size, VM_SLEEP);
    CHECK(a != NULL);
    CHECK(pthread_join(thread, NULL) == 0);
    vmem_free(wanted, a, size);
    CHECK_ARENA(wanted);
    CHECK_ARENA(freed);
}

static void test_sleeper_wakes_when_memory_is_freed(void)
{
    vmem_t *parent =
        vmem_create("parent", ADDR(16), 160, 16, NULL, NULL, NULL, 0, VM_SLEEP);
    vmem_t *child =
        vmem_create("child", NULL, 0, 16, vmem_alloc, vmem_free, parent, 0, VM_SLEEP);
    vmem_t *cached =
        vmem_create("cached", ADDR(16), 160, 16, NULL, NULL, NULL, 64, VM_SLEEP);

    sleep_until_freed(parent, parent, 160);
    sleep_until_freed(child, child, 160); /* the child's span passes through the parent */
    sleep_until_freed(parent, child, 160); /* the source has it: nobody tells the child */
    sleep_until_freed(cached, cached, 160);
    /* All in single quanta: what is freed lies in a magazine, and the arena is not told.
     */
    void *a[10];
    for (int i = 0; i < 10; i++)
        CHECK((a[i] = vmem_alloc(cached, 16, VM_NOSLEEP)) != NULL);
    vmem_free(cached, a[9], 16);
    sleep_until_freed(cached, cached, 16);
    for (int i = 0; i < 9; i++)
        vmem_free(cached, a[i], 16);
    CHECK(vmem_destroy(cached) == 0);
    CHECK(vmem_destroy(child) == 0);
    CHECK(vmem_destroy(parent) == 0);
}

static void mark(void *addr, size_t size, uint8_t from, uint8_t to)
{
    uintptr_t first = (uintptr_t)addr / QUANTUM, n = (size + QUANTUM - 1) / QUANTUM;

    for (uintptr_t i = first; i < first + n; i++) {
        CHECK(i >= 1 && i <= UNITS);
        CHECK(atomic_exchange(&owner[i], to) == from);
    }
}

typedef struct piece {
    vmem_t *vmp;
    void *addr;
    size_t size;
    bool constrained;
} piece_t;

static piece_t take(uint64_t *rng, uint8_t me)
{
    static const int policies[] = {0, 0, VM_BESTFIT, VM_FIRSTFIT, VM_NEXTFIT};
    vmem_t *const arenas[] = {stress_leaf, stress_leaf, stress_mid, stress_top};
    piece_t p = {.vmp = arenas[test_random(rng) % 4]};
    int flags = VM_NOSLEEP | policies[test_random(rng) % 5];

    p.size = (1 + test_random(rng) % (test_random(rng) % 8 ? 16 : 64)) * QUANTUM;
    p.constrained = test_random(rng) % 3 == 0;
    if (p.constrained) {
        size_t align = (size_t)QUANTUM << test_random(rng) % 4;
        p.addr = vmem_xalloc(p.vmp, p.size, align, 0, test_random(rng) % 2 ? 1024 : 0,
                             NULL, NULL, flags);
        CHECK((uintptr_t)p.addr % align == 0);
    } else {
        p.addr = vmem_alloc(p.vmp, p.size, flags);
    }
    if (p.addr != NULL)
        mark(p.addr, p.size, 0, me);
    return p;
}

static void give(piece_t *p, uint8_t me)
{
    mark(p->addr, p->size, me, 0);
    if (p->constrained)
        vmem_xfree(p->vmp, p->addr, p->size);
    else
        vmem_free(p->vmp, p->addr, p->size);
    p->addr = NULL;
}

static void ignore(void *arg, void *start, size_t size)
{
    (void)start;
    *(size_t *)arg += size;
}

static void *stress(void *arg)
{
    uint8_t me = (uint8_t)(uintptr_t)arg;
    uint64_t rng = 0x9E3779B97F4A7C15u * me;
    piece_t live[LIVE] = {{.addr = NULL}};

    for (unsigned long i = 0; i < stress_ops; i++) {
        piece_t *p = &live[test_random(&rng) % LIVE];
        if (p->addr != NULL)
            give(p, me);
        else
            *p = take(&rng, me);
        if (i % 997 == 0) {
            size_t sum = 0;
            vmem_walk(stress_mid, VMEM_ALLOC | VMEM_REENTRANT, ignore, &sum);
            CHECK_ARENA(stress_mid);
        }
        if (i % 1999 == 0)
            vmem_update(NULL);
        if (i % 2999 == 0)
            vmem_reap(NULL);
    }
    for (int i = 0; i < LIVE; i++)
        if (live[i].addr != NULL)
            give(&live[i], me);
    return NULL;
}

static void test_stress_of_a_tree(void)
{
    pthread_t thread[THREADS];

    stress_top = vmem_create("top", ADDR(QUANTUM), (size_t)UNITS * QUANTUM, QUANTUM, NULL,
                             NULL, NULL, 0, VM_SLEEP);
    stress_mid = vmem_create("mid", NULL, 0, QUANTUM, vmem_alloc, vmem_free, stress_top,
                             4 * QUANTUM, VM_SLEEP);
    stress_leaf = vmem_create("leaf", NULL, 0, QUANTUM, vmem_alloc, vmem_free, stress_mid,
                              16 * QUANTUM, VM_SLEEP);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, stress, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);

    vmem_reap(stress_leaf);
    CHECK(vmem_size(stress_leaf, VMEM_SPAN) == 0);
    vmem_reap(stress_mid);
    CHECK(vmem_size(stress_mid, VMEM_SPAN) == 0);
    CHECK(vmem_size(stress_top, VMEM_ALLOC) == 0);
    CHECK_ARENA(stress_leaf);
    CHECK_ARENA(stress_mid);
    CHECK_ARENA(stress_top);
    CHECK(vmem_destroy(stress_leaf) == 0);
    CHECK(vmem_destroy(stress_mid) == 0);
    CHECK(vmem_destroy(stress_top) == 0);
}

/* Small enough that all threads sleep for space most of the time: none may oversleep. */
static vmem_t *scarce;

static void *scarce_worker(void *arg)
{
    uint64_t rng = 77 + (uintptr_t)arg;

    for (int i = 0; i < 300; i++) {
        size_t size = 1 + test_random(&rng) % 8;
        void *a = vmem_xalloc(scarce, size, 0, 0, 0, NULL, NULL, VM_SLEEP);
        CHECK(a != NULL);
        if (i % 16 == 0)
            sched_yield();
        vmem_xfree(scarce, a, size);
    }
    return NULL;
}

static void test_all_sleepers_get_their_turn(void)
{
    pthread_t thread[THREADS];

    scarce = vmem_create("scarce", ADDR(1), 8, 1, NULL, NULL, NULL, 0, VM_SLEEP);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, scarce_worker, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    CHECK_ARENA(scarce);
    CHECK(vmem_destroy(scarce) == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        stress_ops = strtoul(argv[1], NULL, 10);
    RUN(test_sleeper_wakes_when_a_span_is_added);
    RUN(test_sleeper_wakes_when_memory_is_freed);
    RUN(test_stress_of_a_tree);
    RUN(test_all_sleepers_get_their_turn);
    return 0;
}
