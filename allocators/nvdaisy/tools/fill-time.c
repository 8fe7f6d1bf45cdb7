/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill-time.c - how long an allocation takes, and how large it may be, as the heap
 * fills up.
 *
 *   fill-time ADAPTER.so OPTIONS HEAP BYTES SEED     ("" for no options)
 *
 * Fills a fresh heap with blocks of 64 to 1024 bytes to a tenth of its size, then two
 * tenths, and so on to nine.  At each level it frees random blocks and allocates others
 * in their place until the heap is well shuffled, times allocations of the same
 * kind (each after a free of another block), and then looks for the largest block that
 * can be had (by halving the interval to 1/256 of the heap).
 *
 * One JSON document a level on stdout: {"fill":0.1,"asked_bytes":n,"timed":n,"failed":n,
 * "p50_ns":n,"p99_ns":n,"free_bytes":n|null,"largest_bytes":n}.  `failed` are timed
 * allocations that got ENOMEM, which are no times.  A heap that cannot be filled to a
 * level ends with {"full_at":x}, the share of the heap that was asked for when the first
 * allocation failed.  Exit code 0, else 1 with a sentence on stderr.
 *
 * The time that a level may take is bounded, not the number of its operations: an
 * allocator that needs a millisecond is shuffled and timed less.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "adapter.h"

enum { SMALLEST = 64, LARGEST = 1024, TIMED = 4000, LEVELS = 9 };
#define SHUFFLE_SECONDS 2.0
#define TIMED_SECONDS   2.0

struct filling {
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap;
    unsigned char *table;
    size_t bytes;   /* of the heap */
    uint32_t *full; /* slots in use */
    uint32_t *size; /* by slot: bytes asked for */
    uint32_t *empty;
    size_t full_count, empty_count;
    uint64_t asked; /* bytes in all full slots */
    uint64_t random;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "fill-time: %s: %s\n", what, why);
    exit(1);
}

/* splitmix64 */
static uint64_t draw(struct filling *filling)
{
    uint64_t z = (filling->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void *slot_at(const struct filling *filling, uint32_t slot)
{
    return filling->table + (size_t)slot * filling->adapter->slot_size;
}

/* False if there is no memory; *ns, unless NULL, becomes the time of the call. */
static bool allocate(struct filling *filling, double *ns)
{
    uint32_t size = SMALLEST + (uint32_t)(draw(filling) % (LARGEST - SMALLEST + 1));
    if (filling->empty_count == 0)
        die("filling", "more blocks than slots");
    uint32_t slot = filling->empty[filling->empty_count - 1];
    double begin = ns != NULL ? seconds_now() : 0;
    int error = filling->adapter->alloc_to(filling->heap, slot_at(filling, slot), size);
    if (ns != NULL)
        *ns = (seconds_now() - begin) * 1e9;
    if (error == ENOMEM)
        return false;
    if (error != 0)
        die("alloc_to", filling->adapter->last_error());
    filling->empty_count--;
    filling->full[filling->full_count++] = slot;
    filling->size[slot] = size;
    filling->asked += size;
    return true;
}

static void release(struct filling *filling)
{
    size_t i = draw(filling) % filling->full_count;
    uint32_t slot = filling->full[i];
    if (filling->adapter->free_from(filling->heap, slot_at(filling, slot)) != 0)
        die("free_from", filling->adapter->last_error());
    filling->full[i] = filling->full[--filling->full_count];
    filling->empty[filling->empty_count++] = slot;
    filling->asked -= filling->size[slot];
}

static bool fill_to(struct filling *filling, uint64_t bytes)
{
    while (filling->asked < bytes) {
        if (!allocate(filling, NULL))
            return false;
    }
    return true;
}

/* Replaces each block once, or as many as there is time for. */
static void shuffle(struct filling *filling, uint64_t level)
{
    const double end = seconds_now() + SHUFFLE_SECONDS;
    for (size_t n = 2 * filling->full_count; n > 0 && seconds_now() < end; n--) {
        if (filling->asked >= level || !allocate(filling, NULL))
            release(filling);
    }
}

static uint64_t largest_block(struct filling *filling)
{
    const uint64_t step = filling->bytes / 256;
    uint64_t low = 0, high = filling->bytes;
    uint32_t slot = filling->empty[filling->empty_count - 1];
    while (high - low > step) {
        uint64_t middle = low + (high - low) / 2;
        int error =
            filling->adapter->alloc_to(filling->heap, slot_at(filling, slot), middle);
        if (error == 0)
            error = filling->adapter->free_from(filling->heap, slot_at(filling, slot));
        else if (error == ENOMEM) {
            high = middle;
            continue;
        }
        if (error != 0)
            die("probing", filling->adapter->last_error());
        low = middle;
    }
    return low;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void measure(struct filling *filling, uint64_t level)
{
    static double times[TIMED];
    size_t timed = 0, failed = 0;
    const double end = seconds_now() + TIMED_SECONDS;
    while (timed + failed < TIMED && (seconds_now() < end || timed + failed < 16)) {
        while (filling->asked >= level)
            release(filling);
        double ns;
        if (allocate(filling, &ns)) {
            times[timed++] = ns;
        } else {
            failed++;
            release(filling);
        }
    }
    qsort(times, timed, sizeof *times, by_value);
    struct nvc_stats stats;
    filling->adapter->stats(filling->heap, &stats);
    printf("{\"fill\":%.2f,\"asked_bytes\":%" PRIu64 ",\"timed\":%zu,\"failed\":%zu,",
           (double)level / (double)filling->bytes, filling->asked, timed, failed);
    printf("\"p50_ns\":%.0f,\"p99_ns\":%.0f,", timed > 0 ? times[timed / 2] : -1,
           timed > 0 ? times[timed * 99 / 100] : -1);
    if (stats.used_bytes == UINT64_MAX)
        printf("\"free_bytes\":null,");
    else
        printf("\"free_bytes\":%" PRIu64 ",", stats.heap_bytes - stats.used_bytes);
    printf("\"largest_bytes\":%" PRIu64 "}\n", largest_block(filling));
    fflush(stdout);
}

static void make_heap(struct filling *filling, const char *path, const char *extra)
{
    /* Blocks of 544 bytes on average: as many as can be, and some. */
    const size_t slots = filling->bytes / 512;
    struct nvc_options options = {.size = filling->bytes, .slots = slots, .extra = extra};
    if (filling->adapter->create(path, &options, &filling->heap) != 0)
        die(path, filling->adapter->last_error());
    size_t count;
    filling->table = filling->adapter->slots(filling->heap, &count);
    filling->full = malloc(slots * sizeof *filling->full);
    filling->size = malloc(slots * sizeof *filling->size);
    filling->empty = malloc(slots * sizeof *filling->empty);
    if (filling->full == NULL || filling->size == NULL || filling->empty == NULL)
        die("slots", "no memory");
    for (size_t i = 0; i < slots; i++)
        filling->empty[filling->empty_count++] = (uint32_t)(slots - 1 - i);
}

static const struct nvc_adapter *load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = library != NULL ? dlsym(library, NVC_ADAPTER_SYMBOL) : NULL;
    if (symbol == NULL)
        die(path, dlerror());
    nvc_adapter_get_fn *get;
    memcpy(&get, &symbol, sizeof get);
    return get();
}

int main(int argc, char **argv)
{
    if (argc != 6)
        die("usage", "fill-time ADAPTER.so OPTIONS HEAP BYTES SEED");
    struct filling filling = {.adapter = load(argv[1]),
                              .bytes = strtoull(argv[4], NULL, 10),
                              .random = strtoull(argv[5], NULL, 10)};
    make_heap(&filling, argv[3], argv[2]);
    if (filling.adapter->thread_enter != NULL)
        filling.adapter->thread_enter(filling.heap);
    for (uint64_t level = 1; level <= LEVELS; level++) {
        uint64_t bytes = filling.bytes / 10 * level;
        if (!fill_to(&filling, bytes)) {
            printf("{\"full_at\":%.3f}\n", (double)filling.asked / (double)filling.bytes);
            break;
        }
        shuffle(&filling, bytes);
        measure(&filling, bytes);
    }
    if (filling.adapter->thread_leave != NULL)
        filling.adapter->thread_leave(filling.heap);
    filling.adapter->close(filling.heap);
    unlink(argv[3]);
    free(filling.full);
    free(filling.size);
    free(filling.empty);
    return 0;
}
