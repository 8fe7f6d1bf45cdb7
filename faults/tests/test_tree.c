// SPDX-License-Identifier: Apache-2.0
/*
 * test_tree.c - the decision tree against brute force.
 *
 * A pretended recovery reads lines in an order that depends on what it finds, drawn from
 * a seed.  Whatever is proposed is run until the tree says that all is decided; then each
 * assignment of the whole product must be decided, the cylinders must add up to the
 * product, and the verdict of each assignment must be that of the run that decided it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tree.h"

enum { lines_max = 6, choices_max = 4 };

static uint64_t random_state;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

/* Which line is read next, after these choices were read so far; count: none. */
struct recovery {
    uint64_t seed;
    uint32_t count;
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 31;
}

static size_t recover(const struct recovery *recovery, const uint32_t *assignment,
                      uint32_t *reads, bool *verdict)
{
    uint64_t hash = recovery->seed;
    bool read[lines_max] = {false};
    size_t count = 0;
    for (;;) {
        uint32_t line = (uint32_t)((hash = mix(hash, 1)) % (recovery->count + 1));
        if (line == recovery->count || read[line])
            break;
        read[line] = true;
        reads[count++] = line;
        hash = mix(hash, assignment[line] + 2);
    }
    *verdict = mix(hash, 3) % 4 != 0;
    return count;
}

struct instance {
    uint32_t choices[lines_max];
    long double weight[lines_max][choices_max], legal[lines_max];
    const long double *weights[lines_max];
    struct recovery recovery;
    long double product;
};

static void make(struct instance *instance, uint64_t seed)
{
    random_state = seed;
    memset(instance, 0, sizeof *instance);
    instance->recovery = (struct recovery){mix(seed, 7), 1 + draw(lines_max)};
    instance->product = 1;
    for (uint32_t i = 0; i < instance->recovery.count; i++) {
        instance->choices[i] = 2 + draw(choices_max - 1);
        for (uint32_t c = 0; c < instance->choices[i]; c++) {
            instance->weight[i][c] = 1 + draw(5);
            instance->legal[i] += instance->weight[i][c];
        }
        instance->weights[i] = instance->weight[i];
        instance->product *= instance->legal[i];
    }
}

static bool next_of_product(const struct instance *instance, uint32_t *assignment)
{
    uint32_t i = 0;
    while (i < instance->recovery.count && ++assignment[i] == instance->choices[i])
        assignment[i++] = 0;
    return i < instance->recovery.count;
}

static void check_instance(uint64_t seed)
{
    struct instance instance;
    make(&instance, seed);
    struct nvl_tree *tree = nvl_tree_new(&(struct nvl_tree_lines){
        instance.recovery.count, instance.choices, instance.weights, instance.legal});
    uint32_t assignment[lines_max] = {0}, reads[lines_max];
    long double covered = 0;
    unsigned runs = 0, product = 0;
    bool verdict, sound;
    while (nvl_tree_next(tree, assignment)) {
        assert_false(nvl_tree_complete(tree));
        assert_false(nvl_tree_decided(tree, assignment));
        size_t count = recover(&instance.recovery, assignment, reads, &verdict);
        long double decided = nvl_tree_insert(tree, assignment, reads, count, &sound);
        assert_true(sound);
        assert_true(decided > 0);
        assert_true(nvl_tree_decided(tree, assignment));
        covered += decided;
        runs++;
        /* A sample out of turn, now and then. */
        if (draw(3) == 0) {
            uint32_t sample[lines_max];
            for (uint32_t i = 0; i < instance.recovery.count; i++)
                sample[i] = draw(instance.choices[i]);
            bool known = nvl_tree_decided(tree, sample);
            count = recover(&instance.recovery, sample, reads, &verdict);
            decided = nvl_tree_insert(tree, sample, reads, count, &sound);
            assert_true(sound);
            assert_true(known == (decided == 0));
            covered += decided;
            runs += decided > 0;
        }
    }
    assert_true(nvl_tree_complete(tree));
    assert_true(covered == instance.product);
    memset(assignment, 0, sizeof assignment);
    do {
        assert_true(nvl_tree_decided(tree, assignment));
        product++;
    } while (next_of_product(&instance, assignment));
    assert_true(runs <= product);
    nvl_tree_free(tree);
}

static void every_state_is_decided_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++)
        check_instance(seed);
}

static void another_order_is_noticed(void **state)
{
    (void)state;
    const uint32_t choices[] = {2, 2};
    const long double ones[] = {1, 1}, legal[] = {2, 2};
    const long double *const weights[] = {ones, ones};
    const uint32_t forth[] = {0, 1}, back[] = {1, 0}, floor[] = {0, 0}, other[] = {0, 1};
    struct nvl_tree *tree =
        nvl_tree_new(&(struct nvl_tree_lines){2, choices, weights, legal});
    bool sound;
    assert_true(nvl_tree_insert(tree, floor, forth, 2, &sound) == 1);
    assert_true(sound);
    nvl_tree_insert(tree, other, back, 2, &sound);
    assert_false(sound);
    nvl_tree_insert(tree, floor, forth, 1, &sound);
    assert_false(sound);
    nvl_tree_free(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_is_decided_once),
        cmocka_unit_test(another_order_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
