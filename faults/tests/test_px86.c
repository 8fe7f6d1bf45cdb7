// SPDX-License-Identifier: Apache-2.0
/*
 * test_px86.c - the persistency model against states computed by hand.
 *
 * A litmus program is two threads of a few instructions.  Every interleaving of their
 * steps with the draining of their store buffers is gone through; after each step the
 * power is cut, and every legal state of media is noted as the values of a few
 * variables.  The set must equal the one in the test, which was worked out by hand from
 * the rules at the head of px86.h: no state too few, none too many.
 *
 * Variables are bytes: x and y lie in one line, a and b in two lines of their own.  A
 * state is written as its values, "10" for x = 1, y = 0.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "px86.h"
#include "px86_buffer.h"

enum {
    image_size = 4 * PX86_LINE,
    X = 0,
    Y = 8,
    A = PX86_LINE,
    B = 2 * PX86_LINE,
    FAR = 3 * PX86_LINE, /* never shown */
    steps_max = 8,
    states_max = 256,
};

enum instruction {
    END = 0,
    STORE,      /* at, value */
    STORE_WIDE, /* 16 bytes of value */
    STORE_ODD,  /* 8 bytes of value, not aligned */
    STORE_LINE, /* movdir64b: 64 bytes of value */
    STORE_NT,
    CLWB,
    CLFLUSH_,
    SFENCE,
    MFENCE, /* also any locked instruction */
    COPY,   /* at = what is read from `from`, plus value */
};

struct step {
    enum instruction what;
    size_t at;
    uint8_t value;
    size_t from;
};

struct program {
    struct step thread[2][steps_max];
    enum px86_domain domain;
    size_t shown[4];
    size_t shown_count;
    bool only_at_end; /* crash when everything has run and drained */
};

struct found {
    char state[states_max][8];
    size_t count;
};

/* One interleaving, from its beginning: the choices say who goes. */
struct machine {
    uint8_t media[image_size], visible[image_size];
    struct px86 *model;
    struct px86_buffer buffer[2];
    uint32_t next[2];
};

static void note(struct found *found, const char *state)
{
    for (size_t i = 0; i < found->count; i++) {
        if (strcmp(found->state[i], state) == 0)
            return;
    }
    assert_true(found->count < states_max);
    snprintf(found->state[found->count++], sizeof found->state[0], "%s", state);
}

static void write_state(const struct program *program, const uint8_t *media, char *text)
{
    for (size_t i = 0; i < program->shown_count; i++)
        text[i] = (char)('0' + media[program->shown[i]]);
    text[program->shown_count] = '\0';
}

/* Every combination of the dirty lines' choices. */
static void note_states(const struct program *program, struct machine *machine,
                        struct found *found)
{
    struct px86_line *const *lines;
    size_t count = px86_dirty(machine->model, &lines);
    uint32_t chosen[8] = {0};
    assert_true(count <= 4);
    for (;;) {
        uint8_t media[image_size];
        char text[8];
        memcpy(media, machine->media, image_size);
        for (size_t i = 0; i < count; i++)
            memcpy(media + (size_t)lines[i]->index * PX86_LINE,
                   lines[i]->choices[chosen[i]].content, PX86_LINE);
        write_state(program, media, text);
        note(found, text);
        size_t i = 0;
        while (i < count && ++chosen[i] == lines[i]->choice_count)
            chosen[i++] = 0;
        if (i == count)
            return;
    }
}

static struct px86_entry entry_of(const struct step *step, uint8_t value)
{
    struct px86_entry entry = {.offset = step->at, .length = 1};
    memset(entry.data, value, sizeof entry.data);
    switch (step->what) {
    case STORE_WIDE:
        entry.length = 16;
        break;
    case STORE_ODD:
        entry.length = 8;
        break;
    case STORE_LINE:
        entry.kind = PX86_STORE_WHOLE;
        entry.length = PX86_LINE;
        return entry;
    case STORE_NT:
        entry.kind = PX86_STORE_NT;
        entry.length = 8;
        return entry;
    case CLWB:
        entry.kind = PX86_FLUSH;
        return entry;
    case CLFLUSH_:
        entry.kind = PX86_CLFLUSH;
        return entry;
    case SFENCE:
        entry.kind = PX86_SFENCE;
        return entry;
    default:
        break;
    }
    entry.kind = PX86_STORE;
    return entry;
}

/* True if the thread could take its next step. */
static bool step_thread(const struct program *program, struct machine *machine, int t)
{
    const struct step *step = &program->thread[t][machine->next[t]];
    if (machine->next[t] == steps_max || step->what == END)
        return false;
    if (step->what == MFENCE) {
        if (machine->buffer[t].count > 0)
            return false;
        px86_fence(machine->model, (uint32_t)t);
    } else {
        uint8_t value = step->value;
        if (step->what == COPY)
            value = (uint8_t)(value + px86_buffer_read(&machine->buffer[t],
                                                       machine->visible, step->from));
        struct px86_entry entry = entry_of(step, value);
        assert_true(px86_buffer_enter(&machine->buffer[t], &entry));
    }
    machine->next[t]++;
    return true;
}

static bool drain(const struct program *program, struct machine *machine, int t)
{
    if (machine->buffer[t].count == 0)
        return false;
    px86_buffer_leave(&machine->buffer[t], (uint32_t)t, machine->model, program->domain,
                      machine->visible);
    return true;
}

static bool act(const struct program *program, struct machine *machine, int action)
{
    return action < 2 ? step_thread(program, machine, action)
                      : drain(program, machine, action - 2);
}

static bool finished(const struct program *program, const struct machine *machine)
{
    for (int t = 0; t < 2; t++) {
        if (machine->buffer[t].count > 0 ||
            (machine->next[t] < steps_max && program->thread[t][machine->next[t]].what))
            return false;
    }
    return true;
}

/* Models can't be copied, so each interleaving is run from its beginning. */
static void explore(const struct program *program, int *actions, int count,
                    struct found *found)
{
    for (int action = 0; action < 4; action++) {
        struct machine machine = {0};
        machine.model = px86_new(machine.media, image_size, program->domain,
                                 px86_hash_image(machine.media, image_size));
        for (int i = 0; i < count; i++)
            assert_true(act(program, &machine, actions[i]));
        if (count == 0 && action == 0 && !program->only_at_end)
            note_states(program, &machine, found);
        bool acted = act(program, &machine, action);
        if (acted) {
            px86_check(machine.model);
            if (!program->only_at_end || finished(program, &machine))
                note_states(program, &machine, found);
        }
        px86_free(machine.model);
        if (acted) {
            actions[count] = action;
            explore(program, actions, count + 1, found);
        }
    }
}

static int by_text(const void *left, const void *right)
{
    return strcmp(left, right);
}

/* `expected`: states in ascending order, separated by blanks. */
static void expect(const struct program *program, const char *expected)
{
    struct found found = {.count = 0};
    int actions[4 * steps_max];
    char text[states_max * 8] = "";
    explore(program, actions, 0, &found);
    qsort(found.state, found.count, sizeof found.state[0], by_text);
    size_t length = 0;
    for (size_t i = 0; i < found.count; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s",
                                   i > 0 ? " " : "", found.state[i]);
    assert_string_equal(text, expected);
}

#define SHOW(...)                                                                        \
    .shown = {__VA_ARGS__},                                                              \
    .shown_count = sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t)

/* ---- rule 1: store buffers ---- */

static void rule_1_own_store_is_forwarded(void **state)
{
    (void)state;
    /* Each thread stores, then copies what it sees of both. With forwarding the own
       store is always seen: b = a + 1 = 2. */
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}, {COPY, B, 1, A}}},
                             .only_at_end = true,
                             SHOW(A, B)},
           "00 02 10 12");
}

static void rule_1_both_may_miss_the_other(void **state)
{
    (void)state;
    /* Store buffering: each thread stores, then notes what it sees of the other, plus 1.
       Both may see 0 ("11"), which no interleaving without buffers gives.  The notes lie
       in one line, so either may be there without the other. */
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}, {COPY, X, 1, B}},
                                        {{STORE, B, 1, 0}, {COPY, Y, 1, A}}},
                             .only_at_end = true,
                             SHOW(X, Y)},
           "00 01 02 10 11 12 20 21 22");
}

static void rule_1_mfence_forbids_that(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{STORE, A, 1, 0}, {MFENCE, 0, 0, 0}, {COPY, X, 1, B}},
                       {{STORE, B, 1, 0}, {MFENCE, 0, 0, 0}, {COPY, Y, 1, A}}},
            .only_at_end = true,
            SHOW(X, Y)},
        "00 01 02 10 12 20 21 22");
}

/* ---- rule 2: units ---- */

static void rule_2_a_wide_store_is_torn_in_any_order(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_WIDE, X, 1, 0}}}, SHOW(X, Y)},
           "00 01 10 11");
}

static void rule_2_an_aligned_store_is_not_torn(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_NT, X, 1, 0}}}, SHOW(X, X + 7)}, "00 11");
}

static void rule_2_a_misaligned_store_is_torn(void **state)
{
    (void)state;
    /* 8 bytes at 4: 4..7 and 8..11. */
    expect(&(struct program){.thread = {{{STORE_ODD, 4, 1, 0}}}, SHOW(4, 7, 8, 11)},
           "0000 0011 1100 1111");
}

static void rule_2_movdir64b_is_one_unit(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_LINE, A, 1, 0}}}, SHOW(A, A + 63)},
           "00 11");
}

/* ---- rule 3: prefixes of a line, each line for itself ---- */

static void rule_3_one_line_keeps_order(void **state)
{
    (void)state;
    expect(
        &(struct program){.thread = {{{STORE, X, 1, 0}, {STORE, Y, 1, 0}}}, SHOW(X, Y)},
        "00 10 11");
}

static void rule_3_lines_have_no_order(void **state)
{
    (void)state;
    expect(
        &(struct program){.thread = {{{STORE, A, 1, 0}, {STORE, B, 1, 0}}}, SHOW(A, B)},
        "00 01 10 11");
}

static void rule_3_two_threads_on_one_line(void **state)
{
    (void)state;
    expect(
        &(struct program){.thread = {{{STORE, X, 1, 0}}, {{STORE, Y, 1, 0}}}, SHOW(X, Y)},
        "00 01 10 11");
    expect(&(struct program){.thread = {{{STORE, X, 1, 0}}, {{STORE, X, 2, 0}}},
                             .only_at_end = true,
                             SHOW(X)},
           "0 1 2");
}

/* ---- rules 4 and 5: clwb, then a fence ---- */

static void rule_4_clwb_alone_promises_nothing(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}, {CLWB, A, 0, 0}}},
                             .only_at_end = true,
                             SHOW(A)},
           "0 1");
}

static void rule_4_and_5_clwb_and_fence(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{STORE, A, 1, 0}, {CLWB, A, 0, 0}, {SFENCE, 0, 0, 0}}},
            .only_at_end = true,
            SHOW(A)},
        "1");
    /* So what follows the fence finds a on media: b = 1 implies a = 1. */
    expect(&(struct program){.thread = {{{STORE, A, 1, 0},
                                         {CLWB, A, 0, 0},
                                         {SFENCE, 0, 0, 0},
                                         {STORE, B, 1, 0}}},
                             SHOW(A, B)},
           "00 10 11");
}

static void rule_4_a_flush_before_the_store(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{CLWB, A, 0, 0}, {STORE, A, 1, 0}, {SFENCE, 0, 0, 0}}},
            .only_at_end = true,
            SHOW(A)},
        "0 1");
}

static void rule_4_a_flush_of_the_wrong_line(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{STORE, A, 1, 0}, {CLWB, B, 0, 0}, {SFENCE, 0, 0, 0}}},
            .only_at_end = true,
            SHOW(A)},
        "0 1");
}

static void rule_4_a_store_after_the_flush(void **state)
{
    (void)state;
    /* The fence covers what the flush noted, not the store between. */
    expect(&(struct program){.thread = {{{STORE, X, 1, 0},
                                         {CLWB, X, 0, 0},
                                         {STORE, Y, 1, 0},
                                         {SFENCE, 0, 0, 0}}},
                             .only_at_end = true,
                             SHOW(X, Y)},
           "10 11");
}

static void rule_5_a_locked_instruction_is_a_fence(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{STORE, A, 1, 0}, {CLWB, A, 0, 0}, {MFENCE, 0, 0, 0}}},
            .only_at_end = true,
            SHOW(A)},
        "1");
}

static void rule_5_another_threads_fence_does_not_help(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}, {CLWB, A, 0, 0}},
                                        {{SFENCE, 0, 0, 0}}},
                             .only_at_end = true,
                             SHOW(A)},
           "0 1");
}

static void rule_5_another_threads_flush_and_fence_do(void **state)
{
    (void)state;
    /* The other thread sees a = 1, flushes and fences it, and only then stores b = 2; if
       it saw 0 it stores b = 1, and a is not promised. */
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}},
                                        {{COPY, FAR, 1, A},
                                         {CLWB, A, 0, 0},
                                         {MFENCE, 0, 0, 0},
                                         {COPY, B, 0, FAR}}},
                             .only_at_end = true,
                             SHOW(A, B)},
           "00 01 10 11 12");
}

/* ---- rule 6: clflush ---- */

static void rule_6_clflush_needs_no_fence(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{STORE, A, 1, 0}, {CLFLUSH_, A, 0, 0}, {STORE, B, 1, 0}}},
            SHOW(A, B)},
        "00 10 11");
}

static void rule_6_clflush_of_anothers_store(void **state)
{
    (void)state;
    expect(
        &(struct program){
            .thread = {{{STORE, A, 1, 0}},
                       {{COPY, FAR, 1, A}, {CLFLUSH_, A, 0, 0}, {COPY, B, 0, FAR}}},
            .only_at_end = true,
            SHOW(A, B)},
        "00 01 10 11 12");
}

/* ---- rule 7: non-temporal stores ---- */

static void rule_7_units_in_any_order_until_the_fence(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_NT, X, 1, 0}, {STORE_NT, Y, 1, 0}}},
                             SHOW(X, Y)},
           "00 01 10 11");
    expect(
        &(struct program){
            .thread = {{{STORE_NT, X, 1, 0}, {STORE_NT, Y, 1, 0}, {SFENCE, 0, 0, 0}}},
            .only_at_end = true,
            SHOW(X, Y)},
        "11");
}

static void rule_7_the_same_place_keeps_order(void **state)
{
    (void)state;
    /* x: 0, 1, 2 in this order; y: 0, 1; independent. */
    expect(
        &(struct program){
            .thread = {{{STORE_NT, X, 1, 0}, {STORE_NT, Y, 1, 0}, {STORE_NT, X, 2, 0}}},
            .only_at_end = true,
            SHOW(X, Y)},
        "00 01 10 11 20 21");
}

static void rule_7_another_threads_flush_does_not_reach_them(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_NT, A, 1, 0}},
                                        {{CLWB, A, 0, 0}, {SFENCE, 0, 0, 0}}},
                             .only_at_end = true,
                             SHOW(A)},
           "0 1");
}

static void rule_7_nor_another_threads_fence(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_NT, A, 1, 0}}, {{MFENCE, 0, 0, 0}}},
                             .only_at_end = true,
                             SHOW(A)},
           "0 1");
}

/* ---- rule 8: eADR ---- */

static void rule_8_visible_is_durable(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}, {STORE, B, 1, 0}}},
                             .domain = PX86_EADR,
                             SHOW(A, B)},
           "00 10 11");
    expect(&(struct program){.thread = {{{STORE, A, 1, 0}}},
                             .domain = PX86_EADR,
                             .only_at_end = true,
                             SHOW(A)},
           "1");
}

static void rule_8_but_not_past_the_caches(void **state)
{
    (void)state;
    expect(&(struct program){.thread = {{{STORE_NT, A, 1, 0}, {STORE, B, 1, 0}}},
                             .domain = PX86_EADR,
                             .only_at_end = true,
                             SHOW(A, B)},
           "01 11");
    expect(&(struct program){.thread = {{{STORE_NT, A, 1, 0}, {SFENCE, 0, 0, 0}}},
                             .domain = PX86_EADR,
                             .only_at_end = true,
                             SHOW(A)},
           "1");
}

static void rule_8_a_kept_store_over_a_waiting_one(void **state)
{
    (void)state;
    /* The cached store replaces the byte that waits past the caches: it can't be undone
       by it later. */
    expect(&(struct program){.thread = {{{STORE_NT, X, 1, 0}, {STORE, X, 2, 0}}},
                             .domain = PX86_EADR,
                             .only_at_end = true,
                             SHOW(X)},
           "2");
}

/* ---- rule 9: one trace serves all three ---- */

static void rule_9_program_order_is_the_last_choice(void **state)
{
    (void)state;
    uint8_t media[image_size] = {0};
    struct px86 *model =
        px86_new(media, image_size, PX86_ADR, px86_hash_image(media, image_size));
    struct px86_line *const *lines;
    uint8_t one = 1, two = 2;
    px86_store(model, &(struct px86_store){.offset = X, .length = 1, .data = &one});
    px86_store(model, &(struct px86_store){.offset = Y, .length = 1, .data = &one});
    px86_store(model, &(struct px86_store){.offset = X, .length = 1, .data = &two});
    assert_int_equal(px86_dirty(model, &lines), 1);
    const struct px86_line *line = lines[0];
    assert_int_equal(line->choice_count, 4);
    assert_int_equal(line->choices[0].content[X], 0);
    assert_int_equal(line->choices[3].content[X], 2);
    assert_int_equal(line->choices[3].content[Y], 1);
    assert_true(px86_legal(model) == 4);
    px86_check(model);
    px86_free(model);
}

static void counts_are_exact(void **state)
{
    (void)state;
    uint8_t media[image_size] = {0}, ones[PX86_LINE], twos[8];
    struct px86 *model =
        px86_new(media, image_size, PX86_ADR, px86_hash_image(media, image_size));
    struct px86_line *const *lines;
    memset(ones, 1, sizeof ones);
    memset(twos, 2, sizeof twos);
    /* A whole line by a wide store: 2^8 states; then one more unit: 257. */
    px86_store(model, &(struct px86_store){.offset = A, .length = 64, .data = ones});
    assert_true(px86_legal(model) == 256);
    px86_store(model, &(struct px86_store){.offset = A, .length = 8, .data = twos});
    assert_true(px86_legal(model) == 257);
    /* Two more lines multiply: 257 * 2 * 3. */
    px86_store(model, &(struct px86_store){.offset = B, .length = 8, .data = ones});
    px86_store(model, &(struct px86_store){.offset = FAR, .length = 8, .data = ones});
    px86_store(model, &(struct px86_store){.offset = FAR, .length = 8, .data = ones});
    assert_true(px86_legal(model) == 257 * 2 * 3);
    /* The second store to FAR changes nothing: two looks, one of them twice. */
    assert_int_equal(px86_dirty(model, &lines), 3);
    assert_int_equal(lines[2]->choice_count, 2);
    assert_true(lines[2]->choices[0].count + lines[2]->choices[1].count == 3);
    /* After a flush and a fence nothing of A is open. */
    px86_flush(model, 0, A, 64);
    assert_true(px86_fence_matters(model, 0));
    assert_false(px86_fence_matters(model, 1));
    px86_fence(model, 0);
    assert_true(px86_legal(model) == 2 * 3);
    px86_check(model);
    px86_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_1_own_store_is_forwarded),
        cmocka_unit_test(rule_1_both_may_miss_the_other),
        cmocka_unit_test(rule_1_mfence_forbids_that),
        cmocka_unit_test(rule_2_a_wide_store_is_torn_in_any_order),
        cmocka_unit_test(rule_2_an_aligned_store_is_not_torn),
        cmocka_unit_test(rule_2_a_misaligned_store_is_torn),
        cmocka_unit_test(rule_2_movdir64b_is_one_unit),
        cmocka_unit_test(rule_3_one_line_keeps_order),
        cmocka_unit_test(rule_3_lines_have_no_order),
        cmocka_unit_test(rule_3_two_threads_on_one_line),
        cmocka_unit_test(rule_4_clwb_alone_promises_nothing),
        cmocka_unit_test(rule_4_and_5_clwb_and_fence),
        cmocka_unit_test(rule_4_a_flush_before_the_store),
        cmocka_unit_test(rule_4_a_flush_of_the_wrong_line),
        cmocka_unit_test(rule_4_a_store_after_the_flush),
        cmocka_unit_test(rule_5_a_locked_instruction_is_a_fence),
        cmocka_unit_test(rule_5_another_threads_fence_does_not_help),
        cmocka_unit_test(rule_5_another_threads_flush_and_fence_do),
        cmocka_unit_test(rule_6_clflush_needs_no_fence),
        cmocka_unit_test(rule_6_clflush_of_anothers_store),
        cmocka_unit_test(rule_7_units_in_any_order_until_the_fence),
        cmocka_unit_test(rule_7_the_same_place_keeps_order),
        cmocka_unit_test(rule_7_another_threads_flush_does_not_reach_them),
        cmocka_unit_test(rule_7_nor_another_threads_fence),
        cmocka_unit_test(rule_8_visible_is_durable),
        cmocka_unit_test(rule_8_but_not_past_the_caches),
        cmocka_unit_test(rule_8_a_kept_store_over_a_waiting_one),
        cmocka_unit_test(rule_9_program_order_is_the_last_choice),
        cmocka_unit_test(counts_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
