// SPDX-License-Identifier: Apache-2.0
/*
 * kv-recovery - an application on a durable heap is killed at work, again and again, and
 * must lose nothing: the store of the workload kv, held to a model of itself.
 *
 * Each of `threads` threads works on records of its own (t, t + T, ...) and its
 * operations are a function of the seed: operation i of a thread inserts its next record
 * or writes version i + 1 of an earlier one.  When an operation has returned the thread
 * counts it in a page that outlives the process.  So after a kill a fresh process can
 * compute what the store must hold: the state after the counted operations, and, of
 * the one that may have been under way, the effect or not.  It opens heap and store,
 * compares every record of every thread, byte for byte, and works on.
 *
 * Each round: a process works for some milliseconds and is killed (SIGKILL); one round
 * in four the kill comes while it is still opening; one in five it is asked to
 * close the heap cleanly instead.  After the last round a process opens, compares and
 * closes.
 *
 * open_ms is the allocator's part of a reopening, first_op_ms all of it up to the
 * first update served, the store's own repairs included; medians over the rounds.
 *
 * The page cache is warm, as in the workload recovery.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "driver.h"
#include "store.h"
#include "trial.h"
#include "ycsb.h"

enum { INDEX, RECORDS, VALUE_BYTES, ROUNDS };

static const struct nvd_parameter parameters[] = {
    [INDEX] = {"index", 0, 0, 1, "0: hash table, 1: B+-tree"},
    [RECORDS] = {"records", 50000, 1, 10000000, "records of a thread at most"},
    [VALUE_BYTES] = {"value_bytes", 200, 16, 65536, "bytes of a value"},
    [ROUNDS] = {"rounds", 20, 1, 10000, "processes that are killed or closed"},
};

#define THREADS_MAX 64u
/* One operation in so many inserts, while there are records left to insert. */
#define INSERT_EVERY 4u

/* Shared by all processes of the trial. */
struct page {
    atomic_bool closing; /* the worker is to stop and to close the heap */
    struct {
        _Alignas(
            NVD_CACHE_ALIGN) _Atomic uint64_t done; /* operations that have returned */
    } threads[THREADS_MAX];
};

/* The model of one thread: what its records hold after `done` operations. */
struct model {
    uint64_t done;
    uint64_t inserted;
    uint64_t *versions; /* by the thread's own number of a record */
};

/* What an operation does: to which of the thread's records, which version. */
struct move {
    bool inserts;
    uint64_t index, version;
};

/* A process at work. */
struct player {
    struct nvd_trial *trial;
    struct page *page;
    struct nvk_config config;
    struct nvk_store *store;
    struct model models[THREADS_MAX];
    uint64_t opened_ns; /* when the heap was open */
    uint64_t begun_ns;  /* when the opening began */
    struct nvk_repairs repairs;
    _Atomic int failed; /* an exit code, of the first failure */
};

static const char *check(const uint64_t *values, unsigned threads)
{
    (void)values;
    return threads > THREADS_MAX ? "more than 64 threads" : NULL;
}

static struct nvk_config config_of(const uint64_t *values, unsigned threads)
{
    return (struct nvk_config){
        .index = values[INDEX] == 0 ? NVK_HASH : NVK_TREE,
        .capacity = values[RECORDS] * threads,
        .value_bytes = values[VALUE_BYTES],
        .threads = threads,
    };
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    struct nvk_config config = config_of(values, threads);
    return nvk_slot_count(&config);
}

/* ---- the model ---- */

/* Operation `number` of a thread, whose model has had all before it. */
static struct move move_of(const struct player *player, unsigned thread, uint64_t number)
{
    const struct nvd_trial *trial = player->trial;
    const struct model *model = &player->models[thread];
    struct nvd_random random;
    nvd_random_seed(&random, trial->seed ^ (number * THREADS_MAX + thread));
    bool inserts = model->inserted == 0 || (model->inserted < trial->values[RECORDS] &&
                                            nvd_random_below(&random, INSERT_EVERY) == 0);
    return (struct move){
        .inserts = inserts,
        .index = inserts ? model->inserted : nvd_random_below(&random, model->inserted),
        .version = number + 1,
    };
}

static void apply(struct model *model, struct move move)
{
    model->versions[move.index] = move.version;
    model->inserted += move.inserts;
    model->done++;
}

static uint64_t record_of(const struct player *player, unsigned thread, uint64_t index)
{
    return index * player->trial->threads + thread;
}

static int play(struct player *player, struct nvk_session *session, unsigned thread,
                struct move move, char *value)
{
    uint64_t record = record_of(player, thread, move.index);
    ycsb_value_fill(value, player->config.value_bytes, record, move.version);
    return move.inserts ? nvk_insert(session, ycsb_hash(record), value)
                        : nvk_update(session, ycsb_hash(record), value);
}

/* ---- comparing ---- */

static int wrong(const struct player *player, uint64_t record, const char *what,
                 uint64_t found, uint64_t expected)
{
    return nvd_trial_incorrect(player->trial,
                               "record %" PRIu64 ": %s %" PRIu64 ", expected %" PRIu64,
                               record, what, found, expected);
}

/* Version of a record in the store; 0: there is none. */
static int look(const struct player *player, struct nvk_session *session, uint64_t record,
                char *value, uint64_t *version)
{
    const size_t bytes = player->config.value_bytes;
    *version = 0;
    int error = nvk_read(session, ycsb_hash(record), value);
    if (error == ENOENT)
        return NVD_OK;
    if (error != 0)
        return nvd_trial_failed(player->trial, "read", error);
    size_t offset = ycsb_value_check(value, bytes, record);
    *version = ycsb_value_version(value, bytes);
    return offset == bytes
               ? NVD_OK
               : wrong(player, record, "its value is right up to byte", offset, bytes);
}

/* Holds the thread's records to its model; if the operation under way has had its
   effect, the model gets it too. */
static int compare(struct player *player, unsigned thread)
{
    struct model *model = &player->models[thread];
    const struct move under_way = move_of(player, thread, model->done);
    struct nvk_session session;
    char *value = malloc(player->config.value_bytes);
    int code = value == NULL || model->versions == NULL ? NVD_INTERNAL : NVD_OK;
    nvk_begin(player->store, thread, &session);
    bool happened = false;
    for (uint64_t i = 0; code == NVD_OK && i <= model->inserted; i++) {
        if (i == player->trial->values[RECORDS])
            break;
        uint64_t version, expected = i < model->inserted ? model->versions[i] : 0;
        uint64_t record = record_of(player, thread, i);
        code = look(player, &session, record, value, &version);
        if (code != NVD_OK || version == expected)
            continue;
        happened = i == under_way.index && version == under_way.version;
        if (!happened)
            code = wrong(player, record, "found version", version, expected);
    }
    if (code == NVD_OK && happened)
        apply(model, under_way);
    atomic_store(&player->page->threads[thread].done, model->done);
    free(value);
    return code;
}

/* ---- a process at work ---- */

static int prepare_models(struct player *player)
{
    for (unsigned t = 0; t < player->trial->threads; t++) {
        struct model *model = &player->models[t];
        model->versions = calloc(player->trial->values[RECORDS], sizeof *model->versions);
        if (model->versions == NULL)
            return ENOMEM;
        const uint64_t done = atomic_load(&player->page->threads[t].done);
        while (model->done < done)
            apply(model, move_of(player, t, model->done));
    }
    return 0;
}

static void forget_models(struct player *player)
{
    for (unsigned t = 0; t < player->trial->threads; t++)
        free(player->models[t].versions);
}

static void fail(struct player *player, int code)
{
    int none = NVD_OK;
    atomic_compare_exchange_strong(&player->failed, &none, code);
}

struct thread {
    struct player *player;
    unsigned number;
    pthread_t thread;
};

static void work_on(struct player *player, unsigned thread)
{
    struct model *model = &player->models[thread];
    struct nvk_session session;
    char *value = malloc(player->config.value_bytes);
    nvk_begin(player->store, thread, &session);
    while (value != NULL && !atomic_load(&player->page->closing) &&
           atomic_load(&player->failed) == NVD_OK) {
        struct move move = move_of(player, thread, model->done);
        int error = play(player, &session, thread, move, value);
        if (error == EUCLEAN || error == ENOENT || error == EEXIST) {
            uint64_t record = record_of(player, thread, move.index);
            fail(player,
                 nvd_trial_incorrect(player->trial, "%s of record %" PRIu64 ": %s",
                                     move.inserts ? "insertion" : "update", record,
                                     error == EUCLEAN ? nvk_reason() : strerror(error)));
        } else if (error != 0) {
            fail(player, nvd_trial_failed(player->trial, "work", error));
        } else {
            apply(model, move);
            /* Acknowledged from here on. */
            atomic_store_explicit(&player->page->threads[thread].done, model->done,
                                  memory_order_release);
        }
    }
    if (value == NULL)
        fail(player, NVD_INTERNAL);
    free(value);
}

static void *thread_main(void *argument)
{
    struct thread *thread = argument;
    struct player *player = thread->player;
    const struct nvc_adapter *adapter = player->trial->adapter;
    int error =
        adapter->thread_enter != NULL ? adapter->thread_enter(player->trial->heap) : 0;
    if (error != 0) {
        fail(player, nvd_trial_failed(player->trial, "thread_enter", error));
        return NULL;
    }
    work_on(player, thread->number);
    if (adapter->thread_leave != NULL)
        adapter->thread_leave(player->trial->heap);
    return NULL;
}

static int run_threads(struct player *player)
{
    struct thread threads[THREADS_MAX];
    unsigned started = 0;
    for (unsigned t = 0; t < player->trial->threads; t++) {
        threads[t] = (struct thread){.player = player, .number = t};
        int error = pthread_create(&threads[t].thread, NULL, thread_main, &threads[t]);
        if (error != 0) {
            nvd_emit_error("work", error, "cannot start thread %u", t);
            fail(player, NVD_ENVIRONMENT);
            break;
        }
        started++;
    }
    for (unsigned t = 0; t < started; t++)
        pthread_join(threads[t].thread, NULL);
    return atomic_load(&player->failed);
}

static int refuse(const struct player *player, const char *where, int error)
{
    return error == EUCLEAN
               ? nvd_trial_incorrect(player->trial, "%s: %s", where, nvk_reason())
           : error == EINVAL || error == ENOENT
               ? nvd_trial_incorrect(player->trial, "%s: %s", where,
                                     error == ENOENT ? "the store is gone" : nvk_reason())
               : nvd_trial_failed(player->trial, where, error);
}

/* The store of the open heap. */
static int open_store(struct player *player, bool fresh)
{
    player->config = config_of(player->trial->values, player->trial->threads);
    player->config.adapter = player->trial->adapter;
    player->config.heap = player->trial->heap;
    int error = fresh ? nvk_create(&player->config, &player->store)
                      : nvk_open(&player->config, &player->store, &player->repairs);
    return error == 0 ? NVD_OK : refuse(player, fresh ? "create" : "open", error);
}

static void emit_ready(const struct player *player, uint64_t first_op_ns)
{
    struct json_object *document = json_object_new_object();
    const struct nvk_repairs *repairs = &player->repairs;
    const struct {
        const char *name;
        double value;
    } figures[] = {
        {"open_ms", (double)(player->opened_ns - player->begun_ns) / 1e6},
        {"first_op_ms", (double)(first_op_ns - player->begun_ns) / 1e6},
        {"live_objects", (double)repairs->records},
        {"values_freed", (double)repairs->values_freed},
        {"pages_freed", (double)(repairs->pages_freed + repairs->chunks_freed)},
        {"entries_added", (double)repairs->entries_added},
    };
    json_object_object_add(document, "type", json_object_new_string("ready"));
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        json_object_object_add(document, figures[i].name,
                               json_object_new_double(figures[i].value));
    nvd_emit(document);
}

/* The first operation after opening; it is the next one of thread 0, unacknowledged. */
static int first_op(struct player *player)
{
    struct nvk_session session;
    struct model *model = &player->models[0];
    char *value = malloc(player->config.value_bytes);
    if (value == NULL || model->versions == NULL) {
        free(value);
        return NVD_INTERNAL;
    }
    nvk_begin(player->store, 0, &session);
    struct move move = move_of(player, 0, model->done);
    int error = play(player, &session, 0, move, value);
    free(value);
    /* It may be the one that was under way when the last process was killed. */
    if (error == EEXIST)
        error = 0;
    return error == 0 ? NVD_OK : refuse(player, "first operation", error);
}

/* On the open heap, up to the end of the work. */
static int use_heap(struct player *player, bool fresh)
{
    int code = open_store(player, fresh);
    if (code == NVD_OK)
        code = first_op(player);
    if (code != NVD_OK)
        return code;
    uint64_t ready_ns = nvd_monotonic_ns();
    for (unsigned t = 0; code == NVD_OK && t < player->trial->threads; t++)
        code = compare(player, t);
    int error = code == NVD_OK ? nvk_check(player->store, NULL, NULL) : 0;
    if (error != 0)
        code = refuse(player, "check", error);
    if (code != NVD_OK)
        return code;
    emit_ready(player, ready_ns);
    return strncmp(player->trial->stage, "work", 4) == 0 ? run_threads(player) : NVD_OK;
}

/* A fresh page was never written; the heap file is there from the second process on. */
static int work(struct nvd_trial *trial, struct page *page)
{
    static struct player player;
    player = (struct player){.trial = trial, .page = page};
    bool fresh = access(trial->heap_path, F_OK) != 0;
    if (prepare_models(&player) != 0) {
        nvd_emit_error("work", ENOMEM, "no memory for the model");
        return NVD_INTERNAL;
    }
    player.begun_ns = nvd_monotonic_ns();
    int code = fresh ? nvd_trial_create(trial) : nvd_trial_open(trial);
    player.opened_ns = nvd_monotonic_ns();
    if (code != NVD_OK)
        return code;
    code = use_heap(&player, fresh);
    int closed = nvd_trial_close(trial);
    if (player.store != NULL)
        nvk_forget(player.store);
    forget_models(&player);
    return code == NVD_OK ? closed : code;
}

/* ---- the first process ---- */

/* Milliseconds of each round's opening. */
struct times {
    size_t count;
    double *open, *first_op;
    double repairs; /* values and pages freed, entries added, of all rounds */
};

static int compare_doubles(const void *left, const void *right)
{
    const double *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count == 0 ? 0 : (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static double figure(struct json_object *document, const char *name)
{
    return json_object_get_double(json_object_object_get(document, name));
}

static void pause_for(uint64_t ns)
{
    const struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    nanosleep(&time, NULL);
}

static int expect_end(const struct nvd_trial *trial, struct nvd_child *child,
                      const char *stage)
{
    struct json_object *document = NULL;
    enum nvd_child_event event =
        nvd_child_next(child, nvd_child_now() + 86400, &document);
    if (document != NULL)
        nvd_emit(document); /* its error line */
    int status = nvd_child_finish(child, false);
    if (event == NVD_CHILD_ENDED && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return NVD_OK;
    if (document == NULL)
        nvd_emit_error(stage, 0, "%s: the process of stage '%s' ended badly (status %#x)",
                       trial->workload->name, stage, (unsigned)status);
    return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status)
                                                         : NVD_ENVIRONMENT;
}

static void take_times(struct nvd_trial *trial, struct times *times,
                       struct json_object *document)
{
    times->open[times->count] = figure(document, "open_ms");
    times->first_op[times->count++] = figure(document, "first_op_ms");
    times->repairs += figure(document, "values_freed") + figure(document, "pages_freed") +
                      figure(document, "entries_added");
    nvd_trial_metric(trial, "live_objects", figure(document, "live_objects"));
}

/* After a kill the heap must be there: the first process is let come to `ready`. */
static int round_of(struct nvd_trial *trial, struct page *page, const char *stage,
                    struct nvd_random *random, bool first, struct times *times)
{
    struct nvd_child child;
    const uint64_t kind = nvd_random_below(random, 20);
    const bool early = !first && kind < 5, clean = kind >= 16;
    atomic_store(&page->closing, false);
    int code = nvd_trial_start(trial, stage, &child);
    if (code != NVD_OK)
        return code;
    if (early) {
        pause_for(nvd_random_below(random, 8000000));
        nvd_child_finish(&child, true);
        return NVD_OK;
    }
    struct json_object *document;
    code = nvd_trial_expect(trial, &child, "work", "ready", &document);
    if (code != NVD_OK)
        return code;
    if (!first)
        take_times(trial, times, document);
    json_object_put(document);
    pause_for(5000000 + nvd_random_below(random, 60000000));
    atomic_store(&page->closing, clean);
    if (clean)
        return expect_end(trial, &child, "work");
    nvd_child_finish(&child, true);
    return NVD_OK;
}

static int rounds(struct nvd_trial *trial, struct page *page, int file,
                  struct times *times)
{
    struct nvd_random random;
    char stage[32], last[32];
    snprintf(stage, sizeof stage, "work:%d", file);
    snprintf(last, sizeof last, "final:%d", file);
    nvd_random_seed(&random, trial->seed);
    int code = NVD_OK;
    for (uint64_t i = 0; code == NVD_OK && i < trial->values[ROUNDS]; i++)
        code = round_of(trial, page, stage, &random, i == 0, times);
    struct nvd_child child;
    struct json_object *document;
    if (code == NVD_OK)
        code = nvd_trial_start(trial, last, &child);
    if (code == NVD_OK)
        code = nvd_trial_expect(trial, &child, "final", "ready", &document);
    if (code != NVD_OK)
        return code;
    take_times(trial, times, document);
    json_object_put(document);
    return expect_end(trial, &child, "final");
}

static int conduct(struct nvd_trial *trial, struct page *page, int file)
{
    struct times times = {0};
    const size_t bytes = (trial->values[ROUNDS] + 1) * sizeof(double);
    times.open = malloc(bytes);
    times.first_op = malloc(bytes);
    int code = times.open == NULL || times.first_op == NULL
                   ? NVD_INTERNAL
                   : rounds(trial, page, file, &times);
    uint64_t done = 0;
    for (unsigned t = 0; t < trial->threads; t++)
        done += atomic_load(&page->threads[t].done);
    if (code == NVD_OK) {
        nvd_trial_metric(trial, "open_ms", median(times.open, times.count));
        nvd_trial_metric(trial, "first_op_ms", median(times.first_op, times.count));
        nvd_trial_metric(trial, "reopenings", (double)times.count);
        nvd_trial_metric(trial, "repairs", times.repairs);
        nvd_trial_metric(trial, "operations", (double)done);
    }
    free(times.open);
    free(times.first_op);
    return code;
}

/* The page lies in a file without a name, which the stages inherit; the number of its
   descriptor is part of theirs. */
static struct page *map_page(int file)
{
    void *page =
        mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return page == MAP_FAILED ? NULL : page;
}

static int make_page_file(void)
{
    int file = memfd_create("acknowledged", 0); /* not close-on-exec */
    if (file >= 0 && ftruncate(file, sizeof(struct page)) == 0)
        return file;
    if (file >= 0)
        close(file);
    return -1;
}

static int trial_run(struct nvd_trial *trial)
{
    const char *colon = trial->stage == NULL ? NULL : strchr(trial->stage, ':');
    uint64_t inherited = 0;
    if (colon != NULL && !nvd_parse_u64(colon + 1, 0, INT_MAX, &inherited))
        return NVD_USAGE;
    int file = colon == NULL ? make_page_file() : (int)inherited;
    struct page *page = file < 0 ? NULL : map_page(file);
    if (page == NULL) {
        nvd_emit_error("kv-recovery", errno, "cannot make a file in memory, or map it");
        return NVD_ENVIRONMENT;
    }
    int code = trial->stage == NULL ? conduct(trial, page, file) : work(trial, page);
    munmap(page, sizeof *page);
    close(file);
    return code;
}

static struct nvd_workload kv_recovery = {
    .name = "kv-recovery",
    .summary = "a durable store is killed at work again and again and held to a model",
    .heap_bytes = UINT64_C(256) << 20,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof parameters[0],
    .needs = NVC_PERSISTENT | NVC_NESTED_SLOTS,
    .check = check,
    .slot_count = slot_count,
    .trial = trial_run,
};
NVD_WORKLOAD(kv_recovery);
