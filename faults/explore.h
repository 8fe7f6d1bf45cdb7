// SPDX-License-Identifier: Apache-2.0
/*
 * explore.h - goes through a trace and tries the states that a power cut could leave.
 *
 * Crash points.  Only a rising floor (a fence, a locked instruction; under eADR each
 * store) makes states illegal, and only some marks make the heap owe less.  Between two
 * such events the set of legal states grows and what is owed grows: the states of the
 * last instant contain those of every instant before it, and are judged more strictly.
 * So a crash point lies before each event that raises a floor, before each mark that
 * loosens, and at the end; all other instants are covered by these.
 *
 * At a point: the floor, program order, each line alone, all but one, then random
 * assignments and the gaps of the decision tree (tree.h) in turn, up to a limit; the
 * number of legal states and the number decided are counted exactly.
 *
 * Crashes in recovery.  While a state is recovered the lens records; the recording is
 * explored as the trace is, over the state's image, for each recovery that stores
 * something no recovery before it stored, and for a seeded share of the others.
 *
 * Runs in one worker process; the supervisor is supervise.h.
 */
#ifndef NVL_EXPLORE_H
#define NVL_EXPLORE_H

#include "judge.h"
#include "px86.h"
#include "tally.h"
#include "trace.h"

struct nvl_explore_options {
    enum px86_domain domain;
    uint64_t states;        /* tried at one crash point at most */
    uint64_t nested_states; /* and at one in a recovery */
    uint32_t depth;         /* crashes in a row: 1 .. NVL_DEPTH_MAX */
    uint64_t nested_share;  /* one recovery in so many is explored in any case; 0: none */
    uint64_t deep_share;
    bool deep, prune;
    bool last_operation; /* crash points from its beginning on only */
    uint64_t seed;
    uint64_t fill_baseline;
    double fill_tolerance;
    double budget; /* seconds of wall clock; 0: no limit */
    uint32_t max_failures;
    const char *folder; /* for the image; on tmpfs */
    const char *extra;  /* the adapter's options */
    bool instrumented;
    bool profile; /* note the time of each step */
};

/* Something that recovery did, for explanations. */
struct nvl_trail_step {
    enum nvl_event_kind kind; /* NVL_EVENT_MODULE stands for a load */
    uint32_t line;
    uint64_t offset, length;
    uint32_t frame_count;
    uintptr_t frames[NVL_FRAMES];
};

enum {
    NVL_TRAIL_MAX = 512,
    NVL_UNITS_MAX = 512,
    NVL_DIFFERING_MAX = 256,
    NVL_LOOKS_MAX = 32
};

/* A store, or a part of one, that a crash left out or that it kept. */
struct nvl_trail_unit {
    uint32_t level; /* of the crash: 0 in the history */
    bool missing;   /* else it is on media though nothing had to put it there */
    uint32_t line;
    uint8_t at, length, thread;
    uint64_t event;      /* of the trace (level 0) */
    uint32_t site;       /* of the trace (level 0) */
    uintptr_t frames[2]; /* of this process (deeper) */
};

/* Lines of a crash that are not as program order has them, or not at their floor. */
struct nvl_differing {
    uint32_t count;
    bool more; /* than fit */
    struct {
        uint32_t line, choice;
    } set[NVL_DIFFERING_MAX];
};

/* In shared memory, filled while a state is replayed. */
struct nvl_trail {
    _Atomic uint32_t count; /* steps so far; the last NVL_TRAIL_MAX are kept */
    struct nvl_trail_step step[NVL_TRAIL_MAX];
    bool sound;
    struct nvd_finding finding;
    enum nvd_phase phase;
    uint64_t victim_offset; /* of the slot that the finding names; UINT64_MAX */
    uint32_t unit_count;
    struct nvl_trail_unit unit[NVL_UNITS_MAX];
    /* Where the last recovery loaded from the heap, whatever the line: each place of its
       code once, in order, with its caller. */
    uint32_t look_count;
    uintptr_t look[NVL_LOOKS_MAX][2];
    struct nvl_differing missing[NVL_DEPTH_MAX], present[NVL_DEPTH_MAX];
};

/* In a worker: explores from event `from` on, writing to the tally.  Returns when done
   or out of budget; a failure ends the process after it was written down. */
void nvl_explore(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                 const struct nvl_explore_options *options, struct nvl_tally *tally,
                 uint64_t from);
/* In a worker: tries one state, writing its verdict and trail. */
void nvl_explore_state(const struct nvl_trace *trace, const struct nvc_adapter *adapter,
                       const struct nvl_explore_options *options,
                       const struct nvl_state *state, struct nvl_tally *tally,
                       struct nvl_trail *trail);
/* Exit code of a worker that wrote down a failure. */
enum { NVL_WORKER_FAILED = 77 };

/* What a trace's event does to a model of the heap. */
void nvl_feed(struct px86 *model, enum px86_domain domain, const struct nvl_event *event,
              uint64_t index);
/* True if the event raises a floor, so that a crash just before it is a crash point. */
bool nvl_raises_floor(const struct px86 *model, enum px86_domain domain,
                      const struct nvl_event *event);

#endif
