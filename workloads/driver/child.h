// SPDX-License-Identifier: Apache-2.0
/*
 * child.h - nvdrive as its own child: started, listened to, timed and killed.
 *
 * A child is a fresh process image (/proc/self/exe) that dies with its parent
 * (PR_SET_PDEATHSIG) and writes its documents into a pipe.  The parent waits in
 * ppoll() only, the one place where SIGINT and SIGTERM can reach it: they are
 * blocked elsewhere, so that a request to stop is never missed between a test
 * and a wait.  After nvd_child_catch_signals() such a signal makes every wait
 * end with NVD_CHILD_INTERRUPTED; the caller kills the child and clears up.
 */
#ifndef NVD_CHILD_H
#define NVD_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct json_object;

struct nvd_child {
    pid_t pid;
    int out; /* the read end of its standard output */
    size_t length;
    char buffer[8192]; /* what has arrived of the current line */
};

enum nvd_child_event {
    NVD_CHILD_LINE,        /* a whole document arrived */
    NVD_CHILD_ENDED,       /* its output ended: it is dead or dying */
    NVD_CHILD_TIMEOUT,     /* the deadline passed */
    NVD_CHILD_INTERRUPTED, /* SIGINT or SIGTERM */
};

void nvd_child_catch_signals(void);
/* The signal that was caught, or 0. */
int nvd_child_signal(void);

/* argv[0] is the name of the process; a NULL ends it. 0 or an errno value. */
int nvd_child_start(struct nvd_child *child, const char *const argv[]);

/* Waits until `deadline` (seconds of nvd_child_now()) for the next document;
 *document is the caller's to put, and NULL unless NVD_CHILD_LINE. */
enum nvd_child_event nvd_child_next(struct nvd_child *child, double deadline,
                                    struct json_object **document);

/* Kills the child if kill_it is set (else it gets 5 s to end by itself), reaps
   it, and returns its wait status. */
int nvd_child_finish(struct nvd_child *child, bool kill_it);

/* Monotonic clock, seconds. */
double nvd_child_now(void);

/* The "type" of a document, or "". */
const char *nvd_document_type(struct json_object *document);

#endif
