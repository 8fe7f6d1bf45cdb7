/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a process that was proven to misuse an arena: a message, then abort(). */
#include "vmem_impl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Formats on the stack and writes to stderr directly: stdio could call malloc. */
_Noreturn void vmem_panic(const char *fmt, ...)
{
    char text[512] = "vmem: ";
    size_t len = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text + len, sizeof(text) - len - 1, fmt, ap);
    va_end(ap);
    if (n > 0) {
        len += (size_t)n;
        if (len > sizeof(text) - 2)
            len = sizeof(text) - 2;
    }
    text[len++] = '\n';
    for (size_t done = 0; done < len;) {
        ssize_t wrote = write(STDERR_FILENO, text + done, len - done);
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    abort();
}
