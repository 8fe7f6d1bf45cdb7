/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The five faults that ports of vmem are known to have, one test each. The same five are
 * rules of the model in tests/vmem.
 */
#include "test_vmem.h"

#include <errno.h>

/* Sources that hand out their spans at the worst place for alignment, tightly packed. */
static uintptr_t source_next;
static size_t source_live;

static void *awkward_import(vmem_t *source, size_t size, int vmflag)
{
    (void)source;
    (void)vmflag;
    uintptr_t at = source_next;
    source_next += size;
    source_live += size;
    return ADDR(at);
}

static void awkward_return(vmem_t *source, void *addr, size_t size)
{
    (void)source;
    (void)addr;
    source_live -= size;
}

/*
 * Fault 1: a port imports just `size`, rounds the start up to the alignment, and hands
 * out a range that ends behind the span.
 */
static void test_aligned_import_stays_within_its_span(void)
{
    const size_t q = 16;

    for (size_t align = q; align <= 4096; align *= 2) {
        for (size_t skew = q; skew < 2 * 4096; skew += 13 * q) {
            for (size_t nocross = 0; nocross <= 8192; nocross += 8192) {
                const size_t phase = align > q ? align / 2 : 0, size = 5 * q;
                source_next = 4096 + skew;
                vmem_t *vmp = vmem_create("aligned", NULL, 0, q, awkward_import,
                                          awkward_return, NULL, 0, VM_NOSLEEP);
                uintptr_t a = (uintptr_t)vmem_xalloc(vmp, size, align, phase, nocross,
                                                     NULL, NULL, VM_NOSLEEP);
                CHECK(a != 0 && a % align == phase);
                CHECK(nocross == 0 || a / nocross == (a + size - 1) / nocross);
                CHECK(vmem_contains(vmp, ADDR(a), size));
                CHECK(a >= 4096 + skew && a + size <= source_next);
                CHECK_ARENA(vmp);
                vmem_xfree(vmp, ADDR(a), size);
                CHECK(vmem_size(vmp, VMEM_SPAN) == 0 && source_live == 0);
                CHECK(vmem_destroy(vmp) == 0);
            }
        }
    }
}

/* An import function that breaks its word and gives less: no allocation, span given back.
 */
static void *short_import(vmem_t *source, size_t *size, size_t align, int vmflag)
{
    (void)align;
    *size /= 2;
    return awkward_import(source, *size, vmflag);
}

static void test_short_import_is_not_trusted(void)
{
    vmem_t *vmp = vmem_xcreate("short", NULL, 0, 16, short_import, awkward_return, NULL,
                               0, VM_NOSLEEP);
    source_next = 4096;
    errno = 0;
    CHECK(vmem_alloc(vmp, 64, VM_NOSLEEP) == NULL && errno == ENOMEM);
    CHECK(source_live == 0 && vmem_size(vmp, VMEM_SPAN) == 0);
    CHECK_ARENA(vmp);
    vmem_destroy(vmp);
}

/* Fault 2: a port never gives a span back, or only if it was one allocation all the time.
 */
static void test_imported_span_returns_when_it_is_whole_again(void)
{
    vmem_t *parent =
        vmem_create("parent", ADDR(1024), 1 << 20, 1024, NULL, NULL, NULL, 0, VM_NOSLEEP);
    vmem_t *child =
        vmem_create("child", NULL, 0, 16, vmem_alloc, vmem_free, parent, 0, VM_NOSLEEP);
    void *a[64];

    /* Free the 64 sixteenths of 1024 in three orders; each time all of it must go back.
     */
    for (unsigned step = 1; step <= 5; step += 2) {
        for (unsigned i = 0; i < 64; i++)
            CHECK((a[i] = vmem_alloc(child, 16, VM_NOSLEEP)) != NULL);
        CHECK(vmem_size(parent, VMEM_ALLOC) == 1024);
        for (unsigned i = 0; i < 64; i++) {
            CHECK(vmem_size(parent, VMEM_ALLOC) == 1024);
            vmem_free(child, a[i * step % 64], 16);
            CHECK_ARENA(child);
        }
        CHECK(vmem_size(parent, VMEM_ALLOC) == 0);
        CHECK(vmem_size(child, VMEM_SPAN) == 0);
    }
    CHECK(vmem_alloc(parent, 1 << 20, VM_NOSLEEP) == ADDR(1024));
    vmem_destroy(child);
    vmem_destroy(parent);
}

/* A span given by hand is no import: it stays. */
static void test_added_span_stays(void)
{
    vmem_t *vmp = vmem_create("added", ADDR(1024), 1024, 16, awkward_import,
                              awkward_return, NULL, 0, VM_NOSLEEP);
    void *a = vmem_alloc(vmp, 1024, VM_NOSLEEP);
    CHECK(a == ADDR(1024));
    vmem_free(vmp, a, 1024);
    CHECK(vmem_size(vmp, VMEM_FREE) == 1024);
    vmem_destroy(vmp);
}

/*
 * Fault 3: a port looks only on the lists on which everything fits, and fails (or
 * imports) although the one free segment fits exactly: of size 2^k, or between two
 * powers.
 */
static void test_instant_fit_finds_an_exact_fit(void)
{
    for (size_t size = 1; size <= 300; size++) {
        vmem_t *vmp = vmem_create("exact", ADDR(1000), size, 1, awkward_import,
                                  awkward_return, NULL, 0, VM_NOSLEEP);
        CHECK(vmem_alloc(vmp, size, VM_NOSLEEP) == ADDR(1000));
        vmem_free(vmp, ADDR(1000), size);
        /* the same with an alignment that the segment happens to have */
        CHECK(vmem_xalloc(vmp, size, 8, 0, 0, NULL, NULL, VM_NOSLEEP) == ADDR(1000));
        vmem_xfree(vmp, ADDR(1000), size);
        /* one behind a too small one on the same list */
        CHECK(vmem_add(vmp, ADDR(5000), size + 1, VM_NOSLEEP) != NULL);
        CHECK(vmem_add(vmp, ADDR(7000), size, VM_NOSLEEP) != NULL);
        CHECK(vmem_alloc(vmp, size + 1, VM_NOSLEEP) == ADDR(5000));
        vmem_kstat_t ks;
        vmem_kstat(vmp, &ks);
        CHECK(ks.vk_mem_import == 0 && source_live == 0);
        vmem_destroy(vmp);
    }
}

/* Fault 4: a port takes 48 for an alignment and masks with 47. */
static void test_alignment_must_be_a_power_of_two(void)
{
    vmem_t *vmp =
        vmem_create("align", ADDR(16), 1 << 20, 16, NULL, NULL, NULL, 0, VM_NOSLEEP);

    for (size_t align = 1; align < 1000; align++) {
        bool good = align >= 16 && (align & (align - 1)) == 0;
        errno = 0;
        void *a = vmem_xalloc(vmp, 16, align, 0, 0, NULL, NULL, VM_NOSLEEP);
        CHECK((a != NULL) == good);
        CHECK(good || errno == EINVAL);
        if (good) {
            CHECK((uintptr_t)a % align == 0);
            vmem_xfree(vmp, a, 16);
        }
        CHECK(vmem_xalloc(vmp, 16, 0, 0, align | 48, NULL, NULL, VM_NOSLEEP) == NULL);
    }
    CHECK(vmem_size(vmp, VMEM_ALLOC) == 0);
    vmem_destroy(vmp);
}

/*
 * Fault 5: in a port the rotor is a segment of the list: once next fit has stopped
 * between two allocations and is used no more, what is freed on its two sides never
 * merges.
 */
static void test_rotor_does_not_keep_neighbours_apart(void)
{
    for (size_t order = 0; order < 2; order++) {
        vmem_t *vmp =
            vmem_create("rotor", ADDR(1), 100, 1, NULL, NULL, NULL, 0, VM_NOSLEEP);
        void *a =
            vmem_alloc(vmp, 50, VM_NOSLEEP | VM_NEXTFIT); /* the rotor is now at 51 */
        void *b = vmem_alloc(vmp, 50, VM_NOSLEEP);
        CHECK(a == ADDR(1) && b == ADDR(51));
        vmem_free(vmp, order ? a : b, 50);
        vmem_free(vmp, order ? b : a, 50);
        CHECK_ARENA(vmp);
        CHECK(vmem_alloc(vmp, 100, VM_NOSLEEP) == ADDR(1));
        vmem_free(vmp, ADDR(1), 100);
        /* and it still knows where it was */
        CHECK(vmem_alloc(vmp, 10, VM_NOSLEEP | VM_NEXTFIT) == ADDR(51));
        CHECK_ARENA(vmp);
        vmem_destroy(vmp);
    }
}

/* Nor does it keep an imported span from returning, and it survives the span's going. */
static void test_rotor_lets_its_span_go(void)
{
    vmem_t *parent =
        vmem_create("parent", ADDR(64), 6400, 64, NULL, NULL, NULL, 0, VM_NOSLEEP);
    vmem_t *child =
        vmem_create("child", NULL, 0, 16, vmem_alloc, vmem_free, parent, 0, VM_NOSLEEP);
    void *a[4], *b;

    for (int i = 0; i < 4; i++)
        a[i] = vmem_alloc(child, 16, VM_NOSLEEP);
    b = vmem_alloc(child, 48, VM_NOSLEEP | VM_NEXTFIT);
    CHECK(vmem_size(child, VMEM_SPAN) == 128);
    vmem_free(child, b, 48); /* with the rotor's segment in it */
    CHECK(vmem_size(child, VMEM_SPAN) == 64);
    CHECK_ARENA(child);
    for (int i = 0; i < 4; i++) {
        vmem_free(child, a[i], 16);
        CHECK_ARENA(child);
    }
    CHECK(vmem_size(parent, VMEM_ALLOC) == 0);
    CHECK(vmem_alloc(child, 16, VM_NOSLEEP | VM_NEXTFIT) != NULL);
    CHECK_ARENA(child);
    vmem_destroy(child);
    vmem_destroy(parent);
}

int main(void)
{
    RUN(test_aligned_import_stays_within_its_span);
    RUN(test_short_import_is_not_trusted);
    RUN(test_imported_span_returns_when_it_is_whole_again);
    RUN(test_added_span_stays);
    RUN(test_instant_fit_finds_an_exact_fit);
    RUN(test_alignment_must_be_a_power_of_two);
    RUN(test_rotor_does_not_keep_neighbours_apart);
    RUN(test_rotor_lets_its_span_go);
    return 0;
}
