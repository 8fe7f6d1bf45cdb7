/* SPDX-License-Identifier: Apache-2.0 */
/*
 * damage.h - a heap image to damage, and what must hold of any that was damaged.
 */
#ifndef DAMAGE_H
#define DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvmalloc.h"

#define DAMAGE_BYTES ((size_t)1 << 20)
#define DAMAGE_SLOTS 48u

struct damage_block {
    nvm_ref ref;
    size_t usable;
};

/* An image of a heap in use, and its live blocks. */
struct damage_image {
    char *bytes; /* DAMAGE_BYTES, aligned to a page */
    enum nvm_mode mode;
    bool closed; /* cleanly; else as a SIGKILL leaves it */
    struct damage_block live[512];
    size_t count;
};

/* Memory for an image. */
char *damage_pages(void);
/* Makes the heap in a file at `path`, which is gone afterwards.  Nothing random. */
void damage_make(struct damage_image *image, const char *path, enum nvm_mode mode,
                 bool closed);

/* What came of an image. */
struct damage_outcome {
    int open;  /* errno value of nvm_attach() */
    int check; /* of nvm_check(), before anything else was done */
    uint64_t quarantined;
    size_t given; /* blocks that were given out until the heap was full */
};

/*
 * Attaches the image (which changes), checks, walks, and takes all that is free in
 * blocks of many sizes.  NULL, or what must never be: a block outside the data, two
 * blocks that overlap, no reason for a refusal.  `kept` (may be NULL): blocks
 * that may not be given out either, even if the heap no longer knows of them.
 */
const char *damage_use(char *bytes, size_t length, const struct damage_image *kept,
                       struct damage_outcome *outcome);

#endif
