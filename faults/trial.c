// SPDX-License-Identifier: Apache-2.0
/*
 * trial.c - record, explore, and go on from one of the states that survived.
 */
#include "trial.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"
#include "point.h"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

double nvl_trial_seconds(const struct nvl_trial *trial)
{
    return now() - trial->began;
}

void nvl_trial_record_options(const struct nvl_trial *trial, uint64_t seed,
                              struct nvl_record_options *record)
{
    const struct nvl_trial_options *options = trial->options;
    *record = (struct nvl_record_options){
        .adapter = options->adapter,
        .extra = options->extra,
        .folder = options->dir,
        .lens = options->instrumented ? NVL_LENS_COMPILED : NVL_LENS_LIBRARY,
        .heap_size = options->heap_size,
        .file_size = trial->file_size,
        .slots = options->slots,
        .threads = options->instrumented ? options->threads : 1,
        .ops = options->ops,
        .payload = options->payload,
        .seed = seed,
        .mutation = options->mutation,
    };
}

void nvl_trial_explore_options(const struct nvl_trial *trial, uint64_t seed,
                               struct nvl_explore_options *explore)
{
    const struct nvl_trial_options *options = trial->options;
    *explore = (struct nvl_explore_options){
        .domain = options->domain,
        .states = options->states,
        .nested_states = options->nested_states,
        .depth = options->instrumented ? options->depth : 1,
        .nested_share = options->nested_share,
        .deep_share = options->deep_share,
        .deep = options->deep,
        .prune = options->prune,
        .last_operation = options->last_operation,
        .seed = seed,
        .fill_baseline = trial->fill_baseline,
        .fill_tolerance = options->fill_tolerance,
        .max_failures = (uint32_t)options->max_failures,
        .folder = options->dir,
        .extra = options->extra,
        .instrumented = options->instrumented,
        .profile = options->profile,
    };
    if (options->budget > 0)
        explore->budget = fmax(0.01, options->budget - nvl_trial_seconds(trial));
}

/* ---- children ---- */

static int wait_for(pid_t child, double timeout, const char *doing)
{
    double deadline = now() + timeout;
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now() > deadline) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            nvd_emit_error("hang", 0, "%s did not end within %g s", doing, timeout);
            return NVD_INCORRECT;
        }
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    nvd_emit_error("crash", 0, "%s: the process died of signal %d (%s)", doing,
                   WTERMSIG(status), strsignal(WTERMSIG(status)));
    return NVD_INCORRECT;
}

int nvl_trial_record(const struct nvl_record_options *options, double timeout)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int code = nvl_record(options);
        fflush(stdout);
        _exit(code);
    }
    if (child < 0)
        return NVD_ENVIRONMENT;
    int code = wait_for(child, 60 + 10 * timeout, "recording a history");
    char path[4200];
    snprintf(path, sizeof path, "%s/heap-%ld", options->folder, (long)child);
    unlink(path);
    return code;
}

int nvl_trial_measure(struct nvl_trial *trial)
{
    uint64_t *answer =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct nvl_record_options record;
    nvl_trial_record_options(trial, 0, &record);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int code = nvl_measure_fresh(&record, &answer[0], &answer[1]);
        fflush(stdout);
        _exit(code);
    }
    int code = child < 0 ? NVD_ENVIRONMENT : wait_for(child, 60, "filling a fresh heap");
    trial->file_size = answer[0];
    trial->fill_baseline = answer[1];
    munmap(answer, 4096);
    return code;
}

/* ---- sums ---- */

static void add_up(struct nvl_tally *sum, const struct nvl_tally *tally)
{
    sum->points += tally->points;
    sum->points_complete += tally->points_complete;
    sum->nested_points += tally->nested_points;
    sum->legal += tally->legal;
    sum->covered += tally->covered;
    sum->nested_legal += tally->nested_legal;
    sum->nested_covered += tally->nested_covered;
    sum->checked += tally->checked;
    sum->nested_checked += tally->nested_checked;
    sum->distinct += tally->distinct;
    sum->deep += tally->deep;
    for (int step = 0; step < NVL_STEPS; step++) {
        sum->profile.seconds[step] += tally->profile.seconds[step];
        sum->profile.times[step] += tally->profile.times[step];
    }
    sum->validations += tally->validations;
    sum->recovery_reads += tally->recovery_reads;
    sum->recovery_stores += tally->recovery_stores;
    sum->seconds += tally->seconds;
    sum->failure_count += tally->failure_count;
    for (int kind = 0; kind < NVD_VERDICTS; kind++)
        sum->by_kind[kind] += tally->by_kind[kind];
}

bool nvl_trial_explore(struct nvl_trial *trial, const struct nvl_trace *trace,
                       uint64_t seed, struct nvl_tally *tally)
{
    struct nvl_explore_options explore;
    nvl_trial_explore_options(trial, seed, &explore);
    if (trial->options->mutation != NULL)
        nvl_mutation_use(trial->options->mutation);
    bool done = nvl_watch_explore(trace, trial->options->adapter, &explore,
                                  trial->options->timeout, tally);
    add_up(trial->sum, tally);
    for (size_t i = 0; i < trace->event_count; i++)
        trial->ops += trace->events[i].kind == NVL_EVENT_MARK &&
                      trace->events[i].mark.kind == NVL_MARK_ACK;
    return done;
}

/* ---- a failure ---- */

static void describe_failure(struct nvl_trial *trial, const struct nvl_trace *trace,
                             const struct nvl_state *state, const struct nvl_trail *trail,
                             uint64_t seed, const char *folder)
{
    char sentence[1024], text[sizeof trace->header.script];
    struct nvl_script script = {0};
    struct json_object *failure = json_object_new_object();
    struct json_object *sites =
        nvl_explain(trace, state, trail, sentence, sizeof sentence);
    nvl_script_of(trace, &script);
    nvl_script_print(&script, trace->ledger->slots, trace->ledger->inner, text,
                     sizeof text);
    json_object_object_add(failure, "type", json_object_new_string("failure"));
    json_object_object_add(
        failure, "verdict",
        json_object_new_string(nvd_verdict_name(trail->finding.verdict)));
    json_object_object_add(failure, "detail",
                           json_object_new_string(trail->finding.detail));
    json_object_object_add(failure, "phase",
                           json_object_new_string(nvd_phase_name(trail->phase)));
    json_object_object_add(failure, "explanation", json_object_new_string(sentence));
    json_object_object_add(failure, "operations", json_object_new_string(text));
    json_object_object_add(failure, "operation_count",
                           json_object_new_uint64(script.count));
    json_object_object_add(failure, "depth", json_object_new_int((int)state->depth - 1));
    json_object_object_add(
        failure, "lines_missing",
        json_object_new_uint64(trail->missing[state->depth - 1].count));
    json_object_object_add(failure, "sites", sites);
    json_object_object_add(failure, "case", json_object_new_string(folder));
    nvl_case_write(trial, folder, trace, state, seed, failure);
    if (trial->sites == NULL) {
        trial->sites = json_object_get(sites);
        trial->finding = trail->finding;
        snprintf(trial->phase, sizeof trial->phase, "%s", nvd_phase_name(trail->phase));
        snprintf(trial->first_case, sizeof trial->first_case, "%s", folder);
        snprintf(trial->explanation, sizeof trial->explanation, "%s", sentence);
    }
    nvd_emit(failure);
    nvl_script_clear(&script);
}

/* Shrinks, explains and keeps one failure of a trace. */
static bool keep_failure(struct nvl_trial *trial, const struct nvl_beginning *beginning,
                         uint64_t seed, const struct nvl_failure *failure,
                         const char *trace_path)
{
    char folder[4096], kept[4200], error[200];
    struct nvl_explore_options explore;
    struct nvl_state *state = malloc(sizeof *state);
    struct nvl_trace *trace = nvl_trace_load(trace_path, error, sizeof error);
    if (state == NULL || trace == NULL)
        abort();
    *state = failure->state;
    snprintf(folder, sizeof folder, "%s/case-%u", trial->options->work,
             trial->case_count++);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        nvd_emit_error("work", errno, "%s: %s", folder, strerror(errno));
        nvl_trace_free(trace);
        free(state);
        return false;
    }
    snprintf(kept, sizeof kept, "%s/trace.nvl", folder);
    if (trial->options->shrink)
        nvl_shrink(trial, beginning, seed, kept, &trace, state, failure->finding.verdict);
    nvl_trial_explore_options(trial, seed, &explore);
    struct nvl_trail *trail = nvl_trail_new();
    bool done = nvl_watch_state(trace, trial->options->adapter, &explore,
                                trial->options->timeout, state, trail);
    if (done && trail->sound) { /* seen once, and never again: say so */
        trail->finding = failure->finding;
        nvd_emit_error("replay", 0, "a failure (%s) was not seen again when replayed",
                       nvd_verdict_name(failure->finding.verdict));
    }
    FILE *file = fopen(kept, "wbe");
    if (file != NULL) {
        fwrite(trace->bytes, 1, trace->byte_count, file);
        fclose(file);
    }
    if (done)
        describe_failure(trial, trace, state, trail, seed, folder);
    nvl_trail_free(trail);
    nvl_trace_free(trace);
    free(state);
    return done;
}

/* ---- generations ---- */

/* The state that a random crash of this trace leaves: where the next history begins. */
static void crash_somewhere(const struct nvl_trial *trial, const struct nvl_trace *trace,
                            uint64_t seed, uint8_t *image, struct nvl_ledger **ledger)
{
    struct nvd_random random;
    struct nvl_point point;
    uint8_t *flags = calloc(trace->header.size / 64, 1);
    nvd_random_seed(&random, seed);
    nvl_trace_image(trace, image);
    struct px86 *model = px86_new(image, trace->header.size, trial->options->domain,
                                  px86_hash_image(image, trace->header.size));
    *ledger = nvl_ledger_copy(trace->ledger);
    uint64_t end =
        trace->event_count - nvd_random_below(&random, trace->event_count / 3 + 1);
    uint64_t i = 0;
    for (; i < trace->event_count && (i < end || !(*ledger)->ready); i++) {
        if (trace->events[i].kind == NVL_EVENT_MARK)
            nvl_ledger_apply(*ledger, &trace->events[i].mark);
        else
            nvl_feed(model, trial->options->domain, &trace->events[i], i);
    }
    nvl_point_begin(&point, model, flags, i);
    for (uint32_t n = 0; n < point.count; n++)
        point.assignment[n] = (uint32_t)nvd_random_below(&random, point.choices[n]);
    nvl_point_apply(&point, image, NULL);
    /* The point's end would put the floor back. */
    memcpy(point.assignment, point.applied, point.count * sizeof *point.applied);
    uint8_t *scratch = malloc(trace->header.size);
    if (scratch == NULL || flags == NULL)
        abort();
    nvl_point_end(&point, scratch, NULL);
    free(scratch);
    free(flags);
    px86_free(model);
}

static void emit_generation(const struct nvl_trace *trace, const struct nvl_tally *tally,
                            uint64_t generation)
{
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("generation"));
    json_object_object_add(document, "generation", json_object_new_uint64(generation));
    json_object_object_add(document, "events",
                           json_object_new_uint64(trace->event_count));
    json_object_object_add(document, "crash_points",
                           json_object_new_uint64(tally->points));
    json_object_object_add(
        document, "states_checked",
        json_object_new_uint64(tally->checked + tally->nested_checked));
    json_object_object_add(document, "failures",
                           json_object_new_uint64(tally->failure_count));
    nvd_emit(document);
}

static enum nvl_outcome run_generation(struct nvl_trial *trial, uint64_t generation,
                                       const struct nvl_script *script,
                                       struct nvl_beginning *beginning, uint8_t *image,
                                       struct nvl_ledger **ledger)
{
    const struct nvl_trial_options *options = trial->options;
    char path[4200], error[200];
    struct nvl_record_options record;
    uint64_t seed = options->seed + generation * UINT64_C(0x9e3779b97f4a7c15);
    bool goes_on = beginning->image != NULL;
    snprintf(path, sizeof path, "%s/trace-%llu.nvl", options->work,
             (unsigned long long)generation);
    nvl_trial_record_options(trial, seed, &record);
    record.trace = path;
    record.script = script;
    record.beginning = goes_on ? beginning : NULL;
    int code = nvl_trial_record(&record, options->timeout);
    if (code != NVD_OK && code != NVD_INCORRECT)
        return NVL_BROKEN;
    struct nvl_trace *trace = nvl_trace_load(path, error, sizeof error);
    if (trace == NULL) {
        nvd_emit_error("trace", 0, "%s: %s", path, error);
        return NVL_BROKEN;
    }
    struct nvl_tally *tally = nvl_tally_new();
    bool done = nvl_trial_explore(trial, trace, seed, tally);
    if (!trial->quiet)
        emit_generation(trace, tally, generation);
    if (!trial->quiet && generation == 0)
        nvl_costs_emit(trace);
    if (options->sites)
        nvl_sites_emit(trace);
    for (uint32_t i = 0; done && i < tally->failure_count && i < NVL_FAILURES_MAX; i++)
        done = keep_failure(trial, goes_on ? beginning : NULL, seed, &tally->failures[i],
                            path);
    enum nvl_outcome outcome = !done                      ? NVL_BROKEN
                               : tally->failure_count > 0 ? NVL_FAILED
                                                          : NVL_SURVIVED;
    if (outcome == NVL_SURVIVED && code == NVD_INCORRECT) {
        /* The allocator failed while it worked, and what it left shows nothing. */
        nvd_accuse(&trial->finding, NVD_VERDICT_UNUSABLE,
                   "an operation failed while the history was recorded");
        snprintf(trial->phase, sizeof trial->phase, "work");
        trial->sum->by_kind[NVD_VERDICT_UNUSABLE]++;
        trial->sum->failure_count++;
        outcome = NVL_FAILED;
    }
    if (outcome == NVL_SURVIVED) {
        free(*ledger);
        crash_somewhere(trial, trace, seed, image, ledger);
        *beginning = (struct nvl_beginning){image, *ledger};
    }
    nvl_tally_free(tally);
    nvl_trace_free(trace);
    unlink(path);
    return outcome;
}

enum nvl_outcome nvl_trial_run(struct nvl_trial *trial)
{
    const struct nvl_trial_options *options = trial->options;
    struct nvl_script script = {0};
    char error[200];
    if (options->script_text != NULL &&
        !nvl_script_parse(&script, options->script_text, options->slots,
                          nvd_subject_inner(options->adapter), error, sizeof error)) {
        nvd_emit_error("script", 0, "%s", error);
        return NVL_BROKEN;
    }
    uint8_t *image = malloc(trial->file_size);
    if (image == NULL)
        abort();
    struct nvl_ledger *ledger = NULL;
    struct nvl_beginning beginning = {NULL, NULL};
    enum nvl_outcome outcome = NVL_SURVIVED;
    for (uint64_t g = 0; g < options->generations && outcome == NVL_SURVIVED; g++) {
        if (options->budget > 0 && nvl_trial_seconds(trial) > options->budget)
            break;
        outcome = run_generation(trial, g, options->script_text != NULL ? &script : NULL,
                                 &beginning, image, &ledger);
    }
    free(ledger);
    free(image);
    nvl_script_clear(&script);
    return outcome;
}

/* ---- the last word ---- */

static void add_big(struct json_object *document, const char *key, long double value)
{
    /* Exact as a whole number as far as JSON's readers go. */
    if (value < 9007199254740992.0L)
        json_object_object_add(document, key, json_object_new_uint64((uint64_t)value));
    else
        json_object_object_add(document, key, json_object_new_double((double)value));
}

static void add_counts(struct json_object *document, const struct nvl_trial *trial)
{
    const struct nvl_tally *sum = trial->sum;
    const struct {
        const char *key;
        uint64_t value;
    } counts[] = {
        {"crash_points", sum->points},
        {"crash_points_complete", sum->points_complete},
        {"recovery_crash_points", sum->nested_points},
        {"states_checked", sum->checked + sum->nested_checked},
        {"recovery_states_checked", sum->nested_checked},
        {"states_distinct", sum->distinct},
        {"states_deep", sum->deep},
        {"ops", trial->ops},
        {"undo_validations", sum->validations},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_object_object_add(document, counts[i].key,
                               json_object_new_uint64(counts[i].value));
    add_big(document, "states_legal", sum->legal);
    add_big(document, "states_covered", sum->covered);
    json_object_object_add(
        document, "share_covered",
        json_object_new_double(sum->legal > 0 ? (double)(sum->covered / sum->legal) : 0));
    json_object_object_add(document, "cpu_seconds", json_object_new_double(sum->seconds));
    json_object_object_add(
        document, "states_per_s",
        json_object_new_double(
            sum->seconds > 0 ? (double)(sum->checked + sum->nested_checked) / sum->seconds
                             : 0));
    json_object_object_add(document, "seconds",
                           json_object_new_double(nvl_trial_seconds(trial)));
}

/* The time of a state, step by step: shares of the clock, applied to the CPU time. */
static void emit_profile(const struct nvl_tally *sum)
{
    const struct nvl_profile *profile = &sum->profile;
    double states = (double)(sum->checked + sum->nested_checked), all = 0;
    for (int step = 0; step < NVL_STEPS; step++)
        all += profile->seconds[step];
    if (all <= 0 || states <= 0)
        return;
    for (int step = 0; step < NVL_STEPS; step++) {
        double share = profile->seconds[step] / all;
        struct json_object *document = json_object_new_object();
        json_object_object_add(document, "type", json_object_new_string("profile"));
        json_object_object_add(
            document, "step", json_object_new_string(nvl_step_name((enum nvl_step)step)));
        json_object_object_add(document, "share", json_object_new_double(share));
        json_object_object_add(document, "times",
                               json_object_new_uint64(profile->times[step]));
        json_object_object_add(
            document, "us_per_state",
            json_object_new_double(share * sum->seconds / states * 1e6));
        nvd_emit(document);
    }
}

void nvl_trial_conclude(struct nvl_trial *trial, enum nvl_outcome outcome)
{
    struct json_object *document = json_object_new_object();
    struct json_object *by_kind = json_object_new_object();
    if (trial->options->profile)
        emit_profile(trial->sum);
    enum nvd_verdict verdict =
        outcome == NVL_FAILED ? trial->finding.verdict : NVD_VERDICT_OK;
    json_object_object_add(document, "type", json_object_new_string("verdict"));
    json_object_object_add(document, "verdict",
                           json_object_new_string(nvd_verdict_name(verdict)));
    json_object_object_add(
        document, "detail",
        json_object_new_string(outcome == NVL_FAILED ? trial->finding.detail : ""));
    json_object_object_add(document, "explanation",
                           json_object_new_string(trial->explanation));
    json_object_object_add(document, "phase", json_object_new_string(trial->phase));
    add_counts(document, trial);
    for (int kind = 1; kind < NVD_VERDICTS; kind++) {
        if (trial->sum->by_kind[kind] > 0)
            json_object_object_add(by_kind, nvd_verdict_name((enum nvd_verdict)kind),
                                   json_object_new_uint64(trial->sum->by_kind[kind]));
    }
    json_object_object_add(document, "by_kind", by_kind);
    json_object_object_add(
        document, "domain",
        json_object_new_string(trial->options->domain == PX86_EADR ? "eadr" : "adr"));
    json_object_object_add(
        document, "lens",
        json_object_new_string(trial->options->instrumented ? "compiled" : "library"));
    json_object_object_add(
        document, "case",
        trial->first_case[0] != '\0' ? json_object_new_string(trial->first_case) : NULL);
    json_object_object_add(document, "sites",
                           trial->sites != NULL ? trial->sites : json_object_new_array());
    json_object_object_add(document, "seed",
                           json_object_new_uint64(trial->options->seed));
    nvd_emit(document);
}
