/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - daisy-bitmap under the allocator contract.
 *
 * A slot is a bind node, slot i that of id i + 1.  alloc_to() is p_malloc() and
 * p_bind(), free_from() forgets the node and then is p_free(): in this order a
 * crash between the two leaks a block, in the other it would leave a node whose
 * block is free.  The original was called by one thread; here one lock makes it
 * safe for several.
 */
#include "bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC UINT64_C(0x70616d7469622d64) /* "d-bitmap" */

static int refuse_options(const struct nvc_options *options)
{
    if (options->extra == NULL || options->extra[0] == '\0')
        return 0;
    return native_heap_fail(EINVAL, "daisy-bitmap has no options, but was given \"%s\"",
                            options->extra);
}

static int mount(struct native_heap region, struct nvc_heap **out)
{
    struct nvc_heap *heap = calloc(1, sizeof *heap);
    if (heap == NULL)
        return native_heap_fail(ENOMEM, "no memory for the heap's handle");
    heap->region = region;
    int error = bitmap_mount(heap);
    if (error != 0) {
        free(heap);
        return error;
    }
    pthread_mutex_init(&heap->lock, NULL);
    *out = heap;
    return 0;
}

static int daisy_create(const char *path, const struct nvc_options *options,
                        struct nvc_heap **heap)
{
    struct native_heap region;
    int error = refuse_options(options);
    if (error == 0)
        error = native_heap_create(path, options->size, options->slots, &region);
    if (error != 0)
        return error;
    error = mount(region, heap);
    if (error != 0)
        native_heap_discard(path, &region);
    else
        native_heap_finish(&(*heap)->region, MAGIC);
    return error;
}

static int daisy_open(const char *path, const struct nvc_options *options,
                      struct nvc_heap **heap)
{
    struct native_heap region;
    int error = refuse_options(options);
    if (error == 0)
        error = native_heap_open(path, MAGIC, &region);
    if (error != 0)
        return error;
    error = mount(region, heap);
    if (error != 0)
        native_heap_close(&region);
    return error == EINVAL ? EUCLEAN : error;
}

static int daisy_close(struct nvc_heap *heap)
{
    native_heap_close(&heap->region);
    pthread_mutex_destroy(&heap->lock);
    free(heap);
    return 0;
}

static void *daisy_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->region.slots;
    return heap->nodes;
}

static struct nvc_block daisy_range(struct nvc_heap *heap)
{
    return (struct nvc_block){heap->region.base, heap->region.bytes};
}

static int daisy_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    struct bind_node *node = slot;
    if (size == 0 || node->offset != 0)
        return native_heap_fail(EINVAL, "the size is 0, or the id is bound");
    pthread_mutex_lock(&heap->lock);
    uint64_t offset = bitmap_malloc(heap, size);
    pthread_mutex_unlock(&heap->lock);
    if (offset == 0)
        return native_heap_fail(ENOMEM, "no run of free granules holds %zu bytes", size);
    node->size = size;
    node->offset = offset;
    native_heap_persist(node, sizeof *node);
    return 0;
}

static int daisy_free_from(struct nvc_heap *heap, void *slot)
{
    struct bind_node *node = slot;
    const uint64_t offset = node->offset;
    if (offset == 0)
        return native_heap_fail(EINVAL, "the id is not bound");
    node->offset = 0;
    node->size = 0;
    native_heap_persist(node, sizeof *node);
    pthread_mutex_lock(&heap->lock);
    int error = bitmap_free(heap, offset);
    pthread_mutex_unlock(&heap->lock);
    return error;
}

static void *daisy_address(struct nvc_heap *heap, const void *slot)
{
    uint64_t offset = ((const struct bind_node *)slot)->offset;
    return offset != 0 ? (void *)((uintptr_t)heap->region.base + offset) : NULL;
}

static struct nvc_block daisy_read(struct nvc_heap *heap, const void *slot)
{
    uint64_t offset = ((const struct bind_node *)slot)->offset;
    return (struct nvc_block){daisy_address(heap, slot), bitmap_usable(heap, offset)};
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
    stats->used_bytes =
        (uint64_t)(heap->granules - heap->region.base) + heap->used * BITMAP_GRANULE;
    pthread_mutex_unlock(&heap->lock);
}

static const char *daisy_version(void)
{
    return "1 (granules of 8 bytes)";
}

static const struct nvc_adapter adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = "daisy-bitmap",
    .capabilities = NVC_PERSISTENT | NVC_WALK | NVC_THREADS | NVC_OBSERVABLE,
    .consistency = NVC_CONSISTENCY_NONE,
    .slot_size = sizeof(struct bind_node),
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
    .walk = bitmap_walk,
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
