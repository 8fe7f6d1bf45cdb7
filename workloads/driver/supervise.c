// SPDX-License-Identifier: Apache-2.0
/*
 * supervise.c - starts, times and buries the verifying child.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "child.h"
#include "driver.h"
#include "supervise.h"

static void add(struct nvd_command_line *line, const char *argument)
{
    line->argv[line->argc++] = argument;
    line->argv[line->argc] = NULL;
}

void nvd_verify_command_line(struct nvd_command_line *line,
                             const struct nvd_fault_options *options, bool files)
{
    memset(line, 0, sizeof *line);
    add(line, "verify");
    if (files) {
        add(line, "--adapter");
        add(line, options->adapter);
        add(line, "--options");
        add(line, options->extra);
        add(line, "--heap");
        add(line, options->heap);
        add(line, "--journal");
        add(line, options->journal);
    }
    add(line, "--seed");
    snprintf(line->texts[0], NVD_ARGUMENT_BYTES, "%" PRIu64, options->seed);
    add(line, line->texts[0]);
    add(line, "--timeout");
    snprintf(line->texts[1], NVD_ARGUMENT_BYTES, "%.17g", options->timeout);
    add(line, line->texts[1]);
    if (!options->final)
        return;
    add(line, "--final");
    add(line, "--fill-baseline");
    snprintf(line->texts[2], NVD_ARGUMENT_BYTES, "%" PRIu64, options->fill_baseline);
    add(line, line->texts[2]);
    add(line, "--fill-tolerance");
    snprintf(line->texts[3], NVD_ARGUMENT_BYTES, "%.17g", options->fill_tolerance);
    add(line, line->texts[3]);
}

enum nvd_phase nvd_last_phase(const char *journal_path)
{
    struct nvd_journal journal;
    if (nvd_journal_open(&journal, journal_path) != 0)
        return NVD_PHASE_START;
    uint32_t phase = atomic_load(&journal.header->phase);
    nvd_journal_close(&journal);
    return phase < NVD_PHASES ? (enum nvd_phase)phase : NVD_PHASE_START;
}

/* A verdict that the child could not give itself. */
static struct json_object *obituary(const struct nvd_fault_options *options, bool hang,
                                    int status)
{
    char detail[256];
    enum nvd_phase phase = nvd_last_phase(options->journal);
    if (hang)
        snprintf(detail, sizeof detail, "no end of %s after %g s", nvd_phase_name(phase),
                 options->timeout);
    else if (WIFSIGNALED(status))
        snprintf(detail, sizeof detail, "the process died of signal %d (%s) in %s",
                 WTERMSIG(status), strsignal(WTERMSIG(status)), nvd_phase_name(phase));
    else
        snprintf(detail, sizeof detail,
                 "the process exited with %d in %s, without a verdict",
                 WEXITSTATUS(status), nvd_phase_name(phase));
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("verdict"));
    json_object_object_add(document, "verdict",
                           json_object_new_string(hang ? "hang" : "crash"));
    json_object_object_add(document, "detail", json_object_new_string(detail));
    json_object_object_add(document, "phase",
                           json_object_new_string(nvd_phase_name(phase)));
    return document;
}

static struct json_object *environment_failed(int error)
{
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("error"));
    json_object_object_add(document, "where", json_object_new_string("verify"));
    json_object_object_add(document, "message", json_object_new_string(strerror(error)));
    return document;
}

struct json_object *nvd_supervise_verify(const struct nvd_fault_options *options)
{
    struct nvd_command_line line;
    struct nvd_child child;
    const char *argv[NVD_VERIFY_ARGUMENTS + 2];
    nvd_verify_command_line(&line, options, true);
    argv[0] = "nvdrive";
    memcpy(argv + 1, line.argv, (size_t)line.argc * sizeof *argv);
    argv[1 + line.argc] = "--worker";
    argv[2 + line.argc] = NULL;
    int error = nvd_child_start(&child, argv);
    if (error != 0)
        return environment_failed(error);
    double deadline = nvd_child_now() + options->timeout;
    struct json_object *last = NULL, *document;
    enum nvd_child_event event;
    while ((event = nvd_child_next(&child, deadline, &document)) == NVD_CHILD_LINE) {
        json_object_put(last);
        last = document;
    }
    int status = nvd_child_finish(&child, event != NVD_CHILD_ENDED);
    if (event == NVD_CHILD_INTERRUPTED) {
        json_object_put(last);
        return NULL;
    }
    bool said = last != NULL && (strcmp(nvd_document_type(last), "verdict") == 0 ||
                                 strcmp(nvd_document_type(last), "error") == 0);
    bool lived = event == NVD_CHILD_ENDED && !WIFSIGNALED(status);
    /* A heap that was already judged may take its own check along. */
    if (said && (lived || nvd_last_phase(options->journal) == NVD_PHASE_CHECK))
        return last;
    json_object_put(last);
    return obituary(options, event == NVD_CHILD_TIMEOUT, status);
}

bool nvd_document_verdict(struct json_object *document, enum nvd_verdict *verdict)
{
    struct json_object *kind;
    return strcmp(nvd_document_type(document), "verdict") == 0 &&
           json_object_object_get_ex(document, "verdict", &kind) &&
           nvd_verdict_parse(json_object_get_string(kind), verdict);
}
