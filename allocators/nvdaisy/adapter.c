/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - the Daisy heap under the allocator contract.
 *
 * Slot i is the id i + 1: alloc_to() is p_malloc_id(), free_from() is p_free_id(), read()
 * looks the id up.  So what the driver holds to its journal is the id table.  The slot
 * table itself is address space and nothing else: a slot's address gives its id, and
 * nothing is ever stored there.  How many slots there are lies in a block of its own,
 * under a name beside the Daisy heap's.
 */
#include "adapter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/daisy.h"

#define SLOT_COUNT_NAME "nvdaisy-slots"

struct nvc_heap {
    struct daisy *daisy;
    nvm_ref count_block;
    uint64_t slots;
    unsigned char *table; /* slots * 8 bytes that nobody writes */
};

static int refuse_options(const struct nvc_options *options)
{
    if (options->extra == NULL || options->extra[0] == '\0')
        return 0;
    return daisy_fail(EINVAL, "nvdaisy has no options, but was given \"%s\"",
                      options->extra);
}

/* Stores the number of slots under its name. */
static int store_count(struct daisy *daisy, uint64_t slots)
{
    nvm_heap *nvm = daisy_nvm(daisy);
    nvm_ref *place = nvm_named(nvm, SLOT_COUNT_NAME, 1);
    nvm_ref block = place != NULL ? nvm_reserve(nvm, sizeof slots) : 0;
    if (block == 0)
        return daisy_fail(errno, "no room for the number of slots: %s", nvm_error());
    memcpy(nvm_ptr(nvm, block), &slots, sizeof slots);
    nvm_persist(nvm, nvm_ptr(nvm, block), sizeof slots);
    struct nvm_action action = {.kind = NVM_ACT_ALLOC, .slot = place, .ref = block};
    int error = nvm_publish(nvm, &action, 1);
    return error == 0 ? 0 : daisy_fail(error, "%s", nvm_error());
}

static int adopt(struct daisy *daisy, struct nvc_heap **out)
{
    nvm_heap *nvm = daisy_nvm(daisy);
    const nvm_ref *place = nvm_named(nvm, SLOT_COUNT_NAME, 0);
    const nvm_ref block = place != NULL ? *place : 0;
    struct nvc_heap *heap = calloc(1, sizeof *heap);
    if (heap == NULL)
        return daisy_fail(ENOMEM, "no memory for the heap's handle");
    int error = 0;
    if (nvm_usable_size(nvm, block) < sizeof heap->slots) {
        error = daisy_fail(EUCLEAN, "the number of slots is not in the heap");
    } else {
        memcpy(&heap->slots, nvm_ptr(nvm, block), sizeof heap->slots);
        if (heap->slots == 0 || heap->slots > DAISY_MAX_ID)
            error = daisy_fail(EUCLEAN, "%llu slots", (unsigned long long)heap->slots);
    }
    if (error == 0) {
        heap->table = mmap(NULL, heap->slots * sizeof(uint64_t), PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (heap->table == MAP_FAILED)
            error = daisy_fail(errno, "no address space for the slots");
    }
    if (error != 0) {
        free(heap);
        return error;
    }
    heap->daisy = daisy;
    heap->count_block = block;
    *out = heap;
    return 0;
}

static int adapter_create(const char *path, const struct nvc_options *options,
                          struct nvc_heap **heap)
{
    struct daisy *daisy;
    int error = refuse_options(options);
    if (error == 0 && options->slots > DAISY_MAX_ID)
        error = daisy_fail(EINVAL, "%zu slots; there are %u ids", options->slots,
                           DAISY_MAX_ID);
    if (error == 0)
        error = daisy_create_file(path, options->size, &daisy);
    if (error != 0)
        return error;
    error = store_count(daisy, options->slots);
    if (error == 0)
        error = adopt(daisy, heap);
    if (error != 0) {
        daisy_close(daisy);
        unlink(path);
    }
    return error;
}

static int adapter_open(const char *path, const struct nvc_options *options,
                        struct nvc_heap **heap)
{
    struct daisy *daisy;
    int error = refuse_options(options);
    if (error == 0)
        error = daisy_open(path, &daisy);
    if (error != 0)
        return error;
    error = adopt(daisy, heap);
    if (error != 0)
        daisy_close(daisy);
    return error;
}

static int adapter_attach(void *base, size_t size, const struct nvc_options *options,
                          struct nvc_heap **heap)
{
    struct daisy *daisy;
    int error = refuse_options(options);
    if (error == 0)
        error = daisy_attach(base, size, &daisy);
    if (error != 0)
        return error;
    error = adopt(daisy, heap);
    if (error != 0)
        daisy_detach(daisy);
    return error;
}

static void adapter_detach(struct nvc_heap *heap)
{
    daisy_detach(heap->daisy);
    munmap(heap->table, heap->slots * sizeof(uint64_t));
    free(heap);
}

static int adapter_close(struct nvc_heap *heap)
{
    int error = daisy_close(heap->daisy);
    munmap(heap->table, heap->slots * sizeof(uint64_t));
    free(heap);
    return error;
}

static int adapter_check(struct nvc_heap *heap)
{
    return daisy_check(heap->daisy);
}

static void *adapter_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->slots;
    return heap->table;
}

static uint32_t id_of(const struct nvc_heap *heap, const void *slot)
{
    const size_t offset = (size_t)((const unsigned char *)slot - heap->table);
    return (uint32_t)(offset / sizeof(uint64_t)) + 1;
}

static struct nvc_block adapter_range(struct nvc_heap *heap)
{
    struct nvc_block range;
    nvm_range(daisy_nvm(heap->daisy), &range.address, &range.usable);
    return range;
}

static int adapter_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    void *address;
    if (size == 0)
        return daisy_fail(EINVAL, "a size of 0 bytes");
    int error = daisy_malloc_id(heap->daisy, id_of(heap, slot), size, false, &address);
    return error == EEXIST ? EINVAL : error;
}

static int adapter_free_from(struct nvc_heap *heap, void *slot)
{
    int error = daisy_free_id(heap->daisy, id_of(heap, slot));
    return error == ENOENT ? EINVAL : error;
}

static void *adapter_address(struct nvc_heap *heap, const void *slot)
{
    return daisy_address(heap->daisy, id_of(heap, slot));
}

static struct nvc_block adapter_read(struct nvc_heap *heap, const void *slot)
{
    struct daisy_node node;
    int error = daisy_find(heap->daisy, id_of(heap, slot), &node);
    if (error == 0)
        return (struct nvc_block){node.address, node.usable};
    return (struct nvc_block){error == ENOENT ? NULL : adapter_address(heap, slot), 0};
}

static void adapter_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    nvm_persist(daisy_nvm(heap->daisy), address, length);
}

struct visit {
    nvc_walk_fn *visit;
    void *context;
};

static int visit_block(void *context, void *address, uint64_t usable)
{
    const struct visit *visit = context;
    return visit->visit(visit->context, (struct nvc_block){address, usable});
}

static int adapter_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    struct visit state = {visit, context};
    return daisy_walk(heap->daisy, heap->count_block, visit_block, &state);
}

static void adapter_thread_leave(struct nvc_heap *heap)
{
    nvm_thread_leave(daisy_nvm(heap->daisy));
}

static void adapter_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    struct nvm_heap_stats from;
    nvm_stats(daisy_nvm(heap->daisy), &from);
    uint64_t live;
    if (daisy_live(heap->daisy, heap->count_block, &live) != 0)
        live = UINT64_MAX;
    *stats = (struct nvc_stats){.live_bytes = live,
                                .heap_bytes = from.file_bytes,
                                .used_bytes = from.used_bytes,
                                .flushes = from.flushes,
                                .fences = from.fences,
                                .nt_lines = from.nt_lines,
                                .map_sync = from.map_sync};
    memcpy(stats->flush, from.flush, sizeof stats->flush);
}

static int adapter_rebuild(struct nvc_heap *heap)
{
    int error = nvm_rebuild(daisy_nvm(heap->daisy));
    return error == 0 ? 0 : daisy_fail(error, "%s", nvm_error());
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
    .name = "nvdaisy",
    .capabilities = NVC_PERSISTENT | NVC_WALK | NVC_THREADS | NVC_OBSERVABLE,
    .consistency = NVC_CONSISTENCY_LOG,
    .slot_size = sizeof(uint64_t),
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
    .last_error = daisy_error,
    .address = adapter_address,
    .attach = adapter_attach,
    .detach = adapter_detach,
    .rebuild = adapter_rebuild,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
