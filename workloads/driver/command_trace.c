// SPDX-License-Identifier: Apache-2.0
/*
 * command_trace.c - `nvdrive trace`: makes a trace of the recorder's events (--raw), or
 * says what is in one.
 */
#include <getopt.h>
#include <stdio.h>

#include "driver.h"
#include "trace.h"

static void describe(const char *path, const struct nvd_trace_head *head)
{
    struct json_object *document = json_object_new_object();
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"operations", head->allocs + head->frees + 2 * head->reallocs},
        {"allocations", head->allocs},
        {"frees", head->frees},
        {"reallocations", head->reallocs},
        {"threads", head->threads},
        {"slots", head->slots},
        {"peak_bytes", head->peak_bytes},
        {"dropped", head->dropped},
    };
    json_object_object_add(document, "type", json_object_new_string("trace"));
    json_object_object_add(document, "path", json_object_new_string(path));
    json_object_object_add(document, "program", json_object_new_string(head->program));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        json_object_object_add(document, numbers[i].key,
                               json_object_new_uint64(numbers[i].value));
    nvd_emit(document);
}

int nvd_command_trace(int argc, char **argv)
{
    static const struct option options[] = {
        {"raw", required_argument, NULL, 'r'},
        {"program", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *raw = NULL, *program = "";
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs("usage: nvdrive trace [--raw FILE --program TEXT] TRACE\n", stderr);
            return NVD_OK;
        }
        if (option == 'r') {
            raw = optarg;
        } else if (option == 'p') {
            program = optarg;
        } else {
            nvd_emit_error("usage", 0, "trace: bad option; see nvdrive trace --help");
            return NVD_USAGE;
        }
    }
    if (optind != argc - 1) {
        nvd_emit_error("usage", 0, "trace: name one trace");
        return NVD_USAGE;
    }
    const char *path = argv[optind];
    struct nvd_trace_head head;
    const char *wrong = raw == NULL ? NULL : nvd_trace_convert(raw, path, program, &head);
    struct nvd_trace trace = {0};
    if (wrong == NULL)
        wrong = nvd_trace_read(path, &trace);
    if (wrong != NULL) {
        nvd_emit_error("trace", 0, "%s", wrong);
        return NVD_ENVIRONMENT;
    }
    describe(path, &trace.head);
    nvd_trace_free(&trace);
    return NVD_OK;
}
