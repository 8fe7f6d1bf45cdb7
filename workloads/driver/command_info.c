// SPDX-License-Identifier: Apache-2.0
/*
 * command_info.c - `nvdrive info`: what an adapter says of itself, or the
 * workloads that are compiled in, with their parameters.
 */
#include <getopt.h>
#include <stdio.h>

#include "driver.h"
#include "workload.h"

static struct json_object *capability_names(uint32_t capabilities)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {NVC_PERSISTENT, "persistent"},
        {NVC_VOLATILE, "volatile"},
        {NVC_WALK, "walk"},
        {NVC_THREADS, "threads"},
        {NVC_OBSERVABLE, "observable"},
        {NVC_NESTED_SLOTS, "nested-slots"},
        {NVC_FILE, "file"},
    };
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (capabilities & names[i].bit)
            json_object_array_add(list, json_object_new_string(names[i].name));
    return list;
}

static const char *consistency_name(enum nvc_consistency consistency)
{
    switch (consistency) {
    case NVC_CONSISTENCY_NONE:
        return "none";
    case NVC_CONSISTENCY_LOG:
        return "log";
    case NVC_CONSISTENCY_GC:
        return "gc";
    case NVC_CONSISTENCY_TX:
        return "tx";
    }
    return "unknown";
}

static struct json_object *describe_adapter(const struct nvc_adapter *adapter)
{
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "name", json_object_new_string(adapter->name));
    json_object_object_add(of, "capabilities", capability_names(adapter->capabilities));
    json_object_object_add(
        of, "consistency",
        json_object_new_string(consistency_name(adapter->consistency)));
    json_object_object_add(of, "slot_size", json_object_new_uint64(adapter->slot_size));
    json_object_object_add(of, "min_size", json_object_new_uint64(adapter->min_size));
    json_object_object_add(of, "check", json_object_new_boolean(adapter->check != NULL));
    const char *version =
        adapter->library_version == NULL ? NULL : adapter->library_version();
    json_object_object_add(of, "library_version",
                           version == NULL ? NULL : json_object_new_string(version));
    return of;
}

static struct json_object *describe_workload(const struct nvd_workload *workload)
{
    struct json_object *parameters = json_object_new_array();
    for (size_t i = 0; i < workload->parameter_count; i++) {
        const struct nvd_parameter *from = &workload->parameters[i];
        struct json_object *of = json_object_new_object();
        json_object_object_add(of, "name", json_object_new_string(from->name));
        json_object_object_add(of, "type", json_object_new_string("int"));
        json_object_object_add(of, "default", json_object_new_uint64(from->initial));
        json_object_object_add(of, "min", json_object_new_uint64(from->min));
        json_object_object_add(of, "max", json_object_new_uint64(from->max));
        json_object_object_add(of, "help", json_object_new_string(from->help));
        json_object_array_add(parameters, of);
    }
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "name", json_object_new_string(workload->name));
    json_object_object_add(of, "summary", json_object_new_string(workload->summary));
    json_object_object_add(of, "heap_bytes",
                           json_object_new_uint64(workload->heap_bytes));
    json_object_object_add(of, "parameters", parameters);
    json_object_object_add(
        of, "shape",
        json_object_new_string(workload->trial == NULL ? "windows" : "trial"));
    json_object_object_add(of, "needs", capability_names(workload->needs));
    json_object_object_add(of, "max_threads",
                           workload->max_threads == 0
                               ? NULL
                               : json_object_new_int((int)workload->max_threads));
    json_object_object_add(of, "counts_requests",
                           json_object_new_boolean(workload->counts_requests));
    json_object_object_add(of, "input", json_object_new_boolean(workload->input != NULL));
    return of;
}

int nvd_command_info(int argc, char **argv)
{
    static const struct option options[] = {
        {"adapter", required_argument, NULL, 'a'},
        {"options", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *path = NULL;
    struct nvc_options wanted = {.extra = ""};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs("usage: nvdrive info [--adapter SO [--options KEY=VALUE,...]]\n",
                  stderr);
            return NVD_OK;
        }
        if (option == 'o') {
            wanted.extra = optarg;
            continue;
        }
        if (option != 'a') {
            nvd_emit_error("usage", 0, "info: bad option; see nvdrive info --help");
            return NVD_USAGE;
        }
        path = optarg;
    }
    if (optind != argc) {
        nvd_emit_error("usage", 0, "info: unexpected argument '%s'", argv[optind]);
        return NVD_USAGE;
    }

    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("info"));
    json_object_object_add(document, "adapter_version",
                           json_object_new_int(NVC_ADAPTER_VERSION));
    if (path != NULL) {
        const struct nvc_adapter *adapter = nvd_adapter_load(path);
        if (adapter == NULL) {
            json_object_put(document);
            return NVD_ENVIRONMENT;
        }
        int error = adapter->supports == NULL ? 0 : adapter->supports(&wanted);
        if (error != 0) {
            nvd_emit_error("unsupported", error, "%s", adapter->last_error());
            json_object_put(document);
            return NVD_ENVIRONMENT;
        }
        json_object_object_add(document, "adapter", describe_adapter(adapter));
    } else {
        struct json_object *workloads = json_object_new_array();
        for (const struct nvd_workload *at = nvd_workload_first(); at != NULL;
             at = at->next)
            json_object_array_add(workloads, describe_workload(at));
        json_object_object_add(document, "workloads", workloads);
    }
    nvd_emit(document);
    return NVD_OK;
}
