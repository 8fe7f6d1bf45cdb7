/* SPDX-License-Identifier: Apache-2.0 */
/* root.h - the table of roots: where the application's structures begin. */
#ifndef NVM_ROOT_H
#define NVM_ROOT_H

#include <stdint.h>

struct nvm_heap;
struct nvm_root_entry;

uint32_t nvm_root_crc(const struct nvm_root_entry *entry, uint32_t salt);

#endif
