// SPDX-License-Identifier: Apache-2.0
/*
 * command_verify.c - `nvdrive verify`: recovers a heap and judges it.
 *
 * The command itself only supervises; the judging is done by the same command
 * with --worker, a child that may crash or hang without taking the verdict along.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "driver.h"
#include "fault_options.h"
#include "recovery.h"
#include "supervise.h"

static struct json_object *check_name(enum nvd_check check)
{
    switch (check) {
    case NVD_CHECK_CONSISTENT:
        return json_object_new_string("consistent");
    case NVD_CHECK_DAMAGED:
        return json_object_new_string("damaged");
    default:
        return NULL;
    }
}

static void report(const struct nvd_recovery *recovery)
{
    static const char *const endings[NVD_ENDINGS] = {"close", "abandon", "reopen"};
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "type", json_object_new_string("verdict"));
    json_object_object_add(
        of, "verdict",
        json_object_new_string(nvd_verdict_name(recovery->finding.verdict)));
    json_object_object_add(of, "detail",
                           json_object_new_string(recovery->finding.detail));
    json_object_object_add(of, "phase",
                           json_object_new_string(nvd_phase_name(recovery->phase)));
    json_object_object_add(of, "check", check_name(recovery->check));
    json_object_object_add(of, "live_blocks",
                           json_object_new_uint64(recovery->live_blocks));
    json_object_object_add(of, "live_bytes",
                           json_object_new_uint64(recovery->live_bytes));
    json_object_object_add(of, "resolved", json_object_new_uint64(recovery->resolved));
    json_object_object_add(
        of, "filled_bytes",
        recovery->filled ? json_object_new_uint64(recovery->filled_bytes) : NULL);
    json_object_object_add(
        of, "recovery_ms",
        recovery->recovery_ms < 0 ? NULL : json_object_new_double(recovery->recovery_ms));
    json_object_object_add(of, "ending",
                           json_object_new_string(endings[recovery->ending]));
    nvd_emit(of);
}

static int judge(const struct nvd_fault_options *options)
{
    struct nvd_recovery recovery = {.preliminary = report};
    struct nvd_subject subject = {.adapter = nvd_adapter_load(options->adapter),
                                  .extra = options->extra};
    if (subject.adapter == NULL)
        return NVD_ENVIRONMENT;
    int error = nvd_journal_open(&subject.journal, options->journal);
    if (error != 0) {
        nvd_emit_error("journal", error, "%s: %s", options->journal, strerror(error));
        return NVD_ENVIRONMENT;
    }
    if (subject.adapter->slot_size != subject.journal.header->slot_size) {
        nvd_emit_error("journal", 0, "%s is of another allocator than %s",
                       options->journal, subject.adapter->name);
        return NVD_ENVIRONMENT;
    }
    if (access(options->heap, R_OK | W_OK) != 0) {
        nvd_emit_error("heap", 0, "%s is missing, or can't be written", options->heap);
        return NVD_ENVIRONMENT;
    }
    bool sound = nvd_recovery_judge(&subject, options, &recovery);
    report(&recovery);
    /* Without exit handlers: a heap that is still open stays as it is. */
    _exit(sound ? NVD_OK : NVD_INCORRECT);
}

int nvd_command_verify(int argc, char **argv)
{
    struct nvd_fault_options options;
    enum nvd_verdict verdict;
    int done = nvd_fault_options_parse(&options, NVD_TAKES_VERIFY, argc, argv);
    if (done >= 0)
        return done;
    if (options.worker)
        return judge(&options);
    nvd_child_catch_signals();
    struct json_object *document = nvd_supervise_verify(&options);
    if (document == NULL)
        return 128 + nvd_child_signal();
    bool judged = nvd_document_verdict(document, &verdict);
    nvd_emit(document);
    if (!judged)
        return NVD_ENVIRONMENT;
    return verdict == NVD_VERDICT_OK ? NVD_OK : NVD_INCORRECT;
}
