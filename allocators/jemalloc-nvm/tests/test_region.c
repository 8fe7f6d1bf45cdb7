/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_region.c - the region file and its pages: against a model that is one byte a
 * page, with ranges given back that cross and cut what was taken.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "region.h"

#define PAGES  ((size_t)2048)
#define BYTES  (PAGES * REGION_PAGE)
#define SEED   UINT64_C(20240607)
#define ROUNDS 60000

static char folder[256];
static char path[288];

static int enter_folder(void **state)
{
    (void)state;
    const char *where = getenv("NVC_TEST_DIR");
    if (where == NULL)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir;
    snprintf(folder, sizeof folder, "%s/jemalloc-nvm-XXXXXX", where);
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/heap", folder);
    return 0;
}

static int leave_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static struct region made(size_t size)
{
    struct region region;
    assert_int_equal(region_create(path, size, false, &region), 0);
    return region;
}

static void dropped(struct region *region)
{
    region_close(region);
    assert_int_equal(unlink(path), 0);
}

static void assert_consistent(struct region *region)
{
    char why[160];
    if (!region_check(region, why, sizeof why))
        fail_msg("%s", why);
}

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* --- the file --------------------------------------------------------------- */

static void the_file_is_private_and_has_its_space(void **state)
{
    (void)state;
    mode_t mask = umask(0);
    struct region region = made(BYTES + 100);
    umask(mask);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_size, BYTES);
    assert_true((size_t)status.st_blocks * 512 >= BYTES);
    assert_int_equal(region.size, BYTES);
    assert_int_equal((uintptr_t)region.base % ((size_t)2 << 20), 0);
    memcpy(region.base, "seen", 4); /* the mapping is the file */
    FILE *file = fopen(path, "re");
    char text[5] = "";
    assert_int_equal(fread(text, 1, 4, file), 4);
    fclose(file);
    assert_string_equal(text, "seen");
    dropped(&region);
}

static void an_existing_file_is_kept(void **state)
{
    (void)state;
    FILE *file = fopen(path, "we");
    fputs("precious", file);
    fclose(file);
    struct region region;
    assert_int_equal(region_create(path, BYTES, false, &region), EEXIST);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 8);
    unlink(path);
}

static void no_space_leaves_no_file(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){BYTES / 2, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct region region;
    int error = region_create(path, BYTES, false, &region);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(error, EFBIG);
    assert_int_equal(access(path, F_OK), -1);
}

static void prefault_touches_every_page(void **state)
{
    (void)state;
    struct rusage before, after;
    struct region region;
    assert_int_equal(region_create(path, BYTES, true, &region), 0);
    getrusage(RUSAGE_SELF, &before);
    for (size_t at = 0; at < BYTES; at += REGION_PAGE)
        region.base[at] = 1;
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_minflt - before.ru_minflt < (long)PAGES / 8);
    dropped(&region);
}

/* --- pages ------------------------------------------------------------------ */

static void alignment_and_place_are_honoured(void **state)
{
    (void)state;
    struct region region = made(BYTES);
    for (size_t align = 1; align <= (size_t)4 << 20; align *= 2) {
        bool zero = false;
        char *taken = region_take(&region, NULL, 3 * REGION_PAGE, align, &zero);
        assert_non_null(taken);
        assert_int_equal((uintptr_t)taken % align, 0);
        assert_true(region_holds(&region, taken, 3 * REGION_PAGE));
        assert_true(region_give(&region, taken, 3 * REGION_PAGE));
    }
    bool zero = false;
    char *wanted = region.base + 77 * REGION_PAGE;
    assert_ptr_equal(region_take(&region, wanted, 5 * REGION_PAGE, 1, &zero), wanted);
    assert_null(region_take(&region, wanted, REGION_PAGE, 1, &zero));
    char *beyond = region.base + BYTES;
    assert_null(region_take(&region, beyond, REGION_PAGE, 1, &zero));
    assert_null(region_take(&region, beyond - REGION_PAGE, 2 * REGION_PAGE, 1, &zero));
    assert_null(region_take(&region, NULL, SIZE_MAX & ~(REGION_PAGE - 1), 1, &zero));
    assert_consistent(&region);
    dropped(&region);
}

static void zero_means_zero(void **state)
{
    (void)state;
    struct region region = made(BYTES);
    bool zero = false;
    char *all = region_take(&region, NULL, BYTES, 1, &zero);
    assert_true(zero); /* fresh, though nobody asked */
    memset(all, 0xa5, BYTES);
    assert_true(region_give(&region, all, BYTES));
    zero = false;
    assert_ptr_equal(region_take(&region, all, REGION_PAGE, 1, &zero), all);
    assert_false(zero);
    zero = true;
    char *next = all + REGION_PAGE;
    assert_ptr_equal(region_take(&region, next, 2 * REGION_PAGE, 1, &zero), next);
    assert_true(zero);
    for (size_t i = 0; i < 2 * REGION_PAGE; i++)
        assert_int_equal(next[i], 0);
    assert_int_equal((unsigned char)next[2 * REGION_PAGE], 0xa5); /* no further */
    dropped(&region);
}

/* hooks.c refuses to purge because of these. */
static void the_kernel_purges_no_file(void **state)
{
    (void)state;
    struct region region = made(BYTES);
    memset(region.base, 0xa5, 4 * REGION_PAGE);
    assert_int_equal(madvise(region.base, 4 * REGION_PAGE, MADV_FREE), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(madvise(region.base, 4 * REGION_PAGE, MADV_DONTNEED), 0);
    assert_int_equal((unsigned char)region.base[REGION_PAGE], 0xa5);
    dropped(&region);
}

/* The model: who has each page.  Every take gets a number of its own. */
struct model {
    struct region *region;
    uint32_t owner[PAGES];
    size_t taken;
    uint64_t random;
};

static void take_some(struct model *model, uint32_t number)
{
    size_t pages = 1 + draw(&model->random) % (draw(&model->random) % 8 == 0 ? 300 : 12);
    size_t align = REGION_PAGE << draw(&model->random) % 6;
    bool zero = draw(&model->random) % 2 == 0, wanted = zero;
    char *taken = region_take(model->region, NULL, pages * REGION_PAGE, align, &zero);
    if (taken == NULL) { /* then no fitting run may be free */
        size_t run = 0, step = align / REGION_PAGE;
        for (size_t page = 0; page < PAGES; page++) {
            bool at_start =
                run == 0 &&
                ((uintptr_t)model->region->base / REGION_PAGE + page) % step != 0;
            run = model->owner[page] != 0 || at_start ? 0 : run + 1;
            if (run == pages)
                fail_msg("%zu pages at a multiple of %zu were free", pages, step);
        }
        return;
    }
    assert_true(zero || !wanted);
    assert_int_equal((uintptr_t)taken % align, 0);
    size_t first = (size_t)(taken - model->region->base) / REGION_PAGE;
    for (size_t page = first; page < first + pages; page++) {
        assert_int_equal(model->owner[page], 0);
        model->owner[page] = number;
        uint32_t *word = (uint32_t *)(void *)(model->region->base + page * REGION_PAGE);
        if (zero)
            assert_int_equal(*word, 0);
        *word = number;
    }
    model->taken += pages;
}

/* Gives back any range of taken pages: part of a piece, or parts of several. */
static void give_some(struct model *model)
{
    size_t first = draw(&model->random) % PAGES;
    if (model->owner[first] == 0)
        return;
    size_t most = 1 + draw(&model->random) % 60, pages = 0;
    while (pages < most && first + pages < PAGES && model->owner[first + pages] != 0) {
        const char *at = model->region->base + (first + pages) * REGION_PAGE;
        assert_int_equal(*(const uint32_t *)(const void *)at,
                         model->owner[first + pages]);
        model->owner[first + pages++] = 0;
    }
    char *address = model->region->base + first * REGION_PAGE;
    assert_true(region_give(model->region, address, pages * REGION_PAGE));
    model->taken -= pages;
}

static void any_range_goes_back(void **state)
{
    (void)state;
    struct region region = made(BYTES);
    struct model *model = calloc(1, sizeof *model);
    model->region = &region;
    model->random = SEED;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        bool filling = i / 2000 % 2 == 0;
        if (draw(&model->random) % 4 < (filling ? 3 : 1))
            take_some(model, i);
        else
            give_some(model);
        assert_int_equal(region_taken(&region), model->taken * REGION_PAGE);
        if (i % 500 == 0)
            assert_consistent(&region);
    }
    for (size_t page = 0; page < PAGES; page++)
        if (model->owner[page] != 0)
            assert_true(
                region_give(&region, region.base + page * REGION_PAGE, REGION_PAGE));
    bool zero = false;
    assert_non_null(region_take(&region, NULL, BYTES, 1, &zero)); /* all coalesced */
    free(model);
    dropped(&region);
}

static void a_failed_take_changes_nothing(void **state)
{
    (void)state;
    struct region region = made(BYTES);
    vmem_set_mtbf(region.vmem, 1, SEED);
    bool zero = false;
    assert_null(region_take(&region, NULL, REGION_PAGE, 1, &zero));
    assert_int_equal(region_taken(&region), 0);
    assert_consistent(&region);
    vmem_set_mtbf(region.vmem, 0, SEED);
    char *taken = region_take(&region, NULL, 9 * REGION_PAGE, 1, &zero);
    vmem_set_mtbf(region.vmem, 1, SEED); /* what stays taken must be taken anew */
    assert_true(region_give(&region, taken + 3 * REGION_PAGE, 2 * REGION_PAGE));
    assert_int_equal(region_taken(&region), 7 * REGION_PAGE);
    assert_consistent(&region);
    dropped(&region);
}

static void giving_what_is_not_taken_aborts(void **state)
{
    (void)state;
    for (int misuse = 0; misuse < 4; misuse++) {
        struct region region = made(BYTES);
        bool zero = false;
        char *taken = region_take(&region, region.base + 8 * REGION_PAGE, 4 * REGION_PAGE,
                                  1, &zero);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            if (freopen("/dev/null", "w", stderr) == NULL)
                _exit(3);
            char *wrong[] = {taken - REGION_PAGE, taken + 4 * REGION_PAGE, taken + 1,
                             region.base + BYTES};
            region_give(&region, wrong[misuse], REGION_PAGE);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
        dropped(&region);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_private_and_has_its_space),
        cmocka_unit_test(an_existing_file_is_kept),
        cmocka_unit_test(no_space_leaves_no_file),
        cmocka_unit_test(prefault_touches_every_page),
        cmocka_unit_test(alignment_and_place_are_honoured),
        cmocka_unit_test(zero_means_zero),
        cmocka_unit_test(the_kernel_purges_no_file),
        cmocka_unit_test(any_range_goes_back),
        cmocka_unit_test(a_failed_take_changes_nothing),
        cmocka_unit_test(giving_what_is_not_taken_aborts),
    };
    return cmocka_run_group_tests_name("region", tests, enter_folder, leave_folder);
}
