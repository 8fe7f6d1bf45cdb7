/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit.h - making operations durable and atomic, in each of the modes.
 *
 * Whoever comes here has reserved and judged everything: a commit cannot fail.
 */
#ifndef NVM_COMMIT_H
#define NVM_COMMIT_H

#include "tcache.h"

/* One record's worth of an operation. */
struct nvm_effect {
    enum nvm_op op; /* ALLOC, FREE or MOVE */
    struct nvm_block block;
    nvm_ref *dest;
    nvm_ref *from; /* MOVE */
};

/*
 * All of them, in their order, or none; durable on return.  count <=
 * NVM_ACTIONS_MAX; a GC heap: 1, or a FREE and an ALLOC of one slot.  Afterwards
 * freed blocks are reserved: the caller gives them back (nvm_cancel_block).
 */
void nvm_commit(struct nvm_tcache *tcache, const struct nvm_effect *effects,
                unsigned count);

#endif
