/* SPDX-License-Identifier: Apache-2.0 */
/* root.h - the table of roots: where the application's structures begin. */
#ifndef NVM_ROOT_H
#define NVM_ROOT_H

#include <stdbool.h>
#include <stdint.h>

struct nvm_root_entry;

uint32_t nvm_root_crc(const struct nvm_root_entry *entry, uint32_t salt);
/* Whether the entry is in use: its key is intact. */
bool nvm_root_valid(const struct nvm_root_entry *entry, uint32_t salt);

#endif
