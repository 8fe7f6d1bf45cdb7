/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - memkind's pmem kind: volatile memory in a file on the NVM.
 *
 * memkind makes a nameless file in a directory and lets a jemalloc of its own draw its
 * extents from it.  Nothing in the file can be found again after the process has
 * ended, so this is a volatile peer; but unlike the others it allocates where the
 * durable ones do, and so tells what the medium alone costs.
 *
 * The directory is that of the heap's path; no file of that name is made.  The kind
 * may grow to the heap's size and no further: past it memkind returns NULL, and never
 * falls back to DRAM.  A slot is a plain pointer, the slot table anonymous memory
 * of ours, as with the other volatile peers (../volatile_adapter.h).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memkind.h>

#include "adapter.h"

struct nvc_heap {
    memkind_t kind;
    size_t size; /* bytes that the kind may take */
    void **table;
    size_t slots;
};

static _Thread_local char last_error[512];

__attribute__((format(printf, 2, 3))) static int fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

static const char *kind_last_error(void)
{
    return last_error;
}

static const char *kind_version(void)
{
    static char text[32];
    int version = memkind_get_version(); /* major * 10^6 + minor * 10^3 + patch */
    snprintf(text, sizeof text, "%d.%d.%d", version / 1000000, version / 1000 % 1000,
             version % 1000);
    return text;
}

/* --- create, close --------------------------------------------------------- */

/* A kind in the directory that path lies in. */
static int make_kind(const char *path, size_t size, memkind_t *kind)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return fail(EINVAL, "memkind needs the path of a heap, for the directory in it");
    }
    char *directory = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (directory == NULL) {
        return fail(ENOMEM, "path of the directory");
    }
    int error = memkind_create_pmem(directory, size, kind);
    if (error != 0) {
        char reason[MEMKIND_ERROR_MESSAGE_SIZE];
        memkind_error_message(error, reason, sizeof reason);
        /* Its own codes are negative; they say that the system or an argument did not do.
         */
        error = fail(error > 0   ? error
                     : errno > 0 ? errno
                                 : EINVAL,
                     "memkind_create_pmem in %s: %s", directory, reason);
    }
    free(directory);
    return error;
}

static int kind_create(const char *path, const struct nvc_options *options,
                       struct nvc_heap **heap)
{
    if (options->extra != NULL && options->extra[0] != '\0') {
        return fail(EINVAL, "memkind has no options, but was given \"%s\"",
                    options->extra);
    }
    if (options->slots == 0 || options->slots > SIZE_MAX / sizeof(void *)) {
        return fail(EINVAL, "a table of %zu slots", options->slots);
    }
    if (options->size < MEMKIND_PMEM_MIN_SIZE) {
        return fail(EINVAL, "%zu bytes are too few for a pmem kind, which takes %zu",
                    options->size, (size_t)MEMKIND_PMEM_MIN_SIZE);
    }
    struct nvc_heap *made = malloc(sizeof *made);
    if (made == NULL) {
        return fail(ENOMEM, "heap handle");
    }
    *made = (struct nvc_heap){.size = options->size, .slots = options->slots};
    made->table = mmap(NULL, made->slots * sizeof(void *), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made->table == MAP_FAILED) {
        free(made);
        return fail(ENOMEM, "slot table");
    }
    int error = make_kind(path, made->size, &made->kind);
    if (error != 0) {
        munmap(made->table, made->slots * sizeof(void *));
        free(made);
        return error;
    }
    *heap = made;
    return 0;
}

static int kind_open(const char *path, const struct nvc_options *options,
                     struct nvc_heap **heap)
{
    (void)path;
    (void)options;
    (void)heap;
    return fail(ENOTSUP, "a heap of memkind dies with its process");
}

static int kind_close(struct nvc_heap *heap)
{
    int error = memkind_destroy_kind(heap->kind); /* with all its blocks */
    munmap(heap->table, heap->slots * sizeof(void *));
    free(heap);
    return error == 0 ? 0 : fail(EINVAL, "memkind_destroy_kind gave %d", error);
}

/* --- slots and blocks ------------------------------------------------------ */

static void *kind_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->slots;
    return heap->table;
}

static struct nvc_block kind_range(struct nvc_heap *heap)
{
    (void)heap;
    return (struct nvc_block){NULL, 0};
}

static int kind_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    void **place = slot;
    if (*place != NULL || size == 0) {
        return fail(EINVAL, "alloc_to needs an empty slot and a size");
    }
    void *block = memkind_malloc(heap->kind, size);
    if (block == NULL) {
        return fail(ENOMEM, "memkind_malloc of %zu bytes", size);
    }
    *place = block;
    return 0;
}

static int kind_free_from(struct nvc_heap *heap, void *slot)
{
    void **place = slot;
    void *block = *place;
    if (block == NULL) {
        return fail(EINVAL, "free_from needs a slot that is not empty");
    }
    *place = NULL;
    memkind_free(heap->kind, block);
    return 0;
}

static void *kind_address(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    return *(void *const *)slot;
}

static struct nvc_block kind_read(struct nvc_heap *heap, const void *slot)
{
    void *block = kind_address(heap, slot);
    return (struct nvc_block){
        block, block != NULL ? memkind_malloc_usable_size(heap->kind, block) : 0};
}

static void kind_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    (void)address;
    (void)length;
}

static void kind_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    *stats = (struct nvc_stats){.live_bytes = UINT64_MAX,
                                .heap_bytes = heap->size,
                                .used_bytes = UINT64_MAX,
                                .flushes = UINT64_MAX,
                                .fences = UINT64_MAX,
                                .nt_lines = UINT64_MAX};
    size_t active;
    if (memkind_update_cached_stats() == MEMKIND_SUCCESS &&
        memkind_get_stat(heap->kind, MEMKIND_STAT_TYPE_ACTIVE, &active) ==
            MEMKIND_SUCCESS) {
        stats->used_bytes = active;
    }
}

static int kind_observe(nvc_event_fn *fn, void *context)
{
    (void)context;
    return fn == NULL ? 0 : fail(ENOTSUP, "memkind flushes nothing");
}

static const struct nvc_adapter kind_adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = "memkind",
    .capabilities = NVC_VOLATILE | NVC_FILE | NVC_THREADS | NVC_NESTED_SLOTS,
    .consistency = NVC_CONSISTENCY_NONE,
    .slot_size = sizeof(void *),
    .min_size = MEMKIND_PMEM_MIN_SIZE,
    .library_version = kind_version,
    .create = kind_create,
    .open = kind_open,
    .close = kind_close,
    .slots = kind_slots,
    .range = kind_range,
    .alloc_to = kind_alloc_to,
    .free_from = kind_free_from,
    .read = kind_read,
    .persist = kind_persist,
    .stats = kind_stats,
    .observe = kind_observe,
    .last_error = kind_last_error,
    .address = kind_address,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &kind_adapter;
}
