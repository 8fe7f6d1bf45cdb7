// SPDX-License-Identifier: Apache-2.0
/*
 * churn.c - the work of churn.h.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "churn.h"
#include "driver.h"

enum {
    palette_sizes = 4,
    phase_ops_min = 64,
    phase_ops_span = 1024,
    container_share = 12, /* one in so many outer blocks that could be one */
};

struct churn {
    struct nvd_subject *subject;
    atomic_flag *locks; /* one a slot id */
    uint64_t ops_per_thread;
    uint64_t largest; /* bytes of one request */
    unsigned mix;     /* how much of large sizes, 0..3 */
    atomic_bool stop;
    pthread_mutex_t finding_lock;
    struct nvd_finding *finding;
};

struct worker {
    struct churn *churn;
    uint32_t index;
    struct nvd_random random;
    uint64_t phase_ends;   /* operation number */
    unsigned grow_percent; /* chance that an empty slot is filled, in this phase */
    size_t palette[palette_sizes];
    uint64_t done;
};

static bool try_lock(struct churn *churn, uint32_t id)
{
    return !atomic_flag_test_and_set_explicit(&churn->locks[id], memory_order_acquire);
}

static void unlock(struct churn *churn, uint32_t id)
{
    atomic_flag_clear_explicit(&churn->locks[id], memory_order_release);
}

/* The first complaint counts; all threads stop. */
static void complain(struct churn *churn, int error, const char *doing, const char *where)
{
    struct nvd_subject *subject = churn->subject;
    pthread_mutex_lock(&churn->finding_lock);
    if (churn->finding->verdict == NVD_VERDICT_OK)
        nvd_accuse(churn->finding, NVD_VERDICT_UNUSABLE, "%s %s failed: %s (%s)", doing,
                   where, strerror(error), subject->adapter->last_error());
    pthread_mutex_unlock(&churn->finding_lock);
    atomic_store(&churn->stop, true);
}

/* Log-uniform in [16, 512), [512, 16 K), [16 K, 256 K) or [256 K, largest). */
static size_t draw_size(struct worker *worker)
{
    static const unsigned shares[4][3] = {
        /* per mille beyond 512, 16 K, 256 K */
        {0, 0, 0},
        {120, 10, 1},
        {250, 40, 6},
        {500, 200, 40},
    };
    static const unsigned bits[5] = {4, 9, 14, 18, 23};
    struct nvd_random *random = &worker->random;
    const unsigned *share = shares[worker->churn->mix];
    uint64_t draw = nvd_random_below(random, 1000);
    unsigned range = draw < share[2] ? 3 : draw < share[1] ? 2 : draw < share[0] ? 1 : 0;
    unsigned low =
        bits[range] + (unsigned)nvd_random_below(random, bits[range + 1] - bits[range]);
    uint64_t size = (UINT64_C(1) << low) + nvd_random_below(random, UINT64_C(1) << low);
    /* Exact powers of two are what class boundaries are made of. */
    if (nvd_random_below(random, 4) == 0)
        size = UINT64_C(1) << low;
    return size < worker->churn->largest ? size : worker->churn->largest;
}

static void begin_phase(struct worker *worker)
{
    static const unsigned percents[] = {50, 50, 90, 75, 25, 8};
    struct nvd_random *random = &worker->random;
    worker->phase_ends =
        worker->done + phase_ops_min + nvd_random_below(random, phase_ops_span);
    worker->grow_percent =
        percents[nvd_random_below(random, sizeof percents / sizeof percents[0])];
    for (int i = 0; i < palette_sizes; i++)
        worker->palette[i] = draw_size(worker);
}

static size_t pick_size(struct worker *worker)
{
    uint64_t draw = nvd_random_below(&worker->random, 2 * palette_sizes);
    return draw < palette_sizes ? worker->palette[draw] : draw_size(worker);
}

/* Under the slot's lock; the slot is empty. */
static void fill_slot(struct worker *worker, uint32_t id)
{
    struct nvd_subject *subject = worker->churn->subject;
    size_t size = pick_size(worker);
    struct nvc_block block;
    int error = nvd_subject_alloc(subject, worker->index, id, size, &block);
    if (error == ENOMEM) {
        worker->grow_percent = 25; /* full: make room for a while */
        return;
    }
    if (error != 0) {
        complain(worker->churn, error, "allocating to",
                 nvd_journal_name(&subject->journal, id));
        return;
    }
    bool container = !nvd_journal_is_inner(&subject->journal, id) &&
                     nvd_subject_can_contain(subject, size) &&
                     nvd_random_below(&worker->random, container_share) == 0;
    nvd_subject_settle(subject, id, block, container);
}

/* Under the slot's lock; the slot is full and, if a container, empty inside. */
static void empty_slot(struct worker *worker, uint32_t id)
{
    int error = nvd_subject_free(worker->churn->subject, worker->index, id);
    if (error != 0)
        complain(worker->churn, error, "freeing",
                 nvd_journal_name(&worker->churn->subject->journal, id));
}

/* Under the container's lock: frees it with what is in it, or as much of that
   as no other thread is at work on. */
static void empty_container(struct worker *worker, uint32_t outer)
{
    struct churn *churn = worker->churn;
    const struct nvd_journal *journal = &churn->subject->journal;
    uint32_t inner = journal->header->inner, held = 0;
    while (held < inner && try_lock(churn, nvd_journal_inner(journal, outer, held)))
        held++;
    for (uint32_t j = 0; j < held && !atomic_load(&churn->stop); j++) {
        uint32_t id = nvd_journal_inner(journal, outer, j);
        if (nvd_journal_state(journal, id).full)
            empty_slot(worker, id);
    }
    if (held == inner && !atomic_load(&churn->stop))
        empty_slot(worker, outer);
    while (held > 0)
        unlock(churn, nvd_journal_inner(journal, outer, --held));
}

static void work_on(struct worker *worker, uint32_t id)
{
    struct churn *churn = worker->churn;
    const struct nvd_journal *journal = &churn->subject->journal;
    if (!try_lock(churn, id))
        return;
    bool inner = nvd_journal_is_inner(journal, id);
    bool exists =
        !inner || nvd_journal_state(journal, nvd_journal_outer(journal, id)).container;
    struct nvd_slot_state state = nvd_journal_state(journal, id);
    bool grow = nvd_random_below(&worker->random, 100) < worker->grow_percent;
    if (exists && !state.full && grow)
        fill_slot(worker, id);
    else if (exists && state.full && !grow && state.container)
        empty_container(worker, id);
    else if (exists && state.full && !grow)
        empty_slot(worker, id);
    unlock(churn, id);
}

static uint64_t acknowledged(const struct worker *worker)
{
    return atomic_load_explicit(
        &worker->churn->subject->journal.inflight[worker->index].acknowledged,
        memory_order_relaxed);
}

/* A third of the tries goes to containers, so that they are filled. */
static uint32_t pick_slot(struct worker *worker)
{
    const struct nvd_journal *journal = &worker->churn->subject->journal;
    const struct nvd_journal_header *header = journal->header;
    uint32_t outer = (uint32_t)nvd_random_below(&worker->random, header->slots);
    if (header->inner == 0 || nvd_random_below(&worker->random, 3) != 0)
        return outer;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t candidate = (outer + i) % header->slots;
        if (nvd_journal_state(journal, candidate).container) {
            uint64_t j = nvd_random_below(&worker->random, header->inner);
            return nvd_journal_inner(journal, candidate, (uint32_t)j);
        }
    }
    return outer;
}

/* In a thread that has entered. */
static void work(struct worker *worker)
{
    struct churn *churn = worker->churn;
    uint64_t before = acknowledged(worker);
    begin_phase(worker);
    while (!atomic_load_explicit(&churn->stop, memory_order_relaxed)) {
        worker->done = acknowledged(worker) - before;
        if (churn->ops_per_thread != 0 && worker->done >= churn->ops_per_thread)
            break;
        if (worker->done >= worker->phase_ends)
            begin_phase(worker);
        work_on(worker, pick_slot(worker));
    }
}

static void *enter_and_work(void *argument)
{
    struct worker *worker = argument;
    const struct nvd_subject *subject = worker->churn->subject;
    const struct nvc_adapter *adapter = subject->adapter;
    int error = adapter->thread_enter != NULL ? adapter->thread_enter(subject->heap) : 0;
    if (error != 0) {
        complain(worker->churn, error, "entering", "a thread");
        return NULL;
    }
    work(worker);
    if (adapter->thread_leave != NULL)
        adapter->thread_leave(subject->heap);
    return NULL;
}

static bool run_threads(struct churn *churn, const struct nvd_churn_plan *plan)
{
    struct worker workers[NVD_THREADS_MAX];
    pthread_t threads[NVD_THREADS_MAX];
    uint32_t started = 0;
    int error = 0;
    for (uint32_t i = 0; i < plan->threads; i++) {
        workers[i] = (struct worker){.churn = churn, .index = i};
        nvd_random_seed(&workers[i].random, plan->seed * NVD_THREADS_MAX + i);
    }
    if (plan->threads == 1) { /* the caller's own, which entered at open */
        work(&workers[0]);
        return true;
    }
    while (started < plan->threads && error == 0) {
        error =
            pthread_create(&threads[started], NULL, enter_and_work, &workers[started]);
        started += error == 0;
    }
    if (error != 0)
        atomic_store(&churn->stop, true);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    return error == 0;
}

bool nvd_churn_run(struct nvd_subject *subject, const struct nvd_churn_plan *plan,
                   struct nvd_finding *finding)
{
    struct nvd_random random;
    nvd_random_seed(&random, plan->seed);
    uint32_t ids = nvd_journal_ids(&subject->journal);
    struct churn churn = {
        .subject = subject,
        .locks = malloc(ids * sizeof(atomic_flag)),
        .ops_per_thread = (plan->ops + plan->threads - 1) / plan->threads,
        .largest = subject->journal.header->heap_size / 8,
        .mix = (unsigned)nvd_random_below(&random, 4),
        .finding_lock = PTHREAD_MUTEX_INITIALIZER,
        .finding = finding,
    };
    if (churn.locks == NULL)
        abort();
    for (uint32_t i = 0; i < ids; i++)
        atomic_flag_clear(&churn.locks[i]);
    finding->verdict = NVD_VERDICT_OK;
    if (!run_threads(&churn, plan))
        abort(); /* no thread to be had: the environment's fault, not a verdict's */
    free(churn.locks);
    return finding->verdict == NVD_VERDICT_OK;
}
