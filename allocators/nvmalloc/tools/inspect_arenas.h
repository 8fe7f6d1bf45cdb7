/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect_arenas.h - the tree of arenas that manages a heap's units, as JSON.
 *
 * Arenas are volatile: what a heap file says is which units are in use.  The
 * tool that looks into the file makes the arenas that an open would make
 * (nvm_numa_create(), then nvm_numa_claim() for each run in use) and shows them.
 */
#ifndef NVM_INSPECT_ARENAS_H
#define NVM_INSPECT_ARENAS_H

#include <json-c/json.h>

#include "numa.h"

/*
 * [ARENA,...] as vmem_dump() writes them: first the tree of `units`, then vmem's own
 * arenas, from which the structures for it come.  Units count in units.  NULL: no memory.
 */
struct json_object *inspect_arenas(const struct nvm_numa *units);

#endif
