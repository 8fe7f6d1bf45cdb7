// SPDX-License-Identifier: Apache-2.0
/*
 * programs-stress WORKERS OPERATIONS SEED - threads that allocate, resize and
 * free blocks of mixed sizes, and swap every fifth with the others.  Each block
 * holds its size at both ends; one that does not is exit code 1.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS  1000
#define SHARED 4096

struct parcel {
    size_t size;
    unsigned char content[];
};

static struct parcel *_Atomic shared[SHARED];
static atomic_uint errors;
static uint64_t operations, first_seed;

static uint64_t next_random(uint64_t *state)
{
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15u);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

/* At least what a parcel and the copy of its size at the end take. */
static size_t some_size(uint64_t *random)
{
    uint64_t kind = next_random(random) % 1000;
    size_t largest = kind == 0 ? 1000000 : kind < 20 ? 40000 : 400;
    return sizeof(struct parcel) + sizeof(size_t) + next_random(random) % largest;
}

static void seal(struct parcel *parcel, size_t size)
{
    parcel->size = size;
    memcpy((char *)parcel + size - sizeof size, &size, sizeof size);
}

static void inspect(const struct parcel *parcel)
{
    size_t end;
    memcpy(&end, (const char *)parcel + parcel->size - sizeof end, sizeof end);
    errors += end != parcel->size;
}

static struct parcel *replace(struct parcel *old, size_t size, uint64_t what)
{
    if (old != NULL) {
        inspect(old);
        if (what < 4) {
            size_t was = old->size;
            old = realloc(old, size);
            if (old == NULL)
                abort();
            errors += old->size != was;
            seal(old, size);
            return old;
        }
        free(old);
    }
    struct parcel *parcel = what < 6 ? calloc(1, size) : malloc(size);
    if (parcel == NULL)
        abort();
    seal(parcel, size);
    return parcel;
}

static void *work(void *argument)
{
    uint64_t random = first_seed + (uintptr_t)argument;
    struct parcel *own[SLOTS] = {0};
    for (uint64_t i = 0; i < operations; i++) {
        struct parcel **slot = &own[next_random(&random) % SLOTS];
        uint64_t what = next_random(&random) % 10;
        if (what < 2)
            *slot = atomic_exchange(&shared[next_random(&random) % SHARED], *slot);
        else
            *slot = replace(*slot, some_size(&random), what);
    }
    for (int i = 0; i < SLOTS; i++) {
        if (own[i] != NULL)
            inspect(own[i]);
        free(own[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: programs-stress WORKERS OPERATIONS SEED\n");
        return 2;
    }
    size_t workers = strtoul(argv[1], NULL, 10);
    operations = strtoull(argv[2], NULL, 10);
    first_seed = strtoull(argv[3], NULL, 10);
    pthread_t *threads = calloc(workers, sizeof *threads);
    for (size_t i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) != 0)
            abort();
    for (size_t i = 0; i < workers; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    if (errors != 0)
        fprintf(stderr, "%u blocks were not what they had been\n", errors);
    return errors != 0;
}
