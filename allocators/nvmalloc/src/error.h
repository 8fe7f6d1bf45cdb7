/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - the sentence behind an errno value, one a thread. */
#ifndef NVM_ERROR_H
#define NVM_ERROR_H

/* Remembers the sentence for nvm_error() and returns error. */
int nvm_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
