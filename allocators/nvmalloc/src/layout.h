/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.h - what a heap file holds, byte for byte.
 *
 *   offset          bytes              what
 *   0               4096               superblock copy 0
 *   4096            4096               superblock copy 1
 *   8192            4096               watermark copies: two lines, 64 B each
 *   12288           roots * 64         root table: entry 0 is the unnamed root
 *   lanes_offset    lanes * ring * 64  lanes: rings of 64-byte records
 *   chunk_offset    max_units * 8      chunk table: one entry a 64 KiB unit
 *   bitmap_offset   max_units * 1024   slab bitmaps: 128 words a unit, 86 are used at
 *                                      most; so a mark's position is its address
 *   data_offset     units * 65536      units: slabs and extents; 64 KiB-aligned
 *
 * All numbers are little-endian; nothing on media is an address.  Metadata
 * lies apart from the data, so an overflow of a block cannot reach it.  The
 * metadata of units and lanes that are not in use yet is a hole in the file.
 *
 * Valid if and only if
 *   superblock   magic, version and crc32c fit, and the geometry that it
 *                states follows from (size, max_size) by nvm_layout_compute();
 *                of two valid copies the one with the higher generation
 *                counts.  If the other one is damaged, the heap counts as not
 *                closed: the damaged one may have been the newer.
 *   watermark    crc32c fits.  The heap's watermark is the highest of the
 *                valid lines' and of the valid records'.
 *   lane         every record of a lane in use is valid, but for those that a crash may
 *                have torn (recover.c); unused ones are blank: DONE, with seq 0
 *   record       op is known, crc32c (salted with the heap's uuid) fits, the
 *                reserved bytes are 0; it counts only if its seq is above the
 *                watermark, and a record of a group only if every record of
 *                the group is there.  A torn record is therefore an absent one.
 *   chunk entry  its crc16 over (entry, unit number) fits, and it is reached
 *                by the walk: entry 0, then on by each entry's `units` to the
 *                end.  Entries that the walk jumps over mean nothing.
 *   slab bitmap  it belongs to a unit whose entry is a SLAB; each of its words
 *                that has blocks fits its own checksum (mark.h) and has no bit
 *                for a block past the last.
 *   root entry   crc32c over its key fits; its `ref` is an owned slot.
 */
#ifndef NVM_LAYOUT_H
#define NVM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "crc32c.h"

#define NVM_MAGIC          "NVMALLOC"
#define NVM_FORMAT_VERSION 2u

#define NVM_PAGE       ((uint64_t)4096)
#define NVM_UNIT_SHIFT 16u
#define NVM_UNIT_BYTES ((uint64_t)1 << NVM_UNIT_SHIFT)

/* A bitmap word: 48 blocks and their checksum.  86 words hold the 4096 blocks of
   16 B that a unit has at most. */
#define NVM_WORD_BLOCKS  48u
#define NVM_BITMAP_WORDS 128u
#define NVM_BITMAP_BYTES (NVM_BITMAP_WORDS * 8u)
#define NVM_SLAB_BLOCKS  4096u /* of a slab, at most */

#define NVM_SUPER_OFFSET(copy) ((uint64_t)(copy)*NVM_PAGE)
#define NVM_WATERMARK_OFFSET   (2 * NVM_PAGE)
#define NVM_ROOTS_OFFSET       (3 * NVM_PAGE)

enum nvm_super_flags {
    NVM_SUPER_CLEAN = 1u << 0, /* closed: the log is history, bitmaps are right */
    NVM_SUPER_HOLES = 1u << 1, /* free units may be holes of the file */
};

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
    uint32_t mode;          /*  68 enum nvm_mode */
    uint32_t lanes;         /*  72 */
    uint32_t ring;          /*  76 records a lane; a power of two */
    uint32_t lanes_used;    /*  80 lanes from here on have never held a record */
    uint32_t roots;         /*  84 entries of the root table */
    uint64_t lanes_offset;  /*  88 */
    uint64_t chunk_offset;  /*  96 */
    uint64_t bitmap_offset; /* 104 */
    uint64_t data_offset;   /* 112 */
    uint64_t units;         /* 120 units in use */
    uint64_t max_units;     /* 128 units for which there is metadata */
    uint32_t reserved[13];  /* 136 0 */
    uint32_t crc;           /* 188 crc32c of bytes 0..187 */
};
_Static_assert(sizeof(struct nvm_super) == 192, "on-media size");
_Static_assert(offsetof(struct nvm_super, crc) == 188, "on-media offset");

/* One of the two watermark lines, written alternately. */
struct nvm_watermark {
    uint64_t seq;      /*  0 records with seq <= this are history */
    uint64_t zero[6];  /*  8 */
    uint32_t reserved; /* 56 0 */
    uint32_t crc;      /* 60 salted crc32c of bytes 0..59 */
};
_Static_assert(sizeof(struct nvm_watermark) == 64, "on-media size");

/* What a record tells.  Whether it tells it of a slab's block or of an extent
   is told by the tag's class. */
enum nvm_op {
    NVM_OP_NONE = 0,
    NVM_OP_ALLOC = 1, /* *dest = block, the block's mark is set */
    NVM_OP_FREE = 2,  /* *dest = 0, the mark is cleared */
    NVM_OP_MOVE = 3,  /* *from = 0, *dest = block */
    NVM_OP_DONE = 4,  /* strict: the lane's operation before it has had its effects */
};

/*
 * A block's tag: what its records say of it, in one word.
 *   bits 0-36   position of its mark: unit * 8192 + word * 64 + bit
 *               (extent: its first unit * 8192)
 *   bits 37-50  generation of the chunk entry (slab) or of the extent
 *   bits 51-57  size class; NVM_CLASS_EXTENT: an extent
 *   bits 58-60  enum nvm_op, in a record; 0 elsewhere
 */
#define NVM_TAG_GENERATION 37u
#define NVM_TAG_CLASS      51u
#define NVM_TAG_OP         58u
#define NVM_TAG_BITS       61u
#define NVM_UNIT_BITS      13u /* log2 of the positions of a unit */
#define NVM_CLASS_EXTENT   127u

/* A lane's record: one line, written whole past the caches. */
struct nvm_record {
    uint64_t tag;       /*  0 block and op */
    uint64_t dest;      /*  8 offset of the slot */
    uint64_t watermark; /* 16 what was history when it was written */
    uint64_t seq;       /* 24 from the heap's one clock; the same in all of a group */
    uint64_t detail;    /* 32 NVM_DETAIL_..., 0 in most */
    uint64_t from;      /* 40 MOVE: offset of the slot that is emptied; else 0 */
    uint64_t zero;      /* 48 0 */
    uint32_t ordinal;   /* 56 its number in the lane since the heap was opened */
    uint32_t crc;       /* 60 salted crc32c: nvm_record_crc() */
};
_Static_assert(sizeof(struct nvm_record) == 64, "one line");
_Static_assert(offsetof(struct nvm_record, crc) == 60, "on-media offset");
_Static_assert((1u << NVM_UNIT_BITS) >= NVM_BITMAP_WORDS * 64, "positions of a unit");
_Static_assert(NVM_BITMAP_WORDS *NVM_WORD_BLOCKS >= NVM_SLAB_BLOCKS, "blocks of a unit");

/* nvm_record.detail: bits 0-31 units of an extent, 32-39 this record's number in its
   group, 40-47 records of the group less one. */
#define NVM_DETAIL_INDEX 32u
#define NVM_DETAIL_GROUP 40u

static inline unsigned nvm_tag_op(uint64_t tag)
{
    return (tag >> NVM_TAG_OP) & 7;
}

static inline uint64_t nvm_tag_position(uint64_t tag)
{
    return tag & (((uint64_t)1 << NVM_TAG_GENERATION) - 1);
}

static inline uint32_t nvm_tag_unit(uint64_t tag)
{
    return (tag >> NVM_UNIT_BITS) & 0xffffff;
}

static inline uint32_t nvm_tag_word(uint64_t tag)
{
    return (tag >> 6) & ((1u << (NVM_UNIT_BITS - 6)) - 1);
}

static inline uint32_t nvm_tag_bit(uint64_t tag)
{
    return tag & 63;
}

/* Number of the block in its slab. */
static inline uint32_t nvm_tag_index(uint64_t tag)
{
    return nvm_tag_word(tag) * NVM_WORD_BLOCKS + nvm_tag_bit(tag);
}

static inline uint32_t nvm_tag_generation(uint64_t tag)
{
    return (tag >> NVM_TAG_GENERATION) & 0x3fff;
}

static inline uint32_t nvm_tag_class(uint64_t tag)
{
    return (tag >> NVM_TAG_CLASS) & 127;
}

static inline int nvm_tag_is_extent(uint64_t tag)
{
    return nvm_tag_class(tag) == NVM_CLASS_EXTENT;
}

/*
 * The watermark comes first, because it changes seldom, and seq last, so that
 * all but one step is done before it is drawn.  detail and from are covered if
 * one of them is not 0: the records of plain allocations and frees do without.
 */
static inline uint64_t nvm_record_crc_watermark(uint64_t watermark, uint32_t salt)
{
    return nvm_crc32c_u64(salt, watermark);
}

/* start: of nvm_record_crc_watermark(); ^ ordinal. */
static inline __attribute__((always_inline)) uint64_t
nvm_record_crc_place(uint64_t start, uint64_t tag, uint64_t dest)
{
    return nvm_crc32c_u64(nvm_crc32c_u64(start, tag), dest);
}

static inline uint32_t nvm_record_crc(const struct nvm_record *record, uint32_t salt)
{
    uint64_t start = nvm_record_crc_watermark(record->watermark, salt) ^ record->ordinal;
    if ((record->detail | record->from) != 0)
        start = nvm_crc32c_u64(nvm_crc32c_u64(start, record->detail), record->from);
    start = nvm_record_crc_place(start, record->tag, record->dest);
    return (uint32_t)nvm_crc32c_u64(start, record->seq);
}

/* Its number in its group, and how many records that has; 0 and 1 in most. */
static inline uint16_t nvm_record_index(const struct nvm_record *record)
{
    return (record->detail >> NVM_DETAIL_INDEX) & 255;
}

static inline uint32_t nvm_record_group(const struct nvm_record *record)
{
    return ((record->detail >> NVM_DETAIL_GROUP) & 255) + 1;
}

/* The "valid if and only if" of a record, above. */
static inline int nvm_record_valid(const struct nvm_record *record, uint32_t salt)
{
    unsigned op = nvm_tag_op(record->tag);
    return op != NVM_OP_NONE && op <= NVM_OP_DONE && record->zero == 0 &&
           record->crc == nvm_record_crc(record, salt);
}

/* A record that tells nothing. */
static inline struct nvm_record nvm_record_blank(uint32_t salt)
{
    struct nvm_record blank = {.tag = (uint64_t)NVM_OP_DONE << NVM_TAG_OP};
    blank.crc = nvm_record_crc(&blank, salt);
    return blank;
}

/* A root: a name and an owned slot. The key never changes once valid; an entry
   whose crc does not fit is free. */
struct nvm_root_entry {
    uint64_t ref;      /*  0 */
    uint64_t bytes;    /*  8 root block: the size asked for when it was made */
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

/* Fills in geometry (offsets, units, lanes, ring, roots) from size and
   max_size; size 0 becomes the least that holds one step of growth.  0, or
   EINVAL if not even one unit fits. */
int nvm_layout_compute(struct nvm_super *super);

#endif
