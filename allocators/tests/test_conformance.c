/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_conformance.c - holds any adapter to adapter.h.
 *
 *   test_conformance ADAPTER.so          heaps go to $NVC_TEST_DIR, else /dev/shm
 *
 * It tests the contract, not the allocator: each promise of adapter.h once, the
 * crash ones with a dozen kills.  The fault campaigns do the rest.  A volatile
 * adapter gets the tests that its capabilities leave, and must refuse open().
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "contract_heap.h"

static struct contract contract;

static int remove_heap(void **state)
{
    (void)state;
    unlink(contract.path);
    return 0;
}

/* --- what an adapter says of itself --------------------------------------- */

static void description_is_complete(void **state)
{
    (void)state;
    const struct nvc_adapter *adapter = contract.adapter;
    assert_int_equal(adapter->version, NVC_ADAPTER_VERSION);
    assert_int_equal(adapter->struct_size, sizeof *adapter);
    assert_true(strlen(adapter->name) > 0);
    assert_int_equal(strspn(adapter->name, "abcdefghijklmnopqrstuvwxyz0123456789-"),
                     strlen(adapter->name));
    assert_true(strlen(adapter->library_version()) > 0);
    assert_true(contract_can(&contract, NVC_PERSISTENT) !=
                contract_can(&contract, NVC_VOLATILE));
    assert_true(adapter->slot_size >= 8 && adapter->slot_size % 8 == 0);
    assert_true(contract_can(&contract, NVC_WALK) == (adapter->walk != NULL));
}

static void stats_are_plausible(void **state)
{
    (void)state;
    static const char *const instructions[] = {"clwb", "clflushopt", "clflush", "none",
                                               ""};
    struct contract_heap heap = contract_create(&contract);
    for (size_t i = 0; i < 1000; i++) {
        contract_alloc(&heap, i, 1000);
    }
    struct nvc_stats stats;
    memset(&stats, 0xa5, sizeof stats);
    heap.adapter->stats(heap.heap, &stats);
    if (contract_can(&contract, NVC_PERSISTENT)) {
        assert_true(stats.heap_bytes == contract.size);
    }
    if (stats.used_bytes != UINT64_MAX) {
        assert_true(stats.used_bytes >= 1000 * 1000);
        assert_true(stats.used_bytes <= stats.heap_bytes);
    }
    if (stats.live_bytes != UINT64_MAX) {
        assert_true(stats.live_bytes >= 1000 * 1000);
        assert_true(stats.live_bytes <= stats.used_bytes);
    }
    assert_true(stats.map_sync <= 1);
    bool known = false;
    for (size_t i = 0; i < sizeof instructions / sizeof *instructions; i++) {
        known |= strncmp(stats.flush, instructions[i], sizeof stats.flush) == 0;
    }
    assert_true(known);
    contract_close(&heap);
}

/* --- slots and blocks ------------------------------------------------------ */

static void new_slots_are_zero(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    for (size_t i = 0; i < heap.slots * heap.adapter->slot_size; i++) {
        assert_int_equal(heap.table[i], 0);
    }
    for (size_t i = 0; i < heap.slots; i++) {
        struct nvc_block block = contract_read(&heap, i);
        assert_null(block.address);
        assert_int_equal(block.usable, 0);
    }
    assert_int_equal(contract_consistent(&heap, 0), 0);
    contract_close(&heap);
}

static const size_t sizes[] = {1,    7,    8,     16,     17,     63,
                               64,   65,   100,   256,    257,    1000,
                               4096, 5000, 32768, 100000, 300000, 1048576};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void blocks_hold_what_is_written(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    enum { ROUNDS = 8 };
    for (size_t i = 0; i < ROUNDS * SIZES; i++) {
        contract_alloc(&heap, i, sizes[i % SIZES]);
        struct nvc_block block = contract_read(&heap, i);
        assert_non_null(block.address);
        assert_true(block.usable >= sizes[i % SIZES]);
        assert_int_equal((uintptr_t)block.address % 8, 0);
        if (heap.adapter->address != NULL) {
            void *address = heap.adapter->address(heap.heap, contract_slot(&heap, i));
            assert_ptr_equal(address, block.address);
        }
        contract_fill(&heap, block, block.usable, i, 1);
    }
    assert_int_equal(contract_consistent(&heap, 0), ROUNDS * SIZES);
    for (size_t i = 0; i < ROUNDS * SIZES; i += 2) {
        contract_free(&heap, i);
        assert_null(contract_read(&heap, i).address);
        if (heap.adapter->address != NULL) {
            assert_null(heap.adapter->address(heap.heap, contract_slot(&heap, i)));
        }
    }
    for (size_t i = 1; i < ROUNDS * SIZES; i += 2) {
        struct nvc_block block = contract_read(&heap, i);
        assert_true(contract_holds(block, block.usable, i, 1));
    }
    assert_int_equal(contract_consistent(&heap, 0), ROUNDS * SIZES / 2);
    contract_close(&heap);
}

static void misuse_is_refused(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    void *slot = contract_slot(&heap, 3);
    contract_expect(&contract, EINVAL, heap.adapter->free_from(heap.heap, slot),
                    "free_from of an empty slot");
    contract_expect(&contract, EINVAL, heap.adapter->alloc_to(heap.heap, slot, 0),
                    "alloc_to of 0 bytes");
    contract_alloc(&heap, 3, 64);
    struct nvc_block before = contract_read(&heap, 3);
    contract_expect(&contract, EINVAL, heap.adapter->alloc_to(heap.heap, slot, 64),
                    "alloc_to of a slot that is taken");
    assert_ptr_equal(contract_read(&heap, 3).address, before.address);
    assert_int_equal(contract_consistent(&heap, 0), 1);
    contract_close(&heap);
}

static void impossible_sizes_are_enomem(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    const size_t impossible[] = {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2 + 1,
                                 (size_t)1 << 56};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        int error =
            heap.adapter->alloc_to(heap.heap, contract_slot(&heap, 0), impossible[i]);
        contract_expect(&contract, ENOMEM, error, "alloc_to of an impossible size");
        assert_null(contract_read(&heap, 0).address);
    }
    contract_alloc(&heap, 0, 64);
    contract_close(&heap);
}

/* Blocks of slot `index` hold a slot at their start, whose block does too, ... */
static void *nested_slot(const struct contract_heap *heap, size_t index, unsigned level)
{
    void *slot = contract_slot(heap, index);
    while (level-- > 0) {
        slot = heap->adapter->read(heap->heap, slot).address;
        assert_non_null(slot);
    }
    return slot;
}

enum { CHAINS = 16, LEVELS = 12 };

static void build_chains(const struct contract_heap *heap)
{
    for (size_t i = 0; i < CHAINS; i++) {
        for (unsigned level = 0; level < LEVELS; level++) {
            void *slot = nested_slot(heap, i, level);
            assert_int_equal(heap->adapter->alloc_to(heap->heap, slot, 40 + 24 * level),
                             0);
            void *place = nested_slot(heap, i, level + 1);
            memset(place, 0, heap->adapter->slot_size);
            heap->adapter->persist(heap->heap, place, heap->adapter->slot_size);
        }
    }
}

static void nested_slots_work(void **state)
{
    (void)state;
    if (!contract_can(&contract, NVC_NESTED_SLOTS)) {
        skip();
    }
    struct contract_heap heap = contract_create(&contract);
    for (int round = 0; round < 3; round++) {
        build_chains(&heap);
        assert_int_equal(contract_consistent(&heap, CHAINS * (LEVELS - 1)), CHAINS);
        if (contract_can(&contract, NVC_PERSISTENT)) {
            contract_close(&heap);
            heap = contract_open(&contract);
        }
        for (size_t i = 0; i < CHAINS; i++) {
            for (unsigned level = LEVELS; level-- > 0;) {
                void *slot = nested_slot(&heap, i, level);
                assert_int_equal(heap.adapter->free_from(heap.heap, slot), 0);
            }
        }
        assert_int_equal(contract_consistent(&heap, 0), 0);
    }
    contract_close(&heap);
}

/* --- threads --------------------------------------------------------------- */

/* One thread allocates and publishes, the other frees what it finds: each slot
   changes hands through its flag, so no two ever work on one slot. */
struct handover {
    struct contract_heap *heap;
    _Atomic unsigned char full[CONTRACT_SLOTS];
    size_t rounds;
    _Atomic size_t wrong;
};

static void enter(struct contract_heap *heap)
{
    if (heap->adapter->thread_enter != NULL) {
        heap->adapter->thread_enter(heap->heap);
    }
}

static void leave(struct contract_heap *heap)
{
    if (heap->adapter->thread_leave != NULL) {
        heap->adapter->thread_leave(heap->heap);
    }
}

enum { HANDED = 512 };

static void *produce(void *argument)
{
    struct handover *handover = argument;
    struct contract_heap *heap = handover->heap;
    enter(heap);
    for (size_t n = 0; n < handover->rounds * HANDED; n++) {
        size_t i = n % HANDED;
        while (atomic_load(&handover->full[i]) != 0) {
            sched_yield();
        }
        size_t size = 16 + n % 500;
        if (heap->adapter->alloc_to(heap->heap, contract_slot(heap, i), size) != 0) {
            atomic_fetch_add(&handover->wrong, 1);
            break;
        }
        contract_fill(heap, contract_read(heap, i), 16, i, 7);
        atomic_store(&handover->full[i], 1);
    }
    leave(heap);
    return NULL;
}

static void *consume(void *argument)
{
    struct handover *handover = argument;
    struct contract_heap *heap = handover->heap;
    enter(heap);
    for (size_t n = 0; n < handover->rounds * HANDED; n++) {
        size_t i = n % HANDED;
        while (atomic_load(&handover->full[i]) == 0) {
            if (atomic_load(&handover->wrong) != 0) {
                leave(heap);
                return NULL;
            }
            sched_yield();
        }
        if (!contract_holds(contract_read(heap, i), 16, i, 7) ||
            heap->adapter->free_from(heap->heap, contract_slot(heap, i)) != 0) {
            atomic_fetch_add(&handover->wrong, 1);
        }
        atomic_store(&handover->full[i], 0);
    }
    leave(heap);
    return NULL;
}

static void threads_free_each_others_blocks(void **state)
{
    (void)state;
    if (!contract_can(&contract, NVC_THREADS)) {
        skip();
    }
    struct contract_heap heap = contract_create(&contract);
    static struct handover handover;
    handover = (struct handover){.heap = &heap, .rounds = 200};
    pthread_t producer, consumer;
    assert_int_equal(pthread_create(&producer, NULL, produce, &handover), 0);
    assert_int_equal(pthread_create(&consumer, NULL, consume, &handover), 0);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    assert_int_equal(atomic_load(&handover.wrong), 0);
    assert_int_equal(contract_consistent(&heap, 0), 0);
    contract_close(&heap);
}

/* --- files that are no heap ------------------------------------------------ */

/* open() in a child, so that a crash is a failed test and not a dead one. */
static void expect_refused(int first, int second, const char *what)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct nvc_options options = {.extra = ""};
        struct nvc_heap *heap = NULL;
        int error = contract.adapter->open(contract.path, &options, &heap);
        const char *reason = contract.adapter->last_error();
        if (error != first && error != second) {
            fprintf(stderr, "open of %s gave %d (%s): %s\n", what, error, strerror(error),
                    reason);
            _exit(1);
        }
        _exit(reason != NULL && reason[0] != '\0' ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (status != 0) {
        fail_msg("open of %s: wait status %#x", what, (unsigned)status);
    }
}

static void write_file(const void *bytes, size_t length, size_t total)
{
    int fd = open(contract.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, 0), length);
    assert_int_equal(ftruncate(fd, (off_t)total), 0);
    close(fd);
}

static void foreign_files_are_refused(void **state)
{
    (void)state;
    expect_refused(ENOENT, ENOENT, "no file");
    static unsigned char noise[65536];
    uint64_t seed = 42;
    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (unsigned char)contract_random(&seed);
    }
    const size_t lengths[] = {0, 1, 100, 4096, contract.size};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t length = lengths[i] < sizeof noise ? lengths[i] : sizeof noise;
        write_file(noise, length, lengths[i]);
        expect_refused(EMEDIUMTYPE, EUCLEAN, "a file of noise");
        write_file(noise, 0, lengths[i]);
        expect_refused(EMEDIUMTYPE, EUCLEAN, "a file of zeros");
    }
    assert_int_equal(unlink(contract.path), 0);
    assert_int_equal(mkdir(contract.path, 0700), 0);
    expect_refused(EMEDIUMTYPE, EISDIR, "a folder");
    assert_int_equal(rmdir(contract.path), 0);
}

static void truncated_heaps_are_refused(void **state)
{
    (void)state;
    const size_t lengths[] = {contract.size - 4096,
                              contract.size - contract.size / 8,
                              contract.size / 2,
                              contract.adapter->min_size,
                              65536,
                              4096,
                              100,
                              0};
    struct contract_heap heap = contract_create(&contract);
    for (size_t i = 0; i < 100; i++) {
        contract_alloc(&heap, i, 100000);
    }
    contract_close(&heap);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (lengths[i] < contract.size) {
            assert_int_equal(truncate(contract.path, (off_t)lengths[i]), 0);
            char what[64];
            snprintf(what, sizeof what, "a heap cut to %zu bytes", lengths[i]);
            expect_refused(EUCLEAN, EMEDIUMTYPE, what);
        }
    }
}

static void create_keeps_an_existing_file(void **state)
{
    (void)state;
    static const char text[] = "somebody's only copy";
    write_file(text, sizeof text, sizeof text);
    struct nvc_options options = {
        .size = contract.size, .slots = CONTRACT_SLOTS, .extra = ""};
    struct nvc_heap *made = NULL;
    contract_expect(&contract, EEXIST,
                    contract.adapter->create(contract.path, &options, &made),
                    "create over a file");
    char found[sizeof text] = {0};
    int fd = open(contract.path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, sizeof text);
    assert_int_equal(read(fd, found, sizeof found), sizeof found);
    close(fd);
    assert_string_equal(found, text);
}

static void create_says_why_it_cannot(void **state)
{
    (void)state;
    struct nvc_heap *made = NULL;
    struct nvc_options small = {
        .size = contract.adapter->min_size - 1, .slots = 1, .extra = ""};
    int error = contract.adapter->create(contract.path, &small, &made);
    assert_true(error != 0);
    contract_expect(&contract, error, error, "create below min_size");
    assert_int_equal(access(contract.path, F_OK), -1);

    struct nvc_options crowded = {
        .size = contract.size, .slots = contract.size, .extra = ""};
    error = contract.adapter->create(contract.path, &crowded, &made);
    assert_true(error == ENOMEM || error == EINVAL);
    contract_expect(&contract, error, error, "create with too many slots");
    assert_int_equal(access(contract.path, F_OK), -1);

    struct nvc_options good = {.size = contract.size, .slots = 1, .extra = ""};
    char nowhere[400];
    snprintf(nowhere, sizeof nowhere, "%s/no/such/folder", contract.folder);
    contract_expect(&contract, ENOENT, contract.adapter->create(nowhere, &good, &made),
                    "create in a missing folder");
}

static void an_open_heap_is_busy(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    expect_refused(EBUSY, EBUSY, "a heap that is open");
    contract_alloc(&heap, 0, 64);
    contract_close(&heap);
    heap = contract_open(&contract);
    assert_int_equal(contract_consistent(&heap, 0), 1);
    contract_close(&heap);
}

static void volatile_heaps_cannot_be_opened(void **state)
{
    (void)state;
    struct nvc_options options = {.extra = ""};
    struct nvc_heap *heap = NULL;
    contract_expect(&contract, ENOTSUP,
                    contract.adapter->open(contract.path, &options, &heap), "open");
}

/* --- survival -------------------------------------------------------------- */

static void a_closed_heap_keeps_everything(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    for (size_t i = 0; i < 1000; i++) {
        contract_alloc(&heap, i, 1 + i);
        contract_fill(&heap, contract_read(&heap, i), 1 + i, i, 1);
    }
    for (int generation = 0; generation < 4; generation++) {
        contract_close(&heap);
        heap = contract_open(&contract);
        assert_int_equal(contract_consistent(&heap, 0), 1000);
        for (size_t i = 0; i < 1000; i++) {
            struct nvc_block block = contract_read(&heap, i);
            assert_true(block.usable >= 1 + i);
            assert_true(contract_holds(block, 1 + i, i, 1));
        }
    }
    contract_close(&heap);
}

static size_t fill_up(const struct contract_heap *heap, size_t size)
{
    size_t count = 0;
    int error = 0;
    while (count < heap->slots) {
        error = heap->adapter->alloc_to(heap->heap, contract_slot(heap, count), size);
        if (error != 0) {
            break;
        }
        count++;
    }
    contract_expect(&contract, ENOMEM, error, "alloc_to of a full heap");
    assert_null(contract_read(heap, count).address);
    return count;
}

static void a_full_heap_works_on(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    size_t fresh = fill_up(&heap, 8000);
    assert_true(fresh * 8000 > contract.size / 4);
    assert_int_equal(contract_consistent(&heap, 0), fresh);
    contract_free(&heap, fresh / 2);
    contract_alloc(&heap, fresh / 2, 8000);
    contract_close(&heap);
    heap = contract_open(&contract);
    for (size_t i = 0; i < fresh; i++) {
        contract_free(&heap, i);
    }
    assert_true(fill_up(&heap, 8000) >= fresh);
    contract_close(&heap);
}

/* Space that small blocks leave serves a large one: at once, or, where emptied slabs
   come back when the heap is opened, then. */
static void a_drained_heap_serves_large_blocks(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    const size_t large = contract.size / 3;
    contract_alloc(&heap, 0, large); /* a fresh heap serves it, ... */
    contract_close(&heap);
    assert_int_equal(unlink(contract.path), 0);
    heap = contract_create(&contract);
    for (int round = 0; round < 3; round++) {
        size_t count = 0;
        while (count < heap.slots &&
               heap.adapter->alloc_to(heap.heap, contract_slot(&heap, count),
                                      200 + count * 37 % 8000) == 0) {
            count++;
        }
        assert_true(count > heap.slots / 4);
        for (size_t i = 0; i < count; i++) {
            contract_free(&heap, i);
        }
        if (heap.adapter->alloc_to(heap.heap, contract_slot(&heap, 0), large) != 0) {
            contract_close(&heap);
            heap = contract_open(&contract);
            contract_alloc(&heap, 0, large); /* ... so one that was in use must, too */
        }
        contract_free(&heap, 0);
    }
    contract_close(&heap);
}

/* What the child has done, as far as it was told: shared memory that outlives it.
   A slot's sequence is 0 while it is empty; `written` is the last sequence whose
   content was persisted.  `busy` is 1 + the slot of the operation in flight. */
struct journal {
    _Atomic uint64_t busy;
    _Atomic uint64_t sequence[256];
    _Atomic uint64_t written[256];
    _Atomic uint64_t operations;
};
enum { JOURNALLED = 256 };

static size_t journalled_size(size_t slot, uint64_t sequence)
{
    uint64_t seed = slot << 32 | sequence;
    uint64_t draw = contract_random(&seed);
    return 1 + draw % (draw % 16 == 0 ? 40000 : 700);
}

/* In the child, where a failed assertion would run the parent's further tests. */
static void child_needs(int error, const char *call)
{
    if (error != 0) {
        fprintf(stderr, "%s in the child: %s: %s\n", call, strerror(error),
                contract.adapter->last_error());
        _exit(1);
    }
}

static void churn_until_killed(struct journal *journal, uint64_t seed)
{
    struct contract_heap heap = {.adapter = contract.adapter};
    struct nvc_options options = {.extra = ""};
    child_needs(heap.adapter->open(contract.path, &options, &heap.heap), "open");
    heap.table = heap.adapter->slots(heap.heap, &heap.slots);
    enter(&heap);
    for (uint64_t n = 1;; n++) {
        size_t i = contract_random(&seed) % JOURNALLED;
        void *slot = contract_slot(&heap, i);
        atomic_store(&journal->busy, i + 1);
        if (atomic_load(&journal->sequence[i]) != 0) {
            child_needs(heap.adapter->free_from(heap.heap, slot), "free_from");
            atomic_store(&journal->sequence[i], 0);
            atomic_store(&journal->busy, 0);
        } else {
            uint64_t sequence = (seed & UINT32_MAX) | 1;
            size_t size = journalled_size(i, sequence);
            int error = heap.adapter->alloc_to(heap.heap, slot, size);
            if (error == ENOMEM) { /* fragmented: a legal answer */
                atomic_store(&journal->busy, 0);
                continue;
            }
            child_needs(error, "alloc_to");
            atomic_store(&journal->sequence[i], sequence);
            atomic_store(&journal->busy, 0);
            contract_fill(&heap, contract_read(&heap, i), size, i, sequence);
            atomic_store(&journal->written[i], sequence);
        }
        atomic_store(&journal->operations, n);
    }
}

/* Holds the reopened heap to the journal, then makes the journal say what the
   operation in flight came to. */
static void verify_against(struct journal *journal)
{
    struct contract_heap heap = contract_open(&contract);
    size_t busy = atomic_load(&journal->busy);
    size_t live = 0;
    for (size_t i = 0; i < JOURNALLED; i++) {
        struct nvc_block block = contract_read(&heap, i);
        uint64_t sequence = atomic_load(&journal->sequence[i]);
        live += block.address != NULL;
        if (i + 1 != busy) {
            assert_int_equal(block.address != NULL, sequence != 0);
        }
        if (block.address != NULL && sequence != 0) {
            size_t size = journalled_size(i, sequence);
            assert_true(block.usable >= size);
            if (atomic_load(&journal->written[i]) == sequence) {
                assert_true(contract_holds(block, size, i, sequence));
            }
        }
    }
    if (busy != 0 && contract_read(&heap, busy - 1).address != NULL) {
        contract_free(&heap, busy - 1);
        live--;
    }
    if (busy != 0) {
        atomic_store(&journal->sequence[busy - 1], 0);
        atomic_store(&journal->busy, 0);
    }
    assert_int_equal(contract_consistent(&heap, 0), live);
    contract_close(&heap);
}

static void a_killed_heap_keeps_what_was_acknowledged(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    contract_close(&heap);
    struct journal *journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(journal != MAP_FAILED);
    uint64_t seed = 20240229;
    for (int kill_number = 0; kill_number < 12; kill_number++) {
        atomic_store(&journal->operations, 0);
        uint64_t child_seed = contract_random(&seed);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            churn_until_killed(journal, child_seed);
        }
        int status = 0;
        while (atomic_load(&journal->operations) == 0 &&
               waitpid(child, &status, WNOHANG) == 0) {
            usleep(100);
        }
        usleep((useconds_t)(contract_random(&seed) % 5000));
        if (kill(child, SIGKILL) == 0) {
            waitpid(child, &status, 0);
        }
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            fail_msg("the child ended by itself: wait status %#x", (unsigned)status);
        }
        verify_against(journal);
    }
    munmap(journal, sizeof *journal);
}

/* A volatile adapter refuses to serve under another malloc, such as a sanitizer's. */
static bool cannot_be_had_here(void)
{
    struct nvc_options options = {.size = contract.size, .slots = 1, .extra = ""};
    struct nvc_heap *heap = NULL;
    if (!contract_can(&contract, NVC_VOLATILE)) {
        return false;
    }
    int error = contract.adapter->create(contract.path, &options, &heap);
    if (error == 0) {
        contract.adapter->close(heap);
    } else {
        fprintf(stderr, "skipped: %s\n", contract.adapter->last_error());
    }
    return error == ENOTSUP;
}

/* --- main ------------------------------------------------------------------ */

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s ADAPTER.so\n", argv[0]);
        return 2;
    }
    contract_load(&contract, argv[1]);
    if (cannot_be_had_here()) {
        contract_unload(&contract);
        return 77; /* meson's word for "skipped" */
    }
#define HEAP_TEST(test) cmocka_unit_test_setup_teardown(test, remove_heap, remove_heap)
    const struct CMUnitTest common[] = {
        HEAP_TEST(description_is_complete),
        HEAP_TEST(new_slots_are_zero),
        HEAP_TEST(blocks_hold_what_is_written),
        HEAP_TEST(misuse_is_refused),
        HEAP_TEST(impossible_sizes_are_enomem),
        HEAP_TEST(nested_slots_work),
        HEAP_TEST(stats_are_plausible),
        HEAP_TEST(threads_free_each_others_blocks),
    };
    const struct CMUnitTest persistent[] = {
        HEAP_TEST(foreign_files_are_refused),
        HEAP_TEST(truncated_heaps_are_refused),
        HEAP_TEST(create_keeps_an_existing_file),
        HEAP_TEST(create_says_why_it_cannot),
        HEAP_TEST(an_open_heap_is_busy),
        HEAP_TEST(a_closed_heap_keeps_everything),
        HEAP_TEST(a_full_heap_works_on),
        HEAP_TEST(a_drained_heap_serves_large_blocks),
    };
    const struct CMUnitTest consistent[] = {
        HEAP_TEST(a_killed_heap_keeps_what_was_acknowledged),
    };
    const struct CMUnitTest transient[] = {
        HEAP_TEST(volatile_heaps_cannot_be_opened),
    };
    int failed = cmocka_run_group_tests(common, NULL, NULL);
    failed += contract_can(&contract, NVC_PERSISTENT)
                  ? cmocka_run_group_tests(persistent, NULL, NULL)
                  : cmocka_run_group_tests(transient, NULL, NULL);
    if (contract_can(&contract, NVC_PERSISTENT) &&
        contract.adapter->consistency != NVC_CONSISTENCY_NONE) {
        failed += cmocka_run_group_tests(consistent, NULL, NULL);
    }
    contract_unload(&contract);
    return failed == 0 ? 0 : 1;
}
