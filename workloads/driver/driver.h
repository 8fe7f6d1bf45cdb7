/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.h - what the commands of nvdrive share.
 *
 * nvdrive is one binary with one sub-command a file (command_*.c).  It knows
 * an allocator through allocators/adapter.h only, never prints for people
 * (the orchestrator does), and writes one JSON document a line on stdout
 * (docs/driver-protocol.md).  Diagnostics go to stderr.
 */
#ifndef NVD_DRIVER_H
#define NVD_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "adapter.h"

/* Exit codes of nvdrive. */
enum nvd_exit {
    NVD_OK = 0,
    NVD_INTERNAL = 1,    /* a fault of the driver itself */
    NVD_USAGE = 2,       /* bad arguments */
    NVD_ENVIRONMENT = 3, /* adapter can't be loaded, heap can't be made, ... */
    NVD_INCORRECT = 4,   /* a verdict other than "ok" */
};

/* A sub-command: parses its own arguments with getopt_long; argv[0] is its name. */
typedef int nvd_command_fn(int argc, char **argv);

/* command_<name>.c */
nvd_command_fn nvd_command_info;
nvd_command_fn nvd_command_calibrate;
nvd_command_fn nvd_command_bench;
nvd_command_fn nvd_command_history; /* supervisor of a whole fault case */
nvd_command_fn nvd_command_churn;
nvd_command_fn nvd_command_verify;
nvd_command_fn nvd_command_fill;
nvd_command_fn nvd_command_trace;

/* adapter_load.c: dlopen()s path, checks symbol, version and struct_size.
   NULL on failure, after emitting an error line that says what was found and
   what was expected. */
const struct nvc_adapter *nvd_adapter_load(const char *path);

/* Whether the heap is a file, whose path create() wants. */
static inline bool nvd_adapter_in_file(const struct nvc_adapter *adapter)
{
    return (adapter->capabilities & (NVC_PERSISTENT | NVC_FILE)) != 0;
}

/* report.c: writes one JSON line on stdout and flushes it; takes the reference. */
void nvd_emit(struct json_object *document);
/* {"type":"error","where":where,"error":"ENOMEM","errno":12,"message":...};
   error 0 leaves both out. */
void nvd_emit_error(const char *where, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* parse.c: whole-string parsers; false if text is not wholly a value in range.
   Sizes take K, M, G suffixes (1024). */
bool nvd_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value);
bool nvd_parse_size(const char *text, uint64_t *bytes);
bool nvd_parse_seconds(const char *text, double *seconds);
/* "0,1,4-7" into a list; returns the count, or -1. */
int nvd_parse_cpus(const char *text, int *cpus, int capacity);

/* random.c: splitmix64 to seed, xoshiro256** to draw; deterministic by seed. */
struct nvd_random {
    uint64_t state[4];
};
void nvd_random_seed(struct nvd_random *random, uint64_t seed);
uint64_t nvd_random_next(struct nvd_random *random);
/* Uniform in [0, bound); bound > 0. */
uint64_t nvd_random_below(struct nvd_random *random, uint64_t bound);

#endif
