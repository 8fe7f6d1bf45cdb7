// SPDX-License-Identifier: Apache-2.0
/*
 * sources.h - which line of which file an address of a trace stands for (DWARF, read by
 * elfutils' libdw).
 *
 * An address may stand for several lines: a function that was inlined, and the line that
 * called it.  Places are listed innermost first, then those of the callers.  The
 * *telling* place is the first one whose function is not a mere persistence primitive
 * (its name says flush, fence, persist, store, ...): that is where somebody can act.
 */
#ifndef NVL_SOURCES_H
#define NVL_SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lens.h"
#include "trace.h"

enum { NVL_PLACES_MAX = 12 };

struct nvl_source {
    char file[96]; /* base name; "" unknown */
    int line;
    char function[64];
};

struct nvl_places {
    uint32_t count;
    uint32_t telling; /* index */
    struct nvl_source place[NVL_PLACES_MAX];
};

/* Of a return address: what called. */
void nvl_sources_of(const char *module, uint64_t offset, struct nvl_places *places);
void nvl_sources_of_site(const struct nvl_trace *trace, uint32_t site,
                         struct nvl_places *places);
/* Of addresses in this process. */
void nvl_sources_of_frames(const uintptr_t *frames, uint32_t count,
                           struct nvl_places *places);
/* The module that holds an address of this process, and the offset in it. */
bool nvl_module_of(uintptr_t address, const char **module, uint64_t *offset);

#endif
