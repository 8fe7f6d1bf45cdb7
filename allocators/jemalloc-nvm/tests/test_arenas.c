/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_arenas.c - jemalloc on a region, with every call of a hook watched
 * (traced_hooks.h), and every mmap() and sbrk() of the process counted.
 *
 * This program is linked with jemalloc, which is therefore its malloc: so caches are
 * CACHES_OWN here; test_adapter.c has the bound ones.  Each test runs with the arenas'
 * metadata in DRAM and in the region.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "arenas.h"
#include "traced_hooks.h"

#define BYTES        ((size_t)64 << 20)
#define GROW_LIMIT   REGION_PAGE
#define FIRST_GROWTH ((size_t)2 << 20)  /* jemalloc's, whatever the limit */
#define GROWN        ((size_t)64 << 10) /* a size class of blocks with their own extent */
#define SEED         UINT64_C(19937)
#define THREADS      3

/* --- every mmap() and sbrk() of the process ---------------------------------- */

static _Atomic size_t mapped_bytes;
static _Atomic size_t sbrk_calls;

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (fd < 0 && protection != 0)
        atomic_fetch_add(&mapped_bytes, length);
    long result = syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    return (void *)result;
}

void *sbrk(intptr_t increment)
{
    (void)increment;
    atomic_fetch_add(&sbrk_calls, 1);
    errno = ENOMEM;
    return (void *)-1;
}

/* --- a heap ------------------------------------------------------------------ */

struct heap {
    char path[300];
    struct region region;
    struct region_hooks hooks;
    struct traced_hooks traced;
    struct arenas arenas;
};

static char folder[256];

static int enter_folder(void **state)
{
    (void)state;
    const char *where = getenv("NVC_TEST_DIR");
    if (where == NULL)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir;
    snprintf(folder, sizeof folder, "%s/jemalloc-nvm-XXXXXX", where);
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int leave_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void open_heap(struct heap *heap, enum metadata_place metadata, size_t grow_limit)
{
    snprintf(heap->path, sizeof heap->path, "%s/heap", folder);
    assert_int_equal(region_create(heap->path, BYTES, false, &heap->region), 0);
    assert_int_equal(unlink(heap->path), 0);
    region_hooks_init(&heap->hooks, &heap->region);
    traced_hooks_init(&heap->traced, &heap->hooks);
    struct arenas_options options = {.hooks = &heap->traced.table,
                                     .metadata = metadata,
                                     .caches = CACHES_OWN,
                                     .limit = 2,
                                     .grow_limit = grow_limit};
    assert_int_equal(arenas_open(&heap->arenas, &options), 0);
}

/* What the hooks said, what vmem holds, and what the region's bitmaps hold agree. */
static void assert_accounted(struct heap *heap)
{
    char why[160];
    assert_int_equal(heap->traced.wrong, 0);
    assert_int_equal(heap->traced.owned_pages * REGION_PAGE, region_taken(&heap->region));
    if (!region_check(&heap->region, why, sizeof why))
        fail_msg("%s", why);
}

static void close_heap(struct heap *heap)
{
    assert_accounted(heap);
    assert_int_equal(arenas_close(&heap->arenas), 0);
    assert_accounted(heap);
    assert_int_equal(region_taken(&heap->region), 0);
    traced_hooks_free(&heap->traced);
    region_close(&heap->region);
}

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* --- churn: sizes, alignments, zeros, threads --------------------------------- */

struct block {
    unsigned char *address;
    size_t size;
    unsigned char content;
};

struct worker {
    struct heap *heap;
    pthread_barrier_t *joined; /* by all; NULL: no need to wait */
    uint64_t random;
    size_t wrong;
    size_t null;
};

static size_t draw_size(uint64_t *random)
{
    switch (draw(random) % 16) {
    case 0:
        return 1 + draw(random) % 400000;
    case 1:
    case 2:
        return 1 + draw(random) % 100000;
    default:
        return 1 + draw(random) % 2000;
    }
}

static bool all_are(const unsigned char *bytes, size_t size, unsigned char value)
{
    return size == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static void fill_block(struct worker *worker, struct block *block, int flags)
{
    uint64_t *random = &worker->random;
    int shift = draw(random) % 8 == 0 ? (int)(draw(random) % 21) : 0; /* to 1 MiB */
    bool zero = draw(random) % 4 == 0;
    block->size = draw_size(random);
    block->address =
        mallocx(block->size, flags | MALLOCX_LG_ALIGN(shift) | (zero ? MALLOCX_ZERO : 0));
    if (block->address == NULL) {
        worker->null++;
        return;
    }
    worker->wrong += !region_holds(&worker->heap->region, block->address, block->size);
    worker->wrong += (uintptr_t)block->address % ((size_t)1 << shift) != 0;
    worker->wrong += zero && !all_are(block->address, block->size, 0);
    block->content = (unsigned char)draw(random);
    memset(block->address, block->content, block->size);
}

enum { BLOCKS = 64, STEPS = 12000 };

static void *churn(void *argument)
{
    struct worker *worker = argument;
    struct block blocks[BLOCKS] = {0};
    worker->wrong += arenas_join(&worker->heap->arenas) != 0;
    struct arenas_flags flags = arenas_flags_of_caller(&worker->heap->arenas);
    if (worker->joined != NULL)
        pthread_barrier_wait(worker->joined);
    for (int step = 0; step < STEPS; step++) {
        struct block *block = &blocks[draw(&worker->random) % BLOCKS];
        if (block->address == NULL) {
            fill_block(worker, block, flags.alloc);
        } else {
            worker->wrong += !all_are(block->address, block->size, block->content);
            dallocx(block->address, flags.free);
            block->address = NULL;
        }
    }
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].address != NULL)
            dallocx(blocks[i].address, flags.free);
    arenas_trim(&worker->heap->arenas);
    arenas_leave(&worker->heap->arenas);
    return NULL;
}

static void every_extent_lies_in_the_region(void **state)
{
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    pthread_barrier_t joined;
    assert_int_equal(pthread_barrier_init(&joined, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] =
            (struct worker){.heap = &heap, .joined = &joined, .random = SEED + i};
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&joined);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(workers[i].wrong, 0);
        /* One thread's idle pages may be in another's way, until they are trimmed. */
        assert_true(workers[i].null < STEPS / 100);
    }
    assert_accounted(&heap);
    const struct traced_hooks *traced = &heap.traced;
    assert_true(traced->calls[HOOK_ALLOC] > 20 && traced->calls[HOOK_DALLOC] > 20);
    assert_true(traced->calls[HOOK_SPLIT] > 1000 && traced->refused[HOOK_SPLIT] == 0);
    assert_true(traced->calls[HOOK_MERGE] > 1000 && traced->refused[HOOK_MERGE] == 0);
    assert_int_equal(traced->refused[HOOK_DALLOC], 0);
    assert_int_equal(traced->calls[HOOK_COMMIT], 0); /* nothing is ever uncommitted */
    assert_int_equal(traced->refused[HOOK_DECOMMIT], traced->calls[HOOK_DECOMMIT]);
    assert_int_equal(traced->refused[HOOK_PURGE_LAZY], traced->calls[HOOK_PURGE_LAZY]);
    assert_int_equal(traced->refused[HOOK_PURGE_FORCED],
                     traced->calls[HOOK_PURGE_FORCED]);
    assert_int_equal(heap.arenas.count, 2);
    close_heap(&heap);
}

/* --- alignment ---------------------------------------------------------------- */

static void alignment_reaches_the_region(void **state)
{
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    int flags = arenas_flags_of_caller(&heap.arenas).alloc;
    for (int shift = 3; shift <= 24; shift++) {
        void *block = mallocx(100, flags | MALLOCX_LG_ALIGN(shift));
        assert_non_null(block);
        assert_int_equal((uintptr_t)block & (((uintptr_t)1 << shift) - 1), 0);
        assert_true(region_holds(&heap.region, block, 100));
        dallocx(block, MALLOCX_TCACHE_NONE);
    }
    close_heap(&heap);
}

/* --- growth and return ---------------------------------------------------------- */

static struct traced_hooks grown(enum metadata_place metadata, size_t grow_limit,
                                 bool grant)
{
    struct heap heap;
    open_heap(&heap, metadata, grow_limit);
    heap.traced.grant_growth = grant;
    int flags = arenas_flags_of_caller(&heap.arenas).alloc;
    for (size_t done = 0; done < BYTES / 2; done += GROWN)
        assert_non_null(mallocx(GROWN, flags));
    struct traced_hooks said = heap.traced;
    close_heap(&heap);
    return said;
}

static void arenas_get_what_they_need_and_no_more(void **state)
{
    enum metadata_place metadata = *(enum metadata_place *)*state;
    struct traced_hooks said = grown(metadata, GROW_LIMIT, false);
    size_t granted = said.calls[HOOK_ALLOC] - said.refused[HOOK_ALLOC];
    size_t base = metadata == METADATA_IN_REGION;
    assert_true(granted >= BYTES / 2 / GROWN && granted <= BYTES / 2 / GROWN + 2 * base);
    if (metadata == METADATA_IN_DRAM)
        assert_int_equal(said.largest_alloc, GROWN + REGION_PAGE); /* jemalloc adds one */
    /* Were growth granted, the limit would still keep it small; it does limit. */
    said = grown(metadata, GROW_LIMIT, true);
    assert_true(said.largest_alloc <= FIRST_GROWTH);
    said = grown(metadata, BYTES, true);
    assert_true(said.largest_alloc > 2 * FIRST_GROWTH);
}

/* What one arena has decayed, another one gets. */
static void purged_extents_return_to_the_region(void **state)
{
    enum { COUNT = 40 };
    const size_t size = (size_t)1 << 20;
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    size_t before = region_taken(&heap.region);
    int flags = arenas_flags_of_caller(&heap.arenas).alloc;
    void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++)
        assert_non_null(blocks[i] = mallocx(size, flags));
    size_t full = region_taken(&heap.region);
    assert_true(full >= before + COUNT * size);
    for (int i = 0; i < COUNT; i++)
        dallocx(blocks[i], MALLOCX_TCACHE_NONE);
    arenas_trim(&heap.arenas);
    assert_int_equal(region_taken(&heap.region), before);
    assert_accounted(&heap);
    close_heap(&heap);
}

static void metadata_lies_where_it_was_wanted(void **state)
{
    enum metadata_place metadata = *(enum metadata_place *)*state;
    struct heap heap;
    open_heap(&heap, metadata, GROW_LIMIT);
    size_t taken = region_taken(&heap.region); /* and no block allocated yet */
    assert_int_equal(taken != 0, metadata == METADATA_IN_REGION);
    int flags = arenas_flags_of_caller(&heap.arenas).alloc;
    assert_non_null(mallocx(100, flags));
    uint64_t used = arenas_used_bytes(&heap.arenas);
    assert_true(used >= 100 && used <= region_taken(&heap.region));
    assert_int_equal(used > 65536, metadata == METADATA_IN_REGION);
    close_heap(&heap);
}

/* --- the region is full --------------------------------------------------------- */

struct fill {
    size_t usable; /* bytes */
    size_t outside;
};

static struct fill fill_with(struct heap *heap, size_t size, int flags)
{
    struct fill fill = {0};
    char *block;
    while (fill.usable <= BYTES && (block = mallocx(size, flags)) != NULL) {
        fill.outside += !region_holds(&heap->region, block, size);
        memset(block, 1, size);
        fill.usable += sallocx(block, 0);
    }
    return fill;
}

static void a_full_region_gives_null(void **state)
{
    static const size_t sizes[] = {64, 1000, 4096, 100000, (size_t)3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct heap heap;
        open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
        assert_int_equal(arenas_join(&heap.arenas), 0);
        int flags = arenas_flags_of_caller(&heap.arenas).alloc;
        size_t mapped = mapped_bytes, sbrks = sbrk_calls;
        struct fill fill = fill_with(&heap, sizes[i], flags);
        assert_int_equal(fill.outside, 0);
        assert_true(fill.usable <= BYTES);
        if (fill.usable < BYTES / 100 * 92)
            fail_msg("full with %zu of %zu bytes in blocks of %zu", fill.usable, BYTES,
                     sizes[i]);
        /* It was not put off with memory from elsewhere: what the process mapped
           meanwhile is metadata, and little. */
        assert_true(mapped_bytes - mapped <= BYTES / 8);
        assert_int_equal(sbrk_calls, sbrks);
        assert_null(mallocx(sizes[i], flags)); /* again, and at once */
        arenas_leave(&heap.arenas);
        close_heap(&heap);
    }
}

/* Being full costs nothing that is still missing when the heap is empty again. */
static void fullness_leaves_no_trace(void **state)
{
    enum { ROUNDS = 6, MOST = 20000 };
    static const size_t sizes[] = {4096, 14336, 100000, 700000};
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    int flags = arenas_flags_of_caller(&heap.arenas).alloc;
    void **blocks = calloc(MOST, sizeof *blocks);
    uint64_t random = SEED;
    size_t after_first = 0;
    for (int round = 0; round < ROUNDS; round++) {
        size_t count = 0;
        for (int failures = 0; failures < 200;) {
            void *block = mallocx(sizes[draw(&random) % 4], flags);
            if (block == NULL)
                failures++; /* a smaller one may still fit */
            else
                blocks[count++] = block;
            assert_true(count < MOST);
            if (draw(&random) % 3 == 0 && count > 0) {
                size_t victim = draw(&random) % count;
                dallocx(blocks[victim], MALLOCX_TCACHE_NONE);
                blocks[victim] = blocks[--count];
            }
        }
        while (count > 0)
            dallocx(blocks[--count], MALLOCX_TCACHE_NONE);
        arenas_trim(&heap.arenas);
        assert_accounted(&heap);
        if (round == 0)
            after_first = region_taken(&heap.region);
        if (region_taken(&heap.region) > after_first + 8 * REGION_PAGE)
            fail_msg("round %d left %zu bytes taken, the first %zu", round,
                     region_taken(&heap.region), after_first);
    }
    free(blocks);
    close_heap(&heap);
}

/* One arena has freed; the other one, whose allocation failed, gets it after a trim. */
static void trimming_serves_the_other_arena(void **state)
{
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    assert_int_equal(arenas_join(&heap.arenas), 0); /* the first arena is taken: ... */
    int first = arenas_flags_of_caller(&heap.arenas).alloc;
    struct worker worker = {.heap = &heap, .random = SEED};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, churn, &worker), 0);
    pthread_join(thread, NULL); /* ... so this made the second */
    assert_int_equal(heap.arenas.count, 2);
    int second = MALLOCX_ARENA(heap.arenas.arena[1].index) | MALLOCX_TCACHE_NONE;

    enum { MOST = 64 };
    const size_t size = (size_t)1 << 20;
    void *blocks[MOST];
    size_t count = 0;
    while (count < MOST && (blocks[count] = mallocx(size, first)) != NULL)
        count++;
    assert_true(count > MOST / 2 && count < MOST);
    for (size_t i = 0; i < count; i++)
        dallocx(blocks[i], MALLOCX_TCACHE_NONE);
    assert_null(mallocx(30 * size, second)); /* dirty pages of the first are in the way */
    arenas_trim(&heap.arenas);
    void *block = mallocx(30 * size, second);
    assert_non_null(block);
    assert_true(region_holds(&heap.region, block, 30 * size));
    close_heap(&heap);
}

static void threads_share_what_arenas_there_are(void **state)
{
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    assert_int_equal(arenas_join(&heap.arenas), 0);
    assert_int_equal(arenas_join(&heap.arenas), 0); /* again: no change */
    assert_int_equal(heap.arenas.arena[0].threads, 1);
    struct arenas_flags joined = arenas_flags_of_caller(&heap.arenas);
    assert_int_not_equal(joined.free, MALLOCX_TCACHE_NONE);
    arenas_leave(&heap.arenas);
    arenas_leave(&heap.arenas);
    assert_int_equal(heap.arenas.arena[0].threads, 0);
    struct arenas_flags outside = arenas_flags_of_caller(&heap.arenas);
    assert_int_equal(outside.free, MALLOCX_TCACHE_NONE);
    void *block = mallocx(64, outside.alloc);
    assert_true(region_holds(&heap.region, block, 64));
    close_heap(&heap); /* with the block still allocated */
}

/* jemalloc has some thousand caches to give; threads may come and go for ever. */
static void caches_are_given_back(void **state)
{
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(arenas_join(&heap.arenas), 0);
        arenas_leave(&heap.arenas);
    }
    close_heap(&heap);
}

/* jemalloc asks some of these never, as the others are answered: ask for it. */
static void hooks_promise_nothing_they_do_not_do(void **state)
{
    struct heap heap;
    open_heap(&heap, *(enum metadata_place *)*state, GROW_LIMIT);
    extent_hooks_t *table = &heap.hooks.table;
    bool zero = false, commit = false;
    const size_t page = REGION_PAGE, size = 4 * REGION_PAGE;
    assert_null(table->alloc(table, NULL, size, page, &zero, &commit, 0));
    commit = true;
    char *extent = table->alloc(table, NULL, size, 8 * page, &zero, &commit, 0);
    assert_true(region_holds(&heap.region, extent, size) && commit);
    assert_int_equal((uintptr_t)extent % (8 * page), 0);
    memset(extent, 0xa5, size);
    assert_true(table->commit(table, extent, size, 0, page, 0));
    assert_true(table->decommit(table, extent, size, 0, page, 0));
    assert_true(table->purge_lazy(table, extent, size, 0, page, 0));
    assert_true(table->purge_forced(table, extent, size, 0, page, 0));
    assert_true(all_are((unsigned char *)extent, size, 0xa5));
    assert_false(table->split(table, extent, size, page, 3 * page, true, 0));
    assert_false(table->merge(table, extent, page, extent + page, 3 * page, true, 0));
    assert_false(table->dalloc(table, extent, page, true, 0));
    table->destroy(table, extent + page, 3 * page, true, 0);
    zero = false;
    assert_ptr_equal(table->alloc(table, extent, size, page, &zero, &commit, 0), extent);
    assert_false(zero);
    assert_false(table->dalloc(table, extent, size, true, 0));
    close_heap(&heap);
}

static void jemalloc_is_malloc_here(void **state)
{
    (void)state;
    assert_false(arenas_can_bind());
}

int main(void)
{
    static enum metadata_place dram = METADATA_IN_DRAM, region = METADATA_IN_REGION;
#define BOTH(test)                                                                       \
    {#test ", metadata in DRAM", test, NULL, NULL, &dram},                               \
    {                                                                                    \
#test ", metadata in the region", test, NULL, NULL, &region                      \
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jemalloc_is_malloc_here),
        BOTH(every_extent_lies_in_the_region),
        BOTH(alignment_reaches_the_region),
        BOTH(arenas_get_what_they_need_and_no_more),
        BOTH(purged_extents_return_to_the_region),
        BOTH(metadata_lies_where_it_was_wanted),
        BOTH(a_full_region_gives_null),
        BOTH(fullness_leaves_no_trace),
        BOTH(trimming_serves_the_other_arena),
        BOTH(threads_share_what_arenas_there_are),
        BOTH(caches_are_given_back),
        BOTH(hooks_promise_nothing_they_do_not_do),
    };
    return cmocka_run_group_tests_name("arenas", tests, enter_folder, leave_folder);
}
