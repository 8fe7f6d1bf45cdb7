/* SPDX-License-Identifier: Apache-2.0 */
/* dram.c - see dram.h. */
#include "dram.h"

#include <sys/mman.h>

void *nvm_dram_map(size_t bytes)
{
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

void nvm_dram_unmap(void *address, size_t bytes)
{
    munmap(address, bytes);
}
