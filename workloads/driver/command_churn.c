// SPDX-License-Identifier: Apache-2.0
/*
 * command_churn.c - `nvdrive churn`: the process that gets killed.
 *
 * It may also kill itself, just before the Nth persistence event takes effect:
 * SIGKILL from within, so that not one further store retires in this thread.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "churn.h"
#include "driver.h"
#include "fault_options.h"

/* The observer's context; it outlives every heap. */
static struct {
    _Atomic uint64_t seen;
    _Atomic uint64_t deadly; /* 0: none */
} events;

static void on_event(void *context, enum nvc_event event, const void *address,
                     size_t length)
{
    (void)context;
    (void)event;
    (void)address;
    (void)length;
    uint64_t number =
        atomic_fetch_add_explicit(&events.seen, 1, memory_order_relaxed) + 1;
    uint64_t deadly = atomic_load_explicit(&events.deadly, memory_order_relaxed);
    if (deadly != 0 && number >= deadly) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause(); /* another thread's death takes this one along */
    }
}

/* Opens the heap, or makes it; on failure the exit code, after an error line. */
static int get_heap(struct nvd_subject *subject, const struct nvd_fault_options *options)
{
    struct nvd_finding finding;
    int error = nvd_journal_open(&subject->journal, options->journal);
    if (error == ENOENT && access(options->heap, F_OK) != 0) {
        error = nvd_subject_create(subject, options->heap, options->journal,
                                   options->heap_size, (uint32_t)options->slots,
                                   NVD_THREADS_MAX);
        if (error == 0)
            return NVD_OK;
        nvd_emit_error("create", error, "heap %s: %s (%s)", options->heap,
                       strerror(error), subject->adapter->last_error());
        return NVD_ENVIRONMENT;
    }
    if (error != 0) {
        nvd_emit_error("journal", error, "%s: %s", options->journal, strerror(error));
        return NVD_ENVIRONMENT;
    }
    if (options->threads > subject->journal.header->threads) {
        nvd_emit_error("usage", 0, "the journal has room for %u threads",
                       subject->journal.header->threads);
        return NVD_USAGE;
    }
    nvd_journal_set_phase(&subject->journal, NVD_PHASE_OPEN);
    if (!nvd_subject_open(subject, options->heap, &finding)) {
        nvd_emit_error("open", 0, "%s", finding.detail);
        return NVD_INCORRECT;
    }
    nvd_subject_resolve(subject);
    return NVD_OK;
}

static void say_ready(bool observable)
{
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("ready"));
    json_object_object_add(document, "observable", json_object_new_boolean(observable));
    nvd_emit(document);
}

static void say_churned(const struct nvd_subject *subject, uint64_t ops_before,
                        bool observed)
{
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("churned"));
    json_object_object_add(
        document, "ops",
        json_object_new_uint64(nvd_journal_acknowledged(&subject->journal) - ops_before));
    json_object_object_add(document, "events",
                           observed ? json_object_new_uint64(events.seen) : NULL);
    nvd_emit(document);
}

static int work(struct nvd_subject *subject, const struct nvd_fault_options *options,
                bool observable)
{
    bool observed = observable && options->kill_at_event != 0;
    struct nvd_finding finding = {NVD_VERDICT_OK, ""};
    const struct nvd_churn_plan plan = {
        .seed = options->seed,
        .threads = (uint32_t)options->threads,
        .ops = options->ops,
    };
    uint64_t ops_before = nvd_journal_acknowledged(&subject->journal);
    nvd_journal_set_phase(&subject->journal, NVD_PHASE_WORK);
    say_ready(observable);
    if (observed && !options->from_open) {
        atomic_store(&events.seen, 0);
        atomic_store(&events.deadly, options->kill_at_event);
    }
    bool sound = nvd_churn_run(subject, &plan, &finding);
    if (sound && strcmp(options->ending, "close") == 0) {
        nvd_journal_set_phase(&subject->journal, NVD_PHASE_CLOSE);
        sound = nvd_subject_close(subject, &finding);
    }
    if (!sound) {
        nvd_emit_error("churn", 0, "%s", finding.detail);
        _exit(NVD_INCORRECT); /* without closing: the heap stays as it failed */
    }
    say_churned(subject, ops_before, observed);
    if (strcmp(options->ending, "abandon") == 0)
        _exit(NVD_OK);
    return NVD_OK;
}

int nvd_command_churn(int argc, char **argv)
{
    struct nvd_fault_options options;
    int done = nvd_fault_options_parse(&options, NVD_TAKES_CHURN, argc, argv);
    if (done >= 0)
        return done;
    struct nvd_subject subject = {.adapter = nvd_adapter_load(options.adapter),
                                  .extra = options.extra};
    if (subject.adapter == NULL)
        return NVD_ENVIRONMENT;
    if (!(subject.adapter->capabilities & NVC_PERSISTENT)) {
        nvd_emit_error("adapter", 0,
                       "%s keeps its heap in DRAM: nothing survives a crash",
                       subject.adapter->name);
        return NVD_ENVIRONMENT;
    }
    if (options.threads > 1 && !(subject.adapter->capabilities & NVC_THREADS)) {
        nvd_emit_error("adapter", 0, "%s works for one thread only",
                       subject.adapter->name);
        return NVD_ENVIRONMENT;
    }
    bool observable =
        subject.adapter->observe != NULL && subject.adapter->observe(on_event, NULL) == 0;
    if (observable && options.kill_at_event == 0)
        subject.adapter->observe(NULL, NULL); /* it only had to be known */
    if (observable && options.from_open)
        atomic_store(&events.deadly, options.kill_at_event);
    int code = get_heap(&subject, &options);
    return code == NVD_OK ? work(&subject, &options, observable) : code;
}
