/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - the sentence behind an errno value, one a thread. */
#ifndef NVM_ERROR_H
#define NVM_ERROR_H

/* Remembers the sentence for nvm_error() and returns error. */
int nvm_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* The analyser sees one file at a time: it has to be told that a failure is never 0. */
static inline int nvm_never_zero(int error)
{
    if (error == 0)
        __builtin_unreachable();
    return error;
}
#define nvm_fail(...) nvm_never_zero(nvm_fail(__VA_ARGS__))
#endif

#endif
