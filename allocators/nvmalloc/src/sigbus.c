/* SPDX-License-Identifier: Apache-2.0 */
/* sigbus.c - see sigbus.h. */
#include "sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#include "error.h"
#include "heap.h"

static _Thread_local struct nvm_sigbus *innermost;
static struct sigaction before;

static void handle(int signal, siginfo_t *info, void *context)
{
    struct nvm_sigbus *guard = innermost;
    if (guard != NULL) {
        guard->address = info->si_addr;
        innermost = guard->outer;
        nvm_protect_return(guard->stand);
        siglongjmp(guard->jump, 1);
    }
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(signal, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(signal);
    } else {
        /* As if we were not here: the load is made again, and kills. */
        sigaction(signal, &before, NULL);
    }
}

/* Not once for all: the application may have installed a handler of its own since. */
static void install(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction now,
        action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    pthread_mutex_lock(&lock);
    if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != handle) {
        before = now;
        sigaction(SIGBUS, &action, NULL);
    }
    pthread_mutex_unlock(&lock);
}

void nvm_sigbus_begin(struct nvm_sigbus *guard)
{
    if (innermost == NULL)
        install();
    guard->outer = innermost;
    guard->address = NULL;
    guard->stand = nvm_protect_stand();
    innermost = guard;
}

void nvm_sigbus_end(struct nvm_sigbus *guard)
{
    innermost = guard->outer;
}

int nvm_sigbus_error(const struct nvm_sigbus *guard, const struct nvm_heap *heap)
{
    uint64_t offset =
        (uint64_t)((const char *)guard->address - (const char *)heap->region.base);
    return nvm_fail(EUCLEAN, "the page at offset %llu of the heap file cannot be read",
                    (unsigned long long)(offset & ~(NVM_PAGE - 1)));
}
