// SPDX-License-Identifier: Apache-2.0
/*
 * fake_heap - an adapter whose every move is known, to test the bench with.
 *
 * It calls itself persistent and makes the file, but keeps its blocks in DRAM.
 * Every alloc_to and free_from of a thread causes the same events:
 *
 *   flush of one line, always the same one      -> a reflush
 *   fence                                       -> effective
 *   one non-temporal line, of 128 XPLines in turn (twice the model's buffer)
 *   fence                                       -> effective
 *   fence                                       -> not effective
 *
 * Its options ("key=N,...") make it misbehave:
 *   full_from=N    from the Nth allocation on there is no memory
 *   break_at=N     the Nth allocation fails with EIO
 *   alias_from=N   from the Nth allocation on, every second one hands out the
 *                  block before once more
 *   refuse=1       create() fails with EROFS
 *   unclosable=1   close() fails with EIO
 *   foreign=1      used_bytes is the number of blocks that were freed by another
 *                  thread than the one that allocated them
 *   work=N         every operation takes N instructions more (x86; N even)
 *   die_at=N       the Nth allocation kills the process (SIGKILL)
 *   hang_at=N      the Nth allocation does not return
 * The size of the heap bounds the bytes of live blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapter.h"

struct header {
    size_t size;
    unsigned names;         /* slots that refer to it: 2 for an alias */
    const void *birthplace; /* &here of the thread that allocated it */
    _Alignas(16) char data[];
};

/* Wider than a pointer, so that nobody takes slots for pointers. */
struct slot {
    struct header *block;
    uint64_t unused;
};

struct nvc_heap {
    struct slot *table;
    size_t slots, size;
    pthread_mutex_t lock;
    uint64_t allocations, live_bytes;
    struct header *last;
    uint64_t full_from, break_at, alias_from, unclosable, foreign;
    uint64_t work, die_at, hang_at;
    uint64_t foreign_frees;
};

static nvc_event_fn *observer;
static void *observer_context;
static atomic_uint_fast64_t entered, flushes, fences, nt_lines;
static _Thread_local const char *reason = "";
static _Thread_local char here; /* its address stands for the thread */

static int fail(int error, const char *why)
{
    reason = why;
    return error;
}

static void event(enum nvc_event kind, const void *address)
{
    atomic_fetch_add(kind == NVC_EVENT_FLUSH   ? &flushes
                     : kind == NVC_EVENT_FENCE ? &fences
                                               : &nt_lines,
                     1);
    if (observer != NULL)
        observer(observer_context, kind, address, kind == NVC_EVENT_FENCE ? 0 : 64);
}

static void events_of_one_operation(void)
{
    static _Thread_local struct {
        _Alignas(256) char flushed[256];
        _Alignas(256) char log[128][256];
        unsigned next;
    } media;
    event(NVC_EVENT_FLUSH, media.flushed);
    event(NVC_EVENT_FENCE, NULL);
    event(NVC_EVENT_NT_STORE, media.log[media.next++ % 128]);
    event(NVC_EVENT_FENCE, NULL);
    event(NVC_EVENT_FENCE, NULL);
}

/* As many rounds as asked for, of two instructions each. */
static void work(uint64_t rounds)
{
#if defined(__x86_64__)
    if (rounds > 0)
        __asm__ volatile("1:\tdecq %0\n\tjnz 1b" : "+r"(rounds) : : "cc");
#else
    while (rounds > 0)
        __asm__ volatile("" : "+r"(rounds) : "0"(rounds - 1));
#endif
}

static uint64_t option(const char *extra, const char *key)
{
    const char *at = strstr(extra, key);
    return at == NULL ? 0 : strtoull(at + strlen(key) + 1, NULL, 10);
}

static const char *library_version(void)
{
    return "fake 1.0";
}

static int create(const char *path, const struct nvc_options *options,
                  struct nvc_heap **heap)
{
    if (option(options->extra, "refuse"))
        return fail(EROFS, "asked to refuse");
    int file = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        return fail(errno, "cannot make the file");
    close(file);
    struct nvc_heap *made = calloc(1, sizeof *made);
    made->table = calloc(options->slots, sizeof *made->table);
    made->slots = options->slots;
    made->size = options->size;
    pthread_mutex_init(&made->lock, NULL);
    made->full_from = option(options->extra, "full_from");
    made->break_at = option(options->extra, "break_at");
    made->alias_from = option(options->extra, "alias_from");
    made->foreign = option(options->extra, "foreign");
    made->unclosable = option(options->extra, "unclosable");
    made->work = option(options->extra, "work");
    made->die_at = option(options->extra, "die_at");
    made->hang_at = option(options->extra, "hang_at");
    *heap = made;
    return 0;
}

static int reopen(const char *path, const struct nvc_options *options,
                  struct nvc_heap **heap)
{
    (void)path;
    (void)options;
    (void)heap;
    return fail(ENOTSUP, "a fake heap forgets");
}

static void let_go(struct nvc_heap *heap, struct header *block)
{
    if (--block->names == 0) {
        heap->live_bytes -= block->size;
        if (heap->last == block)
            heap->last = NULL;
        free(block);
    }
}

static int close_heap(struct nvc_heap *heap)
{
    uint64_t unclosable = heap->unclosable;
    /* Every worker that entered has left: who closes is alone. */
    int error = atomic_load(&entered) != 0 ? fail(EBUSY, "a thread is still inside") : 0;
    for (size_t i = 0; i < heap->slots; i++)
        if (heap->table[i].block != NULL)
            let_go(heap, heap->table[i].block);
    free(heap->table);
    free(heap);
    return unclosable ? fail(EIO, "asked not to close") : error;
}

static void *slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->slots;
    return heap->table;
}

/* The heap's lock is held. */
static int place(struct nvc_heap *heap, struct slot *slot, size_t size)
{
    uint64_t number = ++heap->allocations;
    if (slot->block != NULL)
        return fail(EINVAL, "the slot is full");
    if (heap->break_at != 0 && number == heap->break_at)
        return fail(EIO, "asked to break");
    if (heap->die_at != 0 && number == heap->die_at)
        raise(SIGKILL);
    while (heap->hang_at != 0 && number == heap->hang_at)
        usleep(1000);
    if ((heap->full_from != 0 && number >= heap->full_from) ||
        heap->live_bytes + size > heap->size)
        return fail(ENOMEM, "full");
    if (heap->alias_from != 0 && number >= heap->alias_from && number % 2 == 0 &&
        heap->last != NULL) {
        heap->last->names++;
        slot->block = heap->last;
        return 0;
    }
    struct header *block = malloc(sizeof *block + size);
    block->size = size;
    block->names = 1;
    block->birthplace = &here;
    heap->live_bytes += size;
    heap->last = slot->block = block;
    return 0;
}

static int alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    pthread_mutex_lock(&heap->lock);
    int error = place(heap, slot, size);
    pthread_mutex_unlock(&heap->lock);
    work(heap->work / 2);
    if (error == 0)
        events_of_one_operation();
    return error;
}

static int free_from(struct nvc_heap *heap, void *place_of)
{
    struct slot *slot = place_of;
    if (slot->block == NULL)
        return fail(EINVAL, "the slot is empty");
    pthread_mutex_lock(&heap->lock);
    heap->foreign_frees += slot->block->birthplace != &here;
    let_go(heap, slot->block);
    pthread_mutex_unlock(&heap->lock);
    slot->block = NULL;
    work(heap->work / 2);
    events_of_one_operation();
    return 0;
}

static struct nvc_block read_slot(struct nvc_heap *heap, const void *slot)
{
    (void)heap;
    struct header *block = ((const struct slot *)slot)->block;
    return block == NULL ? (struct nvc_block){NULL, 0}
                         : (struct nvc_block){block->data, block->size};
}

static void persist(struct nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    (void)address;
    (void)length;
}

static int thread_enter(struct nvc_heap *heap)
{
    (void)heap;
    atomic_fetch_add(&entered, 1);
    return 0;
}

static void thread_leave(struct nvc_heap *heap)
{
    (void)heap;
    atomic_fetch_sub(&entered, 1);
}

static void stats(struct nvc_heap *heap, struct nvc_stats *to)
{
    *to = (struct nvc_stats){
        .live_bytes = heap->live_bytes,
        .heap_bytes = heap->size,
        .used_bytes = heap->foreign ? heap->foreign_frees : UINT64_MAX,
        .flushes = flushes,
        .fences = fences,
        .nt_lines = nt_lines,
        .flush = "clwb",
    };
}

static int observe(nvc_event_fn *fn, void *context)
{
    observer_context = context;
    observer = fn;
    return 0;
}

static const char *last_error(void)
{
    return reason;
}

static const struct nvc_adapter adapter = {
    .version = NVC_ADAPTER_VERSION,
    .struct_size = sizeof(struct nvc_adapter),
    .name = "fake",
    .capabilities = NVC_PERSISTENT | NVC_THREADS | NVC_OBSERVABLE,
    .consistency = NVC_CONSISTENCY_LOG,
    .slot_size = sizeof(struct slot),
    .min_size = 1024,
    .library_version = library_version,
    .create = create,
    .open = reopen,
    .close = close_heap,
    .slots = slots,
    .alloc_to = alloc_to,
    .free_from = free_from,
    .read = read_slot,
    .persist = persist,
    .thread_enter = thread_enter,
    .thread_leave = thread_leave,
    .stats = stats,
    .observe = observe,
    .last_error = last_error,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
