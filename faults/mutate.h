// SPDX-License-Identifier: Apache-2.0
/*
 * mutate.h - pretends that a flush or fence is missing, or comes at another place.
 *
 * A mutant of an allocator that differs in one persistence instruction needs no other
 * build: that instruction's event is left out of the recording (drop), or takes effect
 * after the same thread's next store, flush or fence (swap), in the history and in
 * recovery.  A non-temporal store may lose what makes it one (cached): it is an ordinary
 * store then, which nobody flushes.
 *
 * A place is a line of source that the event's call stack passes through.
 */
#ifndef NVL_MUTATE_H
#define NVL_MUTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lens.h"

enum nvl_mutation_kind { NVL_DROP, NVL_SWAP, NVL_CACHED };

struct nvl_mutation {
    enum nvl_mutation_kind kind;
    enum nvl_event_kind only; /* _FLUSH, _FENCE or _STORE_NT; _END: flush and fence */
    char file[128];           /* base name */
    int line;
};

/* "drop:lane.c:214" or "swap:lane.c:214"; of the flush or the fence on that line alone:
   "drop-flush:...", "drop-fence:...", "swap-flush:...", "swap-fence:..."; of a
   non-temporal store: "cached:...".  False if text is none of these. */
bool nvl_mutation_parse(struct nvl_mutation *mutation, const char *text);
void nvl_mutation_print(const struct nvl_mutation *mutation, char *text, size_t size);

/* From now on what the lens sees goes through the mutation; NULL: none. */
void nvl_mutation_use(const struct nvl_mutation *mutation);

/* True if there is one, and the event is at its place. */
bool nvl_mutation_hits(const struct nvl_sighted *sighted);
/* For the lens: passes the event on to `sink` as the mutation says. */
void nvl_mutation_pass(const struct nvl_sighted *sighted, nvl_sink_fn *sink,
                       void *context);
extern bool nvl_mutation_active;

#endif
