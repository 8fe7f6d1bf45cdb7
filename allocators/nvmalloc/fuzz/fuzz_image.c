/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_image.c - libFuzzer: heap images that are damaged, and that lie.
 *
 * The input is a list of edits of a heap in use (tests/damage.h), not an image: an
 * image of which one bit is flipped is refused at once, and a fuzzer does not find
 * checksums.  So an edit may ask that the checksum of the structure it hits be made
 * right again; then the structure says, validly, what no nvmalloc has written.
 *
 *   byte 0      bits 0-1 mode, bit 2: closed cleanly
 *   then edits  2 bytes  where: structure (4 bits), number in it (12 bits)
 *               1 byte   offset in the structure
 *               1 byte   bits 0-2: what is done; bit 3: make the checksum right
 *               8 bytes  value
 *
 * Held to damage_use(): no crash, no hang (-timeout), nothing given out twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "damage.h"
#include "heap.h"
#include "mark.h"
#include "root.h"

#define EDIT 12u

static struct damage_image images[6];
static char *work;
static const struct nvm_super *super;

/* Instead of the C library's: the same heaps at every run, so that inputs replay. */
ssize_t getrandom(void *bytes, size_t length, unsigned flags)
{
    (void)flags;
    memset(bytes, 0x42, length);
    return (ssize_t)length;
}

static void make_images(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/dev/shm/nvm-fuzz-%d", (int)getpid());
    for (unsigned i = 0; i < 6; i++) {
        images[i].bytes = damage_pages();
        damage_make(&images[i], path, (enum nvm_mode)(i % 3), i >= 3);
    }
    work = damage_pages();
}

/* Structures that an edit may hit: where number `n` begins, and how long it is. */
enum structure {
    SUPER,
    WATERMARK,
    ROOT,
    RECORD,
    CHUNK,
    BITMAP,
    DATA,
    ANYWHERE,
    STRUCTURES
};

static uint64_t place(unsigned structure, unsigned n, uint64_t *length)
{
    switch (structure) {
    case SUPER:
        *length = sizeof(struct nvm_super);
        return NVM_SUPER_OFFSET(n % 2);
    case WATERMARK:
        *length = sizeof(struct nvm_watermark);
        return NVM_WATERMARK_OFFSET + n % 2 * *length;
    case ROOT:
        *length = sizeof(struct nvm_root_entry);
        return NVM_ROOTS_OFFSET + n % super->roots * *length;
    case RECORD:
        *length = sizeof(struct nvm_record);
        return super->lanes_offset + n % (super->lanes * super->ring) * *length;
    case CHUNK:
        *length = sizeof(uint64_t);
        return super->chunk_offset + n % super->units * *length;
    case BITMAP:
        *length = sizeof(uint64_t);
        return super->bitmap_offset + n % (super->units * NVM_BITMAP_WORDS) * *length;
    case DATA: /* slots: the root block is at the first unit */
        *length = 4096;
        return super->data_offset + n % 256 * 256;
    default:
        *length = 4096;
        return (uint64_t)n * 256 % super->data_offset;
    }
}

static void make_right(unsigned structure, uint64_t offset, uint32_t salt)
{
    uint64_t *word = (uint64_t *)(work + offset);
    void *at = work + offset;
    switch (structure) {
    case SUPER:
        ((struct nvm_super *)at)->crc =
            nvm_crc32c(1, at, offsetof(struct nvm_super, crc));
        break;
    case WATERMARK:
        ((struct nvm_watermark *)at)->crc =
            nvm_crc32c(salt, at, offsetof(struct nvm_watermark, crc));
        break;
    case ROOT:
        ((struct nvm_root_entry *)at)->crc = nvm_root_crc(at, salt);
        break;
    case RECORD:
        ((struct nvm_record *)at)->crc = nvm_record_crc(at, salt);
        break;
    case CHUNK:
        *word = nvm_chunk_pack(nvm_chunk_unpack(*word),
                               (offset - super->chunk_offset) / 8, salt);
        break;
    case BITMAP:
        *word = nvm_mark_word(*word & NVM_MARK_BLOCKS,
                              (offset - super->bitmap_offset) / 8, salt);
        break;
    default:
        break;
    }
}

static void edit(const uint8_t *input, uint32_t salt)
{
    uint16_t where;
    uint64_t value, length, word;
    memcpy(&where, input, sizeof(where));
    memcpy(&value, input + 4, sizeof(value));
    unsigned structure = where % 16 % STRUCTURES;
    uint64_t offset = place(structure, where >> 4, &length);
    char *at = work + offset + input[2] * 8u % length;
    memcpy(&word, at, sizeof(word));
    switch (input[3] & 7) {
    case 0:
        word = value;
        break;
    case 1:
        word ^= value;
        break;
    case 2:
        word ^= (uint64_t)1 << (value & 63);
        break;
    case 3:
        word += value;
        break;
    case 4: /* a page of zeroes */
        memset(work + offset / NVM_PAGE * NVM_PAGE, 0, NVM_PAGE);
        return;
    case 5: { /* a copy of another of its kind */
        uint64_t from = place(structure, (unsigned)(value & 0xfff), &length);
        memmove(work + offset, work + from, length);
        make_right(structure, offset, (input[3] & 8) != 0 ? salt : salt + 1);
        return;
    }
    case 6: /* a small number in its place */
        word = (word & ~(uint64_t)0xffff) | (value & 0xffff);
        break;
    default: /* a reference into the data */
        word = super->data_offset + value % (super->units << NVM_UNIT_SHIFT);
        break;
    }
    memcpy(at, &word, sizeof(word));
    if (input[3] & 8)
        make_right(structure, offset, salt);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct damage_outcome outcome;
    if (work == NULL)
        make_images();
    if (size < 1 || size > 1 + 64 * EDIT)
        return 0;
    const struct damage_image *image =
        &images[(input[0] & 3) % 3 + (input[0] & 4 ? 3 : 0)];
    memcpy(work, image->bytes, DAMAGE_BYTES);
    super = (const struct nvm_super *)image->bytes;
    uint32_t salt = nvm_super_salt(super);
    for (size_t at = 1; at + EDIT <= size; at += EDIT)
        edit(input + at, salt);
    const char *fault = damage_use(work, DAMAGE_BYTES, NULL, &outcome);
    if (fault != NULL) {
        fprintf(stderr, "%s\n", fault);
        abort();
    }
    return 0;
}
