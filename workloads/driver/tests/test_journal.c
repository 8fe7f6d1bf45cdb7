// SPDX-License-Identifier: Apache-2.0
/*
 * journal.c: the format, each step of an operation, and the claim of its
 * header, that at any instant of a SIGKILL it is decidable what was
 * acknowledged.  The last is tested with a toy allocator, an array in shared
 * memory that outlives the killed process: its slots must be as the journal
 * says, but for the operation in flight of each thread.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver.h"
#include "journal.h"

enum {
    toy_threads = 2,
    toy_slots = 32, /* each thread has its own half */
    rounds = 80,
};

static char folder[64];
static char path[96];
static const struct nvd_geometry geometry = {.slots = toy_slots,
                                             .inner = 3,
                                             .slot_size = 8,
                                             .threads = toy_threads,
                                             .heap_size = 1 << 20};

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test-journal-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/journal", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void ids_name_outer_and_inner_slots(void **state)
{
    (void)state;
    struct nvd_journal journal;
    assert_int_equal(nvd_journal_create(&journal, path, &geometry), 0);
    assert_int_equal(nvd_journal_ids(&journal), toy_slots * 4);
    for (uint32_t outer = 0; outer < toy_slots; outer++) {
        assert_int_equal(nvd_journal_outer(&journal, outer), outer);
        assert_false(nvd_journal_is_inner(&journal, outer));
        for (uint32_t j = 0; j < geometry.inner; j++) {
            uint32_t id = nvd_journal_inner(&journal, outer, j);
            assert_true(nvd_journal_is_inner(&journal, id));
            assert_int_equal(nvd_journal_outer(&journal, id), outer);
        }
    }
    assert_string_equal(nvd_journal_name(&journal, 7), "slot 7");
    assert_string_equal(nvd_journal_name(&journal, nvd_journal_inner(&journal, 7, 2)),
                        "slot 7.2");
    nvd_journal_close(&journal);
}

static void only_a_whole_journal_is_opened(void **state)
{
    (void)state;
    struct nvd_journal journal;
    assert_int_equal(nvd_journal_open(&journal, path), ENOENT);
    assert_int_equal(nvd_journal_create(&journal, path, &geometry), 0);
    size_t length = journal.length;
    nvd_journal_close(&journal);
    assert_int_equal(nvd_journal_create(&journal, path, &geometry), EEXIST);
    assert_int_equal(nvd_journal_open(&journal, path), 0);
    journal.header->version++;
    nvd_journal_close(&journal);
    assert_int_equal(nvd_journal_open(&journal, path), EUCLEAN);
    assert_int_equal(truncate(path, (off_t)length - 1), 0);
    assert_int_equal(nvd_journal_open(&journal, path), EUCLEAN);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(nvd_journal_open(&journal, path), EUCLEAN);
    struct nvd_geometry huge = geometry;
    huge.slots = NVD_SLOTS_MAX + 1;
    unlink(path);
    assert_int_equal(nvd_journal_create(&journal, path, &huge), EINVAL);
}

static bool in_flight(const struct nvd_journal *journal, enum nvd_op *op, uint32_t *id)
{
    uint64_t size;
    return nvd_journal_in_flight(journal, 0, op, id, &size);
}

static void an_operation_is_in_flight_until_acknowledged(void **state)
{
    (void)state;
    struct nvd_journal journal;
    enum nvd_op op;
    uint32_t id;
    assert_int_equal(nvd_journal_create(&journal, path, &geometry), 0);
    assert_false(in_flight(&journal, &op, &id));
    nvd_journal_begin(&journal, 0, NVD_OP_ALLOC, 5, 100);
    assert_true(in_flight(&journal, &op, &id));
    assert_int_equal(op, NVD_OP_ALLOC);
    assert_int_equal(id, 5);
    assert_false(nvd_journal_state(&journal, 5).full);
    nvd_journal_ack_alloc(&journal, 0, 112, 4096);
    assert_false(in_flight(&journal, &op, &id));
    struct nvd_slot_state slot = nvd_journal_state(&journal, 5);
    assert_true(slot.full && !slot.persisted && !slot.container);
    assert_int_equal(slot.seq, 1);
    assert_int_equal(journal.records[5].size, 100);
    assert_int_equal(journal.records[5].usable, 112);
    assert_int_equal(journal.records[5].offset, 4096);
    nvd_journal_persisted(&journal, 5, true);
    slot = nvd_journal_state(&journal, 5);
    assert_true(slot.full && slot.persisted && slot.container);
    nvd_journal_begin(&journal, 0, NVD_OP_FREE, 5, 0);
    assert_true(in_flight(&journal, &op, &id));
    assert_int_equal(op, NVD_OP_FREE);
    nvd_journal_cancel(&journal, 0);
    assert_false(in_flight(&journal, &op, &id));
    assert_true(nvd_journal_state(&journal, 5).container);
    nvd_journal_begin(&journal, 0, NVD_OP_FREE, 5, 0);
    nvd_journal_ack_free(&journal, 0);
    slot = nvd_journal_state(&journal, 5);
    assert_false(slot.full || slot.persisted || slot.container);
    assert_int_equal(slot.seq, 2);
    assert_int_equal(nvd_journal_acknowledged(&journal), 2);
    nvd_journal_close(&journal);
}

/* A kill between steps 4 and 5: the op is still set, the record already new. */
static void an_acknowledged_operation_is_not_in_flight(void **state)
{
    (void)state;
    struct nvd_journal journal;
    enum nvd_op op;
    uint32_t id;
    assert_int_equal(nvd_journal_create(&journal, path, &geometry), 0);
    nvd_journal_begin(&journal, 0, NVD_OP_ALLOC, 5, 100);
    nvd_journal_ack_alloc(&journal, 0, 112, -1);
    atomic_store(&journal.inflight[0].op, NVD_OP_ALLOC);
    assert_false(in_flight(&journal, &op, &id));
    nvd_journal_close(&journal);
}

/* ---- the toy allocator ---- */

struct toy {
    _Atomic uint64_t slots[toy_slots]; /* sequence number of the block, 0: empty */
    bool acknowledge_early;            /* the planted fault */
};

struct toy_worker {
    struct toy *toy;
    struct nvd_journal *journal;
    uint32_t thread;
    uint64_t seed;
};

static void *toy_work(void *argument)
{
    struct toy_worker *worker = argument;
    struct toy *toy = worker->toy;
    struct nvd_journal *journal = worker->journal;
    struct nvd_random random;
    nvd_random_seed(&random, worker->seed);
    for (;;) {
        uint32_t half = toy_slots / toy_threads;
        uint32_t id = worker->thread * half + (uint32_t)nvd_random_below(&random, half);
        struct nvd_slot_state slot = nvd_journal_state(journal, id);
        uint64_t value = slot.full ? 0 : slot.seq + 1;
        nvd_journal_begin(journal, worker->thread, slot.full ? NVD_OP_FREE : NVD_OP_ALLOC,
                          id, 64);
        if (!toy->acknowledge_early)
            atomic_store_explicit(&toy->slots[id], value, memory_order_relaxed);
        if (slot.full)
            nvd_journal_ack_free(journal, worker->thread);
        else
            nvd_journal_ack_alloc(journal, worker->thread, 64, -1);
        if (toy->acknowledge_early)
            atomic_store_explicit(&toy->slots[id], value, memory_order_relaxed);
        if (!slot.full)
            nvd_journal_persisted(journal, id, false);
    }
    return NULL;
}

static void toy_life(struct toy *toy, uint64_t seed)
{
    struct nvd_journal journal;
    struct toy_worker workers[toy_threads];
    pthread_t thread;
    if (nvd_journal_open(&journal, path) != 0)
        _exit(1);
    for (uint32_t i = 0; i < toy_threads; i++)
        workers[i] = (struct toy_worker){toy, &journal, i, seed + i};
    if (pthread_create(&thread, NULL, toy_work, &workers[1]) == 0)
        toy_work(&workers[0]);
    _exit(1);
}

/* Slots whose state contradicts the journal; resolves what is in flight. */
static unsigned contradictions(struct toy *toy, struct nvd_journal *journal)
{
    unsigned found = 0;
    bool excused[toy_slots] = {false};
    for (uint32_t thread = 0; thread < toy_threads; thread++) {
        enum nvd_op op;
        uint32_t id;
        uint64_t size;
        if (!nvd_journal_in_flight(journal, thread, &op, &id, &size)) {
            nvd_journal_cancel(journal, thread);
            continue;
        }
        excused[id] = true;
        uint64_t seq = journal->inflight[thread].seq;
        struct nvd_slot_state before = nvd_journal_state(journal, id);
        if (op == NVD_OP_ALLOC && toy->slots[id] == seq)
            nvd_journal_ack_alloc(journal, thread, 64, -1);
        else if (op == NVD_OP_FREE && toy->slots[id] == 0)
            nvd_journal_ack_free(journal, thread);
        else {
            found += (toy->slots[id] != 0) != before.full;
            nvd_journal_cancel(journal, thread);
        }
    }
    for (uint32_t id = 0; id < toy_slots; id++) {
        struct nvd_slot_state slot = nvd_journal_state(journal, id);
        if (!excused[id])
            found += (toy->slots[id] != 0) != slot.full;
    }
    return found;
}

/* Kills a toy `rounds` times on one journal; returns all contradictions. */
static unsigned live_and_die(bool acknowledge_early, uint64_t *operations)
{
    struct nvd_journal journal;
    struct nvd_random random;
    unsigned found = 0;
    struct toy *toy = mmap(NULL, sizeof *toy, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(toy != MAP_FAILED);
    toy->acknowledge_early = acknowledge_early;
    assert_int_equal(nvd_journal_create(&journal, path, &geometry), 0);
    nvd_random_seed(&random, 11);
    for (int round = 0; round < rounds; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            toy_life(toy, nvd_random_next(&random) + (uint64_t)round);
        struct timespec nap = {0, 1000 * 1000 +
                                      (long)nvd_random_below(&random, 3000 * 1000)};
        nanosleep(&nap, NULL);
        int status;
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        found += contradictions(toy, &journal);
        /* A contradiction found once is not to be counted again. */
        for (uint32_t id = 0; id < toy_slots; id++)
            toy->slots[id] = nvd_journal_state(&journal, id).full
                                 ? nvd_journal_state(&journal, id).seq
                                 : 0;
    }
    *operations = nvd_journal_acknowledged(&journal);
    nvd_journal_close(&journal);
    munmap(toy, sizeof *toy);
    return found;
}

static void after_any_sigkill_it_is_decidable_what_was_acknowledged(void **state)
{
    (void)state;
    uint64_t operations;
    assert_int_equal(live_and_die(false, &operations), 0);
    assert_true(operations > 1000); /* they did work */
}

/* The same check finds an allocator that acknowledges before it acts. */
static void an_early_acknowledgement_is_found(void **state)
{
    (void)state;
    uint64_t operations;
    assert_true(live_and_die(true, &operations) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ids_name_outer_and_inner_slots, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(only_a_whole_journal_is_opened, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(an_operation_is_in_flight_until_acknowledged,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_acknowledged_operation_is_not_in_flight,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(
            after_any_sigkill_it_is_decidable_what_was_acknowledged, make_folder,
            remove_folder),
        cmocka_unit_test_setup_teardown(an_early_acknowledgement_is_found, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
