/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reproduce.c - kills a process that allocates and frees in a historical Daisy heap, and
 * says what the next process finds.
 *
 *   cc -O2 -D_GNU_SOURCE -Iallocators reproduce.c -o reproduce -ldl
 *   ./reproduce build/allocators/daisy-bitmap.so "" 1000 /dev/shm/heap
 *   ./reproduce build/allocators/daisy-list.so merge=0 1000 /dev/shm/heap
 *
 * One thread, kills at random instants (seeded; the scheduler does the rest).  It loads
 * the design as a library and uses nothing else of nvcrucible.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "adapter.h"

enum { SLOTS = 500, HEAP_BYTES = 4 << 20 };

static const struct nvc_adapter *design;

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void work(const char *path, const char *extra, unsigned seed)
{
    struct nvc_options options = {HEAP_BYTES, SLOTS, extra};
    struct nvc_heap *heap;
    size_t count;
    if (design->create(path, &options, &heap) != 0)
        give_up(path, design->last_error());
    unsigned char *table = design->slots(heap, &count);
    srandom(seed);
    for (;;) {
        void *slot = table + (size_t)random() % SLOTS * design->slot_size;
        if (design->read(heap, slot).address != NULL)
            design->free_from(heap, slot);
        else
            design->alloc_to(heap, slot, 16 + (size_t)random() % 4000);
    }
}

static int count_block(void *context, struct nvc_block block)
{
    (void)block;
    ++*(size_t *)context;
    return 0;
}

/* Prints what is wrong with the heap; 1 if anything is. */
static int look(const char *path, const char *extra)
{
    struct nvc_options options = {0, 0, extra};
    struct nvc_heap *heap;
    size_t count, named = 0, found = 0;
    int error = design->open(path, &options, &heap);
    if (error != 0) {
        printf("cannot be opened: %s\n", design->last_error());
        return 1;
    }
    unsigned char *table = design->slots(heap, &count);
    for (size_t i = 0; i < count; i++)
        named += design->read(heap, table + i * design->slot_size).address != NULL;
    error = design->walk(heap, count_block, &found);
    if (error != 0)
        printf("cannot be walked: %s\n", design->last_error());
    else if (found != named)
        printf("%zu blocks in use, %zu of them have an id\n", found, named);
    return error != 0 || found != named;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        give_up("usage", "reproduce ADAPTER.so OPTIONS ROUNDS HEAP");
    void *library = dlopen(argv[1], RTLD_NOW);
    void *symbol = library != NULL ? dlsym(library, NVC_ADAPTER_SYMBOL) : NULL;
    if (symbol == NULL)
        give_up(argv[1], dlerror());
    nvc_adapter_get_fn *get;
    memcpy(&get, &symbol, sizeof get);
    design = get();
    const unsigned rounds = (unsigned)strtoul(argv[3], NULL, 10);
    unsigned failed = 0;
    for (unsigned round = 1; round <= rounds; round++) {
        int status;
        unlink(argv[4]);
        fflush(stdout);
        pid_t worker = fork();
        if (worker == 0)
            work(argv[4], argv[2], round);
        srandom(round);
        usleep(5000 + (useconds_t)random() % 10000);
        kill(worker, SIGKILL);
        waitpid(worker, &status, 0);
        fflush(stdout);
        pid_t next = fork();
        if (next == 0) {
            printf("round %u: ", round);
            int wrong = look(argv[4], argv[2]);
            printf("%s", wrong ? "" : "sound\n");
            fflush(stdout);
            _exit(wrong);
        }
        waitpid(next, &status, 0);
        failed += status != 0;
    }
    unlink(argv[4]);
    printf("%u of %u rounds failed\n", failed, rounds);
    return failed != 0;
}
