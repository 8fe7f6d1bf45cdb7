// SPDX-License-Identifier: Apache-2.0
/*
 * explore.c - crash points and the states of each; explore.h has the theory.
 */
#include "explore.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"
#include "point.h"
#include "recording.h"
#include "tree.h"

enum {
    validate_every = 8192, /* states between two comparisons of the whole image */
};

struct explorer {
    const struct nvl_trace *trace;
    const struct nvl_explore_options *options;
    struct nvl_tally *tally;
    struct nvl_trail *trail; /* NULL: exploring */
    struct nvl_image image;
    struct nvl_judge judge;
    struct nvl_ledger *ledger;
    struct nvd_random random;
    double deadline;
    struct nvl_set images;     /* hashes of those tried */
    struct nvl_set recoveries; /* hashes of those explored */
    uint64_t since_validation;
    struct {
        struct px86 *model;
        struct nvl_recording recording; /* of the recovery from a state at this level */
        bool recorded;
    } level[NVL_DEPTH_MAX];
    uint32_t depth_now;
};

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static bool out_of_time(const struct explorer *explorer)
{
    return explorer->deadline > 0 && now(CLOCK_MONOTONIC) > explorer->deadline;
}

/* ---- one state ---- */

static void write_down_failure(struct explorer *explorer)
{
    struct nvl_tally *tally = explorer->tally;
    const struct nvl_judge *judge = &explorer->judge;
    if (tally->failure_count < NVL_FAILURES_MAX) {
        struct nvl_failure *failure = &tally->failures[tally->failure_count];
        failure->finding = judge->finding;
        failure->phase = judge->phase;
        failure->state = tally->now;
    }
    tally->by_kind[judge->finding.verdict]++;
    tally->failure_count++;
}

/* Once, when recovery has ended or failed. */
static void note_looks(struct nvl_trail *trail)
{
    if (trail->look_count > 0)
        return;
    for (size_t i = 0; i < nvl_lens.read_count; i++) {
        const struct nvl_read *read = &nvl_lens.reads[i];
        uint32_t known = 0;
        while (known < trail->look_count && trail->look[known][0] != read->frames[0])
            known++;
        if (known < trail->look_count || known == NVL_LOOKS_MAX)
            continue;
        trail->look[known][0] = read->frames[0];
        trail->look[known][1] = read->frames[1];
        trail->look_count++;
    }
}

/* Recovery has ended: what follows it is no part of the recording. */
static void on_recovered(void *context)
{
    struct explorer *explorer = context;
    nvl_lens_settle();
    if (explorer->trail == NULL) {
        nvl_lens_sink(NULL, NULL, false);
    } else {
        explorer->level[explorer->depth_now].recorded = false;
        note_looks(explorer->trail);
    }
    explorer->tally->recovery_stores += nvl_lens.saved_count;
}

static void add_to_trail(void *context, const struct nvl_sighted *sighted)
{
    struct explorer *explorer = context;
    struct nvl_trail *trail = explorer->trail;
    uint32_t count = atomic_load(&trail->count);
    struct nvl_trail_step *step = &trail->step[count % NVL_TRAIL_MAX];
    *step = (struct nvl_trail_step){.kind = sighted->kind,
                                    .offset = sighted->offset,
                                    .length = sighted->length,
                                    .line = (uint32_t)(sighted->offset / 64),
                                    .frame_count = sighted->frame_count};
    memcpy(step->frames, sighted->frames, sizeof step->frames);
    atomic_store(&trail->count, count + 1);
    if (explorer->level[explorer->depth_now].recorded)
        nvl_recording_add(&explorer->level[explorer->depth_now].recording, sighted);
}

static void start_recording(struct explorer *explorer, uint32_t level)
{
    explorer->depth_now = level;
    explorer->level[level].recorded = level + 1 < explorer->options->depth;
    if (explorer->level[level].recorded)
        nvl_recording_clear(&explorer->level[level].recording);
    if (explorer->trail != NULL) {
        nvl_lens_sink(add_to_trail, explorer, true);
    } else if (explorer->level[level].recorded) {
        nvl_lens_sink(nvl_recording_sink, &explorer->level[level].recording, false);
    }
}

static void trail_reads(struct explorer *explorer)
{
    for (size_t i = 0; i < nvl_lens.read_count; i++) {
        const struct nvl_read *read = &nvl_lens.reads[i];
        struct nvl_sighted load = {.kind = NVL_EVENT_MODULE,
                                   .offset = (uint64_t)read->line * 64,
                                   .length = 64,
                                   .frame_count = read->frames[1] != 0 ? 2 : 1,
                                   .frames = {read->frames[0], read->frames[1]}};
        add_to_trail(explorer, &load);
    }
}

/* Judges the image as it is; its changes are undone. The lens's reads are left for the
   caller, who forgets them by undo. */
static bool run_state(struct explorer *explorer, uint32_t level)
{
    struct nvl_tally *tally = explorer->tally;
    nvl_lens_check(explorer->image.base, explorer->image.size, explorer->image.flags);
    start_recording(explorer, level);
    atomic_fetch_add_explicit(&tally->progress, 1, memory_order_relaxed);
    bool sound = nvl_judge_state(&explorer->judge, explorer->ledger);
    nvl_lens_sink(NULL, NULL, false);
    if (explorer->trail != NULL) {
        note_looks(explorer->trail);
        trail_reads(explorer);
    }
    tally->deep += explorer->judge.was_deep;
    tally->recovery_reads += nvl_lens.read_count;
    return sound;
}

/* Where the slot lies that the finding's sentence names first; UINT64_MAX. */
static uint64_t victim_of(const struct explorer *explorer)
{
    const struct nvl_judge *judge = &explorer->judge;
    const struct nvl_ledger *ledger = explorer->ledger;
    const char *named = strstr(judge->finding.detail, "slot ");
    for (uint32_t id = ledger->ids; named != NULL && id > 0; id--) {
        const char *name = judge->names[id - 1];
        size_t length = strlen(name);
        if (strncmp(named, name, length) != 0 ||
            strchr("0123456789.", named[length]) != NULL)
            continue;
        if (judge->victim_slots[id - 1] == UINT64_MAX)
            continue;
        return judge->victim_slots[id - 1];
    }
    return UINT64_MAX;
}

static void fail(struct explorer *explorer)
{
    if (explorer->trail != NULL) {
        explorer->trail->sound = false;
        explorer->trail->finding = explorer->judge.finding;
        explorer->trail->phase = explorer->judge.phase;
        explorer->trail->victim_offset = victim_of(explorer);
        nvl_image_drop(&explorer->image);
        _exit(NVL_WORKER_FAILED);
    }
    write_down_failure(explorer);
    nvl_image_drop(&explorer->image);
    _exit(NVL_WORKER_FAILED);
}

/* Undo is trusted, and now and then held to it. */
static void validate(struct explorer *explorer, uint64_t expected)
{
    if (explorer->image.mounting == NVL_MOUNT_RESTORE ||
        ++explorer->since_validation < validate_every)
        return;
    explorer->since_validation = 0;
    explorer->tally->validations++;
    if (px86_hash_image(explorer->image.base, explorer->image.size) != expected ||
        !nvl_pool_is_zero()) {
        explorer->tally->lens_error_offset = 0;
        nvl_image_drop(&explorer->image);
        _exit(1);
    }
}

static void explore_recovery(struct explorer *explorer, uint32_t level, uint64_t hash);

/* Tries the point's present assignment. */
static void try_assignment(struct explorer *explorer, struct nvl_point *point,
                           uint32_t level)
{
    struct nvl_tally *tally = explorer->tally;
    nvl_profile_step(NVL_STEP_PUT);
    uint64_t hash = nvl_point_apply(point, explorer->image.base, explorer->image.copy);
    nvl_point_name(point, &tally->now.crash[level]);
    tally->now.depth = level + 1;
    tally->distinct += nvl_set_add(&explorer->images, hash);
    if (!run_state(explorer, level))
        fail(explorer);
    if (level == 0)
        tally->checked++;
    else
        tally->nested_checked++;
    nvl_profile_step(NVL_STEP_UNDO);
    nvl_lens_forget_reads(explorer->judge.reads);
    size_t read_count = nvl_point_reads(
        point, explorer->options->prune && explorer->image.mounting != NVL_MOUNT_RESTORE);
    nvl_lens_undo();
    nvl_image_restore(&explorer->image);
    nvl_point_decide(point, read_count);
    validate(explorer, hash);
    nvl_profile_step(NVL_STEP_CHOOSE);
    if (explorer->level[level].recorded)
        explore_recovery(explorer, level, hash);
}

/* ---- one crash point ---- */

static void explore_point(struct explorer *explorer, struct px86 *model, uint64_t event,
                          uint32_t level, uint64_t limit)
{
    struct nvl_tally *tally = explorer->tally;
    struct nvl_point point;
    nvl_profile_step(NVL_STEP_MODEL);
    nvl_point_begin(&point, model, explorer->image.flags, event);
    nvl_image_keep(&explorer->image);
    nvl_profile_step(NVL_STEP_CHOOSE);
    uint64_t tried = 0;
    while (tried < limit && nvl_point_propose(&point, &explorer->random, limit)) {
        try_assignment(explorer, &point, level);
        tried++;
        if (tried % 16 == 0 && out_of_time(explorer))
            break;
    }
    if (level == 0) {
        tally->points++;
        tally->points_complete += nvl_tree_complete(point.tree);
        tally->legal += point.legal;
        tally->covered += point.covered;
    } else {
        tally->nested_points++;
        tally->nested_legal += point.legal;
        tally->nested_covered += point.covered;
    }
    nvl_profile_step(NVL_STEP_MODEL);
    nvl_point_end(&point, explorer->image.base, explorer->image.copy);
}

/* ---- crashes in a recovery ---- */

static bool worth_exploring(struct explorer *explorer,
                            const struct nvl_recording *recording)
{
    uint64_t share = explorer->options->nested_share;
    if (!nvl_recording_stores(recording))
        return false;
    return nvl_set_add(&explorer->recoveries, nvl_recording_hash(recording)) ||
           (share != 0 && nvd_random_below(&explorer->random, share) == 0);
}

/* The image holds the state that this level's recording began with. */
static void explore_recovery(struct explorer *explorer, uint32_t level, uint64_t hash)
{
    struct nvl_recording *recording = &explorer->level[level].recording;
    uint32_t below = level + 1;
    if (!worth_exploring(explorer, recording))
        return;
    nvl_profile_step(NVL_STEP_MODEL);
    struct nvl_recording mine = *recording;
    nvl_recording_init(recording); /* the level is used again below this frame */
    struct px86 **model = &explorer->level[below].model;
    if (*model == NULL)
        *model = px86_new(explorer->image.base, explorer->image.size,
                          explorer->options->domain, hash);
    else
        px86_restart(*model, hash);
    struct nvl_lines kept;
    nvl_lines_keep(&kept, explorer->image.base, &mine);
    nvl_flags_hide(explorer->image.flags, explorer->image.size);
    for (size_t i = 0; i < mine.count && !out_of_time(explorer); i++) {
        struct nvl_event event = nvl_recording_event(&mine, i);
        if (nvl_raises_floor(*model, explorer->options->domain, &event))
            explore_point(explorer, *model, i, below, explorer->options->nested_states);
        nvl_feed(*model, explorer->options->domain, &event, i);
    }
    explore_point(explorer, *model, mine.count, below, explorer->options->nested_states);
    nvl_flags_show(explorer->image.flags, explorer->image.size);
    nvl_lines_restore(&kept, explorer->image.base);
    nvl_recording_drop(&mine);
}

/* ---- the history ---- */

void nvl_feed(struct px86 *model, enum px86_domain domain, const struct nvl_event *event,
              uint64_t index)
{
    struct px86_store store = {.thread = event->thread,
                               .site = event->site,
                               .event = index,
                               .offset = event->offset,
                               .length = event->length,
                               .data = event->data};
    switch (event->kind) {
    case NVL_EVENT_STORE:
        px86_store(model, &store);
        break;
    case NVL_EVENT_STORE_WHOLE:
        px86_store_whole(model, &store);
        break;
    case NVL_EVENT_STORE_NT:
        px86_store_nontemporal(model, &store);
        break;
    case NVL_EVENT_FLUSH:
        if (domain == PX86_ADR)
            px86_flush(model, event->thread, event->offset, event->length);
        break;
    case NVL_EVENT_FENCE:
    case NVL_EVENT_LOCKED:
        px86_fence(model, event->thread);
        break;
    case NVL_EVENT_SYNCED:
        px86_store_whole(model, &store);
        px86_clflush(model, event->offset, event->length);
        break;
    default:
        break;
    }
}

bool nvl_raises_floor(const struct px86 *model, enum px86_domain domain,
                      const struct nvl_event *event)
{
    switch (event->kind) {
    case NVL_EVENT_FENCE:
    case NVL_EVENT_LOCKED:
        return px86_fence_matters(model, event->thread);
    case NVL_EVENT_SYNCED:
        return true;
    case NVL_EVENT_STORE:
    case NVL_EVENT_STORE_WHOLE:
        return domain == PX86_EADR;
    default:
        return false;
    }
}

static bool is_point(const struct explorer *explorer, const struct nvl_event *event)
{
    if (!explorer->ledger->ready)
        return false;
    if (event->kind == NVL_EVENT_MARK)
        return nvl_mark_loosens(&event->mark);
    return nvl_raises_floor(explorer->level[0].model, explorer->options->domain, event);
}

static void make_ready(struct explorer *explorer, const struct nvl_trace *trace,
                       const struct nvc_adapter *adapter,
                       const struct nvl_explore_options *options, struct nvl_tally *tally)
{
    memset(explorer, 0, sizeof *explorer);
    explorer->trace = trace;
    explorer->options = options;
    explorer->tally = tally;
    if (nvl_image_make(&explorer->image, options->folder, trace->header.size, adapter,
                       options->extra, options->instrumented) != 0)
        _exit(NVD_ENVIRONMENT);
    nvl_trace_image(trace, explorer->image.base);
    if (adapter->observe != NULL)
        adapter->observe(nvl_lens_event, NULL);
    if (options->instrumented)
        nvl_pool_open();
    explorer->ledger = nvl_ledger_copy(trace->ledger);
    nvl_judge_init(&explorer->judge, &explorer->image, trace->ledger);
    explorer->judge.recovered = on_recovered;
    explorer->judge.context = explorer;
    explorer->judge.shown_phase = &tally->phase;
    explorer->judge.deep = options->deep;
    explorer->judge.deep_share = options->deep_share;
    explorer->judge.seed = options->seed;
    explorer->judge.fill_baseline = options->fill_baseline;
    explorer->judge.fill_tolerance = options->fill_tolerance;
    nvd_random_seed(&explorer->random, options->seed);
    nvl_set_init(&explorer->images);
    nvl_set_init(&explorer->recoveries);
    for (int i = 0; i < NVL_DEPTH_MAX; i++)
        nvl_recording_init(&explorer->level[i].recording);
    explorer->level[0].model =
        px86_new(explorer->image.base, explorer->image.size, options->domain,
                 px86_hash_image(explorer->image.base, explorer->image.size));
    nvl_profile_use(options->profile ? &tally->profile : NULL);
    if (options->budget > 0)
        explorer->deadline = now(CLOCK_MONOTONIC) + options->budget;
}

/* The event with which the last operation begins; 0 if there is none. */
static uint64_t last_beginning(const struct nvl_trace *trace)
{
    for (uint64_t i = trace->event_count; i > 0; i--) {
        const struct nvl_event *event = &trace->events[i - 1];
        if (event->kind == NVL_EVENT_MARK && event->mark.kind == NVL_MARK_BEGIN)
            return i - 1;
    }
    return 0;
}

void nvl_explore(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                 const struct nvl_explore_options *options, struct nvl_tally *tally,
                 uint64_t from)
{
    struct explorer explorer;
    make_ready(&explorer, trace, adapter, options, tally);
    double began = now(CLOCK_PROCESS_CPUTIME_ID);
    double before = tally->seconds;
    bool changed = true;
    uint64_t acknowledged = UINT64_MAX;
    uint64_t first = options->last_operation ? last_beginning(trace) : 0;
    if (from < first)
        from = first;
    for (uint64_t i = 0; i <= trace->event_count; i++) {
        const struct nvl_event *event = i < trace->event_count ? &trace->events[i] : NULL;
        bool point = event == NULL ? explorer.ledger->ready : is_point(&explorer, event);
        if (point && changed && i >= from) {
            if (out_of_time(&explorer))
                break;
            tally->next_event = i + 1;
            if (explorer.ledger->acknowledged != acknowledged)
                nvl_judge_new_operation(&explorer.judge);
            acknowledged = explorer.ledger->acknowledged;
            explore_point(&explorer, explorer.level[0].model, i, 0, options->states);
            tally->seconds = before + now(CLOCK_PROCESS_CPUTIME_ID) - began;
        }
        if (event == NULL)
            break;
        /* Two points with nothing between them but a flush are one. */
        changed = (changed && !point) || event->kind != NVL_EVENT_FLUSH;
        if (event->kind == NVL_EVENT_MARK)
            nvl_ledger_apply(explorer.ledger, &event->mark);
        else
            nvl_feed(explorer.level[0].model, options->domain, event, i);
    }
    tally->finished = true;
    nvl_image_drop(&explorer.image);
}

/* ---- one state again ---- */

static void note_unit(struct explorer *explorer, uint32_t level,
                      const struct px86_line *line, const struct px86_unit *unit,
                      bool missing)
{
    struct nvl_trail *trail = explorer->trail;
    if (trail->unit_count == NVL_UNITS_MAX)
        return;
    struct nvl_trail_unit *note = &trail->unit[trail->unit_count++];
    *note = (struct nvl_trail_unit){.level = level,
                                    .missing = missing,
                                    .line = line->index,
                                    .at = unit->at,
                                    .length = unit->length,
                                    .thread = unit->thread,
                                    .event = unit->event,
                                    .site = unit->site};
    if (level > 0) {
        const struct nvl_recording *recording = &explorer->level[level - 1].recording;
        memcpy(note->frames, recording->events[unit->event].frames, sizeof note->frames);
    }
}

/* What the choice leaves out of the line's units, and what it has of them. */
static void note_choice(struct explorer *explorer, uint32_t level,
                        const struct px86_line *line, uint32_t choice)
{
    const struct px86_choice *chosen = &line->choices[choice];
    uint32_t group = 0, first = 0;
    for (uint32_t i = 0; i < line->unit_count; i++) {
        if (i > 0 && line->units[i].group != line->units[i - 1].group) {
            group++;
            first = i;
        }
        bool kept = group < chosen->whole || (group == chosen->whole && i - first < 64 &&
                                              (chosen->part >> (i - first) & 1));
        note_unit(explorer, level, line, &line->units[i], !kept);
    }
}

static void note_differing(struct nvl_differing *differing, uint32_t line,
                           uint32_t choice)
{
    if (differing->count == NVL_DIFFERING_MAX) {
        differing->more = true;
        return;
    }
    differing->set[differing->count].line = line;
    differing->set[differing->count++].choice = choice;
}

static void note_assignment(struct explorer *explorer, uint32_t level,
                            const struct nvl_point *point)
{
    struct nvl_trail *trail = explorer->trail;
    trail->missing[level].count = trail->present[level].count = 0;
    for (uint32_t i = 0; i < point->count; i++) {
        uint32_t line = point->lines[i]->index, choice = point->assignment[i];
        if (choice != point->choices[i] - 1)
            note_differing(&trail->missing[level], line, choice);
        if (choice != 0)
            note_differing(&trail->present[level], line, choice);
        note_choice(explorer, level, point->lines[i], choice);
    }
}

static void go_down(struct explorer *explorer, const struct nvl_state *state,
                    uint32_t level, struct px86 *model, uint64_t event)
{
    struct nvl_point point;
    nvl_point_begin(&point, model, explorer->image.flags, event);
    nvl_point_assign(&point, &state->crash[level]);
    note_assignment(explorer, level, &point);
    uint64_t hash = nvl_point_apply(&point, explorer->image.base, explorer->image.copy);
    explorer->tally->now = *state;
    if (level + 1 == state->depth) { /* only the last recovery explains */
        atomic_store(&explorer->trail->count, 0);
        explorer->trail->look_count = 0;
        for (size_t i = 0; i < explorer->image.size / 64; i++)
            explorer->image.flags[i] |= NVL_LINE_WATCHED;
    }
    if (!run_state(explorer, level))
        fail(explorer);
    nvl_lens_undo();
    if (level + 1 == state->depth)
        return;
    struct nvl_recording *recording = &explorer->level[level].recording;
    nvl_flags_hide(explorer->image.flags, explorer->image.size);
    struct px86 *below = px86_new(explorer->image.base, explorer->image.size,
                                  explorer->options->domain, hash);
    uint64_t i = 0;
    for (; i < state->crash[level + 1].event && i < recording->count; i++) {
        struct nvl_event step = nvl_recording_event(recording, (size_t)i);
        nvl_feed(below, explorer->options->domain, &step, i);
    }
    go_down(explorer, state, level + 1, below, i);
}

void nvl_explore_state(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                       const struct nvl_explore_options *options,
                       const struct nvl_state *state, struct nvl_tally *tally,
                       struct nvl_trail *trail)
{
    struct explorer explorer;
    struct nvl_explore_options mine = *options;
    mine.depth = NVL_DEPTH_MAX;
    make_ready(&explorer, trace, adapter, &mine, tally);
    explorer.trail = trail;
    explorer.judge.deep_share = 1;
    trail->sound = true;
    for (uint64_t i = 0; i < state->crash[0].event && i < trace->event_count; i++) {
        const struct nvl_event *event = &trace->events[i];
        if (event->kind == NVL_EVENT_MARK)
            nvl_ledger_apply(explorer.ledger, &event->mark);
        else
            nvl_feed(explorer.level[0].model, options->domain, event, i);
    }
    go_down(&explorer, state, 0, explorer.level[0].model, state->crash[0].event);
    nvl_image_drop(&explorer.image);
}
