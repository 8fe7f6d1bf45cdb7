// SPDX-License-Identifier: Apache-2.0
/*
 * report.c - the driver's only writer to standard output.
 *
 * One document is one line, written and flushed at once: a reader of the pipe
 * sees whole documents however the process ends afterwards.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

void nvd_emit(struct json_object *document)
{
    const char *text = json_object_to_json_string_ext(
        document, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    flockfile(stdout);
    bool written = text != NULL && fputs(text, stdout) != EOF &&
                   putc_unlocked('\n', stdout) != EOF && fflush(stdout) == 0;
    funlockfile(stdout);
    json_object_put(document);
    if (!written) {
        /* Nobody can be told by a document; a result that is not delivered
           must not end in exit code 0. */
        perror("nvdrive: standard output");
        _Exit(NVD_INTERNAL);
    }
}

/* "ENOMEM" for 12. */
static const char *error_name(int error)
{
#if __GLIBC_PREREQ(2, 32)
    const char *name = strerrorname_np(error);
    if (name != NULL)
        return name;
#endif
    static _Thread_local char number[24];
    snprintf(number, sizeof number, "errno %d", error);
    return number;
}

void nvd_emit_error(const char *where, int error, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);

    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("error"));
    json_object_object_add(document, "where", json_object_new_string(where));
    if (error != 0) {
        json_object_object_add(document, "error",
                               json_object_new_string(error_name(error)));
        json_object_object_add(document, "errno", json_object_new_int(error));
    }
    json_object_object_add(document, "message", json_object_new_string(message));
    nvd_emit(document);
}
