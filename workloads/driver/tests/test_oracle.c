// SPDX-License-Identifier: Apache-2.0
/*
 * oracle.c on synthetic heaps: each kind of fault is named, the cause before
 * its consequences, and a sound heap is not accused.
 *
 * The heap is an array; slot i's block is 512 bytes at offset 1024 * (i + 1),
 * the slot table lies in the first 256 bytes.  A test breaks one thing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "oracle.h"
#include "payload.h"

enum {
    blocks = 4,
    spacing = 1024,
    block_size = 512,
    inner_slot = blocks, /* index of the sighting of a slot inside block 1 */
    sightings = blocks + 1,
    container_bytes = 64, /* of block 1 are slots */
    heap_bytes = 8 * spacing,
};

/* The heap has neighbours, so that a reference may point out of it. */
static _Alignas(64) unsigned char arena[10 * spacing];
static unsigned char *const heap = arena + spacing;
static struct nvd_sighting seen[sightings];
static struct nvc_block walked[sightings + 1];
static struct nvd_evidence evidence;
static struct nvd_finding finding;

static unsigned char *place(int i)
{
    return heap + spacing * (i + 1);
}

static int make_sound_heap(void **state)
{
    static const char *const names[sightings] = {"slot 0", "slot 1", "slot 2", "slot 3",
                                                 "slot 1.0"};
    (void)state;
    memset(arena, 0, sizeof arena);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < sightings; i++) {
        seen[i] = (struct nvd_sighting){
            .name = names[i],
            .id = (uint32_t)i,
            .owed = NVD_OWED_FULL,
            .seen = {place(i), block_size},
            .seq = (uint64_t)i + 10,
            .size = 500,
            .offset = spacing * (i + 1),
            .payload_from = i == 1 ? container_bytes : 0,
            .payload_to = block_size,
        };
        nvd_payload_fill(place(i), seen[i].payload_from, block_size, seen[i].id,
                         seen[i].seq);
        walked[i] = seen[i].seen;
    }
    seen[inner_slot].container = &seen[1];
    evidence = (struct nvd_evidence){
        .sightings = seen,
        .count = sightings,
        .walked = walked,
        .walked_count = sightings,
        .walks = true,
        .range = {heap, heap_bytes},
        .table = {heap, 256},
    };
    return 0;
}

static void expect(enum nvd_verdict verdict, const char *named)
{
    bool sound = nvd_oracle_judge(&evidence, &finding);
    assert_string_equal(nvd_verdict_name(finding.verdict), nvd_verdict_name(verdict));
    assert_int_equal(sound, verdict == NVD_VERDICT_OK);
    if (named != NULL)
        assert_non_null(strstr(finding.detail, named));
}

static void empty(int i)
{
    seen[i].seen = (struct nvc_block){NULL, 0};
}

static void a_sound_heap_is_not_accused(void **state)
{
    (void)state;
    expect(NVD_VERDICT_OK, NULL);
    evidence.walks = false;
    evidence.range.address = NULL;
    expect(NVD_VERDICT_OK, NULL);
}

static void an_empty_slot_that_is_owed_a_block_is_lost(void **state)
{
    (void)state;
    empty(2);
    expect(NVD_VERDICT_LOST, "slot 2");
}

static void a_slot_that_moved_to_another_block_is_lost(void **state)
{
    (void)state;
    seen[2].seen.address = place(6);
    expect(NVD_VERDICT_LOST, "slot 2");
}

static void a_block_in_a_slot_owed_empty_is_resurrected(void **state)
{
    (void)state;
    seen[3].owed = NVD_OWED_EMPTY;
    seen[3].payload_to = 0;
    expect(NVD_VERDICT_RESURRECTED, "slot 3");
}

static void an_operation_in_flight_may_be_whole_or_absent(void **state)
{
    (void)state;
    seen[3].owed = NVD_OWED_EITHER;
    expect(NVD_VERDICT_OK, NULL);
    empty(3);
    walked[3] = walked[4];
    evidence.walked_count--;
    expect(NVD_VERDICT_OK, NULL);
}

static void an_absent_free_keeps_the_block_and_its_content(void **state)
{
    (void)state;
    seen[3].owed = NVD_OWED_EITHER;
    place(3)[100] ^= 1;
    expect(NVD_VERDICT_CORRUPT, "slot 3");
}

static void a_half_done_alloc_is_an_overlap_with_the_free_space(void **state)
{
    (void)state;
    seen[3] = (struct nvd_sighting){.name = "slot 3",
                                    .id = 3,
                                    .owed = NVD_OWED_EITHER,
                                    .seen = {place(3), block_size},
                                    .size = 500,
                                    .offset = -1};
    walked[3] = walked[4];
    evidence.walked_count--;
    expect(NVD_VERDICT_OVERLAP, "slot 3");
}

static void two_blocks_on_the_same_bytes_overlap(void **state)
{
    (void)state;
    seen[2].seen.usable = spacing + 1; /* one byte into block 3 */
    expect(NVD_VERDICT_OVERLAP, "slot 3");
}

static void an_overlap_behind_a_smaller_block_is_found(void **state)
{
    (void)state;
    evidence.range.address = NULL;
    seen[0].seen.usable = 3 * spacing; /* over 1, 2; in between 1 ends */
    expect(NVD_VERDICT_OVERLAP, "slot 0");
}

static void a_block_on_the_slot_table_overlaps(void **state)
{
    (void)state;
    evidence.table.usable = spacing + 1;
    expect(NVD_VERDICT_OVERLAP, "slot table");
}

static void a_block_walked_twice_overlaps(void **state)
{
    (void)state;
    walked[sightings] = walked[0];
    evidence.walked_count = sightings + 1;
    expect(NVD_VERDICT_OVERLAP, "twice");
}

static void a_reference_out_of_the_heap_is_corrupt(void **state)
{
    (void)state;
    seen[0].offset = -1;
    seen[0].seen.address = heap + heap_bytes - 8;
    expect(NVD_VERDICT_CORRUPT, "slot 0");
    seen[0].seen.address = heap - 64;
    expect(NVD_VERDICT_CORRUPT, "slot 0");
    seen[0].seen = (struct nvc_block){heap + 64, SIZE_MAX};
    expect(NVD_VERDICT_CORRUPT, "slot 0");
}

static void a_block_that_shrank_is_corrupt(void **state)
{
    (void)state;
    seen[0].seen.usable = 499;
    expect(NVD_VERDICT_CORRUPT, "499");
}

static void foreign_content_is_corrupt_and_its_author_named(void **state)
{
    (void)state;
    nvd_payload_fill(place(2), 0, block_size, seen[3].id, seen[3].seq);
    expect(NVD_VERDICT_CORRUPT, "payload of slot 3");
}

static void content_that_was_not_persisted_is_not_owed(void **state)
{
    (void)state;
    seen[2].payload_to = 0;
    memset(place(2), 0x55, block_size);
    expect(NVD_VERDICT_OK, NULL);
}

static void a_walked_block_in_no_slot_is_a_leak(void **state)
{
    (void)state;
    walked[sightings] = (struct nvc_block){place(5), block_size};
    evidence.walked_count = sightings + 1;
    expect(NVD_VERDICT_LEAK, "1 block");
}

static void a_walk_that_accounts_for_more_bytes_is_a_leak(void **state)
{
    (void)state;
    walked[0].usable += 64;
    expect(NVD_VERDICT_LEAK, NULL);
}

/* A stale slot brings overlap, foreign content and a leak with it. */
static void the_slot_is_named_before_what_follows_from_it(void **state)
{
    (void)state;
    seen[3].owed = NVD_OWED_EMPTY;
    seen[3].seen = seen[2].seen;
    seen[3].payload_to = 0;
    memset(place(0), 0, block_size);
    walked[3] = (struct nvc_block){place(6), block_size};
    expect(NVD_VERDICT_RESURRECTED, "slot 3");
}

static void an_overlap_is_named_before_the_content_it_spoils(void **state)
{
    (void)state;
    seen[3].offset = seen[2].offset;
    seen[3].seen = seen[2].seen;
    expect(NVD_VERDICT_OVERLAP, "slot 3");
}

static void a_slot_in_a_sound_container_speaks_for_itself(void **state)
{
    (void)state;
    empty(inner_slot);
    expect(NVD_VERDICT_LOST, "slot 1.0");
}

static void a_slot_in_a_container_owned_twice_is_a_victim(void **state)
{
    (void)state;
    empty(inner_slot);
    seen[2].seen.address = place(1);
    seen[2].offset = seen[1].offset;
    expect(NVD_VERDICT_OVERLAP, "slot 1");
}

static void a_slot_in_a_spoilt_container_is_a_victim(void **state)
{
    (void)state;
    empty(inner_slot);
    memset(place(1), 0x77, block_size);
    expect(NVD_VERDICT_CORRUPT, "slot 1 ");
}

static void a_new_block_is_held_against_every_live_one(void **state)
{
    (void)state;
    struct nvc_block fresh = {place(5), block_size};
    assert_true(nvd_oracle_admits(&evidence, "slot 9", fresh, &finding));
    fresh.address = place(2) + block_size - 1;
    assert_false(nvd_oracle_admits(&evidence, "slot 9", fresh, &finding));
    assert_int_equal(finding.verdict, NVD_VERDICT_OVERLAP);
    assert_non_null(strstr(finding.detail, "slot 2"));
    fresh.address = heap + 255;
    assert_false(nvd_oracle_admits(&evidence, "slot 9", fresh, &finding));
    assert_non_null(strstr(finding.detail, "slot table"));
    fresh.address = heap + heap_bytes - 1;
    assert_false(nvd_oracle_admits(&evidence, "slot 9", fresh, &finding));
    assert_int_equal(finding.verdict, NVD_VERDICT_CORRUPT);
}

static void disjoint_blocks_may_touch_but_not_share(void **state)
{
    (void)state;
    struct nvc_block touching[] = {{heap + 128, 64}, {heap, 64}, {heap + 64, 64}};
    assert_true(nvd_oracle_disjoint(touching, 3, &finding));
    struct nvc_block sharing[] = {{heap + 128, 64}, {heap, 65}, {heap + 64, 64}};
    assert_false(nvd_oracle_disjoint(sharing, 3, &finding));
    assert_int_equal(finding.verdict, NVD_VERDICT_OVERLAP);
}

static void names_and_verdicts_map_one_to_one(void **state)
{
    (void)state;
    for (int i = 0; i < NVD_VERDICTS; i++) {
        enum nvd_verdict back;
        assert_true(nvd_verdict_parse(nvd_verdict_name((enum nvd_verdict)i), &back));
        assert_int_equal(back, i);
    }
    enum nvd_verdict none;
    assert_false(nvd_verdict_parse("fine", &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_sound_heap_is_not_accused, make_sound_heap),
        cmocka_unit_test_setup(an_empty_slot_that_is_owed_a_block_is_lost,
                               make_sound_heap),
        cmocka_unit_test_setup(a_slot_that_moved_to_another_block_is_lost,
                               make_sound_heap),
        cmocka_unit_test_setup(a_block_in_a_slot_owed_empty_is_resurrected,
                               make_sound_heap),
        cmocka_unit_test_setup(an_operation_in_flight_may_be_whole_or_absent,
                               make_sound_heap),
        cmocka_unit_test_setup(an_absent_free_keeps_the_block_and_its_content,
                               make_sound_heap),
        cmocka_unit_test_setup(a_half_done_alloc_is_an_overlap_with_the_free_space,
                               make_sound_heap),
        cmocka_unit_test_setup(two_blocks_on_the_same_bytes_overlap, make_sound_heap),
        cmocka_unit_test_setup(an_overlap_behind_a_smaller_block_is_found,
                               make_sound_heap),
        cmocka_unit_test_setup(a_block_on_the_slot_table_overlaps, make_sound_heap),
        cmocka_unit_test_setup(a_block_walked_twice_overlaps, make_sound_heap),
        cmocka_unit_test_setup(a_reference_out_of_the_heap_is_corrupt, make_sound_heap),
        cmocka_unit_test_setup(a_block_that_shrank_is_corrupt, make_sound_heap),
        cmocka_unit_test_setup(foreign_content_is_corrupt_and_its_author_named,
                               make_sound_heap),
        cmocka_unit_test_setup(content_that_was_not_persisted_is_not_owed,
                               make_sound_heap),
        cmocka_unit_test_setup(a_walked_block_in_no_slot_is_a_leak, make_sound_heap),
        cmocka_unit_test_setup(a_walk_that_accounts_for_more_bytes_is_a_leak,
                               make_sound_heap),
        cmocka_unit_test_setup(the_slot_is_named_before_what_follows_from_it,
                               make_sound_heap),
        cmocka_unit_test_setup(an_overlap_is_named_before_the_content_it_spoils,
                               make_sound_heap),
        cmocka_unit_test_setup(a_slot_in_a_sound_container_speaks_for_itself,
                               make_sound_heap),
        cmocka_unit_test_setup(a_slot_in_a_container_owned_twice_is_a_victim,
                               make_sound_heap),
        cmocka_unit_test_setup(a_slot_in_a_spoilt_container_is_a_victim, make_sound_heap),
        cmocka_unit_test_setup(a_new_block_is_held_against_every_live_one,
                               make_sound_heap),
        cmocka_unit_test(disjoint_blocks_may_touch_but_not_share),
        cmocka_unit_test(names_and_verdicts_map_one_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
