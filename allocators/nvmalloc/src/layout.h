/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.h - what a heap file holds, byte for byte.
 *
 *   offset          bytes              what
 *   0               4096               superblock copy 0
 *   4096            4096               superblock copy 1
 *   8192            4096               watermark copies: two lines, 64 B each
 *   12288           4096               root table: 64 entries of 64 B
 *   16384           lanes * ring * 64  lanes: rings of 64-byte records
 *   chunk_offset    max_units * 8      chunk table: one entry a 64 KiB unit
 *   bitmap_offset   max_units * 512    slab bitmaps: one bit a block
 *   data_offset     units * 65536      units: slabs and extents
 *
 * All numbers are little-endian; nothing on media is an address.  Metadata
 * lies apart from the data, so an overflow of a block cannot reach it.
 *
 * Valid if and only if
 *   superblock   magic, version and crc32c fit, and the geometry that it
 *                states follows from (size, max_size, lanes, ring) by
 *                nvm_layout_compute(); of two valid copies the one with the
 *                higher generation counts.
 *   watermark    crc32c fits; of two valid lines the higher value counts.
 *   record       op is known, crc32c (salted with the heap's uuid) fits, the
 *                reserved bytes are 0; it counts only if its seq is above the watermark.
 * A torn record is therefore an absent one. chunk entry  its crc16 over (entry, unit
 * number) fits, and it is reached by the walk: entry 0, then on by each entry's `units`
 * to the end.  Entries that the walk jumps over mean nothing. slab bitmap  it belongs to
 * a unit whose entry is a SLAB; of its words up to the one with the last block, bits past
 * that block are 0. root entry   crc32c over its key fits; its `ref` is an owned slot.
 */
#ifndef NVM_LAYOUT_H
#define NVM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "crc32c.h"

#define NVM_MAGIC          "NVMALLOC"
#define NVM_FORMAT_VERSION 1u

#define NVM_PAGE         ((uint64_t)4096)
#define NVM_UNIT_SHIFT   16u
#define NVM_UNIT_BYTES   ((uint64_t)1 << NVM_UNIT_SHIFT)
#define NVM_BITMAP_WORDS 64u /* of 64 bits a unit: 4096 blocks of 16 B */
#define NVM_BITMAP_BYTES (NVM_BITMAP_WORDS * 8u)

#define NVM_SUPER_OFFSET(copy) ((uint64_t)(copy)*NVM_PAGE)
#define NVM_WATERMARK_OFFSET   (2 * NVM_PAGE)
#define NVM_ROOTS_OFFSET       (3 * NVM_PAGE)
#define NVM_LANES_OFFSET       (4 * NVM_PAGE)
#define NVM_ROOT_ENTRIES       64u

enum nvm_super_flags { NVM_SUPER_CLEAN = 1u << 0 };

/* One superblock copy (the rest of its page is zero). */
struct nvm_super {
    char magic[8];          /*   0 NVM_MAGIC, no terminator */
    uint32_t version;       /*   8 */
    uint32_t bytes;         /*  12 sizeof(struct nvm_super) */
    uint8_t uuid[16];       /*  16 random; salts every checksum of the heap */
    uint64_t generation;    /*  32 raised by each write of a superblock */
    uint64_t size;          /*  40 bytes of the file that are in use */
    uint64_t max_size;      /*  48 bytes to which it may grow */
    uint64_t clock;         /*  56 next sequence number, when clean */
    uint32_t flags;         /*  64 enum nvm_super_flags */
    uint32_t lanes;         /*  68 */
    uint32_t ring;          /*  72 records a lane; a power of two */
    uint32_t unit_shift;    /*  76 NVM_UNIT_SHIFT */
    uint64_t chunk_offset;  /*  80 */
    uint64_t bitmap_offset; /*  88 */
    uint64_t data_offset;   /*  96 */
    uint64_t units;         /* 104 units in use */
    uint64_t max_units;     /* 112 units for which there is metadata */
    uint32_t reserved;      /* 120 0 */
    uint32_t crc;           /* 124 crc32c of bytes 0..123 */
};
_Static_assert(sizeof(struct nvm_super) == 128, "on-media size");
_Static_assert(offsetof(struct nvm_super, crc) == 124, "on-media offset");

/* One of the two watermark lines, written alternately. */
struct nvm_watermark {
    uint64_t seq;      /*  0 records with seq <= this are history */
    uint64_t zero[6];  /*  8 */
    uint32_t reserved; /* 56 0 */
    uint32_t crc;      /* 60 salted crc32c of bytes 0..59 */
};
_Static_assert(sizeof(struct nvm_watermark) == 64, "on-media size");

enum nvm_op {
    NVM_OP_NONE = 0,
    NVM_OP_ALLOC = 1,        /* slab block: *dest = obj, bit set */
    NVM_OP_FREE = 2,         /* slab block: *dest = 0, bit cleared */
    NVM_OP_EXTENT_ALLOC = 3, /* *dest = obj, chunk entry becomes EXTENT */
    NVM_OP_EXTENT_FREE = 4,  /* *dest = 0, chunk entry becomes FREE */
};

/*
 * A block's tag: what its records say of it, in one word.
 *   bits 0-35   number of its bit among the bitmaps: unit * 4096 + index
 *               (extent: its first unit * 4096)
 *   bits 36-49  generation of the chunk entry (slab) or of the extent
 *   bits 50-56  size class (extent: 0)
 *   bits 57-59  enum nvm_op, in a record; 0 elsewhere
 *   bit  60     1: an extent
 */
#define NVM_TAG_GENERATION 36u
#define NVM_TAG_CLASS      50u
#define NVM_TAG_OP         57u
#define NVM_TAG_EXTENT     ((uint64_t)1 << 60)
#define NVM_UNIT_BITS      12u /* log2 of the bits of a unit's bitmap */

/* A lane's record: one line, written whole by non-temporal stores. */
struct nvm_record {
    uint64_t tag;         /*  0 block and op */
    uint64_t seq;         /*  8 from the heap's one clock */
    uint64_t dest;        /* 16 offset of the slot */
    uint64_t object;      /* 24 offset of the block */
    uint64_t bytes;       /* 32 length of an extent; 0 for a slab block */
    uint64_t reserved[2]; /* 40 0 */
    uint32_t zero;        /* 56 0 */
    uint32_t crc;         /* 60 salted crc32c of bytes 0..39 */
};
_Static_assert(sizeof(struct nvm_record) == 64, "one line");
_Static_assert(offsetof(struct nvm_record, crc) == 60, "on-media offset");
_Static_assert((1u << NVM_UNIT_BITS) == NVM_BITMAP_WORDS * 64, "bits of a unit");

static inline unsigned nvm_tag_op(uint64_t tag)
{
    return (tag >> NVM_TAG_OP) & 7;
}

static inline uint32_t nvm_tag_unit(uint64_t tag)
{
    return (tag >> NVM_UNIT_BITS) & 0xffffff;
}

static inline uint32_t nvm_tag_index(uint64_t tag)
{
    return tag & ((1u << NVM_UNIT_BITS) - 1);
}

static inline uint32_t nvm_tag_generation(uint64_t tag)
{
    return (tag >> NVM_TAG_GENERATION) & 0x3fff;
}

static inline uint32_t nvm_tag_class(uint64_t tag)
{
    return (tag >> NVM_TAG_CLASS) & 127;
}

static inline uint32_t nvm_record_crc(const struct nvm_record *record, uint32_t salt)
{
    return nvm_crc32c(salt, record, offsetof(struct nvm_record, reserved));
}

/* The "valid if and only if" of a record, above. */
static inline int nvm_record_valid(const struct nvm_record *record, uint32_t salt)
{
    unsigned op = nvm_tag_op(record->tag);
    return op != NVM_OP_NONE && op <= NVM_OP_EXTENT_FREE &&
           (record->reserved[0] | record->reserved[1] | record->zero) == 0 &&
           record->crc == nvm_record_crc(record, salt);
}

/* A named root. `ref` is an owned slot; the key never changes once valid. */
struct nvm_root_entry {
    uint64_t ref;      /*  0 */
    uint64_t bytes;    /*  8 size asked for when it was made */
    char name[40];     /* 16 zero-padded; name[39] is 0 */
    uint32_t reserved; /* 56 0 */
    uint32_t crc;      /* 60 salted crc32c of bytes 8..59 */
};
_Static_assert(sizeof(struct nvm_root_entry) == 64, "one line");

enum nvm_chunk_state {
    NVM_CHUNK_NONE = 0,
    NVM_CHUNK_FREE = 1,
    NVM_CHUNK_SLAB = 2,
    NVM_CHUNK_EXTENT = 3,
};

/*
 * A chunk entry, packed into 8 bytes so that one store replaces it whole:
 *   bits 0-2 state, 3-26 units, 27-33 size class, 34-47 generation, 48-63 crc16.
 * The generation counts the writes of the unit's entry that no record tells
 * of, and each extent's birth; a record that bears another generation is
 * about a former tenant.  14 bits: a window of records holds fewer entries
 * (lanes * ring <= 16384) than there are generations.
 */
struct nvm_chunk {
    uint32_t units;
    uint32_t generation;
    uint8_t state;
    uint8_t klass;
};
#define NVM_CHUNK_GENERATIONS (1u << 14)
#define NVM_CHUNK_MAX_UNITS   (1u << 24)

static inline uint16_t nvm_chunk_crc(uint64_t low48, uint64_t unit, uint32_t salt)
{
    uint64_t crc = nvm_crc32c_u64(nvm_crc32c_u64(salt, low48), unit);
    return (uint16_t)(crc ^ (crc >> 16));
}

static inline uint64_t nvm_chunk_pack(struct nvm_chunk chunk, uint64_t unit,
                                      uint32_t salt)
{
    uint64_t low48 = (uint64_t)chunk.state | (uint64_t)chunk.units << 3 |
                     (uint64_t)chunk.klass << 27 |
                     (uint64_t)(chunk.generation % NVM_CHUNK_GENERATIONS) << 34;
    return low48 | (uint64_t)nvm_chunk_crc(low48, unit, salt) << 48;
}

static inline struct nvm_chunk nvm_chunk_unpack(uint64_t entry)
{
    return (struct nvm_chunk){
        .state = entry & 7,
        .units = (entry >> 3) & (NVM_CHUNK_MAX_UNITS - 1),
        .klass = (entry >> 27) & 127,
        .generation = (entry >> 34) & (NVM_CHUNK_GENERATIONS - 1),
    };
}

/* Whether the entry of `unit` is intact; says nothing of whether it is reached. */
static inline int nvm_chunk_intact(uint64_t entry, uint64_t unit, uint32_t salt)
{
    uint64_t low48 = entry & (((uint64_t)1 << 48) - 1);
    return entry >> 48 == nvm_chunk_crc(low48, unit, salt) &&
           (entry & 7) != NVM_CHUNK_NONE;
}

/* Fills in geometry (offsets, units, lanes, ring) from size and max_size;
   0, or EINVAL if not even one unit fits. */
int nvm_layout_compute(struct nvm_super *super);

#endif
