/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_damage.c - damaged images: opened, checked, walked, used to the brim.
 *
 * Of every metadata structure each word gets bits flipped and is zeroed; pages are
 * zeroed and swapped for older ones; the file is cut short, before it is opened and
 * while it is open.  Nothing may crash, hang, or give out memory that is in use
 * (damage.h); and the damage must be told: by a refusal, or by nvm_check().
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "damage.h"
#include "heap.h"
#include "power.h"

static char path[64];
static struct damage_image image;
static char *damaged;
static const struct nvm_super *super; /* of the image */

static void make(enum nvm_mode mode, bool closed)
{
    damage_make(&image, path, mode, closed);
    const struct nvm_super *first = (const void *)image.bytes;
    const struct nvm_super *second = (const void *)(image.bytes + NVM_PAGE);
    super = first->generation > second->generation ? first : second;
}

static struct damage_outcome use(uint64_t offset)
{
    struct damage_outcome outcome;
    const char *fault = damage_use(damaged, DAMAGE_BYTES, &image, &outcome);
    if (fault != NULL)
        fail_msg("mode %d, %s, damaged at %llu: %s", (int)image.mode,
                 image.closed ? "closed" : "killed", (unsigned long long)offset, fault);
    return outcome;
}

/* Three kinds of damage to the word at `offset`; each outcome is given to `judge`. */
static void damage_word(uint64_t offset,
                        void (*judge)(uint64_t, const struct damage_outcome *))
{
    uint64_t whole, random = offset + 1;
    memcpy(&whole, image.bytes + offset, sizeof(whole));
    const uint64_t words[] = {
        whole ^ (uint64_t)1 << power_draw(&random) % 64,
        whole ^ (uint64_t)1 << power_draw(&random) % 64 ^
            (uint64_t)1 << power_draw(&random) % 64,
        0,
    };
    for (unsigned i = 0; i < 3; i++) {
        if (words[i] == whole)
            continue;
        memcpy(damaged, image.bytes, DAMAGE_BYTES);
        memcpy(damaged + offset, &words[i], sizeof(words[i]));
        struct damage_outcome outcome = use(offset);
        judge(offset, &outcome);
    }
}

static void must_be_told(uint64_t offset, const struct damage_outcome *outcome)
{
    if (outcome->open == 0 && outcome->check == 0)
        fail_msg("mode %d, damaged at %llu: opened, and nvm_check() finds nothing",
                 (int)image.mode, (unsigned long long)offset);
}

static void may_be_harmless(uint64_t offset, const struct damage_outcome *outcome)
{
    (void)offset, (void)outcome;
}

/* A superblock's or watermark's other copy serves. */
static void must_open(uint64_t offset, const struct damage_outcome *outcome)
{
    if (outcome->open != 0)
        fail_msg("damaged at %llu: not opened, though there is a copy: %s",
                 (unsigned long long)offset, nvm_error());
}

static void each_mode(void (*test)(void))
{
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++)
        for (int closed = 0; closed < 2; closed++) {
            make((enum nvm_mode)mode, closed);
            test();
        }
}

static void undamaged(void)
{
    memcpy(damaged, image.bytes, DAMAGE_BYTES);
    struct damage_outcome outcome = use(0);
    assert_int_equal(outcome.open, 0);
    assert_int_equal(outcome.check, 0);
    assert_true(outcome.given > 0);
}

static void superblocks(void)
{
    for (uint64_t at = 0; at < sizeof(struct nvm_super); at += 8) {
        damage_word(NVM_SUPER_OFFSET(0) + at, must_open);
        damage_word(NVM_SUPER_OFFSET(1) + at, must_open);
    }
    for (unsigned copy = 0; copy < 2; copy++) {
        memcpy(damaged, image.bytes, DAMAGE_BYTES);
        memset(damaged + NVM_SUPER_OFFSET(copy), 0, NVM_PAGE);
        struct damage_outcome outcome = use(copy);
        must_open(copy, &outcome);
    }
}

static void watermarks(void)
{
    for (uint64_t at = 0; at < 2 * sizeof(struct nvm_watermark); at += 8)
        damage_word(NVM_WATERMARK_OFFSET + at, must_open);
    memcpy(damaged, image.bytes, DAMAGE_BYTES);
    memset(damaged + NVM_WATERMARK_OFFSET, 0, NVM_PAGE);
    must_be_told(0, &(struct damage_outcome[]){use(0)}[0]);
}

static void chunk_table(void)
{
    for (uint64_t unit = 0; unit < super->units;) {
        uint64_t entry;
        uint64_t offset = super->chunk_offset + unit * 8;
        memcpy(&entry, image.bytes + offset, 8);
        /* A copy of another unit's entry is no entry of this one. */
        damage_word(offset, must_be_told);
        unit += nvm_chunk_unpack(entry).units;
    }
}

static void bitmaps(void)
{
    for (uint64_t unit = 0; unit < super->units;) {
        uint64_t entry;
        memcpy(&entry, image.bytes + super->chunk_offset + unit * 8, 8);
        struct nvm_chunk chunk = nvm_chunk_unpack(entry);
        uint64_t first = super->bitmap_offset + unit * NVM_BITMAP_BYTES;
        bool counts = image.mode != NVM_GC || image.closed;
        if (chunk.state == NVM_CHUNK_SLAB)
            for (uint32_t word = 0; word < nvm_classes[chunk.klass].words; word += 5)
                damage_word(first + word * 8, counts ? must_be_told : may_be_harmless);
        unit += chunk.units;
    }
    memcpy(damaged, image.bytes, DAMAGE_BYTES);
    memset(damaged + super->bitmap_offset, 0, NVM_PAGE);
    use(super->bitmap_offset);
}

/* All of an entry but its slot, in a GC heap: what nothing refers to there is free. */
static void roots(void)
{
    for (uint64_t at = 0; at < super->roots * sizeof(struct nvm_root_entry); at += 8)
        if (at % 64 != 0 || image.mode != NVM_GC)
            damage_word(NVM_ROOTS_OFFSET + at, may_be_harmless);
}

/* The newest record of a lane may be taken for one that was in flight. */
static bool is_newest(const struct nvm_record *record)
{
    const struct nvm_record *ring = (const void *)(image.bytes + super->lanes_offset);
    for (uint32_t i = 0; i < super->lanes_used * super->ring; i++)
        if (ring[i].seq > record->seq)
            return false;
    return true;
}

static void records(void)
{
    if (image.mode == NVM_GC)
        return;
    uint64_t bytes =
        (uint64_t)super->lanes_used * super->ring * sizeof(struct nvm_record);
    const struct nvm_record *ring = (const void *)(image.bytes + super->lanes_offset);
    for (uint64_t at = 0; at < bytes; at += 136)
        if (!is_newest(&ring[at / sizeof(*ring)]))
            damage_word(super->lanes_offset + at / 8 * 8, may_be_harmless);
}

/* A page of a ring that reads as zeroes: whatever was newest, it must not go unseen. */
static void record_pages(void)
{
    if (image.mode == NVM_GC || image.closed)
        return;
    uint64_t bytes =
        (uint64_t)super->lanes_used * super->ring * sizeof(struct nvm_record);
    for (uint64_t page = 0; page < bytes; page += NVM_PAGE) {
        memcpy(damaged, image.bytes, DAMAGE_BYTES);
        memset(damaged + super->lanes_offset + page, 0, NVM_PAGE);
        must_be_told(super->lanes_offset + page,
                     &(struct damage_outcome[]){use(page)}[0]);
    }
}

#define EACH(name)                                                                       \
    static void test_##name(void **state)                                                \
    {                                                                                    \
        (void)state;                                                                     \
        each_mode(name);                                                                 \
    }
EACH(undamaged)
EACH(superblocks)
EACH(watermarks)
EACH(chunk_table)
EACH(bitmaps)
EACH(roots)
EACH(records)
EACH(record_pages)

/* Random bytes anywhere in the metadata, several at a time. */
static void test_random(void **state)
{
    const char *budget = getenv("NVM_TEST_DAMAGES");
    unsigned rounds = budget != NULL ? (unsigned)strtoul(budget, NULL, 10) : 300;
    uint64_t random = 88172645463325252u;
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        make((enum nvm_mode)mode, false);
        for (unsigned round = 0; round < rounds; round++) {
            struct damage_outcome outcome;
            memcpy(damaged, image.bytes, DAMAGE_BYTES);
            for (uint64_t hits = 1 + power_draw(&random) % 4; hits > 0; hits--)
                damaged[power_draw(&random) % super->data_offset] ^=
                    (char)(1 + power_draw(&random) % 255);
            const char *fault = damage_use(damaged, DAMAGE_BYTES, NULL, &outcome);
            if (fault != NULL)
                fail_msg("mode %d, round %u: %s", mode, round, fault);
        }
    }
}

/* --- files --- */

static void write_file(const char *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
}

static void test_truncated_files(void **state)
{
    (void)state;
    make(NVM_LOG_OWNED, false);
    for (size_t length = 0; length < DAMAGE_BYTES;
         length += length < 8192 ? 512 : 20000) {
        nvm_heap *heap;
        write_file(image.bytes, length);
        int error = nvm_open(path, &heap);
        assert_true(error == EUCLEAN || error == EMEDIUMTYPE);
        assert_true(nvm_error()[0] != '\0');
    }
    unlink(path);
}

static int count(void *context, void *block, size_t usable)
{
    (void)block, (void)usable;
    ++*(unsigned *)context;
    return 0;
}

/* The file is cut short under an open heap: its pages raise SIGBUS from there on. */
static void test_truncated_while_open(void **state)
{
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        make((enum nvm_mode)mode, false);
        const uint64_t lengths[] = {0,
                                    NVM_PAGE,
                                    NVM_ROOTS_OFFSET,
                                    super->lanes_offset,
                                    super->chunk_offset,
                                    super->bitmap_offset,
                                    super->bitmap_offset + NVM_PAGE,
                                    super->data_offset,
                                    super->data_offset + NVM_UNIT_BYTES};
        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            nvm_heap *heap;
            struct nvm_heap_stats stats;
            unsigned blocks = 0;
            write_file(image.bytes, DAMAGE_BYTES);
            assert_int_equal(nvm_open(path, &heap), 0);
            assert_int_equal(truncate(path, (off_t)lengths[i]), 0);
            assert_int_equal(nvm_check(heap),
                             lengths[i] < super->data_offset ? EUCLEAN : 0);
            nvm_walk(heap, count, &blocks);
            nvm_stats(heap, &stats);
            nvm_rebuild(heap);
            nvm_close(heap); /* must return, whatever it says */
            unlink(path);
        }
    }
}

/* The same in mid-recovery: pages that are there for fstat(), and cannot be read. */
static void test_unreadable_pages_at_open(void **state)
{
    (void)state;
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        make((enum nvm_mode)mode, false);
        uint64_t last = super->data_offset + 2 * NVM_UNIT_BYTES;
        for (uint64_t page = 0; page < last;
             page += page < super->data_offset ? NVM_PAGE : 7 * NVM_PAGE) {
            nvm_heap *heap;
            write_file(image.bytes, DAMAGE_BYTES);
            FILE *file = fopen(path, "r+b");
            char *base = mmap(NULL, DAMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                              fileno(file), 0);
            assert_ptr_not_equal(base, MAP_FAILED);
            assert_int_equal(truncate(path, (off_t)page), 0);
            int error = nvm_attach(base, DAMAGE_BYTES,
                                   &(struct nvm_options){.threads = 2}, &heap);
            assert_true(error == 0 || error == EUCLEAN);
            if (error == 0)
                nvm_detach(heap); /* nobody had to read it */
            else
                assert_non_null(strstr(nvm_error(), "cannot be read"));
            munmap(base, DAMAGE_BYTES);
            fclose(file);
        }
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_undamaged),
        cmocka_unit_test(test_superblocks),
        cmocka_unit_test(test_watermarks),
        cmocka_unit_test(test_chunk_table),
        cmocka_unit_test(test_bitmaps),
        cmocka_unit_test(test_roots),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_record_pages),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_truncated_while_open),
        cmocka_unit_test(test_unreadable_pages_at_open),
    };
    image.bytes = damage_pages();
    damaged = damage_pages();
    snprintf(path, sizeof(path), "/dev/shm/nvm-damage-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
