// SPDX-License-Identifier: Apache-2.0
/*
 * trial.h - one power-fail case: histories of one allocator, and what became of them.
 */
#ifndef NVL_TRIAL_H
#define NVL_TRIAL_H

#include <json-c/json.h>

#include "explore.h"
#include "mutate.h"
#include "record.h"
#include "watch.h"

struct nvl_trial_options {
    const struct nvc_adapter *adapter;
    const char *extra;
    const char *work; /* folder for traces and cases */
    const char *dir;  /* folder for heaps and images: a tmpfs */
    const char *script_text;
    uint64_t seed, heap_size, ops, generations, states, nested_states, deep_share,
        nested_share, max_failures, payload;
    uint32_t slots, threads, depth;
    double timeout, budget, fill_tolerance;
    enum px86_domain domain;
    bool last_operation; /* explore from the beginning of a history's last one on */
    bool sites;          /* a document on what each history reached */
    bool instrumented, deep, prune, shrink, profile;
    const struct nvl_mutation *mutation;
};

/* A trial under way: the options of its parts, and its sums. */
struct nvl_trial {
    const struct nvl_trial_options *options;
    uint64_t file_size, fill_baseline;
    struct nvl_tally *sum; /* of all histories */
    uint64_t ops;          /* acknowledged, in all histories */
    double began;
    uint32_t case_count;
    bool quiet;                /* no documents on generations and costs */
    struct json_object *sites; /* of the first failure; or NULL */
    char explanation[1024];
    char first_case[4096];      /* folder; "" */
    struct nvd_finding finding; /* of the first failure */
    char phase[32];
};

enum nvl_outcome { NVL_SURVIVED, NVL_FAILED, NVL_BROKEN };

/* The parts' options for this trial; `seed` of the history. */
void nvl_trial_record_options(const struct nvl_trial *trial, uint64_t seed,
                              struct nvl_record_options *record);
void nvl_trial_explore_options(const struct nvl_trial *trial, uint64_t seed,
                               struct nvl_explore_options *explore);
/* Records in a child process. An exit code of driver.h; a crash or hang of the allocator
   while it works is NVD_INCORRECT, with an error line. */
int nvl_trial_record(const struct nvl_record_options *options, double timeout);
/* Measures a fresh heap in a child process. */
int nvl_trial_measure(struct nvl_trial *trial);
/* Explores a trace and adds to the sums; `tally` is that trace's alone. */
bool nvl_trial_explore(struct nvl_trial *trial, const struct nvl_trace *trace,
                       uint64_t seed, struct nvl_tally *tally);
double nvl_trial_seconds(const struct nvl_trial *trial);

/* shrink.c: the fewest operations, then the fewest lines, that still fail in this way;
   replaces *trace and *state. */
void nvl_shrink(struct nvl_trial *trial, const struct nvl_beginning *beginning,
                uint64_t seed, const char *trace_path, struct nvl_trace **trace,
                struct nvl_state *state, enum nvd_verdict verdict);
/* The operations of a trace, in the order of their beginnings. */
void nvl_script_of(const struct nvl_trace *trace, struct nvl_script *script);

/* explain.c: why the state fails: a sentence, and the source lines that matter. */
struct json_object *nvl_explain(const struct nvl_trace *trace,
                                const struct nvl_state *state,
                                const struct nvl_trail *trail, char *sentence,
                                size_t size);

/* case.c */
struct json_object *nvl_state_json(const struct nvl_state *state);
bool nvl_state_parse(struct json_object *document, struct nvl_state *state);
/* Writes case.json beside the trace. */
bool nvl_case_write(const struct nvl_trial *trial, const char *folder,
                    const struct nvl_trace *trace, const struct nvl_state *state,
                    uint64_t seed, struct json_object *failure);

/* Runs the whole trial: generations of a history each. Prints its documents. */
enum nvl_outcome nvl_trial_run(struct nvl_trial *trial);
/* Prints the verdict that sums it all up. */
void nvl_trial_conclude(struct nvl_trial *trial, enum nvl_outcome outcome);

/* costs.c: performance findings by source line, one document each. */
void nvl_costs_emit(const struct nvl_trace *trace);
/* sites.c: one document on its flushes, fences and non-temporal stores by call stack. */
void nvl_sites_emit(const struct nvl_trace *trace);

#endif
