// SPDX-License-Identifier: Apache-2.0
/*
 * main.c - nvlab, the power-fail laboratory: finds the sub-command.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const struct {
    const char *name;
    nvd_command_fn *run;
} commands[] = {
    {"run", nvl_command_run},       {"sequences", nvl_command_sequences},
    {"record", nvl_command_record}, {"explore", nvl_command_explore},
    {"replay", nvl_command_replay}, {"trace", nvl_command_trace},
    {"sites", nvl_command_sites},   {"flags", nvl_command_flags},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    nvd_emit_error("usage", 0,
                   "expected a command: run, sequences, record, explore, replay, trace, "
                   "sites or flags (docs/power-fail.md)");
    return NVD_USAGE;
}
