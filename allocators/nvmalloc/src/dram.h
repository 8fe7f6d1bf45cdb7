/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dram.h - DRAM for the volatile state of a heap, straight from the kernel.
 *
 * No malloc: nvmalloc must be able to serve as the program's malloc.  Pages
 * are zero and cost nothing until touched, so tables are sized for the
 * largest heap and filled as it is used.
 */
#ifndef NVM_DRAM_H
#define NVM_DRAM_H

#include <stddef.h>

void *nvm_dram_map(size_t bytes); /* zeroed; NULL when there is none */
void nvm_dram_unmap(void *address, size_t bytes);

#endif
