/* SPDX-License-Identifier: Apache-2.0 */
/* recover.h - replaying the log of a heap that was not closed. */
#ifndef NVM_RECOVER_H
#define NVM_RECOVER_H

#include <stdint.h>

struct nvm_heap;

/* What replay found, and what the lanes start from. */
struct nvm_recovery {
    uint64_t clock;     /* next sequence number */
    uint64_t watermark; /* on media now */
    unsigned next_copy; /* watermark line to write next */
    uint64_t replayed;  /* records */
};

/* The newest intact watermark line; EUCLEAN if neither is intact. */
int nvm_watermark_read(const struct nvm_heap *heap, struct nvm_recovery *recovery);

/*
 * Replays all records above the watermark, and makes that durable; afterwards
 * no record counts.  heap: region, super, salt and the media pointers are set,
 * nothing else.  Idempotent; may be cut off at any point and run again.
 */
int nvm_recover(struct nvm_heap *heap, struct nvm_recovery *recovery);

#endif
