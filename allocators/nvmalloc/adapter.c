/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - nvmalloc under the allocator contract (adapter.h).
 *
 * A slot is an nvm_ref.  The slot table is the root block: a header that says
 * how many slots there are, then the slots.  With the option slots=dram it
 * lies in DRAM, and nothing survives: what an allocation of a GC heap costs a
 * program that keeps its pointers there.
 *
 * Options (allocator.yaml): mode=owned|strict|gc, slots=heap|dram,
 * grow=yes|no (the file grows to `size` as it fills, or is allocated at once),
 * protect=yes (a stray store into metadata traps).
 */
#include "adapter.h"

#include <errno.h>
#include <stdbool.h>
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
    bool in_dram; /* the table */
    bool gc;      /* and slots are plain addresses, filled by plain stores */
    bool attached;
    size_t max_bytes; /* to which the file may grow; 0: not asked yet */
};

/* Whether the options hold key=value; missing options are the defaults. */
static bool chosen(const struct nvc_options *options, const char *pair)
{
    size_t length = strlen(pair);
    for (const char *at = options->extra; at != NULL && *at != '\0';) {
        if (strncmp(at, pair, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
        at = strchr(at, ',');
        at += at != NULL;
    }
    return false;
}

/* Bytes of a table of `slots`; SIZE_MAX if there can be none. */
static size_t table_bytes(size_t slots)
{
    size_t bytes;
    if (__builtin_mul_overflow(slots, sizeof(nvm_ref), &bytes) ||
        __builtin_add_overflow(bytes, sizeof(struct slot_table), &bytes))
        return SIZE_MAX;
    return bytes;
}

/* slots: 0 at open, when the root's header has the count. */
static int find_table(struct nvc_heap *wrapped, size_t slots)
{
    size_t bytes = table_bytes(slots);
    wrapped->table = wrapped->in_dram ? calloc(1, bytes) : nvm_root(wrapped->heap, bytes);
    if (wrapped->table == NULL)
        return errno;
    if (slots != 0) {
        wrapped->table->count = slots;
        if (!wrapped->in_dram)
            nvm_persist(wrapped->heap, wrapped->table, sizeof(*wrapped->table));
    }
    return 0;
}

static int wrap(nvm_heap *heap, const struct nvc_options *options, struct nvc_heap **out)
{
    struct nvc_heap *wrapped = calloc(1, sizeof(*wrapped));
    if (wrapped == NULL)
        return ENOMEM;
    wrapped->heap = heap;
    wrapped->in_dram = chosen(options, "slots=dram");
    wrapped->gc = wrapped->in_dram && chosen(options, "mode=gc");
    int error = find_table(wrapped, options->slots);
    if (error != 0) {
        free(wrapped);
        return error;
    }
    *out = wrapped;
    return 0;
}

static unsigned flags_of(const struct nvc_options *options)
{
    return chosen(options, "protect=yes") ? NVM_PROTECT : 0;
}

static int adapter_supports(const struct nvc_options *options)
{
    return nvm_supports(flags_of(options));
}

static int adapter_create(const char *path, const struct nvc_options *options,
                          struct nvc_heap **out)
{
    nvm_heap *heap;
    struct nvm_options how = {
        .size = options->size, .max_size = options->size, .flags = flags_of(options)};
    if (chosen(options, "mode=strict"))
        how.mode = NVM_LOG_STRICT;
    else if (chosen(options, "mode=gc"))
        how.mode = NVM_GC;
    if (chosen(options, "grow=yes"))
        how.size = 0;
    int error = nvm_create_with(path, &how, &heap);
    if (error != 0)
        return error;
    error = wrap(heap, options, out);
    if (error != 0) {
        nvm_close(heap);
        unlink(path); /* ours, and without a slot table no use to anybody */
    }
    return error;
}

static int adapter_open(const char *path, const struct nvc_options *options,
                        struct nvc_heap **out)
{
    const struct nvm_options how = {.flags = flags_of(options)};
    nvm_heap *heap;
    int error = nvm_open_with(path, &how, &heap);
    if (error == 0 && (error = wrap(heap, options, out)) != 0)
        nvm_close(heap);
    return error;
}

static int adapter_attach(void *base, size_t size, const struct nvc_options *options,
                          struct nvc_heap **out)
{
    nvm_heap *heap;
    int error = nvm_attach(base, size, NULL, &heap);
    if (error == 0 && (error = wrap(heap, options, out)) != 0)
        nvm_detach(heap);
    if (error == 0)
        (*out)->attached = true;
    return error;
}

static void unwrap(struct nvc_heap *heap)
{
    if (heap->in_dram)
        free(heap->table);
    free(heap);
}

static int adapter_defrag(struct nvc_heap *heap, void *const slots[], size_t count)
{
    return heap->in_dram ? ENOTSUP
                         : nvm_defrag(heap->heap, (nvm_ref *const *)slots, count, NULL);
}

static int adapter_trim(struct nvc_heap *heap)
{
    return nvm_trim(heap->heap, NULL);
}

static int adapter_rebuild(struct nvc_heap *heap)
{
    return nvm_rebuild(heap->heap);
}

static void adapter_detach(struct nvc_heap *heap)
{
    nvm_detach(heap->heap);
    unwrap(heap);
}

static int adapter_close(struct nvc_heap *heap)
{
    int error = nvm_close(heap->heap);
    unwrap(heap);
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

/* Where blocks lie, now and when the file has grown: others keep what they are told. */
static struct nvc_block adapter_range(struct nvc_heap *heap)
{
    struct nvc_block range;
    nvm_range(heap->heap, &range.address, &range.usable);
    if (heap->attached) /* it can't grow past its image */
        return range;
    if (heap->max_bytes == 0) {
        struct nvm_heap_stats stats;
        nvm_stats(heap->heap, &stats);
        heap->max_bytes = stats.max_bytes;
    }
    range.usable = heap->max_bytes;
    return range;
}

static int adapter_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    nvm_ref *ref = slot;
    if (size == 0) /* nvm_malloc_to() serves it; the contract does not */
        return EINVAL;
    if (!heap->gc)
        return nvm_malloc_to(heap->heap, slot, size);
    if (*ref != 0)
        return EINVAL;
    void *block = nvm_malloc(heap->heap, size);
    *ref = (uintptr_t)block;
    return block != NULL ? 0 : errno;
}

static int adapter_free_from(struct nvc_heap *heap, void *slot)
{
    nvm_ref *ref = slot;
    if (!heap->gc)
        return nvm_free_from(heap->heap, slot);
    if (*ref == 0)
        return EINVAL;
    int error = nvm_free(heap->heap, (void *)(uintptr_t)*ref);
    if (error == 0)
        *ref = 0;
    return error;
}

static int adapter_realloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    if (size == 0 || *(nvm_ref *)slot == 0)
        return EINVAL;
    return heap->in_dram ? ENOTSUP : nvm_realloc_to(heap->heap, slot, size);
}

static int adapter_move_to(struct nvc_heap *heap, void *from, void *to)
{
    return heap->in_dram ? ENOTSUP : nvm_move_to(heap->heap, from, to);
}

static int adapter_alloc_group(struct nvc_heap *heap, void *const slots[],
                               const size_t sizes[], size_t count)
{
    struct nvm_action actions[8];
    size_t reserved = 0;
    int error = count > 8 ? EINVAL : 0;
    for (; error == 0 && reserved < count; reserved++) {
        nvm_ref ref = sizes[reserved] == 0 ? 0 : nvm_reserve(heap->heap, sizes[reserved]);
        if (ref == 0) {
            error = sizes[reserved] == 0 ? EINVAL : errno;
            break;
        }
        actions[reserved] = (struct nvm_action){
            .kind = NVM_ACT_ALLOC, .slot = slots[reserved], .ref = ref};
    }
    if (error == 0)
        error = nvm_publish(heap->heap, actions, count);
    for (size_t i = 0; error != 0 && i < reserved; i++)
        nvm_cancel(heap->heap, actions[i].ref);
    return error;
}

static struct nvc_block adapter_read(struct nvc_heap *heap, const void *slot)
{
    nvm_ref ref = *(const nvm_ref *)slot;
    if (heap->gc)
        ref = nvm_off(heap->heap, (void *)(uintptr_t)ref);
    return (struct nvc_block){nvm_ptr(heap->heap, ref), nvm_usable_size(heap->heap, ref)};
}

static void *adapter_address(struct nvc_heap *heap, const void *slot)
{
    nvm_ref ref = *(const nvm_ref *)slot;
    return heap->gc ? (void *)(uintptr_t)ref : nvm_ptr(heap->heap, ref);
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
    .address = adapter_address,
    .realloc_to = adapter_realloc_to,
    .move_to = adapter_move_to,
    .alloc_group = adapter_alloc_group,
    .attach = adapter_attach,
    .detach = adapter_detach,
    .supports = adapter_supports,
    .rebuild = adapter_rebuild,
    .defrag = adapter_defrag,
    .trim = adapter_trim,
};

__attribute__((visibility("default"))) nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
