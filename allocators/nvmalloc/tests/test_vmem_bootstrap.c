/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmem feeds itself: no malloc anywhere (this program's malloc family aborts while vmem
 * works), a heap of the caller's own with a parent, running out of memory for its own
 * structures, and the refill of segment structures. vmem_init() happens once a process,
 * so each case runs in a child.
 */
#include "test_vmem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

static _Thread_local int forbidden;

/* The linker resolves malloc here: calls to it from vmem in this program come by. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);

void *malloc(size_t size)
{
    if (forbidden)
        abort();
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    if (forbidden)
        abort();
    return __libc_calloc(n, size);
}

static void in_child(void (*func)(void))
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        func();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

enum { MANY = 50000 };
static void *held[MANY];

static void use(void)
{
    vmem_t *top = vmem_create("top", ADDR(1), 1 << 20, 1, NULL, NULL, NULL, 0, VM_SLEEP);
    vmem_t *kid = vmem_create("kid", NULL, 0, 1, vmem_alloc, vmem_free, top, 8, VM_SLEEP);

    CHECK(top != NULL && kid != NULL);
    for (size_t i = 0; i < MANY; i++)
        CHECK((held[i] = vmem_alloc(kid, 1 + i % 20, VM_NOSLEEP)) != NULL);
    CHECK_ARENA(kid);
    for (size_t i = 0; i < MANY; i++)
        vmem_free(kid, held[i], 1 + i % 20);
    objcache_t *cp = objcache_create("objects", 40, 0, NULL, NULL, NULL, NULL, NULL, 0);
    for (size_t i = 0; i < 1000; i++)
        CHECK((held[i] = objcache_alloc(cp, VM_NOSLEEP)) != NULL);
    for (size_t i = 0; i < 1000; i++)
        objcache_free(cp, held[i]);
    CHECK(objcache_destroy(cp) == 0);
    int nowhere = open("/dev/null", O_WRONLY);
    CHECK(nowhere >= 0 && vmem_dump_fd(nowhere, VMEM_DUMP_TEXT) == 0);
    CHECK(vmem_dump_fd(nowhere, VMEM_DUMP_JSON) == 0);
    close(nowhere);
    vmem_reap(NULL);
    vmem_update(NULL);
    CHECK(vmem_destroy(kid) == 0);
    CHECK(vmem_destroy(top) == 0);
}

static void without_malloc(void)
{
    forbidden = 1;
    use();
    forbidden = 0;
}

enum { PARENT_QUANTUM = 65536 };
static size_t parent_out;

/* Memory at a multiple of the parent's quantum, cut out of twice as much. */
static void *parent_get(vmem_t *source, size_t size, int vmflag)
{
    (void)vmflag;
    CHECK(source == NULL);
    size_t room = size + PARENT_QUANTUM;
    char *p =
        mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t skip = -(uintptr_t)p % PARENT_QUANTUM;
    if (skip > 0)
        CHECK(munmap(p, skip) == 0);
    CHECK(munmap(p + skip + size, PARENT_QUANTUM - skip) == 0);
    parent_out += size;
    return p + skip;
}

static void parent_put(vmem_t *source, void *addr, size_t size)
{
    CHECK(source == NULL);
    parent_out -= size;
    CHECK(munmap(addr, size) == 0);
}

static void own_heap_with_parent(void)
{
    CHECK(vmem_init(NULL, 0, NULL, NULL, "odd", NULL, 0, 5000, NULL, NULL) == NULL);
    CHECK(errno == EINVAL);
    CHECK(vmem_init("p", 3, parent_get, parent_put, "h", NULL, 0, 4096, NULL, NULL) ==
          NULL);
    CHECK(errno == EINVAL);
    vmem_t *heap = vmem_init("own_parent", PARENT_QUANTUM, parent_get, parent_put,
                             "own_heap", NULL, 0, 8192, NULL, NULL);
    CHECK(heap != NULL && strcmp(vmem_name(heap), "own_heap") == 0);
    CHECK(strcmp(vmem_name(vmem_source(heap)), "own_parent") == 0);
    CHECK(vmem_quantum(heap) == 8192);
    CHECK(vmem_init(NULL, 0, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL) == heap);
    CHECK(vmem_init("again", 4096, parent_get, parent_put, "h", NULL, 0, 4096, NULL,
                    NULL) == NULL);
    CHECK(errno == EBUSY);
    forbidden = 1;
    use();
    forbidden = 0;
    CHECK(parent_out > 0 && parent_out == vmem_size(vmem_source(heap), VMEM_SPAN));
    CHECK_ARENA(heap);
    CHECK_ARENA(vmem_source(heap));
}

static char pool[256 << 10] __attribute__((aligned(4096)));

/* A heap of 256 KB that can't grow: first it runs dry, then everything works again. */
static void fixed_heap_runs_dry(void)
{
    vmem_t *heap =
        vmem_init(NULL, 0, NULL, NULL, "fixed", pool, sizeof(pool), 4096, NULL, NULL);
    vmem_t *vmp =
        vmem_create("many", ADDR(1), 1 << 20, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);
    vmem_kstat_t ks;
    size_t n = 0;

    CHECK(heap != NULL && vmp != NULL);
    while ((held[n] = vmem_alloc(vmp, 2, VM_NOSLEEP)) != NULL)
        CHECK(++n < MANY);
    CHECK(errno == ENOMEM && n > 1000 && n < sizeof(pool) / 64);
    vmem_kstat(vmp, &ks);
    CHECK(ks.vk_populate_fail > 0 && ks.vk_fail == 1);
    CHECK(!vmem_populate(vmp, VM_NOSLEEP) && errno == ENOMEM);
    CHECK_ARENA(vmp);
    CHECK_ARENA(heap);
    for (size_t i = 0; i < n; i++)
        vmem_free(vmp, held[i], 2);
    CHECK(vmem_alloc(vmp, 1 << 20, VM_NOSLEEP) == ADDR(1));
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
}

/* No structures left for even one segment more: VM_SLEEP waits for those that a free
   gives back, and says so in a counter of its own. */
static vmem_t *dry;
static size_t dry_held;

static void *free_all_later(void *arg)
{
    vmem_kstat_t ks;

    (void)arg;
    do {
        usleep(1000);
        vmem_kstat(dry, &ks);
    } while (ks.vk_populate_wait == 0);
    for (size_t i = 0; i < dry_held; i++)
        vmem_free(dry, held[i], 2);
    return NULL;
}

static void allocation_waits_for_structures(void)
{
    pthread_t thread;
    vmem_kstat_t ks;

    CHECK(vmem_init(NULL, 0, NULL, NULL, "fixed", pool, sizeof(pool), 4096, NULL, NULL));
    dry = vmem_create("dry", ADDR(1), 1 << 20, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);
    while ((held[dry_held] = vmem_alloc(dry, 2, VM_NOSLEEP)) != NULL)
        CHECK(++dry_held < MANY);
    CHECK(pthread_create(&thread, NULL, free_all_later, NULL) == 0);
    void *a = vmem_alloc(dry, 2, VM_SLEEP); /* there are units, but no structures */
    CHECK(a != NULL);
    CHECK(pthread_join(thread, NULL) == 0);
    vmem_kstat(dry, &ks);
    CHECK(ks.vk_populate_wait > 0 && ks.vk_populate_fail > 0);
    CHECK(ks.vk_wait == 0 && ks.vk_fail == 1 && ks.vk_mem_inuse == 2);
    CHECK_ARENA(dry);
    CHECK(vmem_populate(dry, VM_SLEEP));
    vmem_free(dry, a, 2);
    CHECK(vmem_destroy(dry) == 0);
}

static void *give_nothing(vmem_t *source, size_t size, int vmflag)
{
    (void)source;
    (void)size;
    (void)vmflag;
    return NULL;
}

/* No memory for even the first structures: refused, and refused ever after. */
static void empty_heap_is_refused(void)
{
    CHECK(vmem_init(NULL, 0, NULL, NULL, "empty", NULL, 0, 4096, give_nothing,
                    parent_put) == NULL);
    CHECK(errno == ENOMEM);
    CHECK(vmem_create("none", ADDR(1), 1, 1, NULL, NULL, NULL, 0, VM_NOSLEEP) == NULL);
    CHECK(errno == ENOMEM);
}

/* Many threads grow many arenas at once: all need structures, and refills, together. */
static void *grow(void *arg)
{
    vmem_t *vmp =
        vmem_create("grow", ADDR(1), 1 << 20, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);

    (void)arg;
    for (size_t i = 0; i < 20000; i++)
        CHECK(vmem_alloc(vmp, 1 + i % 3, VM_NOSLEEP) != NULL);
    CHECK_ARENA(vmp);
    CHECK(vmem_destroy(vmp) > 0);
    return NULL;
}

static void refills_of_many_threads(void)
{
    pthread_t thread[8];

    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&thread[i], NULL, grow, NULL) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    CHECK_ARENA(vmem_init(NULL, 0, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL));
}

static void test_calls_no_malloc(void)
{
    in_child(without_malloc);
}

static void test_heap_of_the_callers_own(void)
{
    in_child(own_heap_with_parent);
}

static void test_fixed_heap_runs_dry_and_recovers(void)
{
    in_child(fixed_heap_runs_dry);
}

static void test_allocation_waits_for_structures(void)
{
    in_child(allocation_waits_for_structures);
}

static void test_empty_heap_is_refused(void)
{
    in_child(empty_heap_is_refused);
}

static void test_refills_of_many_threads(void)
{
    in_child(refills_of_many_threads);
}

int main(void)
{
    RUN(test_calls_no_malloc);
    RUN(test_heap_of_the_callers_own);
    RUN(test_fixed_heap_runs_dry_and_recovers);
    RUN(test_allocation_waits_for_structures);
    RUN(test_empty_heap_is_refused);
    RUN(test_refills_of_many_threads);
    return 0;
}
