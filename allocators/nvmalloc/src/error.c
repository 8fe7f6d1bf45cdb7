/* SPDX-License-Identifier: Apache-2.0 */
/* error.c - see error.h. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "nvmalloc.h"

static _Thread_local char last_error[256];

int(nvm_fail)(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(last_error, sizeof(last_error), format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof(last_error)) {
        char text[64] = "";
        const char *reason = strerror_r(error, text, sizeof(text));
        snprintf(last_error + length, sizeof(last_error) - (size_t)length, ": %s",
                 reason);
    }
    return error;
}

const char *nvm_error(void)
{
    return last_error;
}
