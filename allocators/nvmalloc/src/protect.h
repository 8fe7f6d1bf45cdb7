/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protect.h - metadata that a stray store of the application can't change.
 *
 * The model.  The metadata of a protected heap, [0, data_offset) of its mapping, may be
 * written only inside a *window*.  Each function that writes metadata begins with
 *
 *      NVM_WINDOW(heap);
 *
 * which opens one until the function returns, whatever way it does.  Outside of windows a
 * store into metadata raises SIGSEGV.
 *
 * What holds
 *
 *  P1  a thread may write a protected heap's metadata exactly while it is inside a window
 *      of that heap.  (KEY: of any heap: a process has 15 keys, and one serves them all.)
 *
 *  P2  windows nest; the outermost one of a thread opens and closes.
 *
 *  P3  reading metadata is always allowed, but for a thread that was there before the
 * first protected heap was, and for signal handlers: to those the kernel gives no access
 * to a key of which they know nothing.  A function that only reads begins with
 *      nvm_protect_look(); the application's own reads of a name's slot are its business
 *      (docs/nvmalloc.md).
 *
 *  P4  heaps without protection pay a load and a branch a window, and none on the fast
 *      paths: they have no window, and a heap with protection never takes one that writes
 *      metadata (tcache->fast).
 *
 * Two backends.  KEY is memory-protection keys: the rights are a register of the thread,
 * WRPKRU changes them, no system call (Intel SDM vol. 3A, 4.6.2).  MPROTECT stands in for
 * it where there is no such processor, to test this very discipline: mprotect() when the
 * first window of any thread opens and when the last one closes.  It costs two system
 * calls an operation and protects less (all threads have the rights while one has), so it
 * is no option for users.
 *
 * Growth maps new pages behind the metadata only, so what is protected stays so.
 */
#ifndef NVM_PROTECT_H
#define NVM_PROTECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct nvm_heap;

/* Of a heap; all 0: not protected. */
struct nvm_protection {
    bool wanted; /* the options say so */
    bool on;
    pthread_mutex_t lock; /* MPROTECT */
    unsigned windows;     /* MPROTECT: of all threads, outermost ones */
};

/* What NVM_PROTECT of the environment adds to the flags of nvm_options. */
unsigned nvm_protect_flags(unsigned flags);

/* Chooses the backend by NVM_PROTECT_BACKEND and the processor: 0, or ENOTSUP or EINVAL
   with the reason. */
int nvm_protect_init(void);

/* Protects the metadata of a heap that is open; 0, or ENOTSUP or ENOMEM with the reason.
 */
int nvm_protect_begin(struct nvm_heap *heap);

/* Ends it, with the rights that the mapping had before; no thread is in a window.  Every
   store is allowed from here on: the heap is about to be closed. */
void nvm_protect_end(struct nvm_heap *heap);

/* A window of the calling thread; on its stack. */
struct nvm_window {
    struct nvm_heap *heap;  /* NULL: none was opened */
    struct nvm_heap *outer; /* whose window this one is in */
};

struct nvm_window nvm_window_open(struct nvm_heap *heap);
void nvm_window_close(const struct nvm_window *window);

#define NVM_WINDOW(heap)                                                                 \
    __attribute__((cleanup(nvm_window_close), unused)) const struct nvm_window window =  \
        nvm_window_open(heap)

/* Before a function reads metadata without a window (P3). */
void nvm_protect_look(const struct nvm_heap *heap);

/* Where the thread stands, and back to there after a jump out of inner windows and of a
   signal handler, which has no rights of its own (sigbus.h). */
struct nvm_stand {
    struct nvm_heap *inside;
    uint32_t rights; /* KEY: of the application's keys, too */
};
struct nvm_stand nvm_protect_stand(void);
void nvm_protect_return(struct nvm_stand stand);

#endif
