/* SPDX-License-Identifier: Apache-2.0 */
/* Object caches: both layers, constructors, depot, working set, reaping, misuse, threads.
 */
#include "test_vmem.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static _Atomic long constructed;
static int ctor_error;

static int ctor(void *obj, void *arg, int vmflag)
{
    (void)vmflag;
    if (ctor_error != 0)
        return ctor_error;
    atomic_fetch_add(&constructed, 1);
    *(void **)obj = arg;
    return 0;
}

static void dtor(void *obj, void *arg)
{
    CHECK(*(void **)obj == arg);
    atomic_fetch_sub(&constructed, 1);
    *(void **)obj = NULL;
}

static void test_objects_stay_constructed(void)
{
    int arg;
    objcache_t *cp =
        objcache_create("constructed", 48, 16, ctor, dtor, NULL, &arg, NULL, 0);
    void *obj[1000];

    CHECK(cp != NULL);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            obj[i] = objcache_alloc(cp, VM_SLEEP);
            CHECK(obj[i] != NULL && (uintptr_t)obj[i] % 16 == 0);
            CHECK(*(void **)obj[i] == &arg);
            for (int j = 0; j < i && j < 100; j++)
                CHECK((size_t)labs((char *)obj[i] - (char *)obj[j]) >= 48);
        }
        CHECK(constructed >= 1000);
        for (int i = 0; i < 1000; i++)
            objcache_free(cp, obj[i]);
    }
    objcache_stat_t st;
    objcache_stat(cp, &st);
    CHECK(st.os_allocs == 3000 && st.os_frees == 3000 && st.os_fails == 0);
    CHECK(st.os_slab_allocs < 1500); /* two rounds of three came from magazines */
    objcache_purge(cp);
    CHECK(constructed == 0);
    objcache_stat(cp, &st);
    CHECK(st.os_slabs == 0 && st.os_slab_inuse == 0 && st.os_depot_full == 0);
    CHECK(st.os_slab_creates == st.os_slab_destroys && st.os_slab_creates > 0);
    CHECK(objcache_destroy(cp) == 0);
}

static void test_failing_constructor_fails_the_allocation(void)
{
    objcache_t *cp = objcache_create("failing", 16, 0, ctor, dtor, NULL, NULL, NULL, 0);
    objcache_stat_t st;

    ctor_error = EAGAIN;
    CHECK(objcache_alloc(cp, VM_SLEEP) == NULL && errno == EAGAIN);
    ctor_error = 0;
    objcache_stat(cp, &st);
    CHECK(st.os_slabs == 0 && st.os_fails == 1 && st.os_allocs == 0);
    CHECK(objcache_destroy(cp) == 0);
}

static void test_objects_are_never_touched(void)
{
    /* An arena of integers that are no addresses: any access to an object would trap. */
    vmem_t *ids = vmem_create("ids", ADDR(1), 100000, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);
    objcache_t *cp = objcache_create("ids_3", 3, 0, NULL, NULL, NULL, NULL, ids, 0);
    void *obj[3000];

    for (int i = 0; i < 3000; i++)
        CHECK((obj[i] = objcache_alloc(cp, VM_NOSLEEP)) != NULL);
    for (int i = 0; i < 3000; i++)
        objcache_free(cp, obj[i]);
    objcache_purge(cp);
    CHECK(vmem_size(ids, VMEM_ALLOC) == 0);
    CHECK_ARENA(ids);
    CHECK(objcache_destroy(cp) == 0);
    CHECK(vmem_destroy(ids) == 0);
}

static void test_slab_waste_is_bounded(void)
{
    vmem_t *pages =
        vmem_create("pages", ADDR(4096), 64 << 20, 4096, NULL, NULL, NULL, 0, VM_NOSLEEP);

    for (size_t size = 1; size < 40000; size += 1 + size / 7) {
        objcache_t *cp =
            objcache_create("sizes", size, 0, NULL, NULL, NULL, NULL, pages, 0);
        objcache_stat_t st;
        CHECK(cp != NULL);
        objcache_stat(cp, &st);
        size_t n = st.os_slabsize / st.os_objsize;
        CHECK(st.os_objsize >= size && st.os_objsize % 8 == 0 &&
              st.os_objsize < size + 8);
        CHECK(n >= 8 || st.os_slabsize - n * st.os_objsize <= st.os_slabsize / 8);
        void *obj = objcache_alloc(cp, VM_NOSLEEP);
        CHECK(obj != NULL);
        objcache_free(cp, obj);
        CHECK(objcache_destroy(cp) == 0);
    }
    objcache_t *cp =
        objcache_create("aligned", 100, 512, NULL, NULL, NULL, NULL, pages, 0);
    for (int i = 0; i < 100; i++)
        CHECK((uintptr_t)objcache_alloc(cp, VM_NOSLEEP) % 512 == 0);
    CHECK(objcache_destroy(cp) == 100);
    CHECK(objcache_create("a", 8, 24, NULL, NULL, NULL, NULL, pages, 0) == NULL);
    CHECK(errno == EINVAL);
    CHECK(objcache_create("a", 0, 0, NULL, NULL, NULL, NULL, pages, 0) == NULL);
    CHECK(vmem_destroy(pages) == 0);
}

static void test_reap_returns_the_idle_and_keeps_the_working_set(void)
{
    objcache_t *cp = objcache_create("working", 64, 0, NULL, NULL, NULL, NULL, NULL, 0);
    static void *obj[10000];
    objcache_stat_t st;

    for (int i = 0; i < 10000; i++)
        obj[i] = objcache_alloc(cp, VM_SLEEP);
    for (int i = 0; i < 10000; i++)
        objcache_free(cp, obj[i]);
    objcache_stat(cp, &st);
    uint64_t full = st.os_depot_full;
    CHECK(full > 100);
    objcache_update(cp); /* in this interval the depot was once empty: all was needed */
    objcache_reap(cp);
    objcache_stat(cp, &st);
    CHECK(st.os_depot_full == full);
    for (int i = 0; i < 1000; i++) /* this interval needs but a part */
        obj[i] = objcache_alloc(cp, VM_SLEEP);
    for (int i = 0; i < 1000; i++)
        objcache_free(cp, obj[i]);
    objcache_update(cp);
    objcache_reap(cp);
    objcache_stat(cp, &st);
    uint64_t kept = st.os_depot_full;
    CHECK(kept >= 1000 / st.os_magsize - 2 && kept <= 1000 / st.os_magsize + 2);
    objcache_reap(cp); /* without a new measurement there is nothing more to say */
    objcache_stat(cp, &st);
    CHECK(st.os_depot_full == kept);
    objcache_update(cp);
    objcache_reap(cp);
    objcache_stat(cp, &st);
    CHECK(st.os_depot_full == 0); /* an idle interval */
    CHECK(objcache_destroy(cp) == 0);
}

static objcache_t *spared;
static void *spare[4];

static void reclaim(void *arg)
{
    ++*(int *)arg;
    for (int i = 0; i < 4; i++) {
        if (spare[i] != NULL)
            objcache_free(spared, spare[i]);
        spare[i] = NULL;
    }
}

static void test_owner_is_asked_before_failing(void)
{
    vmem_t *vmp =
        vmem_create("four", ADDR(4096), 4096, 4096, NULL, NULL, NULL, 0, VM_NOSLEEP);
    int asked = 0;

    spared = objcache_create("spared", 1024, 0, NULL, NULL, reclaim, &asked, vmp, 0);
    for (int i = 0; i < 4; i++)
        CHECK((spare[i] = objcache_alloc(spared, VM_NOSLEEP)) != NULL);
    CHECK(asked == 0);
    void *obj = objcache_alloc(spared, VM_SLEEP);
    CHECK(obj != NULL && asked == 1);
    for (int i = 0; i < 3; i++)
        CHECK(objcache_alloc(spared, VM_NOSLEEP) != NULL);
    CHECK(objcache_alloc(spared, VM_NOSLEEP) == NULL && errno == ENOMEM);
    CHECK(objcache_destroy(spared) == 4);
    CHECK(vmem_destroy(vmp) == 0);
}

static objcache_t *misused(void)
{
    return objcache_create("misused", 64, 0, NULL, NULL, NULL, NULL, NULL,
                           OBJCACHE_NOMAGAZINE);
}

static void free_foreign(void)
{
    objcache_free(misused(), ADDR(0x123400));
}

static void free_twice(void)
{
    objcache_t *cp = misused();
    void *keep = objcache_alloc(cp, VM_SLEEP), *obj = objcache_alloc(cp, VM_SLEEP);
    objcache_free(cp, obj);
    objcache_free(cp, obj);
    objcache_free(cp, keep);
}

static void free_interior(void)
{
    objcache_t *cp = misused();
    objcache_free(cp, (char *)objcache_alloc(cp, VM_SLEEP) + 8);
}

static void test_misuse_aborts_and_says_what(void)
{
    const char *const foreign[] = {"misused", "0x123400", "none of its slabs", NULL};
    const char *const twice[] = {"misused", "found a free object", NULL};
    const char *const interior[] = {"misused", "inside of an object of 64", NULL};

    check_aborts(free_foreign, foreign);
    check_aborts(free_twice, twice);
    check_aborts(free_interior, interior);
}

enum { THREADS = 6, HELD = 200 };
static objcache_t *shared;
static _Atomic(void *) mailbox[64];

/* Takes, marks, passes on through a mailbox; whoever gets an object finds the mark
 * intact. */
static void *stress(void *arg)
{
    uint64_t rng = 99 + (uintptr_t)arg;
    void *held[HELD] = {NULL};

    for (int i = 0; i < 60000; i++) {
        unsigned k = test_random(&rng) % HELD;
        if (held[k] != NULL) {
            uintptr_t *word = held[k];
            CHECK(word[1] == (uintptr_t)word);
            word[1] = 0;
            objcache_free(shared, word);
            held[k] = NULL;
        } else {
            uintptr_t *word = objcache_alloc(shared, VM_NOSLEEP);
            CHECK(word != NULL && word[1] == 0); /* nobody else's */
            word[1] = (uintptr_t)word;
            held[k] = atomic_exchange(&mailbox[test_random(&rng) % 64], word);
        }
        if (i % 5000 == 0) {
            objcache_update(NULL);
            objcache_reap(NULL);
        }
        if (i % 17000 == 0)
            objcache_purge(shared);
    }
    for (int k = 0; k < HELD; k++) {
        if (held[k] != NULL) {
            ((uintptr_t *)held[k])[1] = 0;
            objcache_free(shared, held[k]);
        }
    }
    return NULL;
}

static int clear(void *obj, void *arg, int vmflag)
{
    (void)arg;
    (void)vmflag;
    ((uintptr_t *)obj)[1] = 0;
    return 0;
}

static void test_stress_of_threads(void)
{
    pthread_t thread[THREADS];
    objcache_stat_t st;

    shared = objcache_create("shared", 32, 0, clear, NULL, NULL, NULL, NULL, 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, stress, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    for (int i = 0; i < 64; i++)
        if (mailbox[i] != NULL)
            objcache_free(shared, mailbox[i]);
    objcache_stat(shared, &st);
    CHECK(st.os_allocs == st.os_frees && st.os_fails == 0);
    objcache_purge(shared);
    objcache_stat(shared, &st);
    CHECK(st.os_slab_inuse == 0 && st.os_slabs == 0);
    CHECK(objcache_destroy(shared) == 0);
}

static atomic_bool stop_contending;

static void *contend(void *arg)
{
    void *obj[600];

    (void)arg;
    while (!atomic_load(&stop_contending)) {
        for (int i = 0; i < 600; i++)
            obj[i] = objcache_alloc(shared, VM_SLEEP);
        for (int i = 0; i < 600; i++)
            objcache_free(shared, obj[i]);
    }
    return NULL;
}

static void test_contended_depot_gets_larger_magazines(void)
{
    pthread_t thread[THREADS];
    objcache_stat_t st;

    shared = objcache_create("contended", 32, 0, NULL, NULL, NULL, NULL, NULL, 0);
    objcache_stat(shared, &st);
    uint64_t before = st.os_magsize;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        printf("# one CPU: nothing can contend; only the starting size is checked\n");
        CHECK(before == 30 && objcache_destroy(shared) == 0);
        return;
    }
    atomic_store(&stop_contending, false);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, contend, NULL) == 0);
    for (int tries = 0; tries < 2000; tries++) {
        usleep(5000);
        objcache_update(shared);
        objcache_stat(shared, &st);
        if (st.os_magazine_resizes > 0)
            break;
    }
    atomic_store(&stop_contending, true);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    CHECK(st.os_magazine_resizes > 0 && st.os_magsize > before);
    CHECK(st.os_depot_contention > 3); /* what called for it */
    void *obj[2000];                   /* old and new sizes mixed */
    for (int i = 0; i < 2000; i++)
        CHECK((obj[i] = objcache_alloc(shared, VM_SLEEP)) != NULL);
    for (int i = 0; i < 2000; i++)
        objcache_free(shared, obj[i]);
    objcache_purge(shared);
    objcache_stat(shared, &st);
    CHECK(st.os_slab_inuse == 0 && st.os_depot_full == 0 && st.os_depot_empty == 0);
    CHECK(objcache_destroy(shared) == 0);
}

int main(void)
{
    RUN(test_objects_stay_constructed);
    RUN(test_failing_constructor_fails_the_allocation);
    RUN(test_objects_are_never_touched);
    RUN(test_slab_waste_is_bounded);
    RUN(test_owner_is_asked_before_failing);
    RUN(test_reap_returns_the_idle_and_keeps_the_working_set);
    RUN(test_misuse_aborts_and_says_what);
    RUN(test_stress_of_threads);
    RUN(test_contended_depot_gets_larger_magazines);
    return 0;
}
