/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every function, flag and counter of vmem.h, one thread. Each test makes its own arenas
 * and checks all invariants with vmem_check(). The random part is in tests/vmem (against
 * a model), threads in test_vmem_threads.c, the ports' faults in test_vmem_ports.c.
 */
#include "test_vmem.h"

#include <errno.h>

static vmem_t *arena(const char *name, size_t base, size_t size, size_t quantum)
{
    vmem_t *vmp = vmem_create(name, ADDR(base), size, quantum, NULL, NULL, NULL, 0,
                              VM_NOSLEEP | VMC_IDENTIFIER);
    CHECK(vmp != NULL);
    return vmp;
}

static void *fixed(vmem_t *vmp, size_t at, size_t size)
{
    return vmem_xalloc(vmp, size, 0, 0, 0, ADDR(at), ADDR(at + size), VM_NOSLEEP);
}

static void test_alloc_free_and_counters(void)
{
    vmem_t *vmp = arena("counters", 100, 1000, 1);
    vmem_kstat_t ks;

    CHECK(vmem_size(vmp, VMEM_FREE) == 1000 && vmem_size(vmp, VMEM_ALLOC) == 0);
    void *a = vmem_alloc(vmp, 300, VM_NOSLEEP);
    void *b = vmem_alloc(vmp, 700, VM_NOSLEEP);
    CHECK(a != NULL && b != NULL);
    errno = 0;
    CHECK(vmem_alloc(vmp, 1, VM_NOSLEEP) == NULL && errno == ENOMEM);
    CHECK_ARENA(vmp);
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_mem_inuse == 1000 && ks.vk_mem_total == 1000 && ks.vk_mem_import == 0);
    CHECK(ks.vk_alloc == 2 && ks.vk_free == 0 && ks.vk_fail == 1 && ks.vk_source_id == 0);
    CHECK(ks.vk_wait == 0 && ks.vk_populate_wait == 0 && ks.vk_populate_fail == 0);
    vmem_free(vmp, a, 300);
    vmem_free(vmp, b, 700);
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_free == 2 && ks.vk_lookup == 2 && ks.vk_mem_inuse == 0);
    CHECK(vmem_size(vmp, VMEM_FREE) == 1000);
    CHECK(vmem_size(vmp, VMEM_ALLOC | VMEM_FREE) == 1000 &&
          vmem_size(vmp, VMEM_SPAN) == 1000);
    CHECK_ARENA(vmp);
    CHECK(vmem_destroy(vmp) == 0);
}

static void test_sizes_round_up_to_the_quantum(void)
{
    vmem_t *vmp = arena("quantum", 4096, 65536, 4096);
    void *a = vmem_alloc(vmp, 1, VM_NOSLEEP);

    CHECK(a != NULL && vmem_size(vmp, VMEM_ALLOC) == 4096);
    vmem_free(vmp, a, 4096); /* the same number of quanta is the same size */
    CHECK(vmem_size(vmp, VMEM_ALLOC) == 0);
    CHECK(vmem_alloc(vmp, SIZE_MAX, VM_NOSLEEP) == NULL && errno == ENOMEM);
    CHECK(vmem_alloc(vmp, SIZE_MAX - 4094, VM_NOSLEEP) == NULL && errno == ENOMEM);
    vmem_destroy(vmp);
}

static void test_impossible_arguments_are_einval_and_change_nothing(void)
{
    vmem_t *vmp = arena("einval", 64, 6400, 64);
    vmem_kstat_t before, after;
    struct {
        size_t size, align, phase, nocross, min, max;
    } bad[] = {
        {0, 0, 0, 0, 0, 0},       {64, 192, 0, 0, 0, 0},    {64, 32, 0, 0, 0, 0},
        {64, 128, 128, 0, 0, 0},  {64, 128, 32, 0, 0, 0},   {64, 0, 0, 192, 0, 0},
        {128, 0, 0, 64, 0, 0},    {64, 128, 64, 64, 65, 0}, {64, 0, 0, 0, 0, 100},
        {256, 0, 0, 0, 128, 320}, {64, 0, 0, 0, 320, 128},  {128, 128, 64, 128, 0, 0},
        {64, 0, 0, 96, 0, 0},
    };

    vmem_kstat(vmp, &before);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        errno = 0;
        /* VM_SLEEP: an impossible request must not wait for ever */
        CHECK(vmem_xalloc(vmp, bad[i].size, bad[i].align, bad[i].phase, bad[i].nocross,
                          ADDR(bad[i].min), ADDR(bad[i].max), VM_SLEEP) == NULL);
        CHECK(errno == EINVAL);
    }
    vmem_kstat(vmp, &after);
    CHECK(before.vk_alloc == after.vk_alloc && before.vk_free == after.vk_free);
    CHECK(before.vk_fail == after.vk_fail && before.vk_wait == after.vk_wait);
    CHECK(before.vk_mem_inuse == after.vk_mem_inuse);
    CHECK(before.vk_mem_total == after.vk_mem_total);
    CHECK(vmem_add(vmp, NULL, 64, VM_NOSLEEP) == NULL && errno == EINVAL);
    CHECK(vmem_add(vmp, ADDR(65536), 0, VM_NOSLEEP) == NULL && errno == EINVAL);
    CHECK(vmem_add(vmp, ADDR(65536 + 1), 64, VM_NOSLEEP) == NULL && errno == EINVAL);
    CHECK(vmem_add(vmp, ADDR(SIZE_MAX - 63), 64, VM_NOSLEEP) == NULL && errno == EINVAL);
    CHECK(vmem_add(vmp, ADDR(6400), 128, VM_NOSLEEP) == NULL && errno == EEXIST);
    CHECK(vmem_create("q3", NULL, 0, 3, NULL, NULL, NULL, 0, VM_NOSLEEP) == NULL);
    CHECK(errno == EINVAL);
    CHECK(vmem_create("half", NULL, 0, 1, vmem_alloc, NULL, vmp, 0, VM_NOSLEEP) == NULL);
    CHECK(errno == EINVAL);
    CHECK(vmem_create("at 0", NULL, 10, 1, NULL, NULL, NULL, 0, VM_NOSLEEP) == NULL);
    CHECK(errno == EINVAL);
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
}

static void test_constraints(void)
{
    vmem_t *vmp = arena("constraints", 1, 100000, 1);

    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t phase = 0; phase < align; phase += align / 4 + 1) {
            uintptr_t a =
                (uintptr_t)vmem_xalloc(vmp, 10, align, phase, 0, NULL, NULL, VM_NOSLEEP);
            CHECK(a != 0 && a % align == phase);
        }
    }
    for (int i = 0; i < 20; i++) {
        uintptr_t a = (uintptr_t)vmem_xalloc(vmp, 100, 4, 2, 128, NULL, NULL, VM_NOSLEEP);
        CHECK(a != 0 && a % 4 == 2 && a / 128 == (a + 99) / 128);
    }
    uintptr_t b =
        (uintptr_t)vmem_xalloc(vmp, 10, 0, 0, 0, ADDR(50000), ADDR(50010), VM_NOSLEEP);
    CHECK(b == 50000);
    CHECK(fixed(vmp, 50009, 1) == NULL && errno == ENOMEM);
    CHECK(fixed(vmp, 50010, 1) == ADDR(50010) && fixed(vmp, 49999, 1) == ADDR(49999));
    CHECK(fixed(vmp, 100000, 1) == ADDR(100000) && fixed(vmp, 100001, 1) == NULL);
    CHECK_ARENA(vmp);
    CHECK(vmem_destroy(vmp) > 0);
}

/* Free: 10 at 100, 5 at 200, 20 at 300, 5 at 400 within [1, 1001); the rest allocated. */
static vmem_t *holes(void)
{
    vmem_t *vmp = arena("holes", 1, 1000, 1);
    static const struct {
        size_t at, size;
    } used[] = {{1, 99}, {110, 90}, {205, 95}, {320, 80}, {405, 596}};

    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        CHECK(fixed(vmp, used[i].at, used[i].size) == ADDR(used[i].at));
    CHECK(vmem_size(vmp, VMEM_FREE) == 40);
    CHECK_ARENA(vmp);
    return vmp;
}

static uintptr_t by_policy(vmem_t *vmp, size_t size, int policy)
{
    return (uintptr_t)vmem_alloc(vmp, size, VM_NOSLEEP | policy);
}

static void test_policies(void)
{
    vmem_t *vmp = holes();
    uintptr_t best = by_policy(vmp, 3, VM_BESTFIT);
    CHECK(best == 200 || best == 400);
    CHECK(by_policy(vmp, 6, VM_BESTFIT) == 100);
    vmem_destroy(vmp);

    vmp = holes();
    CHECK(by_policy(vmp, 5, VM_BESTFIT | VM_FIRSTFIT) == 200);
    vmem_free(vmp, ADDR(200), 5); /* now the one on its list that was freed last */
    vmem_free(vmp, fixed(vmp, 400, 5), 5);
    CHECK(by_policy(vmp, 5, VM_BESTFIT | VM_FIRSTFIT) == 200);
    CHECK(by_policy(vmp, 5, VM_BESTFIT | VM_FIRSTFIT) == 400);
    CHECK(by_policy(vmp, 5, VM_BESTFIT | VM_FIRSTFIT) == 100);
    vmem_destroy(vmp);

    vmp = holes();
    CHECK(by_policy(vmp, 5, VM_FIRSTFIT) == 100);
    CHECK(by_policy(vmp, 6, VM_FIRSTFIT) == 300);
    CHECK(by_policy(vmp, 5, VM_FIRSTFIT) == 105);
    CHECK(by_policy(vmp, 5, VM_FIRSTFIT) == 200);
    vmem_destroy(vmp);

    vmp = holes();
    CHECK(by_policy(vmp, 4, VM_NEXTFIT) == 100);
    CHECK(by_policy(vmp, 4, VM_NEXTFIT) == 104);
    CHECK(by_policy(vmp, 4, VM_NEXTFIT) == 200);
    vmem_free(vmp, ADDR(100), 4);
    CHECK(by_policy(vmp, 18, VM_NEXTFIT) == 300);
    CHECK(by_policy(vmp, 3, VM_NEXTFIT) == 400);
    CHECK(by_policy(vmp, 2, VM_NEXTFIT) == 403);
    CHECK(by_policy(vmp, 4, VM_NEXTFIT) == 100); /* round the end */
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);

    vmp = holes();
    CHECK(by_policy(vmp, 16, 0) == 300); /* instant fit */
    CHECK(by_policy(vmp, 20, 0) == 0 && errno == ENOMEM);
    vmem_destroy(vmp);
}

static void test_next_fit_cycles_through_identifiers(void)
{
    vmem_t *vmp = arena("ids", 1, 10, 1);

    for (int round = 0; round < 3; round++) {
        for (uintptr_t id = 1; id <= 10; id++) {
            CHECK(by_policy(vmp, 1, VM_NEXTFIT) == id);
            vmem_free(vmp, ADDR(id), 1);
            CHECK_ARENA(vmp);
        }
    }
    vmem_destroy(vmp);
}

static void test_spans_and_contains(void)
{
    vmem_t *vmp = arena("spans", 100, 100, 1);

    CHECK(vmem_add(vmp, ADDR(300), 100, VM_NOSLEEP) == ADDR(300));
    CHECK(vmem_add(vmp, ADDR(200), 50, VM_NOSLEEP) == ADDR(200));
    CHECK(vmem_add(vmp, ADDR(240), 5, VM_NOSLEEP) == NULL && errno == EEXIST);
    CHECK(vmem_contains(vmp, ADDR(100), 1) && vmem_contains(vmp, ADDR(100), 150));
    CHECK(!vmem_contains(vmp, ADDR(100), 151) && !vmem_contains(vmp, ADDR(99), 2));
    CHECK(!vmem_contains(vmp, ADDR(250), 1) && vmem_contains(vmp, ADDR(399), 1));
    CHECK(!vmem_contains(vmp, ADDR(399), 2) && !vmem_contains(vmp, ADDR(100), 0));
    CHECK(!vmem_contains(vmp, ADDR(100), SIZE_MAX));
    vmem_kstat_t ks;
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_contains == 9 && ks.vk_contains_search >= 9);
    CHECK(vmem_alloc(vmp, 101, VM_NOSLEEP) == NULL); /* spans don't merge */
    CHECK(ks.vk_mem_total == 250);
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
}

typedef struct seen {
    size_t n;
    uintptr_t start[64];
    size_t size[64];
    vmem_t *vmp;
} seen_t;

static void see(void *arg, void *start, size_t size)
{
    seen_t *seen = arg;

    CHECK(seen->n < 64);
    seen->start[seen->n] = (uintptr_t)start;
    seen->size[seen->n++] = size;
}

static void see_and_free(void *arg, void *start, size_t size)
{
    seen_t *seen = arg;

    see(arg, start, size);
    vmem_xfree(seen->vmp, start, size);
    CHECK_ARENA(seen->vmp);
}

static void test_walk(void)
{
    vmem_t *vmp = holes();
    seen_t seen = {.n = 0};

    vmem_walk(vmp, VMEM_FREE, see, &seen);
    CHECK(seen.n == 4 && seen.start[0] == 100 && seen.size[0] == 10 &&
          seen.start[3] == 400);
    seen.n = 0;
    vmem_walk(vmp, VMEM_ALLOC, see, &seen);
    CHECK(seen.n == 5 && seen.start[0] == 1 && seen.size[4] == 596);
    seen.n = 0;
    vmem_walk(vmp, VMEM_SPAN, see, &seen);
    CHECK(seen.n == 1 && seen.start[0] == 1 && seen.size[0] == 1000);
    seen.n = 0;
    vmem_walk(vmp, VMEM_ALLOC | VMEM_FREE, see, &seen);
    CHECK(seen.n == 9);
    uintptr_t at = 1;
    for (size_t i = 0; i < seen.n; i++) {
        CHECK(seen.start[i] == at);
        at += seen.size[i];
    }
    CHECK(at == 1001);

    /* Each callback frees what it is shown: the walk must survive all the merging. */
    seen = (seen_t){.vmp = vmp};
    vmem_walk(vmp, VMEM_ALLOC | VMEM_REENTRANT, see_and_free, &seen);
    CHECK(seen.n == 5 && vmem_size(vmp, VMEM_ALLOC) == 0);
    CHECK(vmem_destroy(vmp) == 0);
}

static void test_import_and_return(void)
{
    vmem_t *parent = arena("parent", 4096, 1 << 20, 4096);
    vmem_t *child =
        vmem_create("child", NULL, 0, 512, vmem_alloc, vmem_free, parent, 0, VM_NOSLEEP);
    vmem_kstat_t ks, pks;

    CHECK(vmem_source(child) == parent && vmem_quantum(child) == 512);
    void *a = vmem_alloc(child, 1000, VM_NOSLEEP);
    void *b = vmem_alloc(child, 2500, VM_NOSLEEP);
    CHECK(a != NULL && b != NULL);
    vmem_kstat(child, &ks);
    vmem_kstat(parent, &pks);
    CHECK(ks.vk_source_id == vmem_id(parent));
    CHECK(ks.vk_mem_import == 4096 &&
          pks.vk_mem_inuse == 4096); /* all that was rounded up */
    void *c = vmem_alloc(child, 5000, VM_NOSLEEP);
    CHECK(c != NULL && vmem_size(parent, VMEM_ALLOC) == 4096 + 8192);
    vmem_free(child, c, 5000);
    CHECK(vmem_size(parent, VMEM_ALLOC) == 4096 && vmem_size(child, VMEM_SPAN) == 4096);
    vmem_free(child, a, 1000);
    CHECK(vmem_size(parent, VMEM_ALLOC) == 4096);
    vmem_free(child, b, 2500);
    CHECK(vmem_size(parent, VMEM_ALLOC) == 0 && vmem_size(child, VMEM_SPAN) == 0);
    CHECK(vmem_xalloc(child, 512, 0, 0, 0, ADDR(4096), NULL, VM_NOSLEEP) == NULL);
    CHECK(vmem_alloc(child, 2 << 20, VM_NOSLEEP) == NULL && errno == ENOMEM);
    CHECK_ARENA(child);
    CHECK_ARENA(parent);

    /* A destroyed child gives everything back, whatever is still allocated. */
    CHECK(vmem_alloc(child, 1000, VM_NOSLEEP) != NULL);
    CHECK(vmem_destroy(child) == 1024);
    CHECK(vmem_size(parent, VMEM_ALLOC) == 0);
    CHECK(vmem_destroy(parent) == 0);
}

static size_t ximport_size, ximport_align;

static void *ximport(vmem_t *source, size_t *size, size_t align, int vmflag)
{
    ximport_size = *size;
    ximport_align = align;
    *size = (*size + 8191) & ~(size_t)8191;
    return vmem_xalloc(source, *size, align, 0, 0, NULL, NULL, vmflag);
}

static void test_xcreate_may_import_more_and_aligned(void)
{
    vmem_t *parent = arena("xparent", 4096, 1 << 20, 4096);
    vmem_t *child =
        vmem_xcreate("xchild", NULL, 0, 4096, ximport, vmem_xfree, parent, 0, VM_NOSLEEP);
    void *a = vmem_alloc(child, 4096, VM_NOSLEEP);
    CHECK(a != NULL && ximport_size == 4096 && ximport_align == 4096);
    CHECK(vmem_size(child, VMEM_SPAN) == 8192 && vmem_size(parent, VMEM_ALLOC) == 8192);
    uintptr_t b =
        (uintptr_t)vmem_xalloc(child, 16384, 65536, 0, 0, NULL, NULL, VM_NOSLEEP);
    CHECK(b != 0 && b % 65536 == 0);
    CHECK(ximport_align == 65536 && ximport_size == 16384); /* no slack needed */
    vmem_xfree(child, ADDR(b), 16384);
    vmem_xfree(child, a, 4096);
    CHECK(vmem_size(parent, VMEM_ALLOC) == 0);
    vmem_destroy(child);
    vmem_destroy(parent);
}

static void *import_the_same_again(vmem_t *source, size_t size, int vmflag)
{
    (void)source;
    (void)size;
    (void)vmflag;
    return ADDR(64);
}

static void forget(vmem_t *source, void *addr, size_t size)
{
    (void)source;
    (void)addr;
    (void)size;
}

/* A source that gives what it gave before is not noticed at once, but by the check. */
static void test_check_finds_spans_that_overlap(void)
{
    vmem_t *vmp = vmem_create("twice", NULL, 0, 16, import_the_same_again, forget, NULL,
                              0, VM_NOSLEEP);
    char why[128];

    CHECK(vmem_alloc(vmp, 32, VM_NOSLEEP) == ADDR(64));
    CHECK_ARENA(vmp);
    CHECK(vmem_alloc(vmp, 16, VM_NOSLEEP) == ADDR(64));
    CHECK(!vmem_check(vmp, why, sizeof(why)) && strncmp(why, "I6: spans", 9) == 0);
}

static void test_hash_follows_the_live_set(void)
{
    enum { N = 100000 };
    vmem_t *vmp = arena("hash", 1, N, 1);
    seen_t seen = {.n = 0};

    for (uintptr_t i = 0; i < N; i++)
        CHECK(vmem_alloc(vmp, 1, VM_NOSLEEP) != NULL);
    CHECK_ARENA(vmp);
    for (uintptr_t i = 1; i <= N; i++) {
        vmem_free(vmp, ADDR(i), 1);
        if (i % 10007 == 0)
            CHECK_ARENA(vmp);
    }
    vmem_update(vmp);
    CHECK_ARENA(vmp);
    vmem_walk(vmp, VMEM_FREE, see, &seen);
    CHECK(seen.n == 1 && seen.size[0] == N);
    vmem_destroy(vmp);
}

static void find_by_name(const vmem_info_t *info, void *arg);

/* A table that grew for a handful of segments and shrank again would cost two
 * allocations. */
static void test_hash_does_not_thrash_when_segments_come_and_go(void)
{
    vmem_t *vmp = arena("swing", 1, 1000, 1);
    vmem_info_t before = {.vi_name = "vmem_hash"}, after = before;
    void *a[200];

    vmem_visit(find_by_name, &before);
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 200; i++)
            CHECK((a[i] = vmem_alloc(vmp, 1, VM_NOSLEEP)) != NULL);
        for (int i = 0; i < 200; i++)
            vmem_free(vmp, a[i], 1);
    }
    vmem_visit(find_by_name, &after);
    CHECK(after.vi_kstat.vk_alloc - before.vi_kstat.vk_alloc <=
          4);         /* 32 ... 256 buckets */
    vmem_update(vmp); /* which gives the table back */
    vmem_visit(find_by_name, &after);
    CHECK(after.vi_kstat.vk_mem_inuse == before.vi_kstat.vk_mem_inuse);
    vmem_destroy(vmp);
}

static size_t failures(vmem_t *vmp, uint32_t mtbf, uint64_t seed, uint64_t *pattern)
{
    size_t failed = 0;

    vmem_set_mtbf(vmp, mtbf, seed);
    *pattern = 0;
    for (int i = 0; i < 1000; i++) {
        void *a = vmem_alloc(vmp, 1, VM_NOSLEEP);
        if (a == NULL)
            failed++;
        else
            vmem_free(vmp, a, 1);
        *pattern = *pattern * 31 + (a == NULL);
    }
    return failed;
}

static void test_induced_failures_are_seeded(void)
{
    vmem_t *vmp = arena("mtbf", 1, 100, 1);
    uint64_t first, again, other;

    size_t n = failures(vmp, 10, 42, &first);
    CHECK(n > 50 && n < 200);
    CHECK(failures(vmp, 10, 42, &again) == n && again == first);
    failures(vmp, 10, 43, &other);
    CHECK(other != first);
    CHECK(failures(vmp, 1, 1, &other) == 1000);
    void *a = vmem_alloc(vmp, 1, VM_SLEEP); /* only VM_NOSLEEP may fail */
    CHECK(a != NULL);
    vmem_free(vmp, a, 1);
    CHECK(failures(vmp, 0, 1, &other) == 0);
    CHECK_ARENA(vmp);
    CHECK(vmem_destroy(vmp) == 0);
}

static void test_quantum_caches(void)
{
    vmem_t *vmp = vmem_create("qcached", ADDR(64), 64 << 10, 64, NULL, NULL, NULL,
                              16 * 64, VM_NOSLEEP | VMC_IDENTIFIER);
    vmem_t *plain = vmem_create("plain", ADDR(64), 64 << 10, 64, NULL, NULL, NULL,
                                16 * 64, VM_NOSLEEP | VMC_IDENTIFIER | VMC_NO_QCACHE);
    vmem_kstat_t ks;
    void *a[17];

    for (size_t i = 1; i <= 16; i++) {
        a[i] = vmem_alloc(vmp, i * 64, VM_NOSLEEP);
        CHECK(a[i] != NULL);
        for (size_t j = 1; j < i; j++) {
            uintptr_t x = (uintptr_t)a[i], y = (uintptr_t)a[j];
            CHECK(x + i * 64 <= y || y + j * 64 <= x);
        }
    }
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_alloc == 16 &&
          ks.vk_mem_inuse == 16 * 4096); /* slabs of 2^k >= 3 * 1024 */
    for (int i = 0; i < 1000; i++)
        vmem_free(vmp, vmem_alloc(vmp, 64, VM_NOSLEEP), 64);
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_alloc == 16); /* the arena saw nothing of it */
    /* The whole arena can be had in single quanta although slabs don't fit any more. */
    size_t n = 0;
    while (vmem_alloc(vmp, 64, VM_NOSLEEP) != NULL)
        n++;
    CHECK(n == 1024 - 15 * 64 - 1); /* all but the slabs of the other sizes, and a[1] */
    CHECK_ARENA(vmp);
    CHECK(vmem_destroy(vmp) > 0);

    CHECK(vmem_alloc(plain, 64, VM_NOSLEEP) != NULL &&
          vmem_size(plain, VMEM_ALLOC) == 64);
    vmem_destroy(plain);
}

static void test_quantum_caches_are_emptied_before_failing(void)
{
    vmem_t *vmp = vmem_create("tight", ADDR(64), 64 * 64, 64, NULL, NULL, NULL, 4 * 64,
                              VM_NOSLEEP | VMC_IDENTIFIER);
    void *a[64];

    for (int i = 0; i < 64; i++)
        CHECK((a[i] = vmem_alloc(vmp, 64, VM_NOSLEEP)) != NULL);
    CHECK(vmem_alloc(vmp, 64, VM_NOSLEEP) == NULL && errno == ENOMEM);
    for (int i = 0; i < 64; i++)
        vmem_free(vmp, a[i], 64);
    CHECK(vmem_size(vmp, VMEM_FREE) < 64 * 64); /* magazines hold some */
    void *all = vmem_alloc(vmp, 64 * 64, VM_NOSLEEP);
    CHECK(all == ADDR(64));
    vmem_free(vmp, all, 64 * 64);
    a[0] = vmem_alloc(vmp, 64, VM_NOSLEEP);
    vmem_free(vmp, a[0], 64);
    vmem_reap(vmp);
    CHECK(vmem_size(vmp, VMEM_FREE) == 64 * 64);
    CHECK(vmem_destroy(vmp) == 0);
}

static void find_by_name(const vmem_info_t *info, void *arg)
{
    vmem_info_t *found = arg;

    if (strcmp(info->vi_name, found->vi_name) == 0)
        *found = *info;
}

static void free_wrong_size(void)
{
    vmem_t *vmp = arena("misused", 1, 100, 1);
    vmem_xfree(vmp, fixed(vmp, 16, 10), 9);
}

static void free_twice(void)
{
    vmem_t *vmp = arena("misused", 1, 100, 1);
    void *a = vmem_alloc(vmp, 10, VM_NOSLEEP);
    vmem_free(vmp, a, 10);
    vmem_free(vmp, a, 10);
}

static void free_interior(void)
{
    vmem_t *vmp = arena("misused", 1, 100, 1);
    vmem_free(vmp, (char *)vmem_alloc(vmp, 10, VM_NOSLEEP) + 1, 9);
}

static void free_zero(void)
{
    vmem_t *vmp = arena("misused", 1, 100, 1);
    vmem_free(vmp, vmem_alloc(vmp, 10, VM_NOSLEEP), 0);
}

static void panic_alloc(void)
{
    vmem_alloc(arena("misused", 1, 100, 1), 1000, VM_PANIC);
}

static void test_misuse_aborts_and_says_what(void)
{
    const char *const wrong_size[] = {"misused", "0x10", "allocation of 10", "of 9",
                                      NULL};
    const char *const not_there[] = {"misused", "free(0x", "found no allocation", NULL};
    const char *const zero[] = {"misused", "found an allocation of 10",
                                "expected one of 0", NULL};
    const char *const panic[] = {"misused", "1000", "VM_PANIC", NULL};

    check_aborts(free_wrong_size, wrong_size);
    check_aborts(free_twice, not_there);
    check_aborts(free_interior, not_there);
    check_aborts(free_zero, zero);
    check_aborts(panic_alloc, panic);
}

static void test_carving_at_open_and_dropping_all(void)
{
    enum { UNITS = 200000 };
    vmem_t *vmp = arena("rebuilt", 1, UNITS, 1);
    vmem_kstat_t ks;

    for (uintptr_t at = 1; at + 3 <= UNITS; at += 4)
        CHECK(vmem_xalloc(vmp, 3, 0, 0, 0, ADDR(at), ADDR(at + 3),
                          VM_NOSLEEP | VM_NEXTFIT) == ADDR(at));
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_search < 3 * UNITS); /* constant a piece */
    CHECK_ARENA(vmp);
    CHECK(vmem_destroy(vmp) == UNITS / 4 * 3);
}

int main(void)
{
    RUN(test_alloc_free_and_counters);
    RUN(test_sizes_round_up_to_the_quantum);
    RUN(test_impossible_arguments_are_einval_and_change_nothing);
    RUN(test_constraints);
    RUN(test_policies);
    RUN(test_next_fit_cycles_through_identifiers);
    RUN(test_spans_and_contains);
    RUN(test_walk);
    RUN(test_import_and_return);
    RUN(test_xcreate_may_import_more_and_aligned);
    RUN(test_check_finds_spans_that_overlap);
    RUN(test_hash_follows_the_live_set);
    RUN(test_hash_does_not_thrash_when_segments_come_and_go);
    RUN(test_induced_failures_are_seeded);
    RUN(test_quantum_caches);
    RUN(test_quantum_caches_are_emptied_before_failing);
    RUN(test_misuse_aborts_and_says_what);
    RUN(test_carving_at_open_and_dropping_all);
    return 0;
}
