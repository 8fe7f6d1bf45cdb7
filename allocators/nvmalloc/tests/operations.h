/* SPDX-License-Identifier: Apache-2.0 */
/* operations.h - what application.c and operations.c share. */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "application.h"

/* A root slot; NULL: a name that is not there (or could not be made). */
nvm_ref *slot_at(nvm_heap *heap, unsigned root, bool create);
const char *name_of(unsigned root);
/* Writes the bytes [from, to) that a block of the stamp has. */
void fill_bytes(char *block, size_t from, size_t to, uint64_t stamp);

#endif
