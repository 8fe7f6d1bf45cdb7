// SPDX-License-Identifier: Apache-2.0
/* snapshot.c: the copy has the same bytes, whatever is hole, zero or data. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver.h"
#include "snapshot.h"

enum {
    page = 4096,
};

static char folder[64], from[96], to[96];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test-snapshot-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(from, sizeof from, "%s/from", folder);
    snprintf(to, sizeof to, "%s/to", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(from);
    unlink(to);
    return rmdir(folder);
}

static unsigned char *contents(const char *path, size_t length)
{
    unsigned char *bytes = malloc(length + 1);
    int fd = open(path, O_RDONLY);
    assert_true(bytes != NULL && fd >= 0);
    assert_int_equal(read(fd, bytes, length + 1), length);
    close(fd);
    return bytes;
}

static void expect_same(size_t length)
{
    assert_int_equal(nvd_snapshot(from, to), 0);
    unsigned char *source = contents(from, length), *copy = contents(to, length);
    assert_int_equal(memcmp(source, copy, length), 0);
    free(source);
    free(copy);
    struct stat status;
    assert_int_equal(stat(to, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void every_mixture_of_hole_zeros_and_data_is_copied(void **state)
{
    (void)state;
    struct nvd_random random;
    unsigned char data[page], zeros[page] = {0};
    memset(data, 0x5a, sizeof data);
    nvd_random_seed(&random, 3);
    for (int round = 0; round < 60; round++) {
        int fd = open(from, O_RDWR | O_CREAT | O_TRUNC, 0644);
        assert_true(fd >= 0);
        size_t pages = 1 + nvd_random_below(&random, 12);
        size_t length = pages * page - nvd_random_below(&random, page);
        assert_int_equal(ftruncate(fd, (off_t)length), 0);
        for (size_t i = 0; i < pages; i++) {
            size_t width = length - i * page < page ? length - i * page : page;
            uint64_t what = nvd_random_below(&random, 4);
            data[nvd_random_below(&random, page)]++;
            if (what > 0)
                assert_int_equal(
                    pwrite(fd, what == 1 ? zeros : data, width, (off_t)(i * page)),
                    width);
        }
        close(fd);
        expect_same(length); /* over the longer or shorter copy of the last round */
    }
}

static void zeros_become_holes(void **state)
{
    (void)state;
    static unsigned char megabyte[1 << 20];
    int fd = open(from, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, megabyte, sizeof megabyte), sizeof megabyte);
    close(fd);
    expect_same(sizeof megabyte);
    struct stat status;
    assert_int_equal(stat(to, &status), 0);
    assert_true(status.st_blocks * 512 < (int64_t)sizeof megabyte / 4);
}

static void an_empty_file_and_a_missing_one(void **state)
{
    (void)state;
    close(open(from, O_RDWR | O_CREAT, 0600));
    expect_same(0);
    unlink(from);
    assert_int_not_equal(nvd_snapshot(from, to), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_mixture_of_hole_zeros_and_data_is_copied,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(zeros_become_holes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_empty_file_and_a_missing_one, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
