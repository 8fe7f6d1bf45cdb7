/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - nvmalloc's sentence behind an errno value, for a library that is
 * the program's malloc: without strerror(), which translates, and to that end
 * allocates and takes locks.
 */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

#include "nvmalloc.h"

static _Thread_local char last_error[256];

int(nvm_fail)(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof(last_error), format, arguments);
    va_end(arguments);
    return error;
}

const char *nvm_error(void)
{
    return last_error;
}
