/* SPDX-License-Identifier: Apache-2.0 */
/* test_heap.c - the interface as its header states it: results and refusals. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "heap.h"
#include "nvmalloc.h"

#define SLOTS 4096u

static char path[64];
static nvm_heap *heap;
static nvm_ref *slots;

static int set_up(void **state)
{
    (void)state;
    unlink(path);
    if (nvm_create(path, (size_t)16 << 20, &heap) != 0)
        return -1;
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    return slots == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return nvm_close(heap);
}

static void reopen(void)
{
    assert_int_equal(nvm_close(heap), 0);
    assert_int_equal(nvm_open(path, &heap), 0);
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    assert_non_null(slots);
}

static void test_file_is_private_and_whole(void **state)
{
    (void)state;
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_size, 16 << 20);
    assert_true(status.st_blocks * 512 >= status.st_size);
}

static void test_root_is_zero_and_stays(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(slots[i], 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[7], 100), 0);
    assert_ptr_equal(nvm_root(heap, 8), slots);
    errno = 0;
    assert_null(nvm_root(heap, SLOTS * sizeof(nvm_ref) + 1));
    assert_int_equal(errno, EINVAL);
    reopen();
    assert_int_not_equal(slots[7], 0);
}

static void test_sizes_from_zero_to_the_heap(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,  1,    8,     16,     17,     64,
                                   65, 4096, 65536, 524288, 524289, 5 << 20};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(nvm_malloc_to(heap, &slots[i], sizes[i]), 0);
        assert_true(nvm_usable_size(heap, slots[i]) >= sizes[i]);
        assert_true(nvm_usable_size(heap, slots[i]) >= 1);
        memset(nvm_ptr(heap, slots[i]), 0xa5, nvm_usable_size(heap, slots[i]));
    }
    assert_int_equal(nvm_check(heap), 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[100], 17 << 20), ENOMEM);
    assert_int_equal(nvm_malloc_to(heap, &slots[100], SIZE_MAX), ENOMEM);
    assert_int_equal(nvm_malloc_to(heap, &slots[100], SIZE_MAX / 2), ENOMEM);
    assert_int_equal(slots[100], 0);
    reopen();
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const unsigned char *block = nvm_ptr(heap, slots[i]);
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(block[at], 0xa5);
        assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
        assert_int_equal(slots[i], 0);
    }
    assert_int_equal(nvm_check(heap), 0);
}

static void test_misuse_is_refused_and_counted(void **state)
{
    (void)state;
    struct nvm_heap_stats stats;
    nvm_ref outside = 0;
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), EINVAL); /* not empty */
    assert_int_equal(nvm_free_from(heap, &slots[1]), EINVAL);      /* empty */
    assert_int_equal(nvm_malloc_to(heap, &outside, 100), EINVAL);  /* not in the heap */
    slots[2] = slots[0] + 8;                                       /* inside a block */
    assert_int_equal(nvm_free_from(heap, &slots[2]), EINVAL);
    slots[2] = slots[0];
    assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
    assert_int_equal(nvm_free_from(heap, &slots[2]), EINVAL); /* double free */
    slots[2] = (nvm_ref)1 << 60;
    assert_int_equal(nvm_free_from(heap, &slots[2]), EINVAL);
    slots[2] = 64; /* metadata */
    assert_int_equal(nvm_free_from(heap, &slots[2]), EINVAL);
    slots[2] = 0;
    nvm_stats(heap, &stats);
    assert_int_equal(stats.misuses, 7);
    assert_int_equal(nvm_check(heap), 0);
}

static void fill(size_t size, unsigned *count)
{
    while (*count < SLOTS && nvm_malloc_to(heap, &slots[*count], size) == 0)
        ++*count;
}

static void test_full_means_full_and_free_means_free(void **state)
{
    (void)state;
    unsigned first = 0, again = 0;
    for (size_t size = 1 << 20; size >= 8192; size /= 2)
        fill(size, &first);
    struct nvm_heap_stats stats;
    nvm_stats(heap, &stats);
    /* Nothing that could hold 8 KiB is left. */
    assert_true(stats.file_bytes - stats.live_bytes < (2 << 20));
    for (unsigned i = 0; i < first; i++)
        assert_int_equal(nvm_free_from(heap, &slots[i]), 0);
    reopen();
    for (size_t size = 1 << 20; size >= 8192; size /= 2)
        fill(size, &again);
    assert_int_equal(again, first);
    assert_int_equal(nvm_check(heap), 0);
}

static void test_small_request_gets_a_larger_block_when_nothing_else_is_left(void **state)
{
    (void)state;
    unsigned count = 0;
    fill(64 << 10, &count);
    fill(48 << 10, &count);
    fill(1 << 10, &count);
    assert_true(count > 10);
    assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 16), 0);
    assert_int_equal(nvm_check(heap), 0);
}

static void test_second_opener_is_refused(void **state)
{
    (void)state;
    nvm_heap *second;
    assert_int_equal(nvm_open(path, &second), EBUSY);
    assert_int_equal(nvm_create(path, 16 << 20, &second), EEXIST);
    assert_true(strlen(nvm_error()) > 20);
}

static void test_two_heaps_at_once(void **state)
{
    (void)state;
    char other_path[80];
    nvm_heap *other;
    snprintf(other_path, sizeof(other_path), "%s.other", path);
    unlink(other_path);
    assert_int_equal(nvm_create(other_path, 1 << 20, &other), 0);
    nvm_ref *other_slots = nvm_root(other, 64);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(nvm_malloc_to(heap, &slots[i], 100), 0);
        assert_int_equal(nvm_malloc_to(other, &other_slots[i], 100), 0);
        assert_int_equal(nvm_malloc_to(heap, &other_slots[7], 100), EINVAL);
    }
    assert_int_equal(nvm_free_from(other, &slots[0]), EINVAL);
    assert_int_equal(nvm_check(heap), 0);
    assert_int_equal(nvm_check(other), 0);
    assert_int_equal(nvm_close(other), 0);
    unlink(other_path);
}

/* --- files that are not heaps any more --- */

static void patch(off_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, bytes, length, offset), length);
    close(fd);
}

static int open_closed(void)
{
    nvm_heap *opened = NULL;
    int error = nvm_open(path, &opened);
    if (error == 0)
        nvm_close(opened);
    return error;
}

static void test_foreign_truncated_and_newer_files(void **state)
{
    (void)state;
    char zeroes[128] = {0};
    assert_int_equal(nvm_close(heap), 0);

    int fd = open(path, O_RDWR);
    assert_int_equal(ftruncate(fd, 8 << 20), 0);
    assert_int_equal(open_closed(), EUCLEAN);
    assert_non_null(strstr(nvm_error(), "truncated"));
    assert_int_equal(ftruncate(fd, 16 << 20),
                     0); /* its tail is zero now: units, not metadata */
    close(fd);
    assert_int_equal(open_closed(), 0);

    uint32_t newer = NVM_FORMAT_VERSION + 1;
    patch(NVM_SUPER_OFFSET(0) + 8, &newer, 4);
    patch(NVM_SUPER_OFFSET(1) + 8, &newer, 4);
    assert_int_equal(open_closed(), ENOTSUP);
    assert_non_null(strstr(nvm_error(), "version 2"));

    patch(NVM_SUPER_OFFSET(0), zeroes, sizeof(zeroes));
    patch(NVM_SUPER_OFFSET(1), zeroes, sizeof(zeroes));
    assert_int_equal(open_closed(), EMEDIUMTYPE);

    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(open_closed(), EMEDIUMTYPE);
    unlink(path);
    assert_int_equal(open_closed(), ENOENT);
    assert_int_equal(set_up(NULL), 0); /* for tear_down */
}

static void test_one_damaged_superblock_is_survived(void **state)
{
    (void)state;
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    for (unsigned copy = 0; copy < 2; copy++) {
        char garbage[16];
        memset(garbage, 0x5a + (int)copy, sizeof(garbage));
        assert_int_equal(nvm_close(heap), 0);
        patch((off_t)NVM_SUPER_OFFSET(copy) + 40, garbage, sizeof(garbage));
        assert_int_equal(nvm_open(path, &heap), 0);
        slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
        assert_int_not_equal(slots[0], 0);
        assert_int_equal(nvm_check(heap), 0);
    }
}

static void test_damaged_chunk_table_is_refused(void **state)
{
    (void)state;
    uint64_t offset = heap->super.chunk_offset;
    uint64_t entry = heap->chunks[0] ^ 0x10;
    assert_int_equal(nvm_close(heap), 0);
    patch((off_t)offset, &entry, sizeof(entry));
    assert_int_equal(open_closed(), EUCLEAN);
    assert_non_null(strstr(nvm_error(), "chunk table entry of unit 0"));
    unlink(path);
    assert_int_equal(set_up(NULL), 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_file_is_private_and_whole),
        CASE(test_root_is_zero_and_stays),
        CASE(test_sizes_from_zero_to_the_heap),
        CASE(test_misuse_is_refused_and_counted),
        CASE(test_full_means_full_and_free_means_free),
        CASE(test_small_request_gets_a_larger_block_when_nothing_else_is_left),
        CASE(test_second_opener_is_refused),
        CASE(test_two_heaps_at_once),
        CASE(test_foreign_truncated_and_newer_files),
        CASE(test_one_damaged_superblock_is_survived),
        CASE(test_damaged_chunk_table_is_refused),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-heap-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
