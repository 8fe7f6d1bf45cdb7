/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - nvmalloc under the allocator contract (adapter.h).
 *
 * A slot is an nvm_ref.  The slot table is the root block: a header that says
 * how many slots there are, then the slots.
 */
#include "adapter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nvmalloc.h"

struct slot_table {
    uint64_t count;
    nvm_ref slots[];
};

struct nvc_heap {
    nvm_heap *heap;
    struct slot_table *table;
};

static int wrap(nvm_heap *heap, size_t slots, struct nvc_heap **out)
{
    struct nvc_heap *wrapped = malloc(sizeof(*wrapped));
    /* At open the count is not known yet: the root's header has it. */
    size_t bytes;
    if (__builtin_mul_overflow(slots, sizeof(nvm_ref), &bytes) ||
        __builtin_add_overflow(bytes, sizeof(struct slot_table), &bytes))
        bytes = SIZE_MAX;
    struct slot_table *table = nvm_root(heap, bytes);
    if (wrapped == NULL || table == NULL) {
        int error = table == NULL ? errno : ENOMEM;
        free(wrapped);
        nvm_close(heap);
        return error;
    }
    if (slots != 0) {
        table->count = slots;
        nvm_persist(heap, table, sizeof(*table));
    }
    wrapped->heap = heap;
    wrapped->table = table;
    *out = wrapped;
    return 0;
}

static int adapter_create(const char *path, const struct nvc_options *options,
                          struct nvc_heap **out)
{
    nvm_heap *heap;
    int error = nvm_create(path, options->size, &heap);
    if (error != 0)
        return error;
    error = wrap(heap, options->slots, out);
    if (error != 0)
        unlink(path); /* ours, and without a slot table no use to anybody */
    return error;
}

static int adapter_open(const char *path, const struct nvc_options *options,
                        struct nvc_heap **out)
{
    (void)options;
    nvm_heap *heap;
    int error = nvm_open(path, &heap);
    return error != 0 ? error : wrap(heap, 0, out);
}

static int adapter_close(struct nvc_heap *heap)
{
    int error = nvm_close(heap->heap);
    free(heap);
    return error;
}

static int adapter_check(struct nvc_heap *heap)
{
    return nvm_check(heap->heap);
}

static void *adapter_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->table->count;
    return heap->table->slots;
}

static struct nvc_block adapter_range(struct nvc_heap *heap)
{
    struct nvc_block range;
    nvm_range(heap->heap, &range.address, &range.usable);
    return range;
}

static int adapter_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    /* nvm_malloc_to() serves size 0; the contract does not. */
    return size == 0 ? EINVAL : nvm_malloc_to(heap->heap, slot, size);
}

static int adapter_free_from(struct nvc_heap *heap, void *slot)
{
    return nvm_free_from(heap->heap, slot);
}

static struct nvc_block adapter_read(struct nvc_heap *heap, const void *slot)
{
    nvm_ref ref = *(const nvm_ref *)slot;
    return (struct nvc_block){nvm_ptr(heap->heap, ref), nvm_usable_size(heap->heap, ref)};
}

static void adapter_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    nvm_persist(heap->heap, address, length);
}

struct visit {
    nvc_walk_fn *visit;
    void *context;
    const void *table;
};

static int visit_block(void *context, void *block, size_t usable)
{
    const struct visit *visit = context;
    if (block == visit->table)
        return 0;
    return visit->visit(visit->context, (struct nvc_block){block, usable});
}

static int adapter_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    struct visit state = {visit, context, heap->table};
    return nvm_walk(heap->heap, visit_block, &state);
}

static void adapter_thread_leave(struct nvc_heap *heap)
{
    nvm_thread_leave(heap->heap);
}

static void adapter_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    struct nvm_heap_stats from;
    nvm_stats(heap->heap, &from);
    memset(stats, 0, sizeof(*stats));
    stats->live_bytes = from.live_bytes;
    stats->heap_bytes = from.file_bytes;
    stats->used_bytes = from.used_bytes;
    stats->flushes = from.flushes;
    stats->fences = from.fences;
    stats->nt_lines = from.nt_lines;
    stats->map_sync = from.map_sync;
    memcpy(stats->flush, from.flush, sizeof(stats->flush));
}

static nvc_event_fn *event_fn;

static void forward_event(void *context, int kind, const void *address, size_t length)
{
    event_fn(context, (enum nvc_event)kind, address, length);
}

static int adapter_observe(nvc_event_fn *fn, void *context)
{
    event_fn = fn;
    nvm_observe(fn == NULL ? NULL : forward_event, context);
    return 0;
}

static const struct nvc_adapter adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = "nvmalloc",
    .capabilities =
        NVC_PERSISTENT | NVC_WALK | NVC_THREADS | NVC_OBSERVABLE | NVC_NESTED_SLOTS,
    .consistency = NVC_CONSISTENCY_LOG,
    .slot_size = sizeof(nvm_ref),
    .min_size = NVM_MIN_HEAP,
    .library_version = nvm_version,
    .create = adapter_create,
    .open = adapter_open,
    .close = adapter_close,
    .check = adapter_check,
    .slots = adapter_slots,
    .range = adapter_range,
    .alloc_to = adapter_alloc_to,
    .free_from = adapter_free_from,
    .read = adapter_read,
    .persist = adapter_persist,
    .walk = adapter_walk,
    .thread_leave = adapter_thread_leave,
    .stats = adapter_stats,
    .observe = adapter_observe,
    .last_error = nvm_error,
};

__attribute__((visibility("default"))) nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
