/* SPDX-License-Identifier: Apache-2.0 */
/* layout.c - the geometry of a heap file, as a function of its sizes. */
#include "layout.h"

#include <errno.h>

/*
 * Lanes and rings by size: a ring must be long for checkpoints to be rare
 * (two fences in half a ring of operations), yet all lanes together should
 * stay near 1/64 of the file.
 *   size         lanes  ring  bytes
 *   < 4 MiB      4      32    8 KiB
 *   < 64 MiB     16     128   128 KiB
 *   otherwise    64     256   1 MiB
 */
static void choose_lanes(struct nvm_super *super)
{
    if (super->max_size < (uint64_t)4 << 20) {
        super->lanes = 4;
        super->ring = 32;
    } else if (super->max_size < (uint64_t)64 << 20) {
        super->lanes = 16;
        super->ring = 128;
    } else {
        super->lanes = 64;
        super->ring = 256;
    }
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

int nvm_layout_compute(struct nvm_super *super)
{
    choose_lanes(super);
    super->unit_shift = NVM_UNIT_SHIFT;
    super->chunk_offset = NVM_LANES_OFFSET + (uint64_t)super->lanes * super->ring *
                                                 sizeof(struct nvm_record);
    /* As many units as fit behind their own metadata. */
    uint64_t units = super->max_size / NVM_UNIT_BYTES;
    uint64_t data = 0;
    for (;; units--) {
        if (units == 0)
            return EINVAL;
        super->bitmap_offset = round_up(super->chunk_offset + units * 8, NVM_PAGE);
        data = round_up(super->bitmap_offset + units * NVM_BITMAP_BYTES, NVM_UNIT_BYTES);
        if (data + units * NVM_UNIT_BYTES <= super->max_size)
            break;
    }
    if (units >= NVM_CHUNK_MAX_UNITS || super->size <= data)
        return EINVAL;
    super->max_units = units;
    super->data_offset = data;
    super->units = (super->size - data) / NVM_UNIT_BYTES;
    return super->units == 0 ? EINVAL : 0;
}
