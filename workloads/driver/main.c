// SPDX-License-Identifier: Apache-2.0
/*
 * main.c - picks the sub-command.
 *
 * Each command owns its arguments and its exit code; here they are only found
 * by name.  getopt's state is reset before a command sees its argv.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"

struct command {
    const char *name;
    nvd_command_fn *run;
    const char *summary;
};

static const struct command commands[] = {
    {"info", nvd_command_info, "what an adapter can do, or which workloads there are"},
    {"calibrate", nvd_command_calibrate, "what this machine's flushes and fences cost"},
    {"bench", nvd_command_bench, "one sample of one workload"},
    {"fill", nvd_command_fill, "fill a fresh heap to the brim"},
    {"trace", nvd_command_trace, "make a trace of a recording, or describe one"},
    {"churn", nvd_command_churn, "work on a heap until killed, with a journal"},
    {"verify", nvd_command_verify, "recover a heap and hold it to its journal"},
    {"history", nvd_command_history, "a whole fault case: churn, kill, verify, again"},
};

static void usage(FILE *stream)
{
    fputs("usage: nvdrive COMMAND [OPTION...]\n\n", stream);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\nnvdrive COMMAND --help lists the options of one.\n", stream);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        nvd_emit_error("usage", 0, "no command given");
        return NVD_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stderr);
        return NVD_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            optind = 1;
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    usage(stderr);
    nvd_emit_error("usage", 0, "unknown command '%s'", argv[1]);
    return NVD_USAGE;
}
