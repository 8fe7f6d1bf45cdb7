/* SPDX-License-Identifier: Apache-2.0 */
/* A bump allocator behind nvcrucible's contract; ../tutorial.md walks through it.
 * The file is struct nvc_heap, the slot table, and blocks of 2^order bytes up to `top`.
 * A slot is one word, offset << 8 | order, or 0: so one 8-byte store allocates or frees,
 * and a crash finds it whole or absent.  All else is in DRAM, and open() makes it anew
 * from the slots.  What was free then, below top, comes back when the heap drains. */
#include <emmintrin.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>
#include "adapter.h"

#define MAGIC            UINT64_C(0x31706d7562637672)
#define MIN_SIZE         (1 << 20)
#define AT(heap, offset) ((void *)((char *)(heap) + (offset)))
#define BYTES(slot)      (UINT64_C(1) << ((slot)&63))
#define FIRST(heap)      ((sizeof *(heap) + (heap)->slots * 8 + 15) & ~UINT64_C(15))
struct nvc_heap {                 /* the start of the file, as mapped */
    uint64_t magic, size, slots;  /* what is durable */
    uint64_t top, live, free[64]; /* free[i]: a list of 2^i bytes each */
    pthread_mutex_t lock;
    int fd;
};
static _Thread_local int last;
static int fail(int error) { return last = error; }
static const char *bump_last_error(void) { return strerror(last); }
static const char *bump_version(void) { return "1"; }
static void bump_persist(struct nvc_heap *heap, const void *address, size_t length) {
    const char *end = (const char *)address + length;
    char *line = AT(heap, ((const char *)address - (char *)heap) & ~63l);
    for (; line < end; line += 64) _mm_clflush(line);
    _mm_sfence();
}
static void set(struct nvc_heap *heap, volatile uint64_t *word, uint64_t value) {
    *word = value;
    bump_persist(heap, (const void *)word, sizeof value);
}
static void start_over(struct nvc_heap *heap) {
    memset(heap->free, 0, sizeof heap->free);
    heap->top = FIRST(heap);
    heap->live = 0;
}
static int recover(struct nvc_heap *heap, uint64_t size) {
    if (heap->magic != MAGIC) return EMEDIUMTYPE;
    if (heap->size != size || heap->slots > size / 16) return EUCLEAN;
    start_over(heap);
    for (uint64_t i = 0; i < heap->slots; i++) {
        uint64_t slot = ((uint64_t *)(heap + 1))[i], end = (slot >> 8) + BYTES(slot);
        if (slot == 0) continue;
        if (slot >> 8 < FIRST(heap) || end > size) return EUCLEAN;
        if (end > heap->top) heap->top = end;
        heap->live++;
    }
    return 0;
}
/* Opens the heap; makes it first if options give a size, which open()'s don't. */
static int bump_open(const char *path, const struct nvc_options *o, struct nvc_heap **h) {
    struct nvc_heap *heap = MAP_FAILED;
    int flags = o->size != 0 ? O_CREAT | O_EXCL : 0;
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd < 0) return fail(errno);
    int error = flock(fd, LOCK_EX | LOCK_NB) ? EBUSY : 0;
    if (!error && flags) error = posix_fallocate(fd, 0, (off_t)o->size);
    off_t size = lseek(fd, 0, SEEK_END);
    if (!error && size < MIN_SIZE) error = EMEDIUMTYPE;
    if (!error) heap = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!error && heap == MAP_FAILED) error = errno;
    if (!error && flags) {
        heap->size = size, heap->slots = o->slots;
        set(heap, &heap->magic, MAGIC); /* last: all three lie in one line */
    }
    if (!error) error = recover(heap, size);
    if (error && heap != MAP_FAILED) munmap(heap, size);
    if (error && flags) unlink(path);
    if (error) return close(fd), fail(error);
    pthread_mutex_init(&heap->lock, NULL);
    heap->fd = fd;
    *h = heap;
    return 0;
}
static int bump_new(const char *path, const struct nvc_options *o, struct nvc_heap **h) {
    if (o->size < MIN_SIZE || o->slots > o->size / 16) return fail(EINVAL);
    return bump_open(path, o, h);
}
static int bump_close(struct nvc_heap *heap) {
    return close(heap->fd), munmap(heap, heap->size);
}
static void *bump_slots(struct nvc_heap *heap, size_t *count) {
    return *count = heap->slots, heap + 1;
}
static struct nvc_block bump_range(struct nvc_heap *heap) {
    return (struct nvc_block){heap, heap->size};
}
static struct nvc_block bump_read(struct nvc_heap *heap, const void *slot) {
    uint64_t word = *(const uint64_t *)slot;
    return (struct nvc_block){word ? AT(heap, word >> 8) : NULL, word ? BYTES(word) : 0};
}
static int bump_alloc_to(struct nvc_heap *heap, void *slot, size_t size) {
    if (*(uint64_t *)slot != 0 || size == 0) return fail(EINVAL);
    if (size > heap->size) return fail(ENOMEM);
    uint64_t order = size <= 16 ? 4 : 64 - __builtin_clzll(size - 1);
    pthread_mutex_lock(&heap->lock);
    uint64_t block = heap->free[order];
    if (block != 0) heap->free[order] = *(uint64_t *)AT(heap, block);
    else if (heap->size - heap->top >= BYTES(order)) {
        block = heap->top;
        heap->top += BYTES(order);
    }
    heap->live += block != 0;
    pthread_mutex_unlock(&heap->lock);
    if (block == 0) return fail(ENOMEM);
    set(heap, slot, block << 8 | order);
    return 0;
}
static int bump_free_from(struct nvc_heap *heap, void *slot) {
    uint64_t word = *(uint64_t *)slot;
    if (word == 0) return fail(EINVAL);
    set(heap, slot, 0); /* first: until then nobody else may have the block */
    pthread_mutex_lock(&heap->lock);
    uint64_t *list = &heap->free[word & 63], *block = AT(heap, word >> 8);
    *block = *list;
    *list = word >> 8;
    if (--heap->live == 0) start_over(heap);
    pthread_mutex_unlock(&heap->lock);
    return 0;
}
static void bump_stats(struct nvc_heap *heap, struct nvc_stats *stats) {
    *stats = (struct nvc_stats){0, heap->size, heap->top, .flush = "clflush"};
    stats->live_bytes = stats->flushes = stats->fences = UINT64_MAX;
}
static int bump_observe(nvc_event_fn *fn, void *context) {
    return (void)context, fn ? fail(ENOTSUP) : 0;
}
// clang-format off
const struct nvc_adapter *nvc_adapter_get(void) {
    static const struct nvc_adapter adapter = {
        .version = NVC_ADAPTER_VERSION, .struct_size = sizeof adapter, .name = "bump",
        .capabilities = NVC_PERSISTENT | NVC_THREADS, .consistency = NVC_CONSISTENCY_LOG,
        .slot_size = sizeof(uint64_t), .min_size = MIN_SIZE, .library_version = bump_version,
        .create = bump_new, .open = bump_open, .close = bump_close, .slots = bump_slots,
        .range = bump_range, .alloc_to = bump_alloc_to, .free_from = bump_free_from,
        .read = bump_read, .persist = bump_persist, .stats = bump_stats,
        .observe = bump_observe, .last_error = bump_last_error};
    return &adapter;
}
