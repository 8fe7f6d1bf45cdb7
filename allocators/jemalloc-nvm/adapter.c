/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - jemalloc, unmodified, on an NVM file.
 *
 * What it is for: between jemalloc in DRAM (what an allocation itself costs) and the
 * allocators that survive a crash (what durability costs) this one has its data in
 * NVM and survives nothing.  docs/jemalloc-on-nvm.md says how and why.
 *
 *   slot            a plain pointer
 *   slot table      pages of the region
 *   blocks          mallocx() with the thread's arena and cache: arenas.c
 *   extents         the region's pages, or none: hooks.c, region.c
 *
 * Which thread, which heap.  The flags of mallocx() depend on both.  A thread remembers
 * those of the last heap it worked in, by the heap's serial number, which unlike its
 * address never comes back.
 *
 * ENOMEM.  jemalloc gives up when its hooks do.  Before the adapter does, it has the
 * arenas give back what they hold unused (another one may have it) and tries again.
 *
 * Options: metadata=dram|nvm (default dram); arenas=N, at most; 0 (the default): one a
 * CPU (measured with 2 and 8 threads on 2 CPUs: more are no faster, and each keeps
 * pages from the others); caches=bound|own (default bound, or
 * own where jemalloc is the process's malloc: arenas.h); prefault=0|1 (default 0):
 * touch each page when the heap is made.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapter.h"
#include "arenas.h"
#include "hooks.h"
#include "region.h"

#define NAME     "jemalloc-nvm"
#define MIN_SIZE ((size_t)16 << 20) /* metadata comes in blocks of 2 MiB */

struct nvc_heap {
    uint64_t serial; /* > 0 */
    struct region region;
    struct region_hooks hooks;
    struct arenas arenas;
    void **table;
    size_t slots;
};

struct options {
    enum metadata_place metadata;
    enum cache_kind caches;
    unsigned arenas;
    bool prefault;
};

/* What this thread last worked with. */
struct standing {
    uint64_t serial; /* of the heap; 0: none */
    struct arenas_flags flags;
};

static _Thread_local struct standing standing __attribute__((tls_model("initial-exec")));
static _Thread_local char last_error[256];

__attribute__((format(printf, 2, 3))) static int fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

static const char *adapter_last_error(void)
{
    return last_error;
}

static const char *adapter_library_version(void)
{
    static const char *version;
    size_t size = sizeof version;
    return mallctl("version", &version, &size, NULL, 0) == 0 ? version : "unknown";
}

/* --- options --------------------------------------------------------------- */

static bool take_option(char *item, struct options *options)
{
    char *value = strchr(item, '=');
    if (value == NULL)
        return false;
    *value++ = '\0';
    if (strcmp(item, "metadata") == 0) {
        options->metadata =
            strcmp(value, "nvm") == 0 ? METADATA_IN_REGION : METADATA_IN_DRAM;
        return strcmp(value, "nvm") == 0 || strcmp(value, "dram") == 0;
    }
    if (strcmp(item, "caches") == 0) {
        options->caches = strcmp(value, "own") == 0 ? CACHES_OWN : CACHES_BOUND;
        return strcmp(value, "own") == 0 || strcmp(value, "bound") == 0;
    }
    if (strcmp(item, "prefault") == 0) {
        options->prefault = strcmp(value, "1") == 0;
        return options->prefault || strcmp(value, "0") == 0;
    }
    if (strcmp(item, "arenas") == 0) {
        char *end;
        unsigned long number = strtoul(value, &end, 10);
        options->arenas = (unsigned)number;
        return *value >= '0' && *value <= '9' && *end == '\0' && number <= ARENAS_MAX;
    }
    return false;
}

static int parse(const char *extra, struct options *options)
{
    *options = (struct options){.metadata = METADATA_IN_DRAM,
                                .caches = arenas_can_bind() ? CACHES_BOUND : CACHES_OWN};
    char text[256];
    if (extra == NULL)
        extra = "";
    int length = snprintf(text, sizeof text, "%s", extra);
    if (length < 0 || (size_t)length >= sizeof text)
        return fail(EINVAL, "the options are too long: %.32s...", extra);
    char *rest = text;
    for (char *item; (item = strsep(&rest, ",")) != NULL;) {
        if (*item != '\0' && !take_option(item, options))
            return fail(EINVAL,
                        "unknown option in '%s'; expected metadata=dram|nvm, "
                        "arenas=0..%d, caches=bound|own, prefault=0|1",
                        extra, ARENAS_MAX);
    }
    if (options->caches == CACHES_BOUND && !arenas_can_bind())
        return fail(ENOTSUP, "caches=bound, but jemalloc is this process's malloc");
    if (options->arenas == 0) {
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        options->arenas = cpus < 1 ? 1 : cpus < ARENAS_MAX ? (unsigned)cpus : ARENAS_MAX;
    }
    return 0;
}

/* --- create and close ------------------------------------------------------- */

/* Not at the beginning of a page, where slabs begin as well: a processor takes a load for
   one of what was just stored if their places in their pages are the same.  Measured
   with cache-scratch, where both are the first: up to a tenth of the time. */
#define TABLE_AT 2112u

static int place_table(struct nvc_heap *heap, size_t slots)
{
    bool zero = true;
    if (slots == 0 || slots > heap->region.size / sizeof(void *))
        return fail(slots == 0 ? EINVAL : ENOMEM, "a slot table of %zu slots", slots);
    size_t bytes = TABLE_AT + slots * sizeof(void *);
    bytes = (bytes + REGION_PAGE - 1) & ~(REGION_PAGE - 1);
    char *pages = region_take(&heap->region, NULL, bytes, REGION_PAGE, &zero);
    if (pages == NULL)
        return fail(ENOMEM, "no room for a slot table of %zu bytes", bytes);
    heap->table = (void **)(void *)(pages + TABLE_AT);
    heap->slots = slots;
    return 0;
}

static int place_arenas(struct nvc_heap *heap, const struct options *options)
{
    struct arenas_options wanted = {
        .hooks = &heap->hooks.table,
        .metadata = options->metadata,
        .caches = options->caches,
        .limit = options->arenas,
        .grow_limit = REGION_PAGE,
    };
    region_hooks_init(&heap->hooks, &heap->region);
    int error = arenas_open(&heap->arenas, &wanted);
    return error == 0 ? 0 : fail(error, "jemalloc made no arena: %s", strerror(error));
}

static int adapter_create(const char *path, const struct nvc_options *options,
                          struct nvc_heap **heap)
{
    static _Atomic uint64_t serials;
    struct options chosen;
    int error = parse(options->extra, &chosen);
    if (error != 0)
        return error;
    if (path == NULL || *path == '\0')
        return fail(EINVAL, NAME " keeps its heap in a file: expected a path");
    if (options->size < MIN_SIZE)
        return fail(EINVAL, "%zu bytes are too few: expected at least %zu", options->size,
                    MIN_SIZE);
    struct nvc_heap *made = calloc(1, sizeof *made);
    if (made == NULL)
        return fail(ENOMEM, "no memory for the heap's handle");
    error = region_create(path, options->size, chosen.prefault, &made->region);
    if (error != 0) {
        free(made);
        return fail(error, "cannot make %s with %zu bytes: %s", path, options->size,
                    strerror(error));
    }
    error = place_table(made, options->slots);
    if (error == 0)
        error = place_arenas(made, &chosen);
    if (error != 0) {
        region_close(&made->region);
        unlink(path);
        free(made);
        return error;
    }
    made->serial = 1 + atomic_fetch_add(&serials, 1);
    *heap = made;
    return 0;
}

static int adapter_open(const char *path, const struct nvc_options *options,
                        struct nvc_heap **heap)
{
    (void)path, (void)options, (void)heap;
    return fail(ENOTSUP,
                "a heap of " NAME " dies with its process, though its file stays");
}

/* Blocks that are still allocated end with their arenas. */
static int adapter_close(struct nvc_heap *heap)
{
    int error = arenas_close(&heap->arenas);
    if (error != 0) /* jemalloc may still call the hooks: all that they use must stay */
        return fail(error, "a thread that works in the heap has not left it");
    region_close(&heap->region);
    free(heap);
    return 0;
}

static int adapter_check(struct nvc_heap *heap)
{
    char why[160];
    return region_check(&heap->region, why, sizeof why) ? 0 : fail(EUCLEAN, "%s", why);
}

static void *adapter_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->slots;
    return heap->table;
}

static struct nvc_block adapter_range(struct nvc_heap *heap)
{
    return (struct nvc_block){heap->region.base, heap->region.size};
}

/* --- threads ---------------------------------------------------------------- */

__attribute__((noinline)) static void take_standing(struct nvc_heap *heap)
{
    standing.flags = arenas_flags_of_caller(&heap->arenas);
    standing.serial = heap->serial;
}

static inline struct arenas_flags flags_in(struct nvc_heap *heap)
{
    if (__builtin_expect(standing.serial != heap->serial, 0))
        take_standing(heap);
    return standing.flags;
}

static int adapter_thread_enter(struct nvc_heap *heap)
{
    int error = arenas_join(&heap->arenas);
    if (error != 0)
        return fail(error, "no thread cache: %s", strerror(error));
    take_standing(heap);
    return 0;
}

static void adapter_thread_leave(struct nvc_heap *heap)
{
    arenas_leave(&heap->arenas);
    standing.serial = 0;
}

/* --- blocks ----------------------------------------------------------------- */

/* jemalloc found nothing: see "ENOMEM" above. */
__attribute__((noinline)) static void *try_harder(struct nvc_heap *heap, size_t size)
{
    if (size > heap->region.size)
        return NULL;
    arenas_trim(&heap->arenas);
    return mallocx(size, flags_in(heap).alloc);
}

static int adapter_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    void **place = slot;
    if (__builtin_expect((*place != NULL) | (size == 0), 0))
        return fail(EINVAL, "alloc_to needs an empty slot and a size");
    void *block = mallocx(size, flags_in(heap).alloc);
    if (__builtin_expect(block == NULL, 0)) {
        block = try_harder(heap, size);
        if (block == NULL)
            return fail(ENOMEM, "the region has no room for %zu bytes", size);
    }
    *place = block;
    return 0;
}

static int adapter_free_from(struct nvc_heap *heap, void *slot)
{
    void **place = slot;
    void *block = *place;
    if (__builtin_expect(block == NULL, 0))
        return fail(EINVAL, "free_from needs a slot that is not empty");
    *place = NULL;
    dallocx(block, flags_in(heap).free);
    return 0;
}

static struct nvc_block adapter_read(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    void *block = *(void *const *)slot;
    return (struct nvc_block){block, block != NULL ? sallocx(block, 0) : 0};
}

static void *adapter_address(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    return *(void *const *)slot;
}

static void adapter_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap, (void)address, (void)length;
}

static void adapter_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    uint64_t used = arenas_used_bytes(&heap->arenas);
    *stats = (struct nvc_stats){
        .live_bytes = UINT64_MAX, /* jemalloc counts what caches hold as allocated */
        .heap_bytes = heap->region.size,
        .used_bytes = used,
        .flushes = UINT64_MAX,
        .fences = UINT64_MAX,
        .nt_lines = UINT64_MAX,
        .map_sync = heap->region.map_sync,
    };
}

static int adapter_observe(nvc_event_fn *fn, void *context)
{
    (void)fn, (void)context;
    return fail(ENOTSUP, NAME " flushes nothing");
}

static const struct nvc_adapter adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = NAME,
    .capabilities = NVC_VOLATILE | NVC_FILE | NVC_THREADS | NVC_NESTED_SLOTS,
    .consistency = NVC_CONSISTENCY_NONE,
    .slot_size = sizeof(void *),
    .min_size = MIN_SIZE,
    .library_version = adapter_library_version,
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
    .thread_enter = adapter_thread_enter,
    .thread_leave = adapter_thread_leave,
    .stats = adapter_stats,
    .observe = adapter_observe,
    .last_error = adapter_last_error,
    .address = adapter_address,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
