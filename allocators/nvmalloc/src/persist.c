/* SPDX-License-Identifier: Apache-2.0 */
/* persist.c - choice of the flush instruction; see persist.h for the model. */
#include "persist.h"

#include <cpuid.h>
#include <errno.h>
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

/* CPUID leaf 7: EBX bit 23 clflushopt, bit 24 clwb (Intel SDM vol. 2A). */
static bool cpu_has(enum nvm_flush_kind kind)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    switch (kind) {
    case NVM_FLUSH_CLWB:
        return (ebx >> 24) & 1;
    case NVM_FLUSH_CLFLUSHOPT:
        return (ebx >> 23) & 1;
    default:
        return true; /* clflush is part of SSE2 */
    }
}

static void judge_usual(void)
{
    nvm_persist_unusual =
        nvm_persist_observed() || nvm_line_store_chosen != NVM_LINE_MOVDIR64B;
}

/* CPUID leaf 7: ECX bit 28 movdir64b (Intel SDM vol. 2A). */
static void choose_line_store(void)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    const char *forced = getenv("NVM_LINE_STORE");
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    bool movnti = forced != NULL && strcmp(forced, "movnti") == 0;
    nvm_line_store_chosen =
        (ecx >> 28 & 1) && !movnti ? NVM_LINE_MOVDIR64B : NVM_LINE_MOVNTI;
    judge_usual();
}

int nvm_persist_init(void)
{
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

void nvm_observe(nvm_observer_fn *fn, void *context)
{
    nvm_persist_observe_context = context;
    nvm_persist_observe_fn = fn;
    judge_usual();
}
