// SPDX-License-Identifier: Apache-2.0
/* trial.c - see trial.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "driver.h"
#include "trial.h"

/* Whoever started us has the patience that counts, and ends us; a stage goes with us. */
#define STAGE_SECONDS 86400.0

/* After create() or open(). */
static int enter(struct nvd_trial *trial, const char *where, int error)
{
    const struct nvc_adapter *adapter = trial->adapter;
    if (error != 0) {
        trial->heap = NULL;
        return nvd_trial_failed(trial, where, error);
    }
    if (adapter->thread_enter != NULL)
        error = adapter->thread_enter(trial->heap);
    if (error == 0)
        return NVD_OK;
    int code = nvd_trial_failed(trial, "thread_enter", error);
    adapter->close(trial->heap);
    trial->heap = NULL;
    return code;
}

int nvd_trial_create(struct nvd_trial *trial)
{
    const bool in_file = nvd_adapter_in_file(trial->adapter);
    return enter(trial, "create",
                 trial->adapter->create(in_file ? trial->heap_path : "", trial->options,
                                        &trial->heap));
}

int nvd_trial_open(struct nvd_trial *trial)
{
    const struct nvc_options options = {.extra = trial->options->extra};
    return enter(trial, "open",
                 trial->adapter->open(trial->heap_path, &options, &trial->heap));
}

int nvd_trial_close(struct nvd_trial *trial)
{
    if (trial->adapter->thread_leave != NULL)
        trial->adapter->thread_leave(trial->heap);
    int error = trial->adapter->close(trial->heap);
    trial->heap = NULL;
    return error == 0 ? NVD_OK : nvd_trial_failed(trial, "close", error);
}

void nvd_trial_metric(struct nvd_trial *trial, const char *name, double value)
{
    json_object_object_add(trial->metrics, name, json_object_new_double(value));
}

int nvd_trial_failed(const struct nvd_trial *trial, const char *where, int error)
{
    const char *reason = trial->adapter->last_error();
    nvd_emit_error(where, error, "%s, %s: %s", trial->workload->name,
                   trial->adapter->name,
                   reason == NULL || *reason == '\0' ? strerror(error) : reason);
    return NVD_ENVIRONMENT;
}

int nvd_trial_incorrect(const struct nvd_trial *trial, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    nvd_emit_error("sweep", 0, "%s, %s: %s", trial->workload->name, trial->adapter->name,
                   text);
    return NVD_INCORRECT;
}

int nvd_trial_start(const struct nvd_trial *trial, const char *stage,
                    struct nvd_child *child)
{
    size_t count = (size_t)trial->argument_count;
    const char **argv = calloc(count + 4, sizeof *argv);
    if (argv == NULL) {
        nvd_emit_error("stage", 0, "no memory");
        return NVD_INTERNAL;
    }
    argv[0] = "nvdrive";
    memcpy(argv + 1, trial->arguments, count * sizeof *argv);
    argv[count + 1] = "--stage";
    argv[count + 2] = stage;
    int error = nvd_child_start(child, argv);
    free(argv);
    if (error != 0) {
        nvd_emit_error("stage", error, "%s: cannot start the process of stage '%s'",
                       trial->workload->name, stage);
        return NVD_ENVIRONMENT;
    }
    return NVD_OK;
}

/* The stage ended without the document that was due. */
static int bury(const struct nvd_trial *trial, struct nvd_child *child, const char *stage,
                bool kill_it)
{
    int status = nvd_child_finish(child, kill_it);
    if (WIFSIGNALED(status))
        nvd_emit_error(stage, 0,
                       "%s, %s: the process of stage '%s' was killed by signal %d (%s)",
                       trial->workload->name, trial->adapter->name, stage,
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        nvd_emit_error(
            stage, 0,
            "%s, %s: the process of stage '%s' ended with exit code %d and gave "
            "no result",
            trial->workload->name, trial->adapter->name, stage, WEXITSTATUS(status));
    return NVD_ENVIRONMENT;
}

int nvd_trial_expect(const struct nvd_trial *trial, struct nvd_child *child,
                     const char *stage, const char *type, struct json_object **document)
{
    *document = NULL;
    enum nvd_child_event event =
        nvd_child_next(child, nvd_child_now() + STAGE_SECONDS, document);
    if (event != NVD_CHILD_LINE)
        return bury(trial, child, stage, event != NVD_CHILD_ENDED);
    if (strcmp(nvd_document_type(*document), type) == 0)
        return NVD_OK;
    bool explained = strcmp(nvd_document_type(*document), "error") == 0;
    struct json_object *found = *document;
    *document = NULL;
    if (!explained) {
        json_object_put(found);
        return bury(trial, child, stage, true);
    }
    nvd_emit(found);
    int status = nvd_child_finish(child, false);
    return WIFEXITED(status) && WEXITSTATUS(status) != NVD_OK ? WEXITSTATUS(status)
                                                              : NVD_ENVIRONMENT;
}
