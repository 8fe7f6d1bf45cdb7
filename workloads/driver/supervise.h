// SPDX-License-Identifier: Apache-2.0
/*
 * supervise.h - a verification in a child process, timed.
 */
#ifndef NVD_SUPERVISE_H
#define NVD_SUPERVISE_H

#include "fault_options.h"
#include "journal.h"
#include "verdict.h"

struct json_object;

enum {
    NVD_VERIFY_ARGUMENTS = 32, /* argv of a worker and its NULL fit in */
    NVD_ARGUMENT_BYTES = 48,   /* a number as text */
};

/* A verify command line: pointers into options and into its own texts. */
struct nvd_command_line {
    const char *argv[NVD_VERIFY_ARGUMENTS];
    int argc;
    char texts[8][NVD_ARGUMENT_BYTES];
};

/* The arguments of `nvdrive verify` that judge as these options say; without
   adapter, options, heap and journal where files is false. */
void nvd_verify_command_line(struct nvd_command_line *line,
                             const struct nvd_fault_options *options, bool files);

/* Runs the verification in a child. Returns its verdict document, or one for a
   child that died (`crash`) or had to be killed (`hang`); or an `error`
   document when the environment failed; NULL when a signal asks us to stop. */
struct json_object *nvd_supervise_verify(const struct nvd_fault_options *options);

/* The phase that the journal file says its last user was in. */
enum nvd_phase nvd_last_phase(const char *journal_path);

/* The kind in a verdict document; false for any other document. */
bool nvd_document_verdict(struct json_object *document, enum nvd_verdict *verdict);

#endif
