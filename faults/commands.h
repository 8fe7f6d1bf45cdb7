// SPDX-License-Identifier: Apache-2.0
/*
 * commands.h - the sub-commands of nvlab and the options that they share.
 *
 * nvlab prints JSON documents, one a line (docs/power-fail.md has them), and ends with an
 * exit code of driver.h.
 */
#ifndef NVL_COMMANDS_H
#define NVL_COMMANDS_H

#include "driver.h"
#include "trial.h"

struct nvl_command_options {
    struct nvl_trial_options trial;
    struct nvl_mutation mutation;
    const char *adapter_path, *trace_path, *case_path;
    uint64_t length; /* of the sequences */
    uint64_t shard, shards;
};

/* Parses argv (argv[0] is the command's name) and loads the adapter if one is named;
   an exit code, with an error line, if that fails. */
int nvl_options_parse(struct nvl_command_options *options, int argc, char **argv,
                      bool needs_adapter);

nvd_command_fn nvl_command_run;
nvd_command_fn nvl_command_sequences;
nvd_command_fn nvl_command_record;
nvd_command_fn nvl_command_explore;
nvd_command_fn nvl_command_replay;
nvd_command_fn nvl_command_trace;
nvd_command_fn nvl_command_sites;
nvd_command_fn nvl_command_flags;

#endif
