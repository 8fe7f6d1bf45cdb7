/* SPDX-License-Identifier: Apache-2.0 */
/* test_family.c - what each function of the malloc family promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "placement.h"

#if !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic ignored "-Walloc-size-larger-than="
#pragma GCC diagnostic ignored "-Wuse-after-free"
#endif

#define LARGEST ((size_t)3 << 20)

/* Sizes around every class up to 3 MiB. */
static size_t next_size(size_t size)
{
    return size < 1100 ? size + 1 : size + size / 23;
}

static void test_blocks_are_on_nvm_and_aligned(void **state)
{
    (void)state;
    for (size_t size = 0; size < LARGEST; size = next_size(size)) {
        char *block = malloc(size);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 16, 0);
        assert_true(malloc_usable_size(block) >= size);
        if (size % 97 == 0)
            assert_true(is_on_nvm(block));
        /* All of what is said to be usable is. */
        fill(block, malloc_usable_size(block));
        free(block);
    }
    assert_false(is_on_nvm(&state));
}

static void test_blocks_share_nothing(void **state)
{
    (void)state;
    enum { BLOCKS = 3000 };
    static char *blocks[BLOCKS];
    static size_t sizes[BLOCKS];
    uint64_t random = 1;
    for (int i = 0; i < BLOCKS; i++) {
        sizes[i] = next_random(&random) % (i % 50 == 0 ? 700000 : 2000);
        blocks[i] = malloc(sizes[i]);
        assert_non_null(blocks[i]);
        sizes[i] = malloc_usable_size(blocks[i]);
        fill(blocks[i], sizes[i]);
    }
    for (int i = 0; i < BLOCKS; i++)
        assert_true(is_filled(blocks[i], sizes[i]));
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static void test_calloc_zeroes_what_was_used(void **state)
{
    (void)state;
    for (size_t size = 1; size < LARGEST; size = next_size(size)) {
        char *block = malloc(size);
        memset(block, 0xff, malloc_usable_size(block));
        free(block);
        block = calloc(1, size);
        assert_non_null(block);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(block[i], 0);
        free(block);
    }
    errno = 0;
    assert_null(calloc(SIZE_MAX / 2, 3));
    assert_int_equal(errno, ENOMEM);
}

static void test_realloc_keeps_content(void **state)
{
    (void)state;
    uint64_t random = 2;
    size_t size = 100;
    char *block = realloc(NULL, size);
    for (int i = 0; i < 2000; i++) {
        size_t wanted = next_random(&random) % (i % 20 == 0 ? LARGEST : 5000) + 1;
        size_t kept = size < wanted ? size : wanted;
        fill(block, size);
        char *was = block;
        block = realloc(was, wanted);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 16, 0);
        assert_true(malloc_usable_size(block) >= wanted);
        assert_true(is_filled_as(block, was, size, kept));
        size = wanted;
    }
    assert_null(realloc(block, 0)); /* frees it */
    assert_int_equal(malloc_usable_size(NULL), 0);
}

static void test_realloc_in_place(void **state)
{
    (void)state;
    /* Up to what is usable, and down to half of it, a block stays where it is. */
    for (size_t size = 16; size < LARGEST; size = next_size(size)) {
        char *block = malloc(size);
        size_t has = malloc_usable_size(block);
        assert_ptr_equal(realloc(block, has), block);
        assert_ptr_equal(realloc(block, has - has / 2), block);
        assert_int_equal(malloc_usable_size(block), has);
        free(block);
    }
    /* But a large one does not stay for a small size. */
    char *block = malloc(1000000);
    block = realloc(block, 100);
    assert_true(malloc_usable_size(block) < 200);
    free(block);
}

static void test_sizes_that_cannot_be(void **state)
{
    (void)state;
    static const size_t sizes[] = {(size_t)1 << 40, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1,
                                   SIZE_MAX - 15, SIZE_MAX};
    char *block = malloc(10);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        void *place = &place;
        errno = 0;
        assert_null(malloc(sizes[i]));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(realloc(block, sizes[i])); /* which leaves the block alone */
        assert_int_equal(errno, ENOMEM);
        assert_null(memalign(64, sizes[i]));
        assert_null(pvalloc(sizes[i]));
        errno = 7;
        assert_int_equal(posix_memalign(&place, 64, sizes[i]), ENOMEM);
        assert_int_equal(errno, 7);
        assert_ptr_equal(place, &place);
    }
    errno = 0;
    assert_null(reallocarray(block, SIZE_MAX / 2, 3));
    assert_int_equal(errno, ENOMEM);
    block = reallocarray(block, 300, 7);
    assert_true(malloc_usable_size(block) >= 2100);
    free(block);
}

static void test_alignments(void **state)
{
    (void)state;
    for (size_t alignment = 1; alignment <= (size_t)2 << 20; alignment *= 2) {
        for (size_t size = 0; size < LARGEST; size = next_size(size) * 2) {
            char *blocks[3] = {memalign(alignment, size), aligned_alloc(alignment, size)};
            if (alignment >= sizeof(void *))
                assert_int_equal(posix_memalign((void **)&blocks[2], alignment, size), 0);
            for (int i = 0; i < 3 && blocks[i] != NULL; i++) {
                assert_int_equal((uintptr_t)blocks[i] % alignment, 0);
                assert_true(malloc_usable_size(blocks[i]) >= size);
                fill(blocks[i], size);
            }
            for (int i = 0; i < 3; i++) {
                assert_true(blocks[i] == NULL || is_filled(blocks[i], size));
                free(blocks[i]);
            }
        }
    }
    void *place = NULL;
    assert_int_equal(posix_memalign(&place, 0, 1), EINVAL);
    assert_int_equal(posix_memalign(&place, 4, 1), EINVAL);
    assert_int_equal(posix_memalign(&place, 24, 1), EINVAL);
    /* More than a heap's own alignment can't be had. */
    assert_int_equal(posix_memalign(&place, (size_t)4 << 20, 1), ENOMEM);
    char *page = valloc(10), *pages = pvalloc(4097);
    assert_int_equal((uintptr_t)page % 4096, 0);
    assert_int_equal((uintptr_t)pages % 4096, 0);
    assert_true(malloc_usable_size(pages) >= 8192);
    free(page);
    free(pages);
}

static void test_errno_is_left_alone(void **state)
{
    (void)state;
    enum { BLOCKS = 5000 };
    static void *blocks[BLOCKS];
    errno = 123;
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = malloc((size_t)i * 50);
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    free(NULL);
    assert_int_equal(errno, 123);
}

static void test_statistics(void **state)
{
    (void)state;
    struct mallinfo2 before = mallinfo2();
    void *small = malloc(1000), *large = malloc((size_t)10 << 20);
    struct mallinfo2 with = mallinfo2();
    assert_int_equal(with.uordblks - before.uordblks,
                     malloc_usable_size(small) + malloc_usable_size(large));
    assert_int_equal(with.hblks - before.hblks, 1);
    assert_int_equal(with.hblkhd - before.hblkhd, malloc_usable_size(large));
    free(small);
    free(large);
    /* The pages of what was freed go back to the file system, and come back when used. */
    struct mallinfo2 full = mallinfo2();
    assert_int_equal(malloc_trim(0), 1);
    struct mallinfo2 trimmed = mallinfo2();
    assert_true(trimmed.arena + trimmed.hblkhd + ((size_t)10 << 20) <=
                full.arena + full.hblkhd);
    assert_int_equal(malloc_trim(0), 0);
    large = malloc((size_t)10 << 20);
    fill(large, (size_t)10 << 20);
    assert_true(is_filled(large, (size_t)10 << 20));
    free(large);
    assert_int_equal(mallinfo().uordblks, (int)mallinfo2().uordblks);
}

static void test_new_and_delete(void **state)
{
    (void)state;
    void *cxx = dlopen("libstdc++.so.6", RTLD_NOW);
    if (cxx == NULL) {
        print_message("libstdc++.so.6 is not installed (Debian: libstdc++6)\n");
        skip();
        return;
    }
    void *(*new)(size_t);
    void (*delete)(void *, size_t);
    void *found = dlsym(cxx, "_Znwm");
    memcpy(&new, &found, sizeof(found));
    found = dlsym(cxx, "_ZdlPvm");
    memcpy(&delete, &found, sizeof(found));
    size_t before = mallinfo2().uordblks;
    void *block = new (100000);
    assert_true(is_on_nvm(block));
    assert_true(mallinfo2().uordblks >= before + 100000);
    delete (block, 100000);
    assert_int_equal(mallinfo2().uordblks, before);
    dlclose(cxx);
}

/* --- misuse ends the process --- */

static void free_twice(char *block)
{
    free(block);
    free(block);
}

static void free_inside(char *block)
{
    free(block + 16);
}

static void free_stack(char *block)
{
    char here[64];
    (void)block;
    free(here + 16);
}

static void realloc_freed(char *block)
{
    free(block);
    if (realloc(block, 1000) != NULL)
        _exit(0);
}

static void expect_abort(void (*misuse)(char *), size_t size, const char *function)
{
    int ends[2], status;
    char text[400] = "";
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the next test */
        dup2(ends[1], STDERR_FILENO);
        misuse(malloc(size));
        _exit(0);
    }
    close(ends[1]);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(text, "nvmalloc-preload: "));
    assert_non_null(strstr(text, function));
    assert_non_null(strstr(text, "no live block begins there"));
}

static void test_misuse_aborts(void **state)
{
    (void)state;
    static const size_t sizes[] = {32, 5000, 1 << 20};
    for (int i = 0; i < 3; i++) {
        expect_abort(free_twice, sizes[i], "free(0x");
        expect_abort(free_inside, sizes[i], "free(0x");
        expect_abort(free_stack, sizes[i], "free(0x");
        expect_abort(realloc_freed, sizes[i], "realloc(0x");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_on_nvm_and_aligned),
        cmocka_unit_test(test_blocks_share_nothing),
        cmocka_unit_test(test_calloc_zeroes_what_was_used),
        cmocka_unit_test(test_realloc_keeps_content),
        cmocka_unit_test(test_realloc_in_place),
        cmocka_unit_test(test_sizes_that_cannot_be),
        cmocka_unit_test(test_alignments),
        cmocka_unit_test(test_errno_is_left_alone),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_new_and_delete),
        cmocka_unit_test(test_misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
