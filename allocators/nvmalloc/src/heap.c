/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.c - making, opening, closing.
 *
 * Create writes everything but the superblock, fences, and writes the
 * superblock last: a crash meanwhile leaves a file that is no heap.
 * Open reads the superblock, replays the log if the heap was not closed, says
 * on media that it is open, and builds.  Close settles all lanes and says that
 * it is clean; a crash before that is durable leaves an unclean heap, as any.
 * A GC heap writes its slabs' bitmaps when it is closed, and only then.
 */
#include "heap.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "build.h"
#include "collect.h"
#include "dram.h"
#include "error.h"
#include "extent.h"
#include "grow.h"
#include "mark.h"
#include "recover.h"
#include "registry.h"
#include "sigbus.h"
#include "tcache.h"

static const struct nvm_options no_options;

int nvm_supports(unsigned flags)
{
    if ((flags & ~NVM_PROTECT) != 0)
        return nvm_fail(ENOTSUP, "a flag that this library does not know");
    return flags & NVM_PROTECT ? nvm_protect_init() : 0;
}

static int heap_new(const struct nvm_options *options, unsigned flags,
                    struct nvm_heap **heap)
{
    if ((flags & ~NVM_PROTECT) != 0 || options->mode > NVM_GC)
        return nvm_fail(EINVAL, "an option that this library does not know");
    int error = nvm_supports(flags);
    if (error != 0)
        return error;
    *heap = nvm_dram_map(sizeof(**heap));
    if (*heap == NULL)
        return nvm_fail(ENOMEM, "no memory for the heap's state");
    nvm_sizeclass_init();
    nvm_mark_init();
    if (nvm_persist_init() != 0) {
        nvm_dram_unmap(*heap, sizeof(**heap));
        return nvm_fail(
            EINVAL, "NVM_PERSIST: expected clwb, clflushopt, clflush or none, and one "
                    "that this processor has");
    }
    (*heap)->protection.wanted = flags & NVM_PROTECT;
    (*heap)->threads = options->threads;
    (*heap)->trace = options->trace;
    (*heap)->trace_context = options->trace_context;
    pthread_mutex_init(&(*heap)->root_lock, NULL);
    pthread_mutex_init(&(*heap)->threads_lock, NULL);
    pthread_mutex_init(&(*heap)->units_lock, NULL);
    pthread_mutex_init(&(*heap)->chunk_lock, NULL);
    pthread_mutex_init(&(*heap)->mark_lock, NULL);
    pthread_mutex_init(&(*heap)->super_lock, NULL);
    return 0;
}

/* The last step of every create and open. */
static int protect(struct nvm_heap *heap)
{
    int error = heap->protection.wanted ? nvm_protect_begin(heap) : 0;
    if (error != 0)
        nvm_heap_drop(heap);
    return error;
}

/* --- create --- */

static void format(struct nvm_heap *heap)
{
    struct nvm_persist *persist = &heap->structure;
    /* The file was new, so it reads as zeroes: no records, no roots. */
    nvm_extent_flip(heap, 0,
                    (struct nvm_chunk){.state = NVM_CHUNK_FREE,
                                       .units = (uint32_t)heap->super.units});
    nvm_flush(persist, (const void *)heap->chunks, sizeof(uint64_t));
    struct nvm_watermark *lines = nvm_heap_at(heap, NVM_WATERMARK_OFFSET);
    nvm_watermark_write(persist, lines, 0, 0, heap->salt);
    nvm_watermark_write(persist, lines, 1, 0, heap->salt);
}

/* The superblock of a new heap, but for what a file's size decides. */
static int plan_super(struct nvm_super *super, const struct nvm_options *options)
{
    size_t max_size =
        options->max_size > options->size ? options->max_size : options->size;
    *super = (struct nvm_super){.version = NVM_FORMAT_VERSION,
                                .bytes = sizeof(*super),
                                .mode = options->mode,
                                .size = options->size / NVM_UNIT * NVM_UNIT,
                                .max_size = max_size / NVM_UNIT * NVM_UNIT};
    memcpy(super->magic, NVM_MAGIC, sizeof(super->magic));
    if (super->max_size < NVM_MIN_HEAP)
        return nvm_fail(EINVAL, "a heap of %zu bytes: at least %zu are needed", max_size,
                        NVM_MIN_HEAP);
    /* A heap that may grow begins with a few units at least. */
    uint64_t asked = super->size;
    super->size = super->max_size;
    if (nvm_layout_compute(super) != 0)
        return nvm_fail(EINVAL, "no heap of %zu bytes can be laid out", max_size);
    uint64_t least = super->data_offset + 4 * NVM_UNIT_BYTES;
    if (asked < super->max_size)
        super->size = asked > least ? asked : least;
    if (super->size > super->max_size)
        super->size = super->max_size;
    if (nvm_layout_compute(super) != 0)
        return nvm_fail(EINVAL, "no heap of %zu bytes can be laid out", max_size);
    if (getrandom(super->uuid, sizeof(super->uuid), 0) < 0)
        return nvm_fail(errno, "no random bytes for the heap's uuid");
    return 0;
}

static int create_mapped(struct nvm_heap *heap)
{
    int error = nvm_heap_allocate(heap);
    if (error != 0)
        return nvm_fail(error, "cannot allocate the %llu bytes of the heap file",
                        (unsigned long long)heap->super.size);
    nvm_heap_place_media(heap);
    format(heap);
    error = nvm_heap_build(heap, 1, 0, 0);
    if (error != 0)
        return error;
    nvm_super_write_both(heap);
    return protect(heap);
}

int nvm_create_with(const char *path, const struct nvm_options *options, nvm_heap **out)
{
    struct nvm_heap *heap;
    int error = heap_new(options, nvm_protect_flags(options->flags), &heap);
    if (error != 0)
        return error;
    error = plan_super(&heap->super, options);
    if (error == 0)
        error = nvm_region_create(path, heap->super.size, heap->super.max_size,
                                  &heap->region);
    if (error == 0) {
        error = create_mapped(heap);
        if (error != 0) {
            unlink(path);
            nvm_region_close(&heap->region);
        }
    }
    if (error != 0) {
        nvm_dram_unmap(heap, sizeof(*heap));
        return error;
    }
    *out = heap;
    return 0;
}

int nvm_create(const char *path, size_t size, nvm_heap **out)
{
    return nvm_create_with(path, &(struct nvm_options){.size = size}, out);
}

/* --- open --- */

static int open_log(struct nvm_heap *heap, bool clean)
{
    struct nvm_recovery recovery = {0};
    int error;
    if (clean || heap->super.mode == NVM_GC) {
        error = nvm_watermark_read(heap, &recovery);
        recovery.clock = heap->super.clock;
        if (recovery.clock <= recovery.watermark)
            recovery.clock = recovery.watermark + 1;
    } else {
        error = nvm_recover(heap, &recovery);
    }
    heap->recovered = !clean;
    heap->replayed = recovery.replayed;
    return error != 0 ? error
                      : nvm_heap_build(heap, recovery.clock, recovery.watermark,
                                       recovery.next_copy);
}

static int open_super(struct nvm_heap *heap, bool *clean, bool *doubtful)
{
    int error = nvm_super_read(&heap->region, &heap->super, doubtful);
    if (error == 0 && nvm_region_reserve(&heap->region, heap->super.max_size) != 0)
        error = nvm_fail(ENOMEM, "no addresses for a heap of up to %llu bytes",
                         (unsigned long long)heap->super.max_size);
    if (error == 0) {
        nvm_heap_place_media(heap);
        *clean = (heap->super.flags & NVM_SUPER_CLEAN) && !*doubtful;
    }
    return error;
}

static int open_mapped(struct nvm_heap *heap)
{
    bool clean = false, doubtful = false;
    int error = open_super(heap, &clean, &doubtful);
    if (error == 0)
        error = open_log(heap, clean);
    if (error == 0 && heap->super.mode == NVM_GC && !clean) {
        error = nvm_collect(heap);
        if (error != 0)
            nvm_heap_drop(heap);
    }
    if (error == 0 && ((heap->super.flags & NVM_SUPER_CLEAN) || doubtful))
        nvm_super_write(heap, false);
    if (error == 0 && doubtful)
        nvm_super_write(heap, false); /* repairs the other copy, too */
    return error;
}

/* The same, with damage that raises SIGBUS told as such. */
static int open_guarded(struct nvm_heap *heap)
{
    struct nvm_sigbus guard;
    if (nvm_sigbus_caught(&guard)) {
        nvm_heap_drop(heap);
        return nvm_sigbus_error(&guard, heap);
    }
    int error = open_mapped(heap);
    nvm_sigbus_end(&guard);
    return error != 0 ? error : protect(heap);
}

int nvm_open_with(const char *path, const struct nvm_options *options, nvm_heap **out)
{
    struct nvm_heap *heap;
    int error = heap_new(options, nvm_protect_flags(options->flags), &heap);
    if (error != 0)
        return error;
    error = nvm_region_open(path, &heap->region);
    if (error == 0) {
        error = open_guarded(heap);
        if (error != 0)
            nvm_region_close(&heap->region);
    }
    if (error != 0) {
        nvm_dram_unmap(heap, sizeof(*heap));
        return error;
    }
    *out = heap;
    return 0;
}

int nvm_open(const char *path, nvm_heap **out)
{
    return nvm_open_with(path, &no_options, out);
}

int nvm_attach(void *base, size_t size, const struct nvm_options *options, nvm_heap **out)
{
    struct nvm_heap *heap;
    options = options != NULL ? options : &no_options;
    if (options->flags & NVM_PROTECT)
        return nvm_fail(ENOTSUP, "NVM_PROTECT: an attached image is the caller's memory");
    int error = heap_new(options, options->flags, &heap);
    if (error != 0)
        return error;
    heap->region =
        (struct nvm_region){.fd = -1, .base = base, .size = size, .reserved = size};
    error = open_guarded(heap);
    if (error != 0) {
        nvm_dram_unmap(heap, sizeof(*heap));
        return error;
    }
    *out = heap;
    return 0;
}

int nvm_rebuild(nvm_heap *heap)
{
    if (heap->foreign)
        return nvm_tcache_refused(heap);
    nvm_arena_scan_all(heap);
    uint64_t bytes = atomic_load(&heap->quarantined);
    return bytes == 0 ? 0
                      : nvm_fail(EUCLEAN, "%llu bytes are quarantined",
                                 (unsigned long long)bytes);
}

/* --- close --- */

static int store_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                     void *context)
{
    (void)context;
    nvm_unit member = nvm_unit_get(heap, unit);
    /* After a collection no bitmap on media is right, were the slab used since or not. */
    if (chunk.state == NVM_CHUNK_SLAB && (heap->collected || nvm_unit_is_scanned(member)))
        nvm_slab_store(heap, &heap->structure, nvm_unit_tag(member));
    else if (chunk.state != NVM_CHUNK_SLAB)
        nvm_flush_one(&heap->structure, (const void *)&heap->chunks[unit]);
    return 0;
}

static void close_media(struct nvm_heap *heap)
{
    if (heap->super.mode == NVM_GC) {
        nvm_heap_each_run(heap, store_run, NULL);
        /* The bitmaps before the superblock that says they are right. */
        nvm_fence(&heap->structure);
    } else {
        nvm_lanes_checkpoint(heap);
    }
    nvm_super_write(heap, true);
}

/* Where a page can't be written, the heap is left as a crash would leave it. */
static int close_guarded(struct nvm_heap *heap)
{
    struct nvm_sigbus guard;
    if (nvm_sigbus_caught(&guard)) {
        /* Whatever was held is never wanted again, but for this. */
        pthread_mutex_init(&heap->threads_lock, NULL);
        return nvm_sigbus_error(&guard, heap);
    }
    nvm_tcache_drop_all(heap, true);
    close_media(heap);
    nvm_sigbus_end(&guard);
    return 0;
}

int nvm_close(nvm_heap *heap)
{
    nvm_registry_remove(heap);
    nvm_protect_end(heap);
    int error = heap->foreign ? 0 : close_guarded(heap);
    nvm_heap_drop(heap);
    if (!heap->foreign)
        nvm_region_close(&heap->region);
    nvm_dram_unmap(heap, sizeof(*heap));
    return error;
}

void nvm_detach(nvm_heap *heap)
{
    nvm_heap_drop(heap);
    nvm_dram_unmap(heap, sizeof(*heap));
}

/* --- references --- */

void *nvm_ptr(nvm_heap *heap, nvm_ref ref)
{
    return ref == 0 ? NULL : nvm_heap_at(heap, ref);
}

nvm_ref nvm_off(nvm_heap *heap, const void *address)
{
    return address == NULL ? 0 : nvm_heap_offset(heap, address);
}

void nvm_range(nvm_heap *heap, void **base, size_t *length)
{
    *base = heap->region.base;
    *length = heap->super.max_size;
}

void nvm_persist(nvm_heap *heap, const void *address, size_t length)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_persist spare = {0};
    struct nvm_persist *persist = tcache != NULL ? &tcache->persist : &spare;
    if (heap->foreign)
        return; /* nothing is mapped */
    nvm_flush(persist, address, length);
    nvm_fence(persist);
}

const char *nvm_version(void)
{
    return "0.2.0";
}
