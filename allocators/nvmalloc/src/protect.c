/* SPDX-License-Identifier: Apache-2.0 */
/* protect.c - see protect.h. */
#include "protect.h"

#include <cpuid.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "heap.h"

enum backend { BACKEND_NONE, BACKEND_KEY, BACKEND_MPROTECT };

/* Chosen once for the process, like the key. */
static pthread_mutex_t choice_lock = PTHREAD_MUTEX_INITIALIZER;
static enum backend backend;
static int key = -1;

/* Whose window the thread is in. */
static _Thread_local struct nvm_heap *inside;

/* --- keys --- */

/* Bits of a key in PKRU: no access at all, no writes. */
#define DENY_ACCESS (1u << 0)
#define DENY_WRITE  (1u << 1)

static uint32_t read_pkru(void)
{
    uint32_t rights, zero;
    /* rdpkru; older assemblers do not know its name. */
    __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(rights), "=d"(zero) : "c"(0));
    return rights;
}

static void write_pkru(uint32_t rights)
{
    /* wrpkru.  No store moves over it, neither the compiler's nor the processor's. */
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(rights), "c"(0), "d"(0) : "memory");
}

static void set_key(uint32_t denied)
{
    unsigned shift = 2 * (unsigned)key;
    uint32_t now = read_pkru();
    uint32_t wanted = (now & ~(3u << shift)) | denied << shift;
    if (wanted != now)
        write_pkru(wanted);
}

/* CPUID leaf 7: ECX bit 4 OSPKE, the system has keys turned on (Intel SDM vol. 2A). */
static bool cpu_has_keys(void)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    return (ecx >> 4) & 1;
}

/* --- choosing --- */

unsigned nvm_protect_flags(unsigned flags)
{
    const char *wanted = getenv("NVM_PROTECT");
    bool on = wanted != NULL && *wanted != '\0' && strcmp(wanted, "0") != 0;
    return on ? flags | NVM_PROTECT : flags;
}

static int choose(void)
{
    const char *forced = getenv("NVM_PROTECT_BACKEND");
    if (forced != NULL && strcmp(forced, "mprotect") == 0) {
        backend = BACKEND_MPROTECT;
        return 0;
    }
    if (forced != NULL && *forced != '\0')
        return nvm_fail(EINVAL, "NVM_PROTECT_BACKEND: expected mprotect, or nothing");
    if (!cpu_has_keys())
        return nvm_fail(ENOTSUP, "NVM_PROTECT: this processor has no protection keys, or "
                                 "the system does not use them");
    key = pkey_alloc(0, PKEY_DISABLE_WRITE);
    if (key < 0)
        return nvm_fail(ENOTSUP, "NVM_PROTECT: the system gives this process no "
                                 "protection key (all 15 may be in use)");
    backend = BACKEND_KEY;
    return 0;
}

int nvm_protect_init(void)
{
    pthread_mutex_lock(&choice_lock);
    int error = backend != BACKEND_NONE ? 0 : choose();
    pthread_mutex_unlock(&choice_lock);
    return error;
}

/* --- heaps --- */

static int change_rights(struct nvm_heap *heap, int rights)
{
    return mprotect(heap->base, heap->data_offset, rights) == 0 ? 0 : errno;
}

int nvm_protect_begin(struct nvm_heap *heap)
{
    int error = 0;
    if (backend == BACKEND_KEY &&
        pkey_mprotect(heap->base, heap->data_offset, PROT_READ | PROT_WRITE, key) != 0)
        error = errno;
    if (backend == BACKEND_MPROTECT) {
        pthread_mutex_init(&heap->protection.lock, NULL);
        error = change_rights(heap, PROT_READ);
    }
    if (error != 0)
        return nvm_fail(error, "NVM_PROTECT: cannot protect the %llu bytes of metadata",
                        (unsigned long long)heap->data_offset);
    heap->protection.on = true;
    nvm_protect_look(heap);
    return 0;
}

void nvm_protect_end(struct nvm_heap *heap)
{
    if (!heap->protection.on)
        return;
    heap->protection.on = false;
    if (heap->foreign)
        return; /* it is not mapped here */
    if (backend == BACKEND_KEY)
        pkey_mprotect(heap->base, heap->data_offset, PROT_READ | PROT_WRITE, 0);
    else
        (void)change_rights(heap, PROT_READ | PROT_WRITE);
}

/* --- windows --- */

/* MPROTECT: one window more (or less) in all.  Should the system refuse, a store traps
   that should not, or the other way round: the tests tell. */
static void count_window(struct nvm_heap *heap, int change)
{
    struct nvm_protection *protection = &heap->protection;
    pthread_mutex_lock(&protection->lock);
    unsigned before = protection->windows;
    protection->windows += (unsigned)change;
    if (before == 0)
        (void)change_rights(heap, PROT_READ | PROT_WRITE);
    else if (protection->windows == 0)
        (void)change_rights(heap, PROT_READ);
    pthread_mutex_unlock(&protection->lock);
}

static void open_outermost(struct nvm_heap *heap)
{
    if (backend == BACKEND_KEY)
        set_key(0);
    else
        count_window(heap, 1);
}

/* outer: of another heap, or NULL. */
static void close_outermost(struct nvm_heap *heap, const struct nvm_heap *outer)
{
    if (backend == BACKEND_MPROTECT)
        count_window(heap, -1);
    else if (outer == NULL)
        set_key(DENY_WRITE);
}

struct nvm_window nvm_window_open(struct nvm_heap *heap)
{
    struct nvm_window window = {.heap = NULL};
    if (!heap->protection.on || heap->foreign)
        return window;
    window.heap = heap;
    window.outer = inside;
    if (inside != heap)
        open_outermost(heap);
    inside = heap;
    return window;
}

void nvm_window_close(const struct nvm_window *window)
{
    if (window->heap == NULL)
        return;
    inside = window->outer;
    if (window->outer != window->heap)
        close_outermost(window->heap, window->outer);
}

void nvm_protect_look(const struct nvm_heap *heap)
{
    if (heap->protection.on && backend == BACKEND_KEY && inside == NULL)
        set_key(DENY_WRITE);
}

struct nvm_stand nvm_protect_stand(void)
{
    return (struct nvm_stand){inside, backend == BACKEND_KEY ? read_pkru() : 0};
}

void nvm_protect_return(struct nvm_stand stand)
{
    struct nvm_heap *lost = inside;
    inside = stand.inside;
    if (backend == BACKEND_KEY)
        write_pkru(stand.rights);
    else if (lost != NULL && lost != inside)
        count_window(lost, -1);
}
