// SPDX-License-Identifier: Apache-2.0
/*
 * fault_options.c - the table of fault_options.h.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "fault_options.h"
#include "journal.h"

enum kind {
    TEXT,
    SIZE,
    COUNT,
    REAL,
    FLAG,
};

struct option_row {
    const char *name;
    enum kind kind;
    size_t offset;
    unsigned takes;
    unsigned needs; /* commands that can't do without */
    uint64_t min, max;
    const char *help;
};

#define AT(member) offsetof(struct nvd_fault_options, member)
#define EVERY      (NVD_TAKES_FILL | NVD_TAKES_CHURN | NVD_TAKES_VERIFY | NVD_TAKES_HISTORY)
#define HEAP_FILE  (NVD_TAKES_FILL | NVD_TAKES_CHURN | NVD_TAKES_VERIFY)
#define JOURNALLED (NVD_TAKES_CHURN | NVD_TAKES_VERIFY)
#define MAKES_HEAP (NVD_TAKES_FILL | NVD_TAKES_CHURN | NVD_TAKES_HISTORY)
#define JUDGES     (NVD_TAKES_VERIFY | NVD_TAKES_HISTORY)

static const struct option_row rows[] = {
    {"adapter", TEXT, AT(adapter), EVERY, EVERY, 0, 0, "shared object of the allocator"},
    {"options", TEXT, AT(extra), EVERY, 0, 0, 0, "its own options, key=value,..."},
    {"heap", TEXT, AT(heap), HEAP_FILE, HEAP_FILE, 0, 0, "heap file"},
    {"journal", TEXT, AT(journal), JOURNALLED, JOURNALLED, 0, 0, "journal file"},
    {"dir", TEXT, AT(dir), NVD_TAKES_HISTORY, NVD_TAKES_HISTORY, 0, 0,
     "folder in the NVM"},
    {"work", TEXT, AT(work), NVD_TAKES_HISTORY, NVD_TAKES_HISTORY, 0, 0,
     "folder outside of it, for journal and evidence"},
    {"cpus", TEXT, AT(cpus), EVERY, 0, 0, 0, "run on these, e.g. 0,2-3"},
    {"ending", TEXT, AT(ending), NVD_TAKES_CHURN, 0, 0, 0, "close or abandon"},
    {"heap-size", SIZE, AT(heap_size), MAKES_HEAP, 0, 1, UINT64_MAX,
     "bytes of a new heap"},
    {"slots", COUNT, AT(slots), MAKES_HEAP, 0, 1, NVD_SLOTS_MAX, "journalled slots"},
    {"threads", COUNT, AT(threads), NVD_TAKES_CHURN | NVD_TAKES_HISTORY, 0, 1,
     NVD_THREADS_MAX, "threads (history: at most)"},
    {"seed", COUNT, AT(seed), EVERY, 0, 0, UINT64_MAX, "of everything random"},
    {"ops", COUNT, AT(ops), NVD_TAKES_CHURN, 0, 0, UINT64_MAX,
     "end after so many; 0: never"},
    {"kill-at-event", COUNT, AT(kill_at_event), NVD_TAKES_CHURN, 0, 1, UINT64_MAX,
     "die before the Nth persistence event"},
    {"from-open", FLAG, AT(from_open), NVD_TAKES_CHURN, 0, 0, 0,
     "count events from the beginning of recovery"},
    {"generations", COUNT, AT(generations), NVD_TAKES_HISTORY, 0, 1, 1000,
     "crashes survived"},
    {"timeout", REAL, AT(timeout), JUDGES, 0, 0, 0,
     "seconds until a step counts as a hang"},
    {"fill-baseline", SIZE, AT(fill_baseline), JUDGES, 0, 0, UINT64_MAX,
     "bytes that fill a fresh heap"},
    {"fill-tolerance", REAL, AT(fill_tolerance), JUDGES, 0, 0, 0,
     "share of it that may be missing, in [0, 1)"},
    {"final", FLAG, AT(final), NVD_TAKES_VERIFY, 0, 0, 0,
     "free everything and fill to the brim"},
    {"worker", FLAG, AT(worker), NVD_TAKES_VERIFY, 0, 0, 0,
     "be the judged process itself"},
};

enum {
    row_count = sizeof rows / sizeof rows[0],
};

static void print_help(const char *command, unsigned takes)
{
    printf("usage: nvdrive %s [OPTION...]\n\n", command);
    for (size_t i = 0; i < row_count; i++) {
        if (rows[i].takes & takes)
            printf("  --%-15s %s%s\n", rows[i].name, rows[i].help,
                   rows[i].needs & takes ? " (required)" : "");
    }
}

static bool store(struct nvd_fault_options *options, const struct option_row *row,
                  const char *value)
{
    void *member = (char *)options + row->offset;
    uint64_t number;
    switch (row->kind) {
    case TEXT:
        memcpy(member, &value, sizeof value);
        return true;
    case SIZE:
        if (!nvd_parse_size(value, &number) || number < row->min)
            return false;
        memcpy(member, &number, sizeof number);
        return true;
    case COUNT:
        return nvd_parse_u64(value, row->min, row->max, member);
    case REAL:
        return nvd_parse_seconds(value, member);
    case FLAG:
        *(bool *)member = true;
        return true;
    }
    return false;
}

static int pin(const char *cpus)
{
    int list[CPU_SETSIZE];
    int count = nvd_parse_cpus(cpus, list, CPU_SETSIZE);
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < count; i++) {
        if (list[i] >= CPU_SETSIZE)
            return EINVAL;
        CPU_SET(list[i], &set);
    }
    if (count <= 0)
        return EINVAL;
    return sched_setaffinity(0, sizeof set, &set) != 0 ? errno : 0;
}

/* What the table can't say. */
static int check_together(const struct nvd_fault_options *options, unsigned takes)
{
    for (size_t i = 0; i < row_count; i++) {
        const char *text = NULL;
        if (!(rows[i].needs & takes))
            continue;
        memcpy(&text, (const char *)options + rows[i].offset, sizeof text);
        if (text == NULL) {
            nvd_emit_error("usage", 0, "--%s is required", rows[i].name);
            return NVD_USAGE;
        }
    }
    if (strcmp(options->ending, "close") != 0 &&
        strcmp(options->ending, "abandon") != 0) {
        nvd_emit_error("usage", 0, "--ending is close or abandon, not '%s'",
                       options->ending);
        return NVD_USAGE;
    }
    if (options->fill_tolerance >= 1 || options->timeout <= 0) {
        nvd_emit_error("usage", 0,
                       "--fill-tolerance must be below 1 and --timeout above 0");
        return NVD_USAGE;
    }
    int error = options->cpus != NULL ? pin(options->cpus) : 0;
    if (error != 0) {
        nvd_emit_error("usage", error, "can't run on CPUs '%s': %s", options->cpus,
                       strerror(error));
        return NVD_USAGE;
    }
    return -1;
}

int nvd_fault_options_parse(struct nvd_fault_options *options, unsigned takes, int argc,
                            char **argv)
{
    struct option known[row_count + 2];
    memset(known, 0, sizeof known);
    for (size_t i = 0; i < row_count; i++)
        known[i] = (struct option){rows[i].name,
                                   rows[i].kind == FLAG ? no_argument : required_argument,
                                   NULL, 0};
    known[row_count] = (struct option){"help", no_argument, NULL, 'h'};
    *options = (struct nvd_fault_options){
        .extra = "",
        .ending = "close",
        .heap_size = 32u << 20,
        .slots = 512,
        .threads = 1,
        .seed = 1,
        .generations = 3,
        .timeout = 20,
    };
    for (;;) {
        int index = -1;
        int got = getopt_long(argc, argv, "h", known, &index);
        if (got == -1)
            break;
        if (got == 'h') {
            print_help(argv[0], takes);
            return NVD_OK;
        }
        if (got == '?' || index < 0) {
            nvd_emit_error("usage", 0, "unknown option, or an option without its value");
            return NVD_USAGE;
        }
        if (!(rows[index].takes & takes)) {
            nvd_emit_error("usage", 0, "%s takes no --%s", argv[0], rows[index].name);
            return NVD_USAGE;
        }
        if (!store(options, &rows[index], optarg)) {
            nvd_emit_error("usage", 0, "--%s can't be '%s'", rows[index].name, optarg);
            return NVD_USAGE;
        }
    }
    if (optind < argc) {
        nvd_emit_error("usage", 0, "unexpected argument '%s'", argv[optind]);
        return NVD_USAGE;
    }
    return check_together(options, takes);
}
