/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_powerfail.c - cuts the power before every persistence event.
 *
 * An application (application.h) works on a heap image in memory (nvm_attach()),
 * its operations handed to two or three threads in turn.  Before each flush, fence and
 * non-temporal store, images are made of what a cut might leave (power.h); each
 * is attached as a heap, and must hold the forest before or after the operation
 * in flight, and pass nvm_check().  Some of the recoveries are cut off at each of
 * their own events, in turn.  Now and then the application goes on from such an
 * image instead of the heap: the next generation.
 *
 * Whole lines only.  The power-fail laboratory (faults/) goes down to single
 * stores and concurrent threads; this test is the allocator's own.
 *
 * NVM_TEST_HISTORIES: how many of each kind; NVM_TEST_SEED: that one alone.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "application.h"
#include "power.h"

#define HEAP_MAX    ((size_t)1 << 20)
#define THREADS     3u
#define NESTED_MAX  6u  /* cuts of one recovery */
#define NESTED_EACH 24u /* of so many images one recovery is cut */

static char file_path[64];
static char *memory, *image, *nested_image;
static struct application app;
static struct power power, nested_power;
static struct nvm_options options;
static uint64_t seed, events, states, replayed, nested_states, generations, draws;
static size_t heap_bytes;
/* The next generation: an image that some cut left, and what it may hold. */
static char *heir;
static struct forest heir_before, heir_after;
static bool heir_wanted, heir_ready;

static void observe(void *context, int kind, const void *address, size_t length);

static void wrong(const char *what, const char *why)
{
    fprintf(stderr,
            "mode %d, seed %llu, event %llu, %s: %s: %s\n  replay: NVM_TEST_SEED=%llu\n",
            (int)app.mode, (unsigned long long)seed, (unsigned long long)events,
            app.phase, what, why, (unsigned long long)seed);
    const char *keep = getenv("NVM_TEST_KEEP");
    FILE *file = keep != NULL ? fopen(keep, "wb") : NULL;
    if (file != NULL) {
        fwrite(image, 1, HEAP_MAX, file);
        fclose(file);
    }
    abort();
}

/* Attaches the image and judges it; nothing of the recovery is forgotten after. */
static bool judge(char *what_was_left, bool *happened)
{
    nvm_heap *heap;
    char why[256];
    struct nvm_heap_stats stats;
    if (nvm_attach(what_was_left, heap_bytes, &options, &heap) != 0)
        wrong("attach", nvm_error());
    if (!application_fits(&app, heap, happened, why, sizeof(why)))
        wrong("the forest", why);
    if (nvm_check(heap) != 0)
        wrong("check", nvm_error());
    nvm_stats(heap, &stats);
    nvm_detach(heap);
    return stats.replayed != 0;
}

static unsigned nested_left;

static void observe_recovery(void *context, int kind, const void *address, size_t length)
{
    bool happened;
    (void)context;
    if (nested_left != 0 && power_draw(&draws) % 3 == 0) {
        nested_left--;
        nvm_observe(NULL, NULL);
        power_image(&nested_power, (enum power_cut)(power_draw(&draws) % 3),
                    nested_image);
        judge(nested_image, &happened);
        nested_states++;
        nvm_observe(observe_recovery, NULL);
    }
    power_event(&nested_power, kind, address, length);
}

/* Cuts the power while the image is recovered. */
static void cut_recovery(void)
{
    nvm_heap *heap;
    power_on(&nested_power, image, heap_bytes, ++draws);
    nested_left = NESTED_MAX;
    nvm_observe(observe_recovery, NULL);
    if (nvm_attach(image, heap_bytes, &options, &heap) != 0)
        wrong("attach", nvm_error());
    nvm_observe(NULL, NULL);
    nvm_detach(heap);
    power_off(&nested_power);
}

static void cut_power(void)
{
    bool happened;
    nvm_observe(NULL, NULL);
    for (int cut = POWER_NOTHING_EVICTED; cut <= POWER_RANDOM; cut++) {
        power_image(&power, (enum power_cut)cut, image);
        if (heir_wanted && !heir_ready && power_draw(&draws) % 8 == 0) {
            memcpy(heir, image, heap_bytes);
            heir_before = app.before;
            heir_after = app.after;
            heir_ready = true;
        }
        if (power_draw(&draws) % NESTED_EACH == 0)
            cut_recovery();
        replayed += judge(image, &happened);
        judge(image, &happened); /* another crash, right after it was opened */
        states++;
    }
    nvm_observe(observe, NULL);
}

static void observe(void *context, int kind, const void *address, size_t length)
{
    (void)context;
    events++;
    cut_power();
    power_event(&power, kind, address, length);
}

/* --- threads that take turns --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static unsigned turn; /* 0: the main thread's; THREADS: all end */

static void *work(void *argument)
{
    unsigned mine = (unsigned)(uintptr_t)argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (turn != mine && turn != THREADS)
            pthread_cond_wait(&turned, &lock);
        if (turn == THREADS)
            break;
        application_step(&app);
        turn = 0;
        pthread_cond_broadcast(&turned);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void step_in(unsigned thread)
{
    if (thread == 0) {
        application_step(&app);
        return;
    }
    pthread_mutex_lock(&lock);
    turn = thread;
    pthread_cond_broadcast(&turned);
    while (turn != 0)
        pthread_cond_wait(&turned, &lock);
    pthread_mutex_unlock(&lock);
}

/* --- histories --- */

/* The bytes of a new heap's file, with a table of slots. */
static void make_heap(enum nvm_mode mode, size_t size)
{
    struct nvm_options creation = {.size = size, .max_size = heap_bytes, .mode = mode};
    nvm_heap *heap;
    unlink(file_path);
    assert_int_equal(nvm_create_with(file_path, &creation, &heap), 0);
    nvm_ref *table = nvm_root(heap, TABLE_BYTES);
    assert_non_null(table);
    table[TABLE_SLOTS] = TABLE_MAGIC;
    nvm_persist(heap, table, TABLE_BYTES);
    assert_int_equal(nvm_close(heap), 0);
    FILE *file = fopen(file_path, "rb");
    memset(memory, 0, HEAP_MAX);
    assert_int_not_equal(fread(memory, 1, HEAP_MAX, file), 0);
    fclose(file);
    unlink(file_path);
}

static void attach(void)
{
    if (nvm_attach(memory, heap_bytes, &options, &app.heap) != 0)
        wrong("attach", nvm_error());
}

static void close_and_attach(void)
{
    app.phase = "close";
    memset(app.held, 0, sizeof(app.held));
    assert_int_equal(nvm_close(app.heap), 0);
    app.phase = "open";
    attach();
}

/* What the power left becomes the heap. */
static void inherit(void)
{
    bool happened;
    char why[256];
    nvm_heap *heap;
    nvm_observe(NULL, NULL);
    nvm_detach(app.heap);
    memcpy(image, heir, heap_bytes);
    app.before = heir_before;
    app.after = heir_after;
    if (nvm_attach(image, heap_bytes, &options, &heap) != 0)
        wrong("attach", nvm_error());
    if (!application_fits(&app, heap, &happened, why, sizeof(why)))
        wrong("the heir's forest", why);
    nvm_detach(heap);
    memcpy(memory, heir, heap_bytes);
    power_off(&power);
    power_on(&power, memory, heap_bytes, ++draws);
    nvm_observe(observe, NULL);
    /* Nothing is in flight while it is recovered. */
    app.phase = "recovery";
    app.after = happened ? app.after : app.before;
    app.before = app.after;
    attach();
    application_resume(&app, app.heap, true);
    heir_ready = heir_wanted = false;
    generations++;
}

static void run_history(enum nvm_mode mode, uint64_t number, unsigned operations)
{
    seed = number;
    draws = number * 0x2545f4914f6cdd1du + 1;
    heap_bytes = number % 2 != 0 ? HEAP_MAX : HEAP_MAX / 2;
    options = (struct nvm_options){.trace = application_trace, .threads = 1};
    make_heap(mode, number % 3 == 0 ? 0 : heap_bytes);
    application_start(&app, mode, number);
    power_on(&power, memory, heap_bytes, number);
    events = 0;
    nvm_observe(observe, NULL);
    attach();
    for (unsigned i = 0; i < operations; i++) {
        heir_wanted = i % 16 == 8;
        step_in((unsigned)(power_draw(&draws) % THREADS));
        if (heir_ready)
            inherit();
        else if (power_draw(&draws) % 32 == 0)
            close_and_attach();
    }
    nvm_observe(NULL, NULL);
    assert_int_equal(nvm_check(app.heap), 0);
    nvm_detach(app.heap);
    power_off(&power);
}

static void run_histories(enum nvm_mode mode)
{
    const char *budget = getenv("NVM_TEST_HISTORIES"), *one = getenv("NVM_TEST_SEED");
    uint64_t histories = budget != NULL ? strtoull(budget, NULL, 10) : 4;
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    pthread_t threads[THREADS];
    states = replayed = nested_states = generations = 0;
    turn = 0;
    for (uintptr_t i = 1; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (uint64_t i = first; i < first + (one != NULL ? 1 : histories); i++)
        run_history(mode, i, 150);
    pthread_mutex_lock(&lock);
    turn = THREADS;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&lock);
    for (unsigned i = 1; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    print_message(
        "%llu states, %llu of them replayed records or marked blocks, %llu cuts "
        "of recoveries, %llu generations\n",
        (unsigned long long)states, (unsigned long long)replayed,
        (unsigned long long)nested_states, (unsigned long long)generations);
    /* Histories that never leave anything to recover would test nothing. */
    assert_true(replayed > states / 2);
    assert_true(nested_states != 0 && generations != 0);
}

static void test_owned(void **state)
{
    (void)state;
    run_histories(NVM_LOG_OWNED);
}

static void test_strict(void **state)
{
    (void)state;
    run_histories(NVM_LOG_STRICT);
}

static void test_gc(void **state)
{
    (void)state;
    run_histories(NVM_GC);
}

static char *page_aligned(void)
{
    void *got =
        mmap(NULL, HEAP_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return got == MAP_FAILED ? NULL : got;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owned),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_gc),
    };
    memory = page_aligned();
    image = page_aligned();
    nested_image = page_aligned();
    heir = page_aligned();
    if (memory == NULL || image == NULL || nested_image == NULL || heir == NULL)
        return 1;
    snprintf(file_path, sizeof(file_path), "/dev/shm/nvm-powerfail-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
