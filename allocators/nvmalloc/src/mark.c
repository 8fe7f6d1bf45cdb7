/* SPDX-License-Identifier: Apache-2.0 */
/* mark.c - the table of toggles; see mark.h. */
#include "mark.h"

#include <pthread.h>

uint64_t nvm_mark_toggle[64];

static void fill(void)
{
    for (unsigned bit = 0; bit < NVM_WORD_BLOCKS; bit++) {
        uint64_t block = (uint64_t)1 << bit;
        nvm_mark_toggle[bit] = block | nvm_mark_sum(block) << NVM_WORD_BLOCKS;
    }
}

void nvm_mark_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
}
