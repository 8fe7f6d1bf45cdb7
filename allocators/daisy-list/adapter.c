/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - daisy-list under the allocator contract.
 *
 * Slot i is the id i + 1: alloc_to() is p_malloc(id, size), free_from() is
 * p_free(id).  On media an id is found in the list only; the slot table lies in DRAM
 * and keeps the addresses as an application would, which is more than fair: a
 * look-up of the design's own walks the list.  One lock makes it safe for several
 * threads.
 *
 * Option: merge=1 (the default here) or merge=0 (what allocator.yaml asks for, as
 * the notes have it); list.h explains it.
 */
#include "list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC UINT64_C(0x7473696c2d796164) /* "day-list" */

static int read_options(const struct nvc_options *options, bool *merge)
{
    const char *extra = options->extra != NULL ? options->extra : "";
    *merge = strcmp(extra, "merge=0") != 0;
    if (!*merge || extra[0] == '\0' || strcmp(extra, "merge=1") == 0)
        return 0;
    return native_heap_fail(EINVAL, "daisy-list takes merge=0 or merge=1, not \"%s\"",
                            extra);
}

static int adopt(struct native_heap region, bool merge, struct nvc_heap **out)
{
    struct nvc_heap *heap = calloc(1, sizeof *heap);
    uint64_t *addresses = calloc(region.slots + 1, sizeof *addresses);
    if (heap == NULL || addresses == NULL) {
        free(heap);
        free(addresses);
        return native_heap_fail(ENOMEM, "no memory for the heap's handle");
    }
    heap->region = region;
    heap->merge = merge;
    heap->addresses = addresses;
    pthread_mutex_init(&heap->lock, NULL);
    *out = heap;
    return 0;
}

static void drop(struct nvc_heap *heap)
{
    pthread_mutex_destroy(&heap->lock);
    free(heap->addresses);
    free(heap);
}

static int daisy_create(const char *path, const struct nvc_options *options,
                        struct nvc_heap **heap)
{
    struct native_heap region;
    bool merge;
    int error = read_options(options, &merge);
    /* Every id needs a chunk: more ids than chunks are a mistake. */
    if (error == 0 && options->slots > options->size / (sizeof(struct chunk) + 8))
        error = native_heap_fail(EINVAL, "%zu ids in a heap of %zu bytes", options->slots,
                                 options->size);
    if (error == 0)
        error = native_heap_create(path, options->size, options->slots, &region);
    if (error != 0)
        return error;
    error = adopt(region, merge, heap);
    if (error != 0) {
        native_heap_discard(path, &region);
        return error;
    }
    list_clear(*heap);
    native_heap_finish(&(*heap)->region, MAGIC);
    return list_mount(*heap);
}

static int daisy_open(const char *path, const struct nvc_options *options,
                      struct nvc_heap **heap)
{
    struct native_heap region;
    bool merge;
    int error = read_options(options, &merge);
    if (error == 0)
        error = native_heap_open(path, MAGIC, &region);
    if (error != 0)
        return error;
    error = adopt(region, merge, heap);
    if (error == 0) {
        error = list_mount(*heap);
        if (error != 0)
            drop(*heap);
    }
    if (error != 0)
        native_heap_close(&region);
    return error;
}

static int daisy_close(struct nvc_heap *heap)
{
    native_heap_close(&heap->region);
    drop(heap);
    return 0;
}

static void *daisy_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->region.slots;
    return heap->addresses;
}

static struct nvc_block daisy_range(struct nvc_heap *heap)
{
    return (struct nvc_block){heap->region.base, heap->region.bytes};
}

static uint64_t id_of(const struct nvc_heap *heap, const uint64_t *slot)
{
    return (uint64_t)(slot - heap->addresses) + 1;
}

static int daisy_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    uint64_t *address = slot;
    int error;
    if (size == 0 || *address != 0)
        return native_heap_fail(EINVAL, "the size is 0, or the id has a block");
    pthread_mutex_lock(&heap->lock);
    *address = list_malloc(heap, id_of(heap, address), size, &error);
    pthread_mutex_unlock(&heap->lock);
    if (*address == 0 && error == 0)
        return native_heap_fail(ENOMEM, "no free chunk holds %zu bytes", size);
    return error;
}

static int daisy_free_from(struct nvc_heap *heap, void *slot)
{
    uint64_t *address = slot;
    if (*address == 0)
        return native_heap_fail(EINVAL, "the id has no block");
    pthread_mutex_lock(&heap->lock);
    int error = list_free(heap, id_of(heap, address));
    if (error == 0)
        *address = 0;
    pthread_mutex_unlock(&heap->lock);
    return error;
}

static void *daisy_address(struct nvc_heap *heap, const void *slot)
{
    uint64_t payload = *(const uint64_t *)slot;
    return payload != 0 ? heap->region.base + payload : NULL;
}

static struct nvc_block daisy_read(struct nvc_heap *heap, const void *slot)
{
    uint64_t payload = *(const uint64_t *)slot;
    if (payload == 0)
        return (struct nvc_block){NULL, 0};
    return (struct nvc_block){heap->region.base + payload, list_usable(heap, payload)};
}

static void daisy_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    native_heap_persist(address, length);
}

static void daisy_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    native_heap_stats(&heap->region, stats);
    pthread_mutex_lock(&heap->lock);
    stats->live_bytes = heap->live;
    stats->used_bytes = heap->region.bytes - heap->unused;
    pthread_mutex_unlock(&heap->lock);
}

static const char *daisy_version(void)
{
    return "1 (headers of 24 bytes)";
}

static const struct nvc_adapter adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = "daisy-list",
    .capabilities = NVC_PERSISTENT | NVC_WALK | NVC_THREADS | NVC_OBSERVABLE,
    .consistency = NVC_CONSISTENCY_NONE,
    .slot_size = sizeof(uint64_t),
    .min_size = NATIVE_HEAP_MIN,
    .library_version = daisy_version,
    .create = daisy_create,
    .open = daisy_open,
    .close = daisy_close,
    .slots = daisy_slots,
    .range = daisy_range,
    .alloc_to = daisy_alloc_to,
    .free_from = daisy_free_from,
    .read = daisy_read,
    .persist = daisy_persist,
    .walk = list_walk,
    .stats = daisy_stats,
    .observe = native_heap_observe,
    .last_error = native_heap_last_error,
    .address = daisy_address,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
