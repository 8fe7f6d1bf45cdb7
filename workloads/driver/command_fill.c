// SPDX-License-Identifier: Apache-2.0
/*
 * command_fill.c - `nvdrive fill`: how much a fresh heap can give.
 *
 * The baseline of the leak check: the same ladder (brim.h) that `verify
 * --final` climbs on a heap that has lived.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "brim.h"
#include "driver.h"
#include "fault_options.h"

static int fill(struct nvd_subject *subject, const struct nvd_fault_options *options,
                const char *journal_path)
{
    int error = nvd_subject_create(subject, options->heap, journal_path,
                                   options->heap_size, (uint32_t)options->slots, 1);
    if (error != 0) {
        nvd_emit_error("create", error, "heap %s: %s (%s)", options->heap,
                       strerror(error), subject->adapter->last_error());
        return NVD_ENVIRONMENT;
    }
    struct nvd_brim brim;
    struct nvd_finding finding = {NVD_VERDICT_OK, ""};
    bool sound =
        nvd_brim_fill(subject, &brim, &finding) && nvd_subject_close(subject, &finding);
    nvd_journal_close(&subject->journal);
    unlink(options->heap);
    unlink(journal_path);
    if (!sound) {
        nvd_emit_error("fill", 0, "%s: %s", nvd_verdict_name(finding.verdict),
                       finding.detail);
        return NVD_INCORRECT;
    }
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("fill"));
    json_object_object_add(document, "bytes", json_object_new_uint64(brim.bytes));
    json_object_object_add(document, "blocks", json_object_new_uint64(brim.blocks));
    json_object_object_add(document, "slots_exhausted",
                           json_object_new_boolean(brim.slots_exhausted));
    nvd_emit(document);
    return NVD_OK;
}

int nvd_command_fill(int argc, char **argv)
{
    struct nvd_fault_options options;
    int done = nvd_fault_options_parse(&options, NVD_TAKES_FILL, argc, argv);
    if (done >= 0)
        return done;
    struct nvd_subject subject = {.adapter = nvd_adapter_load(options.adapter),
                                  .extra = options.extra};
    if (subject.adapter == NULL)
        return NVD_ENVIRONMENT;
    /* The subject's code wants a journal for its geometry; nothing is noted. */
    char journal_path[4096];
    int length = snprintf(journal_path, sizeof journal_path, "%s.journal", options.heap);
    if (length < 0 || (size_t)length >= sizeof journal_path) {
        nvd_emit_error("usage", 0, "--heap is too long a path");
        return NVD_USAGE;
    }
    return fill(&subject, &options, journal_path);
}
