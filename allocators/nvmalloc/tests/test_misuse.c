/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_misuse.c - calls that are wrong: refused, counted, and nothing has changed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "heap.h"
#include "nvmalloc.h"

#define SLOTS 64u

static char path[64], other_path[80];
static nvm_heap *heap, *other;
static nvm_ref *slots, *other_slots;
static uint64_t expected_misuses;

static void make(enum nvm_mode mode)
{
    struct nvm_options options = {.size = 3 << 20, .mode = mode};
    unlink(path);
    unlink(other_path);
    assert_int_equal(nvm_create_with(path, &options, &heap), 0);
    assert_int_equal(nvm_create_with(other_path, &options, &other), 0);
    slots = nvm_root(heap, SLOTS * sizeof(nvm_ref));
    other_slots = nvm_root(other, SLOTS * sizeof(nvm_ref));
    assert_non_null(slots);
    assert_non_null(other_slots);
    expected_misuses = 0;
}

static void finish(void)
{
    struct nvm_heap_stats stats;
    nvm_stats(heap, &stats);
    assert_int_equal(stats.misuses, expected_misuses);
    assert_int_equal(nvm_check(heap), 0);
    assert_int_equal(nvm_check(other), 0);
    assert_int_equal(nvm_close(heap), 0);
    assert_int_equal(nvm_close(other), 0);
    unlink(path);
    unlink(other_path);
}

static void refused_at(int error, int line)
{
    if (error != EINVAL)
        fail_msg("line %d: %d instead of EINVAL", line, error);
    expected_misuses++;
    assert_true(nvm_error()[0] != '\0');
}
#define REFUSED(call) refused_at(call, __LINE__)

static void each_mode(void (*test)(void))
{
    for (int mode = NVM_LOG_OWNED; mode <= NVM_GC; mode++) {
        make((enum nvm_mode)mode);
        test();
        finish();
    }
}

/* Places that are no slots of this heap. */
static void wrong_slots(void)
{
    nvm_ref stack = 0;
    void *base;
    size_t length;
    nvm_range(heap, &base, &length);
    nvm_ref *const wrong[] = {
        NULL,
        &stack,
        (nvm_ref *)((char *)slots + 4), /* not aligned */
        (nvm_ref *)((char *)slots + 1),
        (nvm_ref *)((char *)base + length), /* behind the end */
        (nvm_ref *)((char *)base + length - 4),
        (nvm_ref *)base,                          /* metadata */
        (nvm_ref *)((char *)base + 3 * 4096 + 8), /* a name */
        (nvm_ref *)((char *)base - 8),
        (nvm_ref *)(uintptr_t)-8,
        &other_slots[1],
    };
    nvm_ref reserved = nvm_reserve(heap, 100);
    assert_int_not_equal(reserved, 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct nvm_action action = {NVM_ACT_ALLOC, wrong[i], NULL, reserved};
        REFUSED(nvm_malloc_to(heap, wrong[i], 100));
        REFUSED(nvm_malloc_to(heap, wrong[i], 100000));
        REFUSED(nvm_aligned_malloc_to(heap, wrong[i], 64, 100));
        REFUSED(nvm_free_from(heap, wrong[i]));
        REFUSED(nvm_realloc_to(heap, wrong[i], 100));
        REFUSED(nvm_publish(heap, &action, 1));
        if (heap->super.mode != NVM_GC) {
            REFUSED(nvm_move_to(heap, &slots[0], wrong[i]));
            REFUSED(nvm_move_to(heap, wrong[i], &slots[1]));
        }
    }
    assert_int_equal(stack, 0);
    assert_int_equal(nvm_cancel(heap, reserved), 0);
    assert_int_equal(slots[1], 0);
}

/* References that name no live block. */
static void wrong_references(void)
{
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[1], 200000), 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[2], 600000), 0);
    assert_int_equal(nvm_malloc_to(other, &other_slots[0], 40), 0);
    nvm_ref reserved = nvm_reserve(heap, 3000), extent = nvm_reserve(heap, 530000);
    assert_int_not_equal(reserved, 0);
    assert_int_not_equal(extent, 0);
    assert_int_equal(nvm_malloc_to(heap, &slots[3], 100), 0);
    nvm_ref freed = slots[3];
    assert_int_equal(nvm_free_from(heap, &slots[3]), 0);
    const nvm_ref wrong[] = {
        1,
        8,
        64,
        12288,
        slots[0] + 8,
        slots[0] + 4,
        slots[0] + 104, /* the block after it is free */
        slots[1] + 16,
        slots[2] + 65536,
        slots[2] + 8,
        reserved,
        extent,
        freed,
        heap->super.size,
        heap->super.size - 8,
        heap->super.data_offset - 8,
        (nvm_ref)1 << 63,
        UINT64_MAX,
        UINT64_MAX - 7,
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        slots[9] = wrong[i];
        struct nvm_action action = {NVM_ACT_FREE, &slots[9], NULL, 0};
        REFUSED(nvm_free_from(heap, &slots[9]));
        REFUSED(nvm_realloc_to(heap, &slots[9], 50));
        REFUSED(nvm_publish(heap, &action, 1));
        if (heap->super.mode != NVM_GC)
            REFUSED(nvm_move_to(heap, &slots[9], &slots[10]));
        if (wrong[i] != reserved && wrong[i] != extent) {
            REFUSED(nvm_cancel(heap, wrong[i]));
            assert_int_equal(nvm_usable_size(heap, wrong[i]), 0);
        }
        if (heap->super.mode == NVM_GC)
            REFUSED(nvm_free(heap, (void *)((uintptr_t)heap->base + wrong[i])));
    }
    slots[9] = 0;
    REFUSED(nvm_cancel(heap, slots[0])); /* live, not reserved */
    REFUSED(nvm_cancel(heap, 0));
    assert_int_equal(nvm_usable_size(heap, 0), 0);
    assert_int_equal(nvm_cancel(heap, reserved), 0);
    assert_int_equal(nvm_cancel(heap, extent), 0);
    REFUSED(nvm_cancel(heap, reserved)); /* twice */
    REFUSED(nvm_cancel(heap, extent));
}

static void publishing(void)
{
    struct nvm_action actions[NVM_ACTIONS_MAX + 1];
    nvm_ref first = nvm_reserve(heap, 100), second = nvm_reserve(heap, 100);
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 100), 0);
    nvm_ref live = slots[0];
    for (unsigned i = 0; i <= NVM_ACTIONS_MAX; i++)
        actions[i] = (struct nvm_action){NVM_ACT_FREE, &slots[i], NULL, 0};
    REFUSED(nvm_publish(heap, actions, NVM_ACTIONS_MAX + 1));
    REFUSED(nvm_publish(heap, actions, SIZE_MAX));
    assert_int_equal(nvm_publish(heap, NULL, 0), 0);
    actions[0] = (struct nvm_action){(enum nvm_action_kind)7, &slots[0], NULL, 0};
    REFUSED(nvm_publish(heap, actions, 1));
    actions[0] = (struct nvm_action){NVM_ACT_ALLOC, &slots[0], NULL, first}; /* full */
    REFUSED(nvm_publish(heap, actions, 1));
    actions[0] = (struct nvm_action){NVM_ACT_ALLOC, &slots[1], NULL, live}; /* live */
    REFUSED(nvm_publish(heap, actions, 1));
    actions[0] = (struct nvm_action){NVM_ACT_ALLOC, &slots[1], NULL, 0};
    REFUSED(nvm_publish(heap, actions, 1));
    if (heap->super.mode != NVM_GC) {
        const struct nvm_action wrong[][3] = {
            /* one block twice */
            {{NVM_ACT_ALLOC, &slots[1], NULL, first},
             {NVM_ACT_ALLOC, &slots[2], NULL, first}},
            /* one slot twice */
            {{NVM_ACT_ALLOC, &slots[1], NULL, first},
             {NVM_ACT_ALLOC, &slots[1], NULL, second}},
            {{NVM_ACT_FREE, &slots[0], NULL, 0}, {NVM_ACT_FREE, &slots[0], NULL, 0}},
            /* allocated and freed */
            {{NVM_ACT_ALLOC, &slots[1], NULL, first}, {NVM_ACT_FREE, &slots[1], NULL, 0}},
            /* from an empty slot, onto a full one, onto itself */
            {{NVM_ACT_ALLOC, &slots[1], NULL, first},
             {NVM_ACT_MOVE, &slots[2], &slots[3], 0}},
            {{NVM_ACT_ALLOC, &slots[1], NULL, first},
             {NVM_ACT_MOVE, &slots[0], &slots[1], 0}},
            {{NVM_ACT_FREE, &slots[0], NULL, 0}, {NVM_ACT_MOVE, &slots[1], &slots[1], 0}},
            {{NVM_ACT_FREE, &slots[0], NULL, 0}, {NVM_ACT_MOVE, &slots[1], &slots[0], 0}},
        };
        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
            REFUSED(nvm_publish(heap, wrong[i], 2));
        /* What has been freed may not be moved by another slot that refers to it, nor
           what is only reserved by a slot that does. */
        slots[5] = live;
        const struct nvm_action twice[] = {{NVM_ACT_FREE, &slots[0], NULL, 0},
                                           {NVM_ACT_MOVE, &slots[6], &slots[5], 0}};
        REFUSED(nvm_publish(heap, twice, 2));
        slots[5] = first;
        REFUSED(nvm_move_to(heap, &slots[5], &slots[6]));
        slots[5] = 0;
    } else {
        actions[0] = (struct nvm_action){NVM_ACT_ALLOC, &slots[1], NULL, first};
        actions[1] = (struct nvm_action){NVM_ACT_ALLOC, &slots[2], NULL, second};
        assert_int_equal(nvm_publish(heap, actions, 2), ENOTSUP);
        assert_int_equal(nvm_move_to(heap, &slots[0], &slots[1]), ENOTSUP);
    }
    assert_int_equal(slots[0], live);
    for (unsigned i = 1; i < SLOTS; i++)
        assert_int_equal(slots[i], 0);
    actions[0] = (struct nvm_action){NVM_ACT_ALLOC, &slots[1], NULL, first};
    assert_int_equal(nvm_publish(heap, actions, 1), 0);
    actions[0].slot = &slots[2];
    REFUSED(nvm_publish(heap, actions, 1)); /* twice */
    REFUSED(nvm_cancel(heap, first));       /* it is live */
    assert_int_equal(nvm_cancel(heap, second), 0);
}

static void sizes(void)
{
    static const size_t too_large[] = {
        SIZE_MAX,         SIZE_MAX - 1,          SIZE_MAX - 15,   SIZE_MAX / 2,
        (size_t)1 << 63,  ((size_t)1 << 63) + 1, (size_t)1 << 48, (size_t)1 << 40,
        SIZE_MAX - 65535, SIZE_MAX - 65536,      (size_t)4 << 20};
    for (unsigned i = 0; i < sizeof(too_large) / sizeof(too_large[0]); i++) {
        size_t size = too_large[i];
        assert_int_equal(nvm_malloc_to(heap, &slots[0], size), ENOMEM);
        assert_int_equal(nvm_aligned_malloc_to(heap, &slots[0], 1 << 21, size), ENOMEM);
        assert_int_equal(nvm_aligned_malloc_to(heap, &slots[0], 64, size), ENOMEM);
        assert_int_equal(nvm_reserve(heap, size), 0);
        assert_int_equal(errno, ENOMEM);
        assert_int_equal(nvm_malloc_to(heap, &slots[1], 100), 0);
        assert_int_equal(nvm_realloc_to(heap, &slots[1], size), ENOMEM);
        assert_int_equal(nvm_free_from(heap, &slots[1]), 0);
        if (heap->super.mode == NVM_GC) {
            assert_null(nvm_malloc(heap, size));
            assert_null(nvm_aligned_malloc(heap, 4096, size));
        }
        nvm_heap *none;
        assert_int_not_equal(nvm_create_with("/dev/shm/nvm-misuse-none",
                                             &(struct nvm_options){.size = size},
                                             &none) == 0 &&
                                 size != (size_t)4 << 20,
                             1);
        if (size == (size_t)4 << 20) {
            nvm_close(none);
            unlink("/dev/shm/nvm-misuse-none");
        }
    }
    assert_int_not_equal(access("/dev/shm/nvm-misuse-none", F_OK), 0);
    static const size_t alignments[] = {
        0, 3, 24, 63, (size_t)4 << 20, (size_t)1 << 63, SIZE_MAX};
    for (unsigned i = 0; i < sizeof(alignments) / sizeof(alignments[0]); i++)
        REFUSED(nvm_aligned_malloc_to(heap, &slots[0], alignments[i], 10));
    assert_int_equal(nvm_malloc_to(heap, &slots[0], 0), 0);
    assert_true(nvm_usable_size(heap, slots[0]) >= 1);
    assert_int_equal(nvm_realloc_to(heap, &slots[0], 0), 0);
    assert_int_equal(nvm_aligned_malloc_to(heap, &slots[1], 4096, 0), 0);
    assert_int_equal(slots[1] % 4096, 0);
    nvm_ref none = nvm_reserve(heap, 0);
    assert_int_not_equal(none, 0);
    assert_int_equal(nvm_cancel(heap, none), 0);
    if (heap->super.mode == NVM_GC) {
        void *block = nvm_malloc(heap, 0);
        assert_non_null(block);
        assert_int_equal(nvm_free(heap, block), 0);
        REFUSED(nvm_free(heap, block));
        assert_int_equal(nvm_free(heap, NULL), 0);
    }
}

/* An aligned block is aligned however full the heap is, and whatever it is made of. */
static void aligned_to_the_brim(void)
{
    static const struct {
        size_t alignment, holes;
    } cases[] = {{4096, 4500}, {512, 570}, {16384, 20000}, {128, 140}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned count = 0, holes = 0, aligned = 0;
        assert_int_equal(nvm_malloc_to(heap, &slots[0], 8192 * sizeof(nvm_ref)), 0);
        nvm_ref *table = nvm_ptr(heap, slots[0]);
        memset(table, 0, 8192 * sizeof(nvm_ref));
        nvm_persist(heap, table, 8192 * sizeof(nvm_ref));
        while (holes < 300 && nvm_malloc_to(heap, &table[holes], cases[i].holes) == 0)
            holes++;
        count = holes;
        for (size_t size = 300000; size >= cases[i].alignment / 2; size = size * 2 / 3)
            while (count < 8000 && nvm_malloc_to(heap, &table[count], size) == 0)
                count++;
        for (unsigned k = 0; k < holes; k += 2)
            assert_int_equal(nvm_free_from(heap, &table[k]), 0);
        for (unsigned k = 0; k < holes; k += 2) {
            nvm_ref *slot = &table[k];
            if (nvm_aligned_malloc_to(heap, slot, cases[i].alignment,
                                      cases[i].alignment) != 0)
                continue;
            aligned++;
            assert_int_equal((uintptr_t)nvm_ptr(heap, *slot) % cases[i].alignment, 0);
        }
        for (unsigned k = 0; k < count; k++)
            if (table[k] != 0)
                assert_int_equal(nvm_free_from(heap, &table[k]), 0);
        assert_int_equal(nvm_free_from(heap, &slots[0]), 0);
        assert_true(aligned > 0);
    }
}

static void names(void)
{
    char longest[64];
    memset(longest, 'n', sizeof(longest));
    longest[NVM_NAME_MAX + 1] = '\0';
    assert_null(nvm_named(heap, longest, 1));
    refused_at(errno, __LINE__);
    assert_null(nvm_named(heap, "", 1));
    refused_at(errno, __LINE__);
    REFUSED(nvm_unname(heap, longest));
    REFUSED(nvm_unname(heap, ""));
    assert_int_equal(nvm_unname(heap, "nobody"), ENOENT);
    assert_null(nvm_named(heap, "nobody", 0));
    assert_int_equal(errno, ENOENT);
    longest[NVM_NAME_MAX] = '\0';
    assert_non_null(nvm_named(heap, longest, 1));
    /* The table fills up, says so, and takes names again. */
    char name[32];
    unsigned made = 1;
    for (;; made++) {
        snprintf(name, sizeof(name), "name %u", made);
        if (nvm_named(heap, name, 1) == NULL)
            break;
    }
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(made, 63);
    assert_int_equal(nvm_malloc_to(heap, nvm_named(heap, "name 7", 0), 10), 0);
    REFUSED(nvm_unname(heap, "name 7"));
    assert_int_equal(nvm_unname(heap, "name 8"), 0);
    assert_non_null(nvm_named(heap, "name 9", 0));
    assert_non_null(nvm_named(heap, "another", 1));
    assert_null(nvm_named(heap, "name 8", 0));
}

#define EACH(name)                                                                       \
    static void test_##name(void **state)                                                \
    {                                                                                    \
        (void)state;                                                                     \
        each_mode(name);                                                                 \
    }
EACH(wrong_slots)
EACH(wrong_references)
EACH(publishing)
EACH(sizes)
EACH(aligned_to_the_brim)
EACH(names)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_slots),
        cmocka_unit_test(test_wrong_references),
        cmocka_unit_test(test_publishing),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_aligned_to_the_brim),
        cmocka_unit_test(test_names),
    };
    snprintf(path, sizeof(path), "/dev/shm/nvm-misuse-%d", (int)getpid());
    snprintf(other_path, sizeof(other_path), "%s.other", path);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
