/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container.h - a recovered log: which slots lie in blocks that newer records
 * name, and which records are superseded.
 */
#ifndef NVM_CONTAINER_H
#define NVM_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

struct nvm_heap;

/* A record above the watermark. */
struct nvm_logged {
    const struct nvm_record *record;
    uint64_t seq;
    uint64_t object; /* offset of its block */
    uint64_t bytes;  /* of its block */
    uint32_t lane;
    uint16_t index;      /* in its group */
    bool contained;      /* a newer record names the block that holds its slot */
    bool from_contained; /* the same for `from` */
    bool superseded;     /* a newer record names its block */
    bool last_of_lane;   /* of the newest operation of its lane */
    bool moves;          /* a record of its group is a MOVE */
};

struct nvm_log {
    struct nvm_heap *heap;
    void *memory;
    struct nvm_logged *entries; /* in order of (seq, index) */
    uint32_t count;
    uint64_t *lanes;  /* scratch: one a lane */
    uint32_t *starts; /* scratch: entries that name a block, by block */
    uint32_t blocks;  /* how many these are */
    uint32_t *slots;  /* scratch: entries by slot, twice as many */
    uint32_t *open;   /* scratch: a binary heap of entries */
    uint64_t *valid;  /* bit i: record i of the rings is one; judged once, used often */
};

size_t nvm_log_bytes(size_t capacity, uint32_t lanes);
void nvm_log_place(struct nvm_log *log, size_t capacity, uint32_t lanes);

/* Sets superseded of all entries; to be called first. */
void nvm_find_superseded(struct nvm_log *log);
/* Sets contained and from_contained of all entries. */
void nvm_find_contained(struct nvm_log *log);

#endif
