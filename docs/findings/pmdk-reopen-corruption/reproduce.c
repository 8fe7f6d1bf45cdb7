/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reproduce.c - libpmemobj alone: several threads allocate and free, the
 * process is killed, the pool is opened again, the threads go on; after a few
 * rounds a round ends by a signal inside libpmemobj, or the pool no longer
 * opens.  Nothing of nvcrucible is linked.
 *
 *   cc -O2 reproduce.c -o reproduce -lpmemobj -lpthread
 *   PMEM_IS_PMEM_FORCE=1 ./reproduce THREADS ROUNDS FILE     (FILE on tmpfs)
 *
 * Use of the library: each slot is a PMEMoid in the root object, and only the
 * thread that holds the slot's lock calls pmemobj_alloc() or pmemobj_free()
 * on it.  A pool lives for eight rounds, then a fresh one is made.
 */
#define _GNU_SOURCE
#include <libpmemobj.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS       256
#define POOL_BYTES  ((size_t)32 << 20)
#define GENERATIONS 8

struct root {
    PMEMoid slot[SLOTS];
};

static PMEMobjpool *pool;
static struct root *root;
static atomic_flag busy[SLOTS];

static int open_pool(const char *path)
{
    pool = pmemobj_open(path, "reproduce");
    if (pool == NULL)
        return -1;
    root = pmemobj_direct(pmemobj_root(pool, sizeof(struct root)));
    return 0;
}

static void *work(void *argument)
{
    unsigned seed = (unsigned)(getpid() * 31 + (int)(size_t)argument);
    for (;;) {
        int i = rand_r(&seed) % SLOTS;
        if (atomic_flag_test_and_set(&busy[i]))
            continue;
        /* 16 bytes to 4 MiB, each power of two as likely as another. */
        size_t size = 16 + (size_t)rand_r(&seed) % ((size_t)16 << rand_r(&seed) % 19);
        if (OID_IS_NULL(root->slot[i]))
            pmemobj_alloc(pool, &root->slot[i], size, 1, NULL, NULL);
        else
            pmemobj_free(&root->slot[i]);
        atomic_flag_clear(&busy[i]);
    }
    return NULL;
}

static void run_threads(const char *path, size_t threads)
{
    if (open_pool(path) != 0)
        _exit(1);
    for (size_t i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, (void *)i);
    }
    for (;;)
        pause();
}

/* 1 if the round ended otherwise than by our SIGKILL. */
static int round_fails(const char *path, size_t threads, int round, int generation)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        run_threads(path, threads);
    usleep(8000 + (useconds_t)(rand() % 30000));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 0;
    printf("round %d, generation %d: ", round, generation);
    if (WIFSIGNALED(status))
        printf("libpmemobj died of signal %d while working\n", WTERMSIG(status));
    else
        printf("the pool does not open\n");
    fflush(stdout);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t threads = strtoul(argv[1], NULL, 10);
    int rounds = (int)strtoul(argv[2], NULL, 10), failures = 0, generation = GENERATIONS;
    for (int round = 0; round < rounds; round++, generation++) {
        if (generation == GENERATIONS) {
            unlink(argv[3]);
            pool = pmemobj_create(argv[3], "reproduce", POOL_BYTES, 0600);
            if (pool == NULL)
                return 1;
            pmemobj_root(pool, sizeof(struct root));
            pmemobj_close(pool);
            generation = 0;
        }
        if (round_fails(argv[3], threads, round, generation)) {
            failures++;
            generation = GENERATIONS - 1; /* the next round gets a fresh pool */
        }
    }
    printf("%d of %d rounds failed\n", failures, rounds);
    unlink(argv[3]);
    return failures != 0;
}
