// SPDX-License-Identifier: Apache-2.0
/*
 * schedule.c - the turn of schedule.h.
 */
#include "schedule.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "driver.h"
#include "ledger.h"
#include "lens.h"

struct nvl_schedule nvl_schedule;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t passed[NVL_THREADS_MAX];
    bool alive[NVL_THREADS_MAX];
    uint32_t threads, turn;
    struct nvd_random random;
    pthread_key_t last;
    void (*work)(void *context, uint32_t thread);
    void *context;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Under the lock: somebody alive, by lot; `turn` stays if there is nobody else. */
static void draw_turn(void)
{
    uint32_t candidates[NVL_THREADS_MAX], count = 0;
    for (uint32_t i = 0; i < table.threads; i++) {
        if (table.alive[i] && i != table.turn)
            candidates[count++] = i;
    }
    if (count > 0)
        table.turn = candidates[nvd_random_below(&table.random, count)];
    /* Mostly short turns, some that last for a whole operation. */
    uint64_t bound = nvd_random_below(&table.random, 8) == 0 ? 4096 : 64;
    nvl_schedule.countdown = (uint32_t)nvd_random_below(&table.random, bound);
    pthread_cond_signal(&table.passed[table.turn]);
}

static void await_turn(uint32_t thread)
{
    while (table.turn != thread)
        pthread_cond_wait(&table.passed[thread], &table.lock);
}

void nvl_schedule_yield(void)
{
    uint32_t thread = nvl_lens_thread;
    pthread_mutex_lock(&table.lock);
    draw_turn();
    await_turn(thread);
    pthread_mutex_unlock(&table.lock);
}

static void *enter(void *argument)
{
    uint32_t thread = (uint32_t)(uintptr_t)argument;
    nvl_lens_thread = thread;
    pthread_mutex_lock(&table.lock);
    await_turn(thread);
    pthread_mutex_unlock(&table.lock);
    /* An allocator may have something to do when a thread ends, in a destructor of its
       own: the thread has its turns until all of these have run. */
    pthread_setspecific(table.last, (void *)(uintptr_t)PTHREAD_DESTRUCTOR_ITERATIONS);
    table.work(table.context, thread);
    return NULL;
}

/* Destructors run in rounds; this one waits for the last. */
static void leave(void *rounds)
{
    uintptr_t left = (uintptr_t)rounds - 1;
    if (left > 0) {
        pthread_setspecific(table.last, (void *)left);
        return;
    }
    nvl_lens_settle();
    pthread_mutex_lock(&table.lock);
    table.alive[nvl_lens_thread] = false;
    draw_turn();
    pthread_mutex_unlock(&table.lock);
}

void nvl_schedule_run(uint32_t threads, uint64_t seed,
                      void (*work)(void *context, uint32_t thread), void *context)
{
    pthread_t handles[NVL_THREADS_MAX];
    if (threads == 1) {
        work(context, 0);
        return;
    }
    nvd_random_seed(&table.random, seed);
    table.threads = threads;
    table.turn = 0;
    table.work = work;
    table.context = context;
    for (uint32_t i = 0; i < threads; i++) {
        table.alive[i] = true;
        pthread_cond_init(&table.passed[i], NULL);
    }
    if (pthread_key_create(&table.last, leave) != 0)
        abort();
    nvl_schedule.countdown = 0;
    nvl_schedule.running = true;
    for (uint32_t i = 0; i < threads; i++) {
        if (pthread_create(&handles[i], NULL, enter, (void *)(uintptr_t)i) != 0)
            abort();
    }
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(handles[i], NULL);
    nvl_schedule.running = false;
    pthread_key_delete(table.last);
}
