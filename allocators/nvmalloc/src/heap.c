/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.c - making, opening, closing; deriving the DRAM state from media.
 *
 * Create writes everything but the superblock, fences, and writes the
 * superblock last: a crash meanwhile leaves a file that is no heap.
 * Open reads the superblock, replays the log if the heap was not closed, says
 * on media that it is open, and builds.  Close checkpoints and says that it
 * is clean; a crash before that is durable leaves an unclean heap, as any.
 */
#include "heap.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "block.h"
#include "dram.h"
#include "error.h"
#include "extent.h"
#include "recover.h"
#include "registry.h"
#include "sizeclass.h"
#include "tcache.h"

static int heap_new(struct nvm_heap **heap)
{
    *heap = nvm_dram_map(sizeof(**heap));
    if (*heap == NULL)
        return nvm_fail(ENOMEM, "no memory for the heap's state");
    nvm_sizeclass_init();
    if (nvm_persist_init() != 0) {
        nvm_dram_unmap(*heap, sizeof(**heap));
        return nvm_fail(
            EINVAL, "NVM_PERSIST: expected clwb, clflushopt, clflush or none, and one "
                    "that this processor has");
    }
    pthread_mutex_init(&(*heap)->root_lock, NULL);
    pthread_mutex_init(&(*heap)->threads_lock, NULL);
    pthread_mutex_init(&(*heap)->chunk_lock, NULL);
    return 0;
}

void nvm_heap_place_media(struct nvm_heap *heap)
{
    heap->salt = nvm_super_salt(&heap->super);
    heap->chunks = nvm_heap_at(heap, heap->super.chunk_offset);
    heap->bitmaps = nvm_heap_at(heap, heap->super.bitmap_offset);
    heap->data_bytes = heap->super.units << NVM_UNIT_SHIFT;
}

static int map_tables(struct nvm_heap *heap)
{
    uint64_t units = heap->super.max_units;
    heap->units = nvm_dram_map(units * sizeof(*heap->units));
    heap->walked = nvm_dram_map(units);
    heap->slabs = nvm_dram_map(units * sizeof(*heap->slabs));
    if (heap->units == NULL || heap->walked == NULL || heap->slabs == NULL)
        return nvm_fail(ENOMEM, "no memory for the tables of %llu units",
                        (unsigned long long)units);
    heap->free_units = vmem_create("nvmalloc units", (void *)1, heap->super.units, 1,
                                   NULL, NULL, NULL, 0, VM_NOSLEEP | VMC_IDENTIFIER);
    return heap->free_units == NULL ? nvm_fail(ENOMEM, "no memory for the arena of units")
                                    : 0;
}

/* Takes the units of a run that is in use out of the vmem. */
static int claim_units(struct nvm_heap *heap, uint32_t unit, uint32_t units)
{
    char *address = (char *)(uintptr_t)unit + 1;
    void *got = vmem_xalloc(heap->free_units, units, 0, 0, 0, address, address + units,
                            VM_NOSLEEP | VM_NEXTFIT);
    return got == address
               ? 0
               : nvm_fail(ENOMEM, "no memory for the segment of unit %u", unit);
}

static int build_run(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk)
{
    uint64_t tag = nvm_block_tag(unit, chunk.klass, chunk.generation, 0);
    heap->walked[unit] = 1;
    switch (chunk.state) {
    case NVM_CHUNK_SLAB:
        nvm_unit_set(heap, unit, chunk.units, nvm_unit_make(NVM_UNIT_UNSCANNED, tag));
        nvm_arena_adopt(heap, unit, chunk.klass);
        return claim_units(heap, unit, chunk.units);
    case NVM_CHUNK_EXTENT:
        tag |= NVM_TAG_EXTENT;
        nvm_unit_set(heap, unit, chunk.units, nvm_unit_make(NVM_UNIT_INSIDE, tag));
        nvm_unit_set(heap, unit, 1, nvm_unit_make(NVM_UNIT_EXTENT, tag));
        return claim_units(heap, unit, chunk.units);
    default:
        return 0;
    }
}

/* 0, or EUCLEAN with the reason, for the entry that the walk has come to. */
static int judge_entry(const struct nvm_heap *heap, uint64_t unit)
{
    uint64_t entry = atomic_load_explicit(&heap->chunks[unit], memory_order_relaxed);
    struct nvm_chunk chunk = nvm_chunk_unpack(entry);
    const char *fault = NULL;
    if (!nvm_chunk_intact(entry, unit, heap->salt))
        fault = "its checksum does not fit";
    else if (chunk.state > NVM_CHUNK_EXTENT)
        fault = "its state is unknown";
    else if (chunk.units == 0 || chunk.units > heap->super.units - unit)
        fault = "it reaches beyond the heap";
    else if (chunk.state == NVM_CHUNK_SLAB &&
             (chunk.klass >= NVM_CLASSES ||
              nvm_classes[chunk.klass].units != chunk.units))
        fault = "its size class does not fit its length";
    if (fault == NULL)
        return 0;
    return nvm_fail(
        EUCLEAN, "chunk table entry of unit %llu (offset %llu, value 0x%016llx): %s",
        (unsigned long long)unit, (unsigned long long)heap->super.chunk_offset + unit * 8,
        (unsigned long long)entry, fault);
}

int nvm_heap_each_run(struct nvm_heap *heap, nvm_run_fn *visit, void *context)
{
    for (uint64_t unit = 0; unit < heap->super.units;) {
        int error = judge_entry(heap, unit);
        if (error != 0)
            return error;
        struct nvm_chunk chunk = nvm_extent_chunk(heap, (uint32_t)unit);
        error = visit(heap, (uint32_t)unit, chunk, context);
        if (error != 0)
            return error;
        unit += chunk.units;
    }
    return 0;
}

static int build_visit(struct nvm_heap *heap, uint32_t unit, struct nvm_chunk chunk,
                       void *context)
{
    (void)context;
    return build_run(heap, unit, chunk);
}

int nvm_heap_build(struct nvm_heap *heap, uint64_t clock, uint64_t watermark,
                   unsigned next_copy)
{
    int error = map_tables(heap);
    if (error == 0)
        error = nvm_arenas_init(heap);
    if (error == 0)
        error = nvm_lanes_init(heap, clock, watermark, next_copy);
    if (error == 0)
        error = nvm_heap_each_run(heap, build_visit, NULL);
    if (error == 0)
        nvm_registry_enter(heap);
    else
        nvm_heap_drop(heap);
    return error;
}

void nvm_heap_drop(struct nvm_heap *heap)
{
    uint64_t units = heap->super.max_units;
    nvm_registry_remove(heap);
    nvm_tcache_drop_all(heap, false);
    nvm_lanes_fini(heap);
    nvm_arenas_fini(heap);
    if (heap->free_units != NULL)
        vmem_destroy(heap->free_units);
    if (heap->units != NULL)
        nvm_dram_unmap(heap->units, units * sizeof(*heap->units));
    if (heap->walked != NULL)
        nvm_dram_unmap(heap->walked, units);
    if (heap->slabs != NULL)
        nvm_dram_unmap(heap->slabs, units * sizeof(*heap->slabs));
    heap->free_units = NULL;
    heap->units = NULL;
    heap->walked = NULL;
    heap->slabs = NULL;
    heap->id = 0;
}

static void format(struct nvm_heap *heap)
{
    struct nvm_persist *persist = &heap->structure;
    /* posix_fallocate() left zeroes: no records, no roots, clear bitmaps. */
    nvm_extent_flip(heap, 0,
                    (struct nvm_chunk){.state = NVM_CHUNK_FREE,
                                       .units = (uint32_t)heap->super.units});
    nvm_flush(persist, (const void *)heap->chunks, sizeof(uint64_t));
    struct nvm_watermark *lines = nvm_heap_at(heap, NVM_WATERMARK_OFFSET);
    nvm_watermark_write(persist, lines, 0, 0, heap->salt);
    nvm_watermark_write(persist, lines, 1, 0, heap->salt);
}

int nvm_create(const char *path, size_t size, nvm_heap **out)
{
    struct nvm_heap *heap;
    int error = heap_new(&heap);
    if (error != 0)
        return error;
    size = size / NVM_UNIT * NVM_UNIT;
    heap->super = (struct nvm_super){.version = NVM_FORMAT_VERSION,
                                     .bytes = sizeof(heap->super),
                                     .size = size,
                                     .max_size = size};
    memcpy(heap->super.magic, NVM_MAGIC, sizeof(heap->super.magic));
    if (size < NVM_MIN_HEAP || nvm_layout_compute(&heap->super) != 0)
        error = nvm_fail(EINVAL, "a heap of %zu bytes: at least %zu are needed", size,
                         NVM_MIN_HEAP);
    else if (getrandom(heap->super.uuid, sizeof(heap->super.uuid), 0) < 0)
        error = nvm_fail(errno, "no random bytes for the heap's uuid");
    else
        error = nvm_region_create(path, size, &heap->region);
    if (error == 0) {
        nvm_heap_place_media(heap);
        format(heap);
        error = nvm_heap_build(heap, 1, 0, 0);
        if (error == 0)
            nvm_super_write(heap, false);
        else
            nvm_region_close(&heap->region);
    }
    if (error != 0) {
        nvm_dram_unmap(heap, sizeof(*heap));
        return error;
    }
    *out = heap;
    return 0;
}

static int open_mapped(struct nvm_heap *heap)
{
    struct nvm_recovery recovery = {0};
    int error = nvm_super_read(&heap->region, &heap->super);
    if (error != 0)
        return error;
    nvm_heap_place_media(heap);
    bool clean = heap->super.flags & NVM_SUPER_CLEAN;
    if (clean) {
        error = nvm_watermark_read(heap, &recovery);
        recovery.clock = heap->super.clock;
    } else {
        error = nvm_recover(heap, &recovery);
        heap->recovered = true;
        heap->replayed = recovery.replayed;
    }
    if (error == 0)
        error =
            nvm_heap_build(heap, recovery.clock, recovery.watermark, recovery.next_copy);
    if (error == 0 && clean)
        nvm_super_write(heap, false);
    return error;
}

int nvm_open(const char *path, nvm_heap **out)
{
    struct nvm_heap *heap;
    int error = heap_new(&heap);
    if (error != 0)
        return error;
    error = nvm_region_open(path, &heap->region);
    if (error == 0) {
        error = open_mapped(heap);
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

int nvm_close(nvm_heap *heap)
{
    nvm_registry_remove(heap);
    nvm_tcache_drop_all(heap, true);
    nvm_lanes_checkpoint(heap);
    nvm_super_write(heap, true);
    nvm_heap_drop(heap);
    nvm_region_close(&heap->region);
    nvm_dram_unmap(heap, sizeof(*heap));
    return 0;
}

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
    *length = heap->super.size;
}

void nvm_persist(nvm_heap *heap, const void *address, size_t length)
{
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_persist spare = {0};
    struct nvm_persist *persist = tcache != NULL ? &tcache->persist : &spare;
    nvm_flush(persist, address, length);
    nvm_fence(persist);
}

const char *nvm_version(void)
{
    return "0.1.0";
}
