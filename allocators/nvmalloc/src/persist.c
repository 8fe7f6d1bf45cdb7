/* SPDX-License-Identifier: Apache-2.0 */
/* persist.c - choice of the flush instruction; see persist.h for the model. */
#include "persist.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "nvmalloc.h"

enum nvm_flush_kind nvm_flush_chosen = NVM_FLUSH_CLFLUSH;
enum nvm_line_store nvm_line_store_chosen = NVM_LINE_MOVNTI;
bool nvm_persist_unusual = true;
nvm_persist_observer *nvm_persist_observe_fn;
void *nvm_persist_observe_context;

static const char *const flush_names[] = {
    [NVM_FLUSH_CLWB] = "clwb",
    [NVM_FLUSH_CLFLUSHOPT] = "clflushopt",
    [NVM_FLUSH_CLFLUSH] = "clflush",
    [NVM_FLUSH_NONE] = "none",
};

/* CPUID leaf 7 (Intel SDM vol. 2A); read once: in a virtual machine each CPUID costs
   microseconds, and laboratories open thousands of heaps a second. */
static unsigned leaf7_ebx, leaf7_ecx;

static void read_cpuid(void)
{
    unsigned eax = 0, edx = 0;
    __get_cpuid_count(7, 0, &eax, &leaf7_ebx, &leaf7_ecx, &edx);
}

static bool cpu_has(enum nvm_flush_kind kind)
{
    switch (kind) {
    case NVM_FLUSH_CLWB:
        return (leaf7_ebx >> 24) & 1;
    case NVM_FLUSH_CLFLUSHOPT:
        return (leaf7_ebx >> 23) & 1;
    default:
        return true; /* clflush is part of SSE2 */
    }
}

static void judge_usual(void)
{
    nvm_persist_unusual =
        nvm_persist_observed() || nvm_line_store_chosen != NVM_LINE_MOVDIR64B;
}

static void choose_line_store(void)
{
    const char *forced = getenv("NVM_LINE_STORE");
    bool movnti = forced != NULL && strcmp(forced, "movnti") == 0;
    bool movdir64b = (leaf7_ecx >> 28) & 1;
    nvm_line_store_chosen = movdir64b && !movnti ? NVM_LINE_MOVDIR64B : NVM_LINE_MOVNTI;
    judge_usual();
}

int nvm_persist_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_cpuid);
    choose_line_store();
    const char *forced = getenv("NVM_PERSIST");
    if (forced != NULL && *forced != '\0') {
        for (unsigned kind = 0; kind <= NVM_FLUSH_NONE; kind++) {
            if (strcmp(forced, flush_names[kind]) == 0 && cpu_has(kind)) {
                nvm_flush_chosen = kind;
                return 0;
            }
        }
        return EINVAL;
    }
    if (cpu_has(NVM_FLUSH_CLWB))
        nvm_flush_chosen = NVM_FLUSH_CLWB;
    else if (cpu_has(NVM_FLUSH_CLFLUSHOPT))
        nvm_flush_chosen = NVM_FLUSH_CLFLUSHOPT;
    else
        nvm_flush_chosen = NVM_FLUSH_CLFLUSH;
    return 0;
}

const char *nvm_persist_name(void)
{
    return flush_names[nvm_flush_chosen];
}

void nvm_persist_observe(nvm_persist_observer *fn, void *context)
{
    nvm_persist_observe_context = context;
    nvm_persist_observe_fn = fn;
    judge_usual();
}
