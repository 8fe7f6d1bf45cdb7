/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sigbus.h - reading media that may raise SIGBUS (a bad page, a file that
 * somebody cut short) without dying of it.
 *
 * A guard installs a process-wide SIGBUS handler; where the faulting thread has no
 * guard, it passes the signal on to whatever was installed before.  Guards nest; each
 * must be ended in the function that began it. What is read under a guard holds no lock
 * that the caller does not release: a jump leaves it held (the heap is dropped or refused
 * then).
 */
#ifndef NVM_SIGBUS_H
#define NVM_SIGBUS_H

#include <setjmp.h>
#include <stdbool.h>

#include "protect.h"

struct nvm_heap;

struct nvm_sigbus {
    sigjmp_buf jump;
    struct nvm_sigbus *outer;
    struct nvm_stand stand; /* the windows that a jump leaves behind it */
    const void *address;    /* that was read */
};

/* The handler runs with the mask as it was, so none is saved: that is a system call.  But
   clang's ThreadSanitizer has all signals blocked in every handler. */
#define NVM_SIGBUS_SAVE_MASK 0
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#undef NVM_SIGBUS_SAVE_MASK
#define NVM_SIGBUS_SAVE_MASK 1
#endif
#endif

/* Begins a guard; true when it comes back because of a SIGBUS, with the guard ended. */
#define nvm_sigbus_caught(guard)                                                         \
    (nvm_sigbus_begin(guard), sigsetjmp((guard)->jump, NVM_SIGBUS_SAVE_MASK) != 0)

void nvm_sigbus_begin(struct nvm_sigbus *guard);
void nvm_sigbus_end(struct nvm_sigbus *guard);

/* EUCLEAN, with the place named. */
int nvm_sigbus_error(const struct nvm_sigbus *guard, const struct nvm_heap *heap);

#endif
