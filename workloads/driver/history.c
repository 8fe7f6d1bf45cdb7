// SPDX-License-Identifier: Apache-2.0
/*
 * history.c - the steps of a fault case.
 *
 * The heap's files lie in a folder of their own in the NVM, so that many cases
 * may share one NVM directory, and so does the snapshot that is taken before
 * each recovery (copying to another file system would take longer than all the
 * rest); it becomes evidence only when that recovery fails.
 *
 * A child that fails while it *works* (and not while it recovers) has shown a
 * symptom; what the heap looks like afterwards says more.  So it is verified
 * as it was left, and only when that finds nothing is the symptom the verdict.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "driver.h"
#include "history.h"
#include "journal.h"
#include "snapshot.h"
#include "supervise.h"

static enum nvd_step environment(const char *where, int error, const char *what)
{
    nvd_emit_error(where, error, "%s: %s", what, strerror(error));
    return NVD_STEP_ENVIRONMENT;
}

/* ---- argv of the children ---- */

struct arguments {
    const char *argv[40];
    int argc;
    char texts[12][32];
    int text_count;
};

static void add(struct arguments *a, const char *name, const char *value)
{
    a->argv[a->argc++] = name;
    if (value != NULL)
        a->argv[a->argc++] = value;
    a->argv[a->argc] = NULL;
}

static void add_number(struct arguments *a, const char *name, uint64_t value)
{
    char *text = a->texts[a->text_count++];
    snprintf(text, sizeof a->texts[0], "%" PRIu64, value);
    add(a, name, text);
}

static void add_common(struct arguments *a, const struct nvd_history *history,
                       const char *command)
{
    const struct nvd_fault_options *options = history->options;
    memset(a, 0, sizeof *a);
    add(a, "nvdrive", command);
    add(a, "--adapter", options->adapter);
    add(a, "--options", options->extra);
    add(a, "--heap", history->heap);
    add_number(a, "--heap-size", options->heap_size);
    add_number(a, "--slots", options->slots);
}

static void churn_arguments(struct arguments *a, const struct nvd_history *history,
                            const struct nvd_generation *plan)
{
    add_common(a, history, "churn");
    add(a, "--journal", history->journal);
    add_number(a, "--seed", plan->seed);
    add_number(a, "--threads", plan->threads);
}

/* ---- beginning and end ---- */

/* Runs `fill` on a heap of its own. */
static enum nvd_step measure_baseline(struct nvd_history *history)
{
    struct arguments a;
    struct nvd_child child;
    struct json_object *document, *bytes;
    add_common(&a, history, "fill");
    int error = nvd_child_start(&child, a.argv);
    if (error != 0)
        return environment("fill", error, "no child");
    double deadline = nvd_child_now() + history->options->timeout;
    enum nvd_child_event event = nvd_child_next(&child, deadline, &document);
    bool ended = event == NVD_CHILD_LINE || event == NVD_CHILD_ENDED;
    nvd_child_finish(&child, !ended);
    if (event == NVD_CHILD_INTERRUPTED)
        return NVD_STEP_INTERRUPTED;
    if (event == NVD_CHILD_LINE && json_object_object_get_ex(document, "bytes", &bytes)) {
        history->baseline = json_object_get_uint64(bytes);
        json_object_put(document);
        return NVD_STEP_DONE;
    }
    if (event == NVD_CHILD_LINE)
        nvd_emit(document); /* its own error line */
    else
        nvd_emit_error("fill", 0, "no baseline: filling a fresh heap %s",
                       event == NVD_CHILD_TIMEOUT ? "did not end in time"
                                                  : "ended the process");
    return NVD_STEP_ENVIRONMENT;
}

static bool join(char *path, const char *folder, const char *name)
{
    int length = snprintf(path, NVD_PATH_MAX, "%s/%s", folder, name);
    return length > 0 && length < NVD_PATH_MAX;
}

enum nvd_step nvd_history_begin(struct nvd_history *history)
{
    const struct nvd_fault_options *options = history->options;
    if (mkdir(options->work, 0700) != 0 && errno != EEXIST)
        return environment("work", errno, options->work);
    if (!join(history->folder, options->dir, "case-XXXXXX") ||
        mkdtemp(history->folder) == NULL) {
        int error = errno;
        history->folder[0] = '\0';
        return environment("dir", error, options->dir);
    }
    if (!join(history->heap, history->folder, "heap") ||
        !join(history->heap_before, history->folder, "heap.before") ||
        !join(history->journal, options->work, "journal") ||
        !join(history->journal_before, options->work, "journal.before"))
        return environment("dir", ENAMETOOLONG, options->dir);
    /* Of a case that failed, or was interrupted, in the same folder. */
    static const char *const leftovers[] = {"journal", "journal.before", "heap.before",
                                            "replay.json"};
    for (size_t i = 0; i < sizeof leftovers / sizeof leftovers[0]; i++) {
        char path[NVD_PATH_MAX];
        if (join(path, options->work, leftovers[i]))
            unlink(path);
    }
    history->baseline = options->fill_baseline;
    return history->baseline != 0 ? NVD_STEP_DONE : measure_baseline(history);
}

void nvd_history_end(struct nvd_history *history, bool failed)
{
    unlink(history->journal);
    if (!failed)
        unlink(history->journal_before);
    if (history->folder[0] == '\0')
        return;
    unlink(history->heap);
    unlink(history->heap_before);
    rmdir(history->folder);
}

/* ---- verification ---- */

static enum nvd_step snapshot_both(const char *heap, const char *journal,
                                   const char *heap_copy, const char *journal_copy)
{
    int error = nvd_snapshot(heap, heap_copy);
    if (error != 0)
        return environment("snapshot", error, heap_copy);
    error = nvd_snapshot(journal, journal_copy);
    return error != 0 ? environment("snapshot", error, journal_copy) : NVD_STEP_DONE;
}

static struct nvd_fault_options verify_options(const struct nvd_history *history,
                                               const struct nvd_generation *plan,
                                               bool final)
{
    struct nvd_fault_options options = *history->options;
    options.heap = history->heap;
    options.journal = history->journal;
    options.seed = plan->seed;
    options.final = final;
    options.fill_baseline = history->baseline;
    return options;
}

static const char *text_of(struct json_object *document, const char *key)
{
    struct json_object *value;
    if (!json_object_object_get_ex(document, key, &value) || value == NULL)
        return "";
    return json_object_get_string(value);
}

/* Judges the heap as it is now; takes the snapshot first. */
static enum nvd_step verify(struct nvd_history *history,
                            const struct nvd_generation *plan, bool final)
{
    enum nvd_step step = snapshot_both(history->heap, history->journal,
                                       history->heap_before, history->journal_before);
    if (step != NVD_STEP_DONE)
        return step;
    struct nvd_fault_options options = verify_options(history, plan, final);
    struct json_object *document = nvd_supervise_verify(&options);
    struct json_object *live;
    if (document == NULL)
        return NVD_STEP_INTERRUPTED;
    enum nvd_verdict verdict;
    if (!nvd_document_verdict(document, &verdict)) {
        nvd_emit(document);
        return NVD_STEP_ENVIRONMENT;
    }
    history->recoveries++;
    if (json_object_object_get_ex(document, "live_blocks", &live))
        history->live_blocks = json_object_get_uint64(live);
    if (verdict != NVD_VERDICT_OK) {
        nvd_accuse(&history->finding, verdict, "%s", text_of(document, "detail"));
        snprintf(history->phase, sizeof history->phase, "%s", text_of(document, "phase"));
    }
    json_object_put(document);
    return verdict == NVD_VERDICT_OK ? NVD_STEP_DONE : NVD_STEP_FAILED;
}

/* A working child failed: looks for the cause in what it left behind. */
static enum nvd_step explain(struct nvd_history *history,
                             const struct nvd_generation *plan, bool final,
                             const struct nvd_finding *symptom)
{
    enum nvd_phase phase = nvd_last_phase(history->journal);
    enum nvd_step step = verify(history, plan, final);
    if (step != NVD_STEP_DONE)
        return step;
    history->finding = *symptom;
    history->symptom_only = true;
    snprintf(history->phase, sizeof history->phase, "%s", nvd_phase_name(phase));
    return NVD_STEP_FAILED;
}

/* ---- work and kill ---- */

/* What became of a working child. */
enum fate {
    FATE_RUNNING,     /* said `ready` and goes on */
    FATE_ENDED,       /* exited, or killed as planned */
    FATE_SYMPTOM,     /* failed by itself */
    FATE_ENVIRONMENT, /* could not begin; an error line was written */
    FATE_INTERRUPTED,
};

/* Buries a child whose output ended (or that must end now) and judges how. */
static enum fate bury(struct nvd_child *child, enum nvd_child_event event,
                      struct json_object *last, bool kill_expected,
                      struct nvd_finding *symptom)
{
    int status = nvd_child_finish(child, event != NVD_CHILD_ENDED);
    if (event == NVD_CHILD_INTERRUPTED)
        return FATE_INTERRUPTED;
    if (event == NVD_CHILD_TIMEOUT) {
        nvd_accuse(symptom, NVD_VERDICT_HANG, "the working process made no end in time");
        return FATE_SYMPTOM;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && kill_expected)
        return FATE_ENDED;
    if (WIFSIGNALED(status)) {
        nvd_accuse(symptom, NVD_VERDICT_CRASH,
                   "the working process died of signal %d (%s)", WTERMSIG(status),
                   strsignal(WTERMSIG(status)));
        return FATE_SYMPTOM;
    }
    if (WEXITSTATUS(status) == NVD_OK)
        return FATE_ENDED;
    if (WEXITSTATUS(status) == NVD_INCORRECT) {
        nvd_accuse(symptom, NVD_VERDICT_UNUSABLE, "%s",
                   last != NULL ? text_of(last, "message")
                                : "the working process failed");
        return FATE_SYMPTOM;
    }
    if (last != NULL)
        nvd_emit(json_object_get(last));
    else
        nvd_emit_error("churn", 0, "the working process exited with %d",
                       WEXITSTATUS(status));
    return FATE_ENVIRONMENT;
}

/* Listens until the child ends, or until `until` (then it is still running). */
static enum fate listen_until(struct nvd_child *child, double until, double deadline,
                              bool kill_expected, struct nvd_finding *symptom)
{
    struct json_object *last = NULL, *document;
    enum nvd_child_event event;
    while ((event = nvd_child_next(child, until < deadline ? until : deadline,
                                   &document)) == NVD_CHILD_LINE) {
        json_object_put(last);
        last = document;
    }
    if (event == NVD_CHILD_TIMEOUT && until < deadline) {
        json_object_put(last);
        return FATE_RUNNING;
    }
    enum fate fate = bury(child, event, last, kill_expected, symptom);
    json_object_put(last);
    return fate;
}

/* Waits for `ready`, which says whether the child can count events. */
static enum fate await_ready(struct nvd_history *history, struct nvd_child *child,
                             double deadline, struct nvd_finding *symptom)
{
    struct json_object *document, *value;
    enum nvd_child_event event = nvd_child_next(child, deadline, &document);
    if (event == NVD_CHILD_LINE && strcmp(nvd_document_type(document), "ready") == 0) {
        history->observable = json_object_object_get_ex(document, "observable", &value) &&
                              json_object_get_boolean(value);
        json_object_put(document);
        return FATE_RUNNING;
    }
    if (event == NVD_CHILD_LINE) { /* an error: what follows is its end */
        struct json_object *after;
        event = nvd_child_next(child, deadline, &after);
        json_object_put(after);
    }
    enum fate fate = bury(child, event, document, false, symptom);
    json_object_put(document);
    return fate;
}

static enum nvd_step step_of(struct nvd_history *history,
                             const struct nvd_generation *plan, bool final,
                             enum fate fate, const struct nvd_finding *symptom)
{
    switch (fate) {
    case FATE_SYMPTOM:
        return explain(history, plan, final, symptom);
    case FATE_ENVIRONMENT:
        return NVD_STEP_ENVIRONMENT;
    case FATE_INTERRUPTED:
        return NVD_STEP_INTERRUPTED;
    default:
        return NVD_STEP_DONE;
    }
}

static enum nvd_step work_and_kill(struct nvd_history *history,
                                   const struct nvd_generation *plan, bool final)
{
    struct arguments a;
    struct nvd_child child;
    struct nvd_finding symptom;
    churn_arguments(&a, history, plan);
    if (plan->kill == NVD_KILL_EVENT)
        add_number(&a, "--kill-at-event", plan->event);
    if (plan->kill == NVD_KILL_NONE)
        add_number(&a, "--ops", plan->ops);
    int error = nvd_child_start(&child, a.argv);
    if (error != 0)
        return environment("churn", error, "no child");
    double deadline = nvd_child_now() + history->options->timeout;
    enum fate fate = await_ready(history, &child, deadline, &symptom);
    if (fate != FATE_RUNNING)
        return step_of(history, plan, final, fate, &symptom);
    bool ends_itself = plan->kill == NVD_KILL_NONE ||
                       (plan->kill == NVD_KILL_EVENT && history->observable);
    double until = ends_itself ? deadline + 1 : nvd_child_now() + plan->delay;
    fate = listen_until(&child, until, deadline, plan->kill == NVD_KILL_EVENT, &symptom);
    if (fate == FATE_RUNNING) {
        nvd_child_finish(&child, true);
        fate = FATE_ENDED;
    }
    history->kills += fate == FATE_ENDED && plan->kill != NVD_KILL_NONE;
    return step_of(history, plan, final, fate, &symptom);
}

static enum nvd_step kill_recovery(struct nvd_history *history,
                                   const struct nvd_generation *plan, bool final,
                                   const struct nvd_recovery_kill *recovery)
{
    struct arguments a;
    struct nvd_child child;
    struct nvd_finding symptom;
    /* Should this recovery fail by itself, it must be possible to repeat it. */
    enum nvd_step step = snapshot_both(history->heap, history->journal,
                                       history->heap_before, history->journal_before);
    if (step != NVD_STEP_DONE)
        return step;
    churn_arguments(&a, history, plan);
    add_number(&a, "--kill-at-event", recovery->event);
    add(&a, "--from-open", NULL);
    int error = nvd_child_start(&child, a.argv);
    if (error != 0)
        return environment("churn", error, "no child");
    double start = nvd_child_now(), deadline = start + history->options->timeout;
    double until = history->observable ? deadline + 1 : start + recovery->delay;
    enum fate fate = listen_until(&child, until, deadline, true, &symptom);
    if (fate == FATE_RUNNING) {
        nvd_child_finish(&child, true);
        fate = FATE_ENDED;
    }
    history->kills += fate == FATE_ENDED;
    history->recoveries += fate == FATE_ENDED;
    if (fate == FATE_SYMPTOM) {
        step = snapshot_both(history->heap_before, history->journal_before, history->heap,
                             history->journal);
        if (step != NVD_STEP_DONE)
            return step;
    }
    return step_of(history, plan, final, fate, &symptom);
}

enum nvd_step nvd_history_generation(struct nvd_history *history,
                                     const struct nvd_generation *plan, bool final)
{
    enum nvd_step step = work_and_kill(history, plan, final);
    for (uint32_t i = 0; step == NVD_STEP_DONE && i < plan->recovery_kills; i++)
        step = kill_recovery(history, plan, final, &plan->recovery[i]);
    return step == NVD_STEP_DONE ? verify(history, plan, final) : step;
}

/* ---- evidence ---- */

static struct json_object *replay_arguments(const struct nvd_history *history,
                                            const struct nvd_generation *plan, bool final)
{
    struct json_object *list = json_object_new_array();
    if (!history->symptom_only) {
        struct nvd_command_line line;
        struct nvd_fault_options options = verify_options(history, plan, final);
        nvd_verify_command_line(&line, &options, false);
        for (int i = 0; i < line.argc; i++)
            json_object_array_add(list, json_object_new_string(line.argv[i]));
        return list;
    }
    const struct nvd_fault_options *options = history->options;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"--seed", options->seed},
        {"--heap-size", options->heap_size},
        {"--slots", options->slots},
        {"--threads", options->threads},
        {"--generations", options->generations},
        {"--fill-baseline", history->baseline},
    };
    char text[NVD_ARGUMENT_BYTES];
    json_object_array_add(list, json_object_new_string("history"));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(text, sizeof text, "%" PRIu64, numbers[i].value);
        json_object_array_add(list, json_object_new_string(numbers[i].name));
        json_object_array_add(list, json_object_new_string(text));
    }
    snprintf(text, sizeof text, "%.17g", options->timeout);
    json_object_array_add(list, json_object_new_string("--timeout"));
    json_object_array_add(list, json_object_new_string(text));
    snprintf(text, sizeof text, "%.17g", options->fill_tolerance);
    json_object_array_add(list, json_object_new_string("--fill-tolerance"));
    json_object_array_add(list, json_object_new_string(text));
    return list;
}

enum nvd_step nvd_history_keep_evidence(struct nvd_history *history,
                                        const struct nvd_generation *plan, bool final)
{
    char heap[NVD_PATH_MAX], replay[NVD_PATH_MAX];
    if (!join(heap, history->options->work, "heap.before") ||
        !join(replay, history->options->work, "replay.json"))
        return environment("work", ENAMETOOLONG, history->options->work);
    int error = nvd_snapshot(history->heap_before, heap);
    if (error != 0)
        return environment("evidence", error, heap);
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "schema", json_object_new_int(1));
    json_object_object_add(
        document, "verdict",
        json_object_new_string(nvd_verdict_name(history->finding.verdict)));
    json_object_object_add(document, "detail",
                           json_object_new_string(history->finding.detail));
    json_object_object_add(document, "arguments", replay_arguments(history, plan, final));
    json_object_object_add(document, "heap", json_object_new_string("heap.before"));
    json_object_object_add(document, "journal", json_object_new_string("journal.before"));
    int written = json_object_to_file_ext(
        replay, document, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
    json_object_put(document);
    return written == 0 ? NVD_STEP_DONE : environment("evidence", EIO, replay);
}
