// SPDX-License-Identifier: Apache-2.0
/*
 * options.c - the command line of nvlab.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "lens.h"

enum option_number {
    O_ADAPTER = 256,
    O_OPTIONS,
    O_WORK,
    O_DIR,
    O_SEED,
    O_HEAP_SIZE,
    O_SLOTS,
    O_THREADS,
    O_OPS,
    O_GENERATIONS,
    O_PAYLOAD,
    O_SCRIPT,
    O_FAULTS,
    O_DOMAIN,
    O_STATES,
    O_NESTED_STATES,
    O_DEPTH,
    O_TIMEOUT,
    O_MAX_FAILURES,
    O_MUTATE,
    O_NO_SHRINK,
    O_PROFILE,
    O_NO_PRUNE,
    O_NO_DEEP,
    O_DEEP_SHARE,
    O_NESTED_SHARE,
    O_BUDGET,
    O_TOLERANCE,
    O_TRACE,
    O_CASE,
    O_LENGTH,
    O_SHARD,
    O_SITES,
};

static const struct option names[] = {
    {"adapter", required_argument, NULL, O_ADAPTER},
    {"options", required_argument, NULL, O_OPTIONS},
    {"work", required_argument, NULL, O_WORK},
    {"dir", required_argument, NULL, O_DIR},
    {"seed", required_argument, NULL, O_SEED},
    {"heap-size", required_argument, NULL, O_HEAP_SIZE},
    {"slots", required_argument, NULL, O_SLOTS},
    {"threads", required_argument, NULL, O_THREADS},
    {"ops", required_argument, NULL, O_OPS},
    {"generations", required_argument, NULL, O_GENERATIONS},
    {"payload", required_argument, NULL, O_PAYLOAD},
    {"script", required_argument, NULL, O_SCRIPT},
    {"faults", required_argument, NULL, O_FAULTS},
    {"domain", required_argument, NULL, O_DOMAIN},
    {"states", required_argument, NULL, O_STATES},
    {"recovery-states", required_argument, NULL, O_NESTED_STATES},
    {"depth", required_argument, NULL, O_DEPTH},
    {"timeout", required_argument, NULL, O_TIMEOUT},
    {"max-failures", required_argument, NULL, O_MAX_FAILURES},
    {"mutate", required_argument, NULL, O_MUTATE},
    {"no-shrink", no_argument, NULL, O_NO_SHRINK},
    {"no-prune", no_argument, NULL, O_NO_PRUNE},
    {"profile", no_argument, NULL, O_PROFILE},
    {"no-deep", no_argument, NULL, O_NO_DEEP},
    {"deep-share", required_argument, NULL, O_DEEP_SHARE},
    {"recovery-share", required_argument, NULL, O_NESTED_SHARE},
    {"budget", required_argument, NULL, O_BUDGET},
    {"fill-tolerance", required_argument, NULL, O_TOLERANCE},
    {"trace", required_argument, NULL, O_TRACE},
    {"case", required_argument, NULL, O_CASE},
    {"length", required_argument, NULL, O_LENGTH},
    {"shard", required_argument, NULL, O_SHARD},
    {"sites", no_argument, NULL, O_SITES},
    {NULL, 0, NULL, 0},
};

static const struct nvl_trial_options defaults = {
    .extra = "",
    .work = ".",
    .dir = "/dev/shm",
    .seed = 1,
    .heap_size = 8 << 20,
    .ops = 40,
    .payload = 512,
    .generations = 2,
    .states = 256,
    .nested_states = 16,
    .deep_share = 256,
    .nested_share = 256,
    .max_failures = 1,
    .slots = 12,
    .threads = 1,
    .depth = NVL_DEPTH_MAX,
    .timeout = 2,
    .deep = true,
    .prune = true,
    .shrink = true,
};

static bool parse_u32(const char *text, uint64_t min, uint64_t max, uint32_t *value)
{
    uint64_t wide;
    if (!nvd_parse_u64(text, min, max, &wide))
        return false;
    *value = (uint32_t)wide;
    return true;
}

static bool parse_faults(const char *text, struct nvl_trial_options *trial)
{
    if (strcmp(text, "powerfail") == 0)
        trial->depth = 1;
    else if (strcmp(text, "powerfail,recovery-crash") == 0 ||
             strcmp(text, "recovery-crash") == 0)
        trial->depth = NVL_DEPTH_MAX;
    else
        return false;
    return true;
}

static bool parse_domain(const char *text, struct nvl_trial_options *trial)
{
    trial->domain = strcmp(text, "eadr") == 0 ? PX86_EADR : PX86_ADR;
    return strcmp(text, "eadr") == 0 || strcmp(text, "adr") == 0;
}

static bool parse_tolerance(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value >= 0 && *value < 1;
}

static bool parse_shard(const char *text, struct nvl_command_options *options)
{
    char first[24];
    const char *slash = strchr(text, '/');
    if (slash == NULL || (size_t)(slash - text) >= sizeof first)
        return false;
    snprintf(first, sizeof first, "%.*s", (int)(slash - text), text);
    return nvd_parse_u64(first, 0, UINT32_MAX, &options->shard) &&
           nvd_parse_u64(slash + 1, 1, UINT32_MAX, &options->shards) &&
           options->shard < options->shards;
}

static bool set_text(int number, const char *text, struct nvl_command_options *options)
{
    switch (number) {
    case O_ADAPTER:
        options->adapter_path = text;
        return true;
    case O_OPTIONS:
        options->trial.extra = text;
        return true;
    case O_WORK:
        options->trial.work = text;
        return true;
    case O_DIR:
        options->trial.dir = text;
        return true;
    case O_SCRIPT:
        options->trial.script_text = text;
        return true;
    case O_TRACE:
        options->trace_path = text;
        return true;
    case O_CASE:
        options->case_path = text;
        return true;
    case O_MUTATE:
        options->trial.mutation = &options->mutation;
        return nvl_mutation_parse(&options->mutation, text);
    case O_NO_SHRINK:
        options->trial.shrink = false;
        return true;
    case O_SITES:
        options->trial.sites = true;
        return true;
    case O_NO_PRUNE:
        options->trial.prune = false;
        return true;
    case O_PROFILE:
        options->trial.profile = true;
        return true;
    case O_NO_DEEP:
        options->trial.deep = false;
        return true;
    case O_FAULTS:
        return parse_faults(text, &options->trial);
    case O_DOMAIN:
        return parse_domain(text, &options->trial);
    case O_SHARD:
        return parse_shard(text, options);
    default:
        return false;
    }
}

static bool set_figure(int number, const char *text, struct nvl_command_options *options)
{
    struct nvl_trial_options *trial = &options->trial;
    const uint64_t many = UINT64_C(1) << 62;
    switch (number) {
    case O_SEED:
        return nvd_parse_u64(text, 0, UINT64_MAX, &trial->seed);
    case O_HEAP_SIZE:
        return nvd_parse_size(text, &trial->heap_size) && trial->heap_size > 0;
    case O_SLOTS:
        return parse_u32(text, 1, 4096, &trial->slots);
    case O_THREADS:
        return parse_u32(text, 1, NVL_THREADS_MAX, &trial->threads);
    case O_OPS:
        return nvd_parse_u64(text, 1, 100000, &trial->ops);
    case O_GENERATIONS:
        return nvd_parse_u64(text, 1, 1000, &trial->generations);
    case O_PAYLOAD:
        return nvd_parse_u64(text, 16, 1 << 20, &trial->payload);
    case O_STATES:
        return nvd_parse_u64(text, 1, many, &trial->states);
    case O_NESTED_STATES:
        return nvd_parse_u64(text, 1, many, &trial->nested_states);
    case O_DEPTH:
        return parse_u32(text, 1, NVL_DEPTH_MAX, &trial->depth);
    case O_MAX_FAILURES:
        return nvd_parse_u64(text, 1, NVL_FAILURES_MAX, &trial->max_failures);
    case O_DEEP_SHARE:
        return nvd_parse_u64(text, 0, many, &trial->deep_share);
    case O_NESTED_SHARE:
        return nvd_parse_u64(text, 0, many, &trial->nested_share);
    case O_LENGTH:
        return nvd_parse_u64(text, 1, 4, &options->length);
    case O_TIMEOUT:
        return nvd_parse_seconds(text, &trial->timeout) && trial->timeout > 0;
    case O_BUDGET:
        return nvd_parse_seconds(text, &trial->budget);
    case O_TOLERANCE:
        return parse_tolerance(text, &trial->fill_tolerance);
    default:
        return set_text(number, text, options);
    }
}

static int load(struct nvl_command_options *options)
{
    unsigned before = nvl_lens.modules;
    options->trial.adapter = nvd_adapter_load(options->adapter_path);
    if (options->trial.adapter == NULL)
        return NVD_ENVIRONMENT;
    options->trial.instrumented = nvl_lens.modules > before;
    if (!(options->trial.adapter->capabilities & NVC_PERSISTENT)) {
        nvd_emit_error("adapter", 0,
                       "%s is volatile: nothing of it survives a power cut, so there is "
                       "nothing to judge",
                       options->trial.adapter->name);
        return NVD_ENVIRONMENT;
    }
    return NVD_OK;
}

int nvl_options_parse(struct nvl_command_options *options, int argc, char **argv,
                      bool needs_adapter)
{
    *options = (struct nvl_command_options){.trial = defaults, .length = 3, .shards = 1};
    int number, index = 0;
    optind = 1;
    opterr = 0;
    while ((number = getopt_long(argc, argv, "", names, &index)) != -1) {
        if (number == '?') {
            nvd_emit_error("usage", 0, "unknown option or missing value: %s",
                           argv[optind - 1]);
            return NVD_USAGE;
        }
        if (!set_figure(number, optarg, options)) {
            nvd_emit_error("usage", 0, "--%s: '%s' is not a value for it",
                           names[index].name, optarg != NULL ? optarg : "");
            return NVD_USAGE;
        }
    }
    if (needs_adapter && options->adapter_path == NULL) {
        nvd_emit_error("usage", 0,
                       "--adapter is missing: expected an adapter's .lens.so");
        return NVD_USAGE;
    }
    return options->adapter_path != NULL ? load(options) : NVD_OK;
}
