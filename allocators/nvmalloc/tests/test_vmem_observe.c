/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be seen of arenas: the tree as text and as JSON, populators, and walks during
 * which everything else changes.
 */
#include "test_vmem.h"

#include <errno.h>
#include <fcntl.h>

static vmem_t *arena(const char *name, size_t base, size_t size, int flags)
{
    vmem_t *vmp = vmem_create(name, ADDR(base), size, 1, NULL, NULL, NULL, 0,
                              VM_NOSLEEP | VMC_IDENTIFIER | flags);
    CHECK(vmp != NULL);
    return vmp;
}

typedef struct text {
    char at[16384];
    size_t len;
} text_t;

static void collect(void *arg, const char *text, size_t len)
{
    text_t *to = arg;

    CHECK(to->len + len < sizeof(to->at));
    memcpy(to->at + to->len, text, len);
    to->len += len;
    to->at[to->len] = '\0';
}

static void find_by_name(const vmem_info_t *info, void *arg)
{
    vmem_info_t *found = arg;

    if (strcmp(info->vi_name, found->vi_name) == 0)
        *found = *info;
}

static void test_dump_shows_the_tree(void)
{
    static text_t text;
    vmem_t *top = arena("dump_top", 1, 1000, 0);
    vmem_t *kid =
        vmem_create("dump_kid", NULL, 0, 1, vmem_alloc, vmem_free, top, 0, VM_NOSLEEP);
    vmem_info_t info = {.vi_name = "dump_kid"};

    CHECK(vmem_alloc(kid, 123, VM_NOSLEEP) != NULL);
    vmem_visit(find_by_name, &info);
    CHECK(info.vi_depth == 1 && info.vi_id == vmem_id(kid));
    CHECK(info.vi_kstat.vk_mem_import == 123 &&
          info.vi_kstat.vk_source_id == vmem_id(top));
    vmem_dump(collect, &text, VMEM_DUMP_TEXT);
    const char *above = strstr(text.at, "dump_top");
    CHECK(above != NULL && strchr(above, '\n') != NULL);
    const char *end = strchr(above, '\n');
    CHECK(memmem(above, (size_t)(end - above), "identifiers", 11) != NULL);
    const char *below =
        strstr(above, "  dump_kid"); /* indented, right under its source */
    CHECK(below != NULL && end < below && strchr(end + 1, '\n') > below);
    CHECK(strstr(text.at, "vmem_heap") && strstr(text.at, "    vmem_seg"));
    vmem_destroy(kid);
    vmem_destroy(top);
}

/* Parsed and compared with every counter by tests/vmem/test_vmem_dump.py; here: nesting.
 */
static void test_json_nests_arenas_under_their_sources(void)
{
    static text_t text;
    char expected[128];
    vmem_t *top = arena("q\"\\\n\xc3\xa9", 1, 1000, 0);
    vmem_t *kid =
        vmem_create("kid", NULL, 0, 1, vmem_alloc, vmem_free, top, 0, VM_NOSLEEP);
    vmem_t *grandchild =
        vmem_create("grandchild", NULL, 0, 1, vmem_alloc, vmem_free, kid, 0, VM_NOSLEEP);
    vmem_t *last = arena("last", 1, 10, 0);

    vmem_dump(collect, &text, VMEM_DUMP_JSON);
    CHECK(strncmp(text.at, "{\"arenas\":[{\"id\":", 17) == 0);
    CHECK(strcmp(text.at + text.len - 5, "]}]}\n") == 0); /* "last", then all */
    CHECK(strstr(text.at, "\"name\":\"q\\u0022\\u005c\\u000a??\",\"source\":null"));
    snprintf(expected, sizeof(expected),
             "\"arenas\":[{\"id\":%u,\"name\":\"kid\",\"source\":%u", vmem_id(kid),
             vmem_id(top));
    CHECK(strstr(text.at, expected) != NULL);
    snprintf(expected, sizeof(expected),
             "\"arenas\":[]}]}]},{\"id\":%u,\"name\":\"last\"", vmem_id(last));
    CHECK(strstr(text.at, expected) != NULL);
    vmem_destroy(last);
    vmem_destroy(grandchild);
    vmem_destroy(kid);
    vmem_destroy(top);
}

static void test_a_failing_write_is_told(void)
{
    int full = open("/dev/full", O_WRONLY);

    CHECK(full >= 0);
    CHECK(vmem_dump_fd(full, VMEM_DUMP_TEXT) == ENOSPC);
    close(full);
    CHECK(vmem_dump_fd(-1, VMEM_DUMP_JSON) == EBADF);
}

/* What lies on the path by which vmem feeds itself holds its structures from the start.
 */
static void test_a_populator_is_filled_at_creation(void)
{
    vmem_t *plain = vmem_create("plain", NULL, 0, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);
    vmem_t *populator = vmem_create("populator", NULL, 0, 1, NULL, NULL, NULL, 0,
                                    VM_NOSLEEP | VMC_POPULATOR);
    vmem_info_t info = {.vi_name = "plain"}, filled = {.vi_name = "populator"};

    vmem_visit(find_by_name, &info);
    vmem_visit(find_by_name, &filled);
    CHECK(info.vi_segs_free == 0 && !(info.vi_cflags & VMC_POPULATOR));
    CHECK(filled.vi_segs_free >= 4 && (filled.vi_cflags & VMC_POPULATOR));
    CHECK(vmem_populate(plain, VM_NOSLEEP));
    vmem_visit(find_by_name, &info);
    CHECK(info.vi_segs_free >= 4);
    vmem_destroy(populator);
    vmem_destroy(plain);
}

/* ---- a reentrant walk ---- */

enum { UNITS = 600 };

typedef struct walk {
    vmem_t *vmp;
    uint64_t rng;
    uint8_t stable[UNITS + 1]; /* a segment of 1 that nobody touches starts here */
    uint8_t seen[UNITS + 1];   /* how often it was reported */
    uintptr_t loose[UNITS];    /* allocated segments of 1 that come and go */
    size_t loose_count;
} walk_t;

static void churn(walk_t *w)
{
    for (int i = 0; i < 20; i++) {
        if (w->loose_count > 0 && test_random(&w->rng) % 2) {
            size_t at = test_random(&w->rng) % w->loose_count;
            vmem_xfree(w->vmp, ADDR(w->loose[at]), 1);
            w->loose[at] = w->loose[--w->loose_count];
            continue;
        }
        void *a = vmem_xalloc(w->vmp, 1, 0, 0, 0, NULL, NULL, VM_NOSLEEP);
        if (a != NULL)
            w->loose[w->loose_count++] = (uintptr_t)a;
    }
}

static void see_and_churn(void *arg, void *start, size_t size)
{
    walk_t *w = arg;

    CHECK(size == 1 && (uintptr_t)start <= UNITS);
    w->seen[(uintptr_t)start]++;
    churn(w);
    CHECK_ARENA(w->vmp);
}

static void test_a_reentrant_walk_reports_what_stays_exactly_once(void)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        static walk_t w;
        size_t stable = 0;

        w = (walk_t){.rng = seed};
        w.vmp = arena("walked", 1, UNITS, 0);
        for (uintptr_t at = 1; at <= UNITS; at++) {
            CHECK(vmem_alloc(w.vmp, 1, VM_NOSLEEP | VM_FIRSTFIT) == ADDR(at));
            w.stable[at] = test_random(&w.rng) % 3 == 0;
            if (!w.stable[at])
                w.loose[w.loose_count++] = at;
        }
        vmem_walk(w.vmp, VMEM_ALLOC | VMEM_REENTRANT, see_and_churn, &w);
        for (uintptr_t at = 1; at <= UNITS; at++) {
            CHECK(w.seen[at] <= 1);
            CHECK(!w.stable[at] || w.seen[at] == 1);
            stable += w.stable[at];
        }
        CHECK(stable > UNITS / 5 && w.loose_count < UNITS - stable);
        CHECK(vmem_destroy(w.vmp) == stable + w.loose_count);
    }
}

int main(void)
{
    RUN(test_dump_shows_the_tree);
    RUN(test_json_nests_arenas_under_their_sources);
    RUN(test_a_failing_write_is_told);
    RUN(test_a_populator_is_filled_at_creation);
    RUN(test_a_reentrant_walk_reports_what_stays_exactly_once);
    return 0;
}
