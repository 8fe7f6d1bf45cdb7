/* SPDX-License-Identifier: Apache-2.0 */
/* placement.h - where blocks are, and what is in them. */
#ifndef PRELOAD_TEST_PLACEMENT_H
#define PRELOAD_TEST_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether /proc/self/maps has the address in a shared mapping of a file whose name begins
   as NVM_MALLOC_HEAP says, and which has been removed. */
bool is_on_nvm(const void *address);

/* Fills a block with what depends on its address and size; tells whether it still has it.
 */
void fill(void *block, size_t size);
bool is_filled(const void *block, size_t size);
/* The same for the first `count` bytes of a block that was filled elsewhere, as another.
 */
bool is_filled_as(const void *block, const void *was, size_t size, size_t count);

/* A generator of its own: no seed but the one given. */
uint64_t next_random(uint64_t *state);

#endif
