/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spans that change: vmem_extend() and vmem_trim(), alone, while others allocate, and
 * while the process forks. Both are rules of the model in tests/vmem, too.
 */
#include "test_vmem.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static vmem_t *arena(const char *name, size_t base, size_t size, size_t quantum,
                     size_t qcache_max)
{
    vmem_t *vmp = vmem_create(name, ADDR(base), size, quantum, NULL, NULL, NULL,
                              qcache_max, VM_NOSLEEP | VMC_IDENTIFIER);
    CHECK(vmp != NULL);
    return vmp;
}

static vmem_t *child_of(vmem_t *source, size_t quantum, size_t qcache_max)
{
    vmem_t *vmp = vmem_create("child", NULL, 0, quantum, vmem_alloc, vmem_free, source,
                              qcache_max, VM_NOSLEEP | VMC_IDENTIFIER);
    CHECK(vmp != NULL);
    return vmp;
}

static void test_an_extended_span_is_one_with_what_was_free_at_its_end(void)
{
    vmem_t *vmp = arena("extended", 100, 100, 1, 0);
    void *a = vmem_alloc(vmp, 60, VM_NOSLEEP);

    CHECK(a == ADDR(100) && vmem_alloc(vmp, 50, VM_NOSLEEP) == NULL);
    CHECK(vmem_extend(vmp, ADDR(200), 10, VM_NOSLEEP) == ADDR(200));
    CHECK(vmem_size(vmp, VMEM_SPAN) == 110);
    CHECK(vmem_alloc(vmp, 50, VM_NOSLEEP) == ADDR(160)); /* across the old end */
    CHECK_ARENA(vmp);
    CHECK(vmem_extend(vmp, ADDR(210), 10, VM_NOSLEEP) == ADDR(210)); /* none free there */
    CHECK(vmem_alloc(vmp, 10, VM_NOSLEEP) == ADDR(210));
    CHECK(vmem_contains(vmp, ADDR(100), 120));
    /* No span ends there: it is a new one. */
    CHECK(vmem_extend(vmp, ADDR(500), 20, VM_NOSLEEP) == ADDR(500));
    CHECK(vmem_size(vmp, VMEM_SPAN) == 140 && vmem_size(vmp, VMEM_FREE) == 20);
    CHECK(vmem_extend(vmp, ADDR(480), 30, VM_NOSLEEP) == NULL && errno == EEXIST);
    CHECK(vmem_extend(vmp, ADDR(520), 0, VM_NOSLEEP) == NULL && errno == EINVAL);
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
}

/* An import that ends where the new range begins is the source's: it is left alone. */
static void test_an_import_is_not_extended(void)
{
    vmem_t *source = arena("source", 1, 100, 1, 0);
    vmem_t *vmp = child_of(source, 1, 0);
    void *a = vmem_alloc(vmp, 10, VM_NOSLEEP);

    CHECK(a == ADDR(1) && vmem_extend(vmp, ADDR(11), 5, VM_NOSLEEP) == ADDR(11));
    vmem_free(vmp, a, 10);
    CHECK(vmem_size(vmp, VMEM_SPAN) == 5 && vmem_size(source, VMEM_ALLOC) == 0);
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
    vmem_destroy(source);
}

/* Imports of 100 where they can be had, so that a child has something to be trimmed of.
 */
static void *import_100(vmem_t *source, size_t *size, size_t align, int vmflag)
{
    (void)align;
    void *batch = *size < 100 ? vmem_alloc(source, 100, vmflag) : NULL;
    if (batch == NULL)
        return vmem_alloc(source, *size, vmflag);
    *size = 100;
    return batch;
}

static vmem_t *hoarder_of(vmem_t *source)
{
    vmem_t *vmp = vmem_xcreate("hoarder", NULL, 0, 1, import_100, vmem_free, source, 0,
                               VM_NOSLEEP | VMC_IDENTIFIER);
    CHECK(vmp != NULL);
    return vmp;
}

typedef struct seen {
    size_t n;
    uintptr_t start[16];
    size_t size[16];
} seen_t;

static void see(void *arg, void *start, size_t size)
{
    seen_t *seen = arg;

    CHECK(seen->n < 16);
    seen->start[seen->n] = (uintptr_t)start;
    seen->size[seen->n++] = size;
}

static void test_a_trimmed_import_holds_what_is_allocated_only(void)
{
    vmem_t *source = arena("source", 4, 400, 4, 0);
    vmem_t *vmp = hoarder_of(source);
    vmem_kstat_t before, after;
    seen_t spans = {.n = 0}, kept = {.n = 0};

    CHECK(vmem_trim(vmp) == 0);
    for (uintptr_t i = 4; i < 104; i++)
        CHECK(vmem_alloc(vmp, 1, VM_NOSLEEP | VM_FIRSTFIT) == ADDR(i));
    CHECK(vmem_trim(vmp) == 0); /* nothing is free */
    for (uintptr_t i = 4; i < 104; i++)
        if (i != 14 && i != 19 && i != 40 && i != 102)
            vmem_free(vmp, ADDR(i), 1);
    vmem_kstat(source, &before);
    CHECK(before.vk_mem_inuse == 100);

    /* In quanta of the source: [12, 16), [16, 20), [40, 44) and [100, 104) are left. */
    CHECK(vmem_trim(vmp) == 100 - 16);
    CHECK_ARENA(vmp);
    CHECK_ARENA(source);
    vmem_walk(vmp, VMEM_SPAN, see, &spans);
    CHECK(spans.n == 3 && spans.start[0] == 12 && spans.size[0] == 8);
    CHECK(spans.start[1] == 40 && spans.size[1] == 4);
    CHECK(spans.start[2] == 100 && spans.size[2] == 4);
    vmem_walk(source, VMEM_ALLOC, see, &kept);
    CHECK(kept.n == 3 && memcmp(kept.start, spans.start, 3 * sizeof(kept.start[0])) == 0);
    vmem_kstat(source, &after);
    CHECK(after.vk_mem_inuse == 16);
    CHECK(after.vk_alloc - after.vk_free == 3 && after.vk_free - before.vk_free == 3);
    CHECK(vmem_trim(vmp) == 0); /* the slivers stay */

    /* Each part goes back on its own when it is whole. */
    vmem_free(vmp, ADDR(40), 1);
    CHECK(vmem_size(source, VMEM_ALLOC) == 12 && vmem_size(vmp, VMEM_SPAN) == 12);
    vmem_free(vmp, ADDR(14), 1);
    CHECK(vmem_trim(vmp) == 4 && vmem_size(source, VMEM_ALLOC) == 8);
    vmem_free(vmp, ADDR(19), 1);
    vmem_free(vmp, ADDR(102), 1);
    CHECK(vmem_size(source, VMEM_ALLOC) == 0 && vmem_size(vmp, VMEM_SPAN) == 0);
    CHECK_ARENA(source);
    CHECK(vmem_destroy(vmp) == 0);
    CHECK(vmem_destroy(source) == 0);
}

/* The rotor lies in what is cut out, and next fit goes on from where that was. */
static void test_the_rotor_survives_a_trim(void)
{
    vmem_t *source = arena("source", 1, 100, 1, 0);
    vmem_t *vmp = hoarder_of(source);

    for (uintptr_t i = 1; i <= 50; i++)
        CHECK(vmem_alloc(vmp, 1, VM_NOSLEEP | VM_NEXTFIT) == ADDR(i));
    CHECK(vmem_alloc(vmp, 30, VM_NOSLEEP) == ADDR(51));
    for (uintptr_t i = 2; i <= 50; i++)
        vmem_free(vmp, ADDR(i), 1); /* the rotor is at 51 */
    CHECK(vmem_trim(vmp) == 49 + 20);
    CHECK_ARENA(vmp);
    CHECK(vmem_alloc(vmp, 20, VM_NOSLEEP | VM_NEXTFIT) != NULL); /* imported */
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
    vmem_destroy(source);
}

/* What is no plain allocation of an arena can't be split, and stays. */
static void test_other_imports_are_left_alone(void)
{
    vmem_t *source = vmem_create("cached", ADDR(64), 64 << 10, 64, NULL, NULL, NULL,
                                 16 * 64, VM_NOSLEEP | VMC_IDENTIFIER);
    vmem_t *vmp = child_of(source, 1, 0);
    void *a = vmem_alloc(vmp, 1, VM_NOSLEEP); /* imports 64 from a quantum cache */

    CHECK(a != NULL && vmem_trim(vmp) == 0);
    CHECK(vmem_size(vmp, VMEM_SPAN) == 64);
    CHECK_ARENA(vmp);
    vmem_free(vmp, a, 1);
    CHECK(vmem_destroy(vmp) == 0);
    CHECK(vmem_destroy(source) == 0);

    vmem_t *top = vmem_init(NULL, 0, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL);
    CHECK(vmem_source(top) == NULL && vmem_trim(top) == 0);
}

/* Its own quantum caches hold free objects of an import: they go back first. */
static void test_a_trim_empties_the_quantum_caches(void)
{
    vmem_t *source = arena("source", 64, 64 << 10, 64, 0);
    vmem_t *vmp = child_of(source, 64, 4 * 64);
    void *a[40];

    for (int i = 0; i < 40; i++)
        CHECK((a[i] = vmem_alloc(vmp, 64, VM_NOSLEEP)) != NULL);
    for (int i = 0; i < 40; i++)
        vmem_free(vmp, a[i], 64);
    CHECK(vmem_size(source, VMEM_ALLOC) > 0);
    vmem_trim(vmp);
    CHECK(vmem_size(source, VMEM_ALLOC) == 0);
    vmem_destroy(vmp);
    vmem_destroy(source);
}

/* ---- while others allocate and free, and the process forks ---- */

enum { UNITS = 4096, WORKERS = 3, LIVE = 64, FORKS = 20 };

static vmem_t *shared_source, *hoarder[2];
static _Atomic uint8_t owner[UNITS + 1];
static atomic_bool stop;

static void mark(void *addr, size_t size, uint8_t from, uint8_t to)
{
    for (size_t i = 0; i < size; i++)
        CHECK(atomic_exchange(&owner[(uintptr_t)addr + i], to) == from);
}

static void *worker(void *arg)
{
    uint8_t me = (uint8_t)(uintptr_t)arg;
    uint64_t rng = 77 * me;
    struct {
        void *addr;
        size_t size;
        vmem_t *vmp;
    } live[LIVE] = {{NULL, 0, NULL}};

    while (!atomic_load(&stop)) {
        size_t at = test_random(&rng) % LIVE;
        if (live[at].addr != NULL) {
            mark(live[at].addr, live[at].size, me, 0);
            vmem_free(live[at].vmp, live[at].addr, live[at].size);
            live[at].addr = NULL;
            continue;
        }
        live[at].vmp = hoarder[test_random(&rng) % 2];
        live[at].size = 1 + test_random(&rng) % 24;
        live[at].addr = vmem_alloc(live[at].vmp, live[at].size, VM_NOSLEEP);
        if (live[at].addr != NULL)
            mark(live[at].addr, live[at].size, 0, me);
    }
    for (size_t at = 0; at < LIVE; at++) {
        if (live[at].addr == NULL)
            continue;
        mark(live[at].addr, live[at].size, me, 0);
        vmem_free(live[at].vmp, live[at].addr, live[at].size);
    }
    return NULL;
}

static void *trimmer(void *arg)
{
    while (!atomic_load(&stop)) {
        vmem_trim(hoarder[(uintptr_t)arg]);
        CHECK_ARENA(hoarder[0]);
        CHECK_ARENA(shared_source);
        usleep(200);
    }
    return NULL;
}

static void fork_and_use(void)
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(20); /* a lock that nobody holds any more would hang */
        vmem_trim(hoarder[0]);
        vmem_trim(hoarder[1]);
        CHECK_ARENA(hoarder[0]);
        CHECK_ARENA(shared_source);
        void *a = vmem_alloc(hoarder[1], 1, VM_NOSLEEP);
        if (a != NULL)
            vmem_free(hoarder[1], a, 1);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_trims_while_others_work_and_the_process_forks(void)
{
    pthread_t thread[WORKERS + 2];

    shared_source = arena("source", 1, UNITS, 1, 0);
    hoarder[0] = hoarder_of(shared_source);
    hoarder[1] = hoarder_of(shared_source);
    CHECK(pthread_atfork(vmem_lockup, vmem_release, vmem_release) == 0);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&thread[i], NULL, worker, (void *)(i + 1)) == 0);
    for (uintptr_t i = 0; i < 2; i++)
        CHECK(pthread_create(&thread[WORKERS + i], NULL, trimmer, (void *)i) == 0);
    for (int i = 0; i < FORKS; i++) {
        usleep(2000);
        fork_and_use();
    }
    atomic_store(&stop, true);
    for (int i = 0; i < WORKERS + 2; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK_ARENA(hoarder[i]);
        CHECK(vmem_size(hoarder[i], VMEM_SPAN) == 0);
        CHECK(vmem_destroy(hoarder[i]) == 0);
    }
    CHECK_ARENA(shared_source);
    CHECK(vmem_alloc(shared_source, UNITS, VM_NOSLEEP) == ADDR(1));
    vmem_destroy(shared_source);
}

#if defined(__SANITIZE_THREAD__)
/* Its detector of lock cycles can't count as many locks as vmem_lockup() holds. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "detect_deadlocks=0";
}
#endif

int main(void)
{
    RUN(test_an_extended_span_is_one_with_what_was_free_at_its_end);
    RUN(test_an_import_is_not_extended);
    RUN(test_a_trimmed_import_holds_what_is_allocated_only);
    RUN(test_the_rotor_survives_a_trim);
    RUN(test_other_imports_are_left_alone);
    RUN(test_a_trim_empties_the_quantum_caches);
    RUN(test_trims_while_others_work_and_the_process_forks);
    return 0;
}
