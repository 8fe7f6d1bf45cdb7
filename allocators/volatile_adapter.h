/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volatile_adapter.h - the adapter of a DRAM allocator, but for the allocator.
 *
 * The volatile peers are the bench's upper bound: what an allocation costs when
 * nothing has to survive.  Their adapters differ in which functions they call
 * and in nothing else; and those calls must be direct, since a call through a
 * pointer, a lock or a counter of ours would be charged to the allocator.  So
 * this is a template: an adapter.c includes it once, after it has defined
 *
 *   VOLATILE_NAME      the allocator's name, as in allocator.yaml
 *   VOLATILE_LIBRARY   how the file name of its shared library begins
 *   VOLATILE_SERVES    the function whose library that must be
 *   static inline void *volatile_alloc(size_t size);      size > 0
 *   static inline void volatile_free(void *block);
 *   static inline size_t volatile_usable(void *block);
 *   static const char *volatile_version(void);
 *   static void volatile_stats(struct nvc_stats *stats);  all preset to unknown
 *
 * A slot is a plain pointer, the slot table anonymous memory of our own.  The
 * size of nvc_options bounds a heap file; DRAM is bounded by the runner's limits.
 *
 * Who serves?  All these libraries export malloc() too, and a preloaded one, or
 * a sanitizer, takes over from the one that the table names.  So create() asks
 * the dynamic linker in which library VOLATILE_SERVES lies, and refuses to
 * measure another one under this name.
 *
 * Static TLS.  The libraries use initial-exec thread-local storage, of which the
 * C library keeps just a little for objects that come with dlopen().  Where that
 * is not enough ("cannot allocate memory in static TLS block"), allocator.yaml
 * raises glibc.rtld.optional_static_tls in the environment of the job.
 */
#ifndef NVC_VOLATILE_ADAPTER_H
#define NVC_VOLATILE_ADAPTER_H

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "adapter.h"

struct nvc_heap {
    void **table;
    size_t slots;
};

static _Thread_local char volatile_error[256];

static int volatile_fail(int error, const char *doing)
{
    snprintf(volatile_error, sizeof volatile_error, "%s: %s", doing, strerror(error));
    return error;
}

/* 0, or ENOTSUP if another library stands in for ours. */
static int volatile_identify(void)
{
    Dl_info info;
    /* POSIX lets a function pointer pass through void *; ISO C wants the copy. */
    void *address;
    __typeof__(&VOLATILE_SERVES) function = &VOLATILE_SERVES;
    _Static_assert(sizeof address == sizeof function, "pointers are of one size");
    memcpy(&address, &function, sizeof address);
    const char *file = "an unknown library";
    if (dladdr(address, &info) != 0 && info.dli_fname != NULL) {
        const char *slash = strrchr(info.dli_fname, '/');
        file = slash != NULL ? slash + 1 : info.dli_fname;
    }
    if (strncmp(file, VOLATILE_LIBRARY, strlen(VOLATILE_LIBRARY)) == 0) {
        return 0;
    }
    snprintf(volatile_error, sizeof volatile_error,
             "%s stands in for %s*: run without LD_PRELOAD and sanitizers", file,
             VOLATILE_LIBRARY);
    return ENOTSUP;
}

static int volatile_create(const char *path, const struct nvc_options *options,
                           struct nvc_heap **heap)
{
    (void)path;
    int error = volatile_identify();
    if (error != 0) {
        return error;
    }
    if (options->extra != NULL && options->extra[0] != '\0') {
        return volatile_fail(EINVAL, VOLATILE_NAME " has no options");
    }
    if (options->slots == 0 || options->slots > SIZE_MAX / sizeof(void *)) {
        return volatile_fail(EINVAL, "slot table");
    }
    struct nvc_heap *made = malloc(sizeof *made);
    if (made == NULL) {
        return volatile_fail(ENOMEM, "heap handle");
    }
    void *table = mmap(NULL, options->slots * sizeof(void *), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        error = volatile_fail(errno, "slot table");
        free(made);
        return error;
    }
    *made = (struct nvc_heap){.table = table, .slots = options->slots};
    *heap = made;
    return 0;
}

static int volatile_open(const char *path, const struct nvc_options *options,
                         struct nvc_heap **heap)
{
    (void)path;
    (void)options;
    (void)heap;
    return volatile_fail(ENOTSUP, "a heap of " VOLATILE_NAME " dies with its process");
}

/* Frees what the table names; a block that only another block names is lost
   with the process, as it would be with plain malloc. */
static int volatile_close(struct nvc_heap *heap)
{
    for (size_t i = 0; i < heap->slots; i++) {
        if (heap->table[i] != NULL) {
            volatile_free(heap->table[i]);
        }
    }
    munmap(heap->table, heap->slots * sizeof(void *));
    free(heap);
    return 0;
}

static void *volatile_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->slots;
    return heap->table;
}

static struct nvc_block volatile_range(struct nvc_heap *heap)
{
    (void)heap;
    return (struct nvc_block){NULL, 0};
}

static int volatile_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    (void)heap;
    void **place = slot;
    if (__builtin_expect((*place != NULL) | (size == 0), 0)) {
        return volatile_fail(EINVAL, "alloc_to needs an empty slot and a size");
    }
    void *block = volatile_alloc(size);
    if (__builtin_expect(block == NULL, 0)) {
        return volatile_fail(ENOMEM, VOLATILE_NAME);
    }
    *place = block;
    return 0;
}

static int volatile_free_from(struct nvc_heap *heap, void *slot)
{
    (void)heap;
    void **place = slot;
    void *block = *place;
    if (__builtin_expect(block == NULL, 0)) {
        return volatile_fail(EINVAL, "free_from needs a slot that is not empty");
    }
    *place = NULL;
    volatile_free(block);
    return 0;
}

static struct nvc_block volatile_read(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    void *block = *(void *const *)slot;
    return (struct nvc_block){block, block != NULL ? volatile_usable(block) : 0};
}

static void *volatile_address(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    return *(void *const *)slot;
}

static void volatile_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    (void)address;
    (void)length;
}

static void volatile_report(struct nvc_heap *heap, struct nvc_stats *stats)
{
    (void)heap;
    *stats = (struct nvc_stats){.live_bytes = UINT64_MAX,
                                .heap_bytes = UINT64_MAX,
                                .used_bytes = UINT64_MAX,
                                .flushes = UINT64_MAX,
                                .fences = UINT64_MAX,
                                .nt_lines = UINT64_MAX};
    volatile_stats(stats);
}

static int volatile_observe(nvc_event_fn *fn, void *context)
{
    (void)fn;
    (void)context;
    return volatile_fail(ENOTSUP, VOLATILE_NAME " flushes nothing");
}

static const char *volatile_last_error(void)
{
    return volatile_error;
}

static const struct nvc_adapter volatile_adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = VOLATILE_NAME,
    .capabilities = NVC_VOLATILE | NVC_THREADS | NVC_NESTED_SLOTS,
    .consistency = NVC_CONSISTENCY_NONE,
    .slot_size = sizeof(void *),
    .min_size = 0,
    .library_version = volatile_version,
    .create = volatile_create,
    .open = volatile_open,
    .close = volatile_close,
    .slots = volatile_slots,
    .range = volatile_range,
    .alloc_to = volatile_alloc_to,
    .free_from = volatile_free_from,
    .read = volatile_read,
    .persist = volatile_persist,
    .stats = volatile_report,
    .observe = volatile_observe,
    .last_error = volatile_last_error,
    .address = volatile_address,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &volatile_adapter;
}

#endif
