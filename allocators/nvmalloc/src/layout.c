/* SPDX-License-Identifier: Apache-2.0 */
/* layout.c - the geometry of a heap file, as a function of its sizes. */
#include "layout.h"

#include <errno.h>

/*
 * Lanes, rings and roots by the size that the heap may reach:
 *   max_size     lanes  ring  bytes     roots  bytes
 *   < 4 MiB      4      64    16 KiB    64     4 KiB
 *   < 64 MiB     16     128   128 KiB   1024   64 KiB
 *   otherwise    64     256   1 MiB     1024   64 KiB
 * A ring has four quarters (lane.h), and a quarter holds a group of 16.
 */
static void choose_counts(struct nvm_super *super)
{
    super->roots = 1024;
    if (super->max_size < (uint64_t)4 << 20) {
        super->lanes = 4;
        super->ring = 64;
        super->roots = 64;
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

/* Where the bitmaps and the data begin when there are `units`. */
static uint64_t place_tables(struct nvm_super *super, uint64_t units)
{
    super->bitmap_offset = round_up(super->chunk_offset + units * 8, NVM_PAGE);
    return round_up(super->bitmap_offset + units * NVM_BITMAP_BYTES, NVM_UNIT_BYTES);
}

int nvm_layout_compute(struct nvm_super *super)
{
    choose_counts(super);
    super->lanes_offset =
        NVM_ROOTS_OFFSET +
        round_up(super->roots * sizeof(struct nvm_root_entry), NVM_PAGE);
    super->chunk_offset = super->lanes_offset + (uint64_t)super->lanes * super->ring *
                                                    sizeof(struct nvm_record);
    /* As many units as fit behind their own metadata. */
    if (super->max_size >> NVM_UNIT_SHIFT >= NVM_CHUNK_MAX_UNITS)
        return EINVAL;
    uint64_t units = super->max_size / (NVM_UNIT_BYTES + 8 + NVM_BITMAP_BYTES);
    while (units > 0 &&
           place_tables(super, units) + units * NVM_UNIT_BYTES > super->max_size)
        units--;
    if (units == 0)
        return EINVAL;
    uint64_t data = place_tables(super, units);
    if (super->size <= data || super->size > super->max_size)
        return EINVAL;
    super->max_units = units;
    super->data_offset = data;
    super->units = (super->size - data) / NVM_UNIT_BYTES;
    if (super->units > units)
        super->units = units;
    return super->units == 0 ? EINVAL : 0;
}
