/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures for vmem, not a test: (1) time of an operation against the number of segments,
 * (2) throughput of small sizes with and without quantum caches, on 1 and 2 threads.
 * argv[1]: seconds a measurement (default 0.3). Prints medians of 5.
 */
#include "test_vmem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { REPEAT = 5 };

static double seconds = 0.3;

static double read_clock(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static double now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

static double cpu_now(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, REPEAT, sizeof(*v), ascending);
    return v[REPEAT / 2];
}

typedef struct live {
    void *addr;
    size_t size;
} live_t;

static void replace(vmem_t *vmp, live_t *l, uint64_t *rng)
{
    vmem_free(vmp, l->addr, l->size);
    l->size = 1 + test_random(rng) % 16;
    CHECK((l->addr = vmem_alloc(vmp, l->size, VM_NOSLEEP)) != NULL);
}

/*
 * CPU time of an operation with n segments of 1 to 16 live, in a fragmented arena; each
 * step frees one and allocates another size. `window`: how many of the n are ever
 * replaced. With few the caches of the CPU hold what is touched, and the time is that of
 * the algorithm; with all n it is that of the memory.
 */
static double ns_per_op(size_t n, size_t window)
{
    vmem_t *vmp =
        vmem_create("scale", ADDR(1), 32 * n, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);
    live_t *live = calloc(n, sizeof(*live));
    uint64_t rng = 1;
    double sample[REPEAT];

    for (size_t i = 0; i < n; i++) {
        live[i].size = 1 + test_random(&rng) % 16;
        CHECK((live[i].addr = vmem_alloc(vmp, live[i].size, VM_NOSLEEP)) != NULL);
    }
    for (size_t i = 0; i < n; i++)
        replace(vmp, &live[test_random(&rng) % n], &rng);
    for (int r = 0; r < REPEAT; r++) {
        double begin = cpu_now(), end;
        uint64_t ops = 0;
        do {
            for (int k = 0; k < 500; k++)
                replace(vmp, &live[test_random(&rng) % window], &rng);
            ops += 1000;
            end = cpu_now();
        } while (end - begin < seconds);
        sample[r] = (end - begin) * 1e9 / (double)ops;
    }
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
    free(live);
    return median(sample);
}

static vmem_t *contended;
static atomic_bool stop;
static _Atomic uint64_t total;

/* Batches of 32 allocations of 1 to 8 quanta, freed in order. */
static void *churn(void *arg)
{
    void *addr[32];
    uint64_t ops = 0;

    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (size_t i = 0; i < 32; i++)
            addr[i] = vmem_alloc(contended, 64 * (1 + i % 8), VM_NOSLEEP);
        for (size_t i = 0; i < 32; i++)
            vmem_free(contended, addr[i], 64 * (1 + i % 8));
        ops += 64;
    }
    atomic_fetch_add(&total, ops);
    return NULL;
}

static double mops(int threads, size_t qcache_max)
{
    pthread_t thread[2];
    double sample[REPEAT];

    for (int r = 0; r < REPEAT; r++) {
        contended = vmem_create("churn", ADDR(64), 64 << 20, 64, NULL, NULL, NULL,
                                qcache_max, VM_NOSLEEP);
        atomic_store(&stop, false);
        atomic_store(&total, 0);
        double begin = now();
        for (int i = 0; i < threads; i++)
            CHECK(pthread_create(&thread[i], NULL, churn, NULL) == 0);
        usleep((useconds_t)(seconds * 1e6));
        atomic_store(&stop, true);
        for (int i = 0; i < threads; i++)
            CHECK(pthread_join(thread[i], NULL) == 0);
        sample[r] = (double)atomic_load(&total) / (now() - begin) / 1e6;
        CHECK(vmem_destroy(contended) == 0);
    }
    return median(sample);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seconds = strtod(argv[1], NULL);
    printf("segments  ns/op, 10 of them in use  ns/op, all in use\n");
    for (size_t n = 10; n <= 1000000; n *= 10)
        printf("%8zu  %23.0f  %17.0f\n", n, ns_per_op(n, 10), ns_per_op(n, n));
    printf("threads  caches off  caches on  ratio   (Mops/s, 1 to 8 quanta)\n");
    for (int threads = 1; threads <= 2; threads++) {
        double off = mops(threads, 0), on = mops(threads, 16 * 64);
        printf("%7d  %10.2f  %9.2f  %5.2f\n", threads, off, on, on / off);
    }
    return 0;
}
