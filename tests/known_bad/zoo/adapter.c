// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.c - the operations, opening and closing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lane_log.h"

#define MAGIC UINT64_C(0x31474f4c454e414c) /* "LANELOG1" */

static _Thread_local char error_text[128];

static int failed(int error, const char *text)
{
    snprintf(error_text, sizeof error_text, "%s", text);
    return error;
}

/* ---- alloc, free ---- */

static int alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    struct zoo_changes changes = {.count = 0};
    if (size == 0 || *(const uint64_t *)slot != 0)
        return failed(EINVAL, "the size is 0 or the slot is not empty");
    zoo_lock(heap);
    uint64_t word = zoo_take(heap, &changes, size);
    if (word != 0) {
        zoo_change(&changes, zoo_offset_of(heap, slot), word);
        if (PLANT(alloc_publishes_first))
            zoo_store_persist(slot, word);
        zoo_commit(heap, &changes);
    }
    zoo_unlock(heap);
    return word != 0 ? 0 : failed(ENOMEM, "no free chunk is left, or none in a row");
}

static int free_from(struct nvc_heap *heap, void *slot)
{
    struct zoo_changes changes = {.count = 0};
    uint64_t *word = slot;
    zoo_lock(heap);
    if (!zoo_is_live(heap, *word)) {
        zoo_unlock(heap);
        return failed(EINVAL, "the slot refers to no live block");
    }
    zoo_release(heap, &changes, *word);
    if (PLANT(free_clears_slot_first))
        zoo_store_persist(word, 0);
    else if (!PLANT(free_releases_first))
        zoo_change(&changes, zoo_offset_of(heap, word), 0);
    if (PLANT(free_not_flushed))
        zoo_commit_in_cache(heap, &changes);
    else
        zoo_commit(heap, &changes);
    if (PLANT(free_releases_first))
        zoo_store_persist(word, 0);
    zoo_unlock(heap);
    return 0;
}

/* ---- realloc, move, groups ---- */

static size_t bytes_of(uint64_t word)
{
    return (word >> 32) * zoo_line;
}

static unsigned char *block_of(struct nvc_heap *heap, uint64_t word)
{
    return heap->base + (word & UINT32_MAX) * zoo_line;
}

/* The new block's content is on media before the operation can be. */
static void copy_content(struct nvc_heap *heap, uint64_t to, uint64_t from)
{
    size_t length = bytes_of(to) < bytes_of(from) ? bytes_of(to) : bytes_of(from);
    if (PLANT(realloc_copy_cut_short) && length > zoo_line)
        length = zoo_line;
    zoo_copy_nt_store(block_of(heap, to), block_of(heap, from), length);
    if (!PLANT(realloc_copy_unfenced))
        zoo_fence();
}

static int realloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    struct zoo_changes changes = {.count = 0};
    uint64_t old = *(const uint64_t *)slot;
    int error = 0;
    zoo_lock(heap);
    if (size == 0 || !zoo_is_live(heap, old)) {
        error = failed(EINVAL, "the size is 0 or the slot refers to no live block");
    } else if (size > bytes_of(old) || size <= bytes_of(old) / 2) {
        uint64_t new = zoo_take(heap, &changes, size);
        if (new == 0) {
            error = failed(ENOMEM, "no free chunk is left, or none in a row");
        } else {
            copy_content(heap, new, old);
            if (PLANT(realloc_frees_first)) {
                struct zoo_changes freed = {.count = 0};
                zoo_release(heap, &freed, old);
                zoo_commit(heap, &freed);
            } else {
                zoo_release(heap, &changes, old);
            }
            zoo_change(&changes, zoo_offset_of(heap, slot), new);
            zoo_commit(heap, &changes);
        }
    }
    zoo_unlock(heap);
    return error;
}

static int move_to(struct nvc_heap *heap, void *from, void *to)
{
    struct zoo_changes changes = {.count = 0};
    uint64_t word = *(const uint64_t *)from;
    zoo_lock(heap);
    if (word == 0 || *(const uint64_t *)to != 0) {
        zoo_unlock(heap);
        return failed(EINVAL, "the slot is empty, or the other one is not");
    }
    zoo_change(&changes, zoo_offset_of(heap, to), word);
    if (PLANT(move_copies_first))
        zoo_store_persist(to, word);
    if (PLANT(move_clears_first))
        zoo_store_persist(from, 0);
    zoo_change(&changes, zoo_offset_of(heap, from), 0);
    zoo_commit(heap, &changes);
    zoo_unlock(heap);
    return 0;
}

static int alloc_group(struct nvc_heap *heap, void *const slots[], const size_t sizes[],
                       size_t count)
{
    struct zoo_changes changes = {.count = 0};
    int error = 0;
    for (size_t i = 0; i < count; i++) {
        if (sizes[i] == 0 || *(const uint64_t *)slots[i] != 0)
            return failed(EINVAL, "a size is 0 or a slot is not empty");
    }
    zoo_lock(heap);
    for (size_t i = 0; i < count && error == 0; i++) {
        uint64_t word = zoo_take(heap, &changes, sizes[i]);
        if (word == 0)
            error = failed(ENOMEM, "no free chunk is left, or none in a row");
        else
            zoo_change(&changes, zoo_offset_of(heap, slots[i]), word);
        if (PLANT(group_one_by_one) && error == 0) {
            zoo_commit(heap, &changes);
            changes.count = 0;
        }
    }
    if (error != 0 && PLANT(group_error_path) && changes.count > 0) {
        changes.count--; /* the slot of the last one that was had */
        zoo_commit(heap, &changes);
    }
    if (error == 0 && changes.count > 0)
        zoo_commit(heap, &changes);
    zoo_unlock(heap);
    return error;
}

/* ---- content ---- */

static struct nvc_block read_slot(struct nvc_heap *heap, const void *slot)
{
    uint64_t word = *(const uint64_t *)slot;
    if (word == 0)
        return (struct nvc_block){NULL, 0};
    return (struct nvc_block){block_of(heap, word), bytes_of(word)};
}

static void settle(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    if (PLANT(persist_last_line_missed))
        length -= length > zoo_line ? (length - 1) % zoo_line + 1 : 0;
    zoo_flush(address, length);
    if (!PLANT(persist_unfenced))
        zoo_fence();
}

/* ---- opening ---- */

static void lay_out(struct nvc_heap *heap, void *base, size_t size)
{
    heap->base = base;
    heap->size = size;
    heap->header = base;
    heap->root = (struct zoo_root *)(heap->base + zoo_line);
    heap->summary = (uint64_t *)(heap->base + (size_t)3 * zoo_line);
    heap->lane = (struct zoo_lane *)(heap->base + zoo_chunk);
    heap->kind = (uint64_t *)(heap->base + (size_t)3 * zoo_chunk);
    heap->live = heap->kind + heap->header->chunks;
    heap->slots = heap->live + heap->header->chunks;
}

static int choose_plant(const struct nvc_options *options)
{
    static const char *const names[] = {"none",
#define ZOO_TEXT(name) #name,
                                        ZOO_PLANTS(ZOO_TEXT)
#undef ZOO_TEXT
    };
    const char *value = options->extra != NULL ? options->extra : "";
    zoo_plant = zoo_none;
    if (*value == '\0')
        return 0;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strncmp(value, "plant=", 6) == 0 && strcmp(value + 6, names[i]) == 0) {
            zoo_plant = (enum zoo_plant)i;
            return 0;
        }
    }
    return failed(EINVAL, "the only option is plant=NAME, a name of plants.h");
}

/* Recovers the heap, and takes note that it is open. */
static int mount(struct nvc_heap *heap)
{
    struct zoo_root root;
    if (zoo_find_root(heap, &root) != 0)
        return failed(EUCLEAN, "no root is valid");
    heap->sequence = root.sequence;
    if (!root.clean) {
        if (zoo_recover(heap, root.floor) != 0)
            return failed(EUCLEAN, "a record of the log names no word");
        heap->frontier = zoo_find_frontier(heap);
        return 0;
    }
    heap->generation = root.floor;
    heap->frontier = *heap->summary;
    if (!PLANT(clean_not_cleared))
        zoo_write_root(heap, root.floor, false);
    return 0;
}

static void forget(struct nvc_heap *heap)
{
    pthread_mutex_destroy(&heap->lock);
    free(heap);
}

static int attach(void *base, size_t size, const struct nvc_options *options,
                  struct nvc_heap **heap)
{
    const struct zoo_header *header = base;
    int error = choose_plant(options);
    if (error != 0)
        return error;
    if (header->magic != MAGIC || header->size != size)
        return failed(EMEDIUMTYPE, "not a heap of this allocator");
    struct nvc_heap *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failed(ENOMEM, "no memory for the heap's handle");
    made->fd = -1;
    lay_out(made, base, size);
    pthread_mutex_init(&made->lock, NULL);
    error = mount(made);
    if (error != 0)
        forget(made);
    else
        *heap = made;
    return error;
}

/* The heap is the caller's until it is closed: so is its file's lock. */
static int map_file(int fd, size_t size, void **base)
{
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return failed(EBUSY, "the heap is open already");
    *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return *base == MAP_FAILED ? failed(errno, "the heap can't be mapped") : 0;
}

static int take_over(int fd, void *base, size_t size, const struct nvc_options *options,
                     struct nvc_heap **heap)
{
    int error = attach(base, size, options, heap);
    if (error != 0) {
        munmap(base, size);
        close(fd);
    } else {
        (*heap)->fd = fd;
    }
    return error;
}

static int open_heap(const char *path, const struct nvc_options *options,
                     struct nvc_heap **heap)
{
    struct stat status;
    void *base = NULL;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return failed(errno, "the heap file can't be opened");
    int error = fstat(fd, &status) != 0 ? errno : 0;
    if (error == 0 && status.st_size < zoo_chunk)
        error = failed(EMEDIUMTYPE, "not a heap of this allocator");
    if (error == 0)
        error = map_file(fd, (size_t)status.st_size, &base);
    if (error != 0) {
        close(fd);
        return error;
    }
    return take_over(fd, base, (size_t)status.st_size, options, heap);
}

/* A new file is all zeros; the magic comes last. */
static void format(void *base, size_t size, size_t slots, size_t first)
{
    struct nvc_heap heap = {.base = base};
    struct zoo_header *header = base;
    header->size = size;
    header->slots = slots;
    header->chunks = size / zoo_chunk;
    header->first = first;
    lay_out(&heap, base, size);
    zoo_store(heap.summary, first);
    zoo_persist(base, zoo_chunk);
    zoo_write_root(&heap, 0, true);
    zoo_store_persist(&header->magic, MAGIC);
}

static int create(const char *path, const struct nvc_options *options,
                  struct nvc_heap **heap)
{
    size_t size = options->size & ~(size_t)(zoo_chunk - 1);
    size_t tables = (2 * (size / zoo_chunk) + options->slots) * sizeof(uint64_t);
    size_t first = 3 + (tables + zoo_chunk - 1) / zoo_chunk;
    void *base = NULL;
    int error = choose_plant(options);
    if (error != 0)
        return error;
    if (size < 65536 || first >= size / zoo_chunk)
        return failed(EINVAL, "the heap is too small for its slots");
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(errno, "the heap file can't be made");
    error = posix_fallocate(fd, 0, (off_t)size);
    if (error == 0)
        error = map_file(fd, size, &base);
    if (error != 0) {
        close(fd);
        unlink(path);
        return failed(error, "no space for the heap file");
    }
    format(base, size, options->slots, first);
    return take_over(fd, base, size, options, heap);
}

/* The frontier is true before the root says so. */
static int close_heap(struct nvc_heap *heap)
{
    if (PLANT(clean_too_early))
        zoo_write_root(heap, heap->generation, true);
    zoo_store(heap->summary, zoo_find_frontier(heap));
    if (!PLANT(frontier_not_flushed))
        zoo_persist(heap->summary, sizeof *heap->summary);
    if (!PLANT(clean_too_early))
        zoo_write_root(heap, heap->generation, true);
    munmap(heap->base, heap->size);
    if (heap->fd >= 0)
        close(heap->fd);
    forget(heap);
    return 0;
}

/* ---- the rest of the contract ---- */

static int check(struct nvc_heap *heap)
{
    const char *damage = zoo_find_damage(heap);
    return damage == NULL ? 0 : failed(EUCLEAN, damage);
}

static void *slots_of(struct nvc_heap *heap, size_t *count)
{
    *count = heap->header->slots;
    return heap->slots;
}

static struct nvc_block range(struct nvc_heap *heap)
{
    return (struct nvc_block){heap->base, heap->size};
}

static int thread_enter(struct nvc_heap *heap)
{
    zoo_lock(heap);
    unsigned lane = (unsigned)__builtin_ctz(~heap->lanes_taken);
    bool free_one = lane < zoo_lanes;
    if (free_one) {
        heap->lanes_taken |= 1U << lane;
        zoo_my_lane = lane;
    }
    zoo_unlock(heap);
    return free_one ? 0 : failed(EAGAIN, "every lane is taken");
}

static void thread_leave(struct nvc_heap *heap)
{
    zoo_lock(heap);
    heap->lanes_taken &= ~(1U << zoo_my_lane);
    zoo_my_lane = 0;
    zoo_unlock(heap);
}

static int count_block(void *context, struct nvc_block block)
{
    *(uint64_t *)context += block.usable;
    return 0;
}

static void stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    *stats = (struct nvc_stats){.heap_bytes = heap->size,
                                .used_bytes = UINT64_MAX,
                                .flushes = UINT64_MAX,
                                .fences = UINT64_MAX,
                                .nt_lines = UINT64_MAX};
    zoo_lock(heap);
    zoo_walk(heap, count_block, &stats->live_bytes);
    zoo_unlock(heap);
    snprintf(stats->flush, sizeof stats->flush, "clflush");
}

static const char *version(void)
{
    return "1";
}

static const char *last_error(void)
{
    return error_text;
}

extern nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    static const struct nvc_adapter adapter = {
        .version = NVC_ADAPTER_VERSION,
        .struct_size = sizeof(struct nvc_adapter),
        .name = "lane-log",
        .capabilities =
            NVC_PERSISTENT | NVC_WALK | NVC_THREADS | NVC_OBSERVABLE | NVC_NESTED_SLOTS,
        .consistency = NVC_CONSISTENCY_LOG,
        .slot_size = sizeof(uint64_t),
        .min_size = 65536,
        .library_version = version,
        .create = create,
        .open = open_heap,
        .close = close_heap,
        .check = check,
        .slots = slots_of,
        .range = range,
        .alloc_to = alloc_to,
        .free_from = free_from,
        .realloc_to = realloc_to,
        .move_to = move_to,
        .alloc_group = alloc_group,
        .read = read_slot,
        .persist = settle,
        .walk = zoo_walk,
        .thread_enter = thread_enter,
        .thread_leave = thread_leave,
        .stats = stats,
        .observe = zoo_observe,
        .last_error = last_error,
        .attach = attach,
        .detach = forget,
    };
    return &adapter;
}
