/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial.h - a workload that is a script with a beginning and an end.
 *
 * Some questions are not rates: how soon is a heap ready after a crash, how much
 * room is left after a year of allocations.  Their workload sets `trial` instead of
 * `run`.  It is called once, in one thread, and leaves its figures in `metrics`
 * (a number each; docs/driver-protocol.md names them) and, if it likes, points of
 * a curve in `series`.
 *
 * The trial makes and closes the heap itself (nvd_trial_create(), nvd_trial_close()), as
 * often as it likes; the command sees to it that no file is at heap_path before, and
 * none afterwards.
 *
 * Stages.  A trial that needs other processes (one to be killed, a fresh one) starts
 * nvdrive again with its own arguments and the name of a stage; there trial() is
 * called with `stage` set.  A stage prints documents, which the first process
 * reads (child.h); its "error" documents are the trial's own.  A stage runs on all
 * of the CPUs given (a trial's threads are those that the library may want), and
 * dies with the first process.
 */
#ifndef NVD_TRIAL_H
#define NVD_TRIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "adapter.h"
#include "child.h"
#include "workload.h"

struct nvd_trial {
    const struct nvd_workload *workload;
    const uint64_t *values;
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap; /* NULL: none is open */
    const char *heap_path;
    const struct nvc_options *options; /* for create(); open() wants size and slots 0 */
    unsigned threads; /* workers, or CPUs that a library may use: the trial says */
    uint64_t seed;
    const char *stage;            /* NULL: the first process */
    const char *const *arguments; /* of this process: what a stage gets too */
    int argument_count;

    struct json_object *metrics;
    struct json_object *series; /* an array; null if it stays empty */
};

/* Makes the heap, or opens it, and enters it with this thread; the one that closes is the
   one that made or opened.  NVD_OK, or an exit code after an error line. */
int nvd_trial_create(struct nvd_trial *trial);
int nvd_trial_open(struct nvd_trial *trial);
int nvd_trial_close(struct nvd_trial *trial);

/* Adds a figure. */
void nvd_trial_metric(struct nvd_trial *trial, const char *name, double value);

/* "where: what the adapter says", as an error line; the exit code for it. */
int nvd_trial_failed(const struct nvd_trial *trial, const char *where, int error);
/* The exit code of data that is not what it must be, after an error line. */
int nvd_trial_incorrect(const struct nvd_trial *trial, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Starts a stage in a fresh process.  NVD_OK, or an exit code after an error line. */
int nvd_trial_start(const struct nvd_trial *trial, const char *stage,
                    struct nvd_child *child);
/* Waits for the stage's next document.  If it is of that type: NVD_OK, and the document
   is the caller's to put.  Else the child is finished and the trial has failed: the exit
   code, after an error line (the child's, or one on how it ended). */
int nvd_trial_expect(const struct nvd_trial *trial, struct nvd_child *child,
                     const char *stage, const char *type, struct json_object **document);

#endif
