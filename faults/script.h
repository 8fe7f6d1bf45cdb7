// SPDX-License-Identifier: Apache-2.0
/*
 * script.h - a history as a list of operations, in text and in memory.
 *
 * Text, separated by blanks:
 *   a3:64        alloc_to slot 3, 64 bytes
 *   c3:200       the same, and the block's first slots become slots (a container)
 *   f3           free_from
 *   r3:4096      realloc_to
 *   m3>5         move_to slot 5
 *   g1:64,2:80   alloc_group
 *   o            close and open
 * A slot inside a container is 3.2; "t1/" before an operation gives it to thread 1.
 * An operation that is impossible when its turn comes (its slot is full, or empty) is
 * left out, so that a history stays one when operations are taken from it.
 */
#ifndef NVL_SCRIPT_H
#define NVL_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter.h"
#include "driver.h"
#include "ledger.h"

struct nvl_script {
    struct nvl_op *ops;
    size_t count, capacity;
};

void nvl_script_add(struct nvl_script *script, const struct nvl_op *op);
void nvl_script_clear(struct nvl_script *script);
/* False, with what is wrong in error, if the text is none. */
bool nvl_script_parse(struct nvl_script *script, const char *text, uint32_t slots,
                      uint32_t inner, char *error, size_t error_size);
/* Writes the text; false if it does not fit. */
bool nvl_script_print(const struct nvl_script *script, uint32_t slots, uint32_t inner,
                      char *text, size_t size);

/* True if the operation can be tried now; `busy` (by outer slot) are others' slots. */
bool nvl_op_possible(const struct nvl_ledger *ledger, const struct nvl_op *op,
                     const struct nvc_adapter *adapter, const bool *busy);
/* Draws an operation that is possible now; false if none was found. */
bool nvl_op_draw(const struct nvl_ledger *ledger, struct nvd_random *random,
                 const struct nvc_adapter *adapter, const bool *busy, uint32_t thread,
                 bool alone, struct nvl_op *op);

#endif
