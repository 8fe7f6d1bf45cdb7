/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arenas of units (numa.h): the rules U1 to U4 by name, against a map of one byte a
 * unit, and several threads with an owner's mark on each unit. argv[1]: steps of a
 * random run.
 */
#include "test_vmem.h"

#include "numa.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define CHECK_UNITS(units)                                                               \
    do {                                                                                 \
        char why_[256];                                                                  \
        if (!nvm_numa_check(units, why_, sizeof(why_))) {                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, why_);      \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

static unsigned long steps = 60000;

/* U4: as one arena with VM_BESTFIT, address by address. */
static void test_one_node_places_like_a_single_arena(void)
{
    enum { UNITS = 2048, LIVE = 400 };
    static struct {
        uint64_t first, count;
    } live[LIVE];
    struct nvm_numa *units = nvm_numa_create("one", UNITS, UNITS, 1);
    vmem_t *single = vmem_create("single", ADDR(1), UNITS, 1, NULL, NULL, NULL, 0,
                                 VM_NOSLEEP | VMC_IDENTIFIER);
    uint64_t rng = 99, refused = 0;

    for (unsigned long i = 0; i < steps; i++) {
        size_t at = test_random(&rng) % LIVE;
        if (live[at].count != 0) {
            nvm_numa_free(units, live[at].first, live[at].count);
            vmem_free(single, ADDR(live[at].first + 1), live[at].count);
            live[at].count = 0;
            continue;
        }
        uint64_t count = 1 + test_random(&rng) % (test_random(&rng) % 4 ? 8 : 60);
        uint64_t first = nvm_numa_alloc(units, 0, count);
        void *address = vmem_alloc(single, count, VM_NOSLEEP | VM_BESTFIT);
        CHECK((first == NVM_NUMA_NONE) == (address == NULL));
        refused += address == NULL;
        if (address == NULL)
            continue;
        CHECK(first + 1 == (uintptr_t)address);
        live[at].first = first;
        live[at].count = count;
    }
    CHECK(refused > 0);
    CHECK(nvm_numa_free_count(units) == vmem_size(single, VMEM_FREE));
    CHECK_UNITS(units);
    vmem_destroy(single);
    nvm_numa_destroy(units);
}

/* U2: the one run that is long enough lies in the heap's arena and in both nodes'. */
static void test_a_run_across_all_arenas_can_be_had(void)
{
    for (unsigned node = 0; node < 2; node++) {
        struct nvm_numa *units = nvm_numa_create("across", 2048, 2048, 2);
        uint64_t a = nvm_numa_alloc(units, 0, 1); /* imports a batch */
        uint64_t b = nvm_numa_alloc(units, 1, 1); /* the next one */
        CHECK(a == 0 && b == 64);
        CHECK(vmem_size(nvm_numa_node_arena(units, 0), VMEM_SPAN) == 64);
        CHECK(vmem_size(nvm_numa_node_arena(units, 1), VMEM_SPAN) == 64);
        CHECK(nvm_numa_free_count(units) == 2046);
        /* [65, 2048): the rest of node 1's batch, and what the heap has left. */
        CHECK(nvm_numa_alloc(units, node, 1984) == NVM_NUMA_NONE);
        CHECK(nvm_numa_alloc(units, node, 1983) == 65);
        CHECK(nvm_numa_alloc(units, 1 - node, 63) == 1);
        CHECK(nvm_numa_free_count(units) == 0);
        CHECK_UNITS(units);
        nvm_numa_free(units, 65, 1983);
        nvm_numa_free(units, b, 1);
        CHECK(nvm_numa_alloc(units, 1 - node, 1984) == 64);
        CHECK_UNITS(units);
        nvm_numa_destroy(units);
    }
}

/* Every single unit can be had from one node after the other nodes took all and gave back
   all but one of each eight. */
static void test_a_dry_node_gets_what_others_have_free(void)
{
    enum { UNITS = 1024 };
    struct nvm_numa *units = nvm_numa_create("dry", UNITS, UNITS, 4);

    for (unsigned i = 0; i < UNITS; i++)
        CHECK(nvm_numa_alloc(units, i % 3, 1) != NVM_NUMA_NONE);
    CHECK(nvm_numa_alloc(units, 3, 1) == NVM_NUMA_NONE);
    for (uint64_t i = 0; i < UNITS; i++)
        if (i % 8 != 0)
            nvm_numa_free(units, i, 1);
    for (unsigned i = 0; i < UNITS / 8; i++)
        CHECK(nvm_numa_alloc(units, 3, 7) % 8 == 1);
    CHECK(nvm_numa_alloc(units, 0, 1) == NVM_NUMA_NONE);
    CHECK(nvm_numa_free_count(units) == 0);
    CHECK_UNITS(units);
    nvm_numa_destroy(units);
}

static void test_claims_at_open_and_while_running(void)
{
    enum { UNITS = 100000 };
    struct nvm_numa *units = nvm_numa_create("claims", UNITS, UNITS, 2);
    vmem_kstat_t counters;

    for (uint64_t first = 0; first + 3 <= UNITS; first += 5)
        CHECK(nvm_numa_claim(units, first, 3));
    vmem_kstat(nvm_numa_heap_arena(units), &counters);
    CHECK(counters.vk_search < 3 * UNITS / 5); /* constant a claim */
    CHECK(nvm_numa_free_count(units) == UNITS / 5 * 2);
    CHECK(!nvm_numa_claim(units, 2, 1) && !nvm_numa_claim(units, 3, 3));
    CHECK(!nvm_numa_claim(units, UNITS - 1, 2) && !nvm_numa_claim(units, 0, 0));
    CHECK(!nvm_numa_claim(units, UINT64_MAX, 2));
    CHECK(nvm_numa_alloc(units, 0, 3) == NVM_NUMA_NONE);
    nvm_numa_free(units, 5, 3); /* [3, 10) */
    CHECK(nvm_numa_alloc(units, 1, 7) == 3);
    nvm_numa_free(units, 3, 7);

    /* What a node holds free can be claimed too: in place, where a block grows. */
    for (uint64_t first = 10; first + 3 <= UNITS; first += 5)
        nvm_numa_free(units, first, 3);
    uint64_t a = nvm_numa_alloc(units, 0, 10);
    CHECK(a != NVM_NUMA_NONE && nvm_numa_claim(units, a + 10, 5));
    CHECK(!nvm_numa_claim(units, a + 14, 1));
    CHECK_UNITS(units);
    nvm_numa_free(units, a + 10, 5);
    nvm_numa_free(units, a, 10);
    nvm_numa_destroy(units);
}

static void test_growth_lengthens_the_free_run_at_the_end(void)
{
    for (unsigned nodes = 1; nodes <= 2; nodes++) {
        struct nvm_numa *units = nvm_numa_create("growing", 100, 300, nodes);
        uint64_t a = nvm_numa_alloc(units, 0, 90);
        CHECK(a == 0 && nvm_numa_alloc(units, 0, 50) == NVM_NUMA_NONE);
        CHECK(nvm_numa_grow(units, 0) == EINVAL && nvm_numa_grow(units, 201) == EINVAL);
        CHECK(nvm_numa_total(units) == 100);
        CHECK(nvm_numa_grow(units, 50) == 0);
        CHECK(nvm_numa_total(units) == 150 && nvm_numa_free_count(units) == 60);
        CHECK(nvm_numa_alloc(units, nodes - 1, 60) == 90); /* across the old end */
        CHECK(nvm_numa_grow(units, 150) == 0 && nvm_numa_grow(units, 1) == EINVAL);
        CHECK(nvm_numa_claim(units, 290, 10) && nvm_numa_alloc(units, 0, 140) == 150);
        CHECK_UNITS(units);
        nvm_numa_destroy(units);
    }
}

static void test_nodes_are_found_and_can_be_stated(void)
{
    static const char *const bad[] = {"0", "65", "two", "1x", "-1"};

    CHECK(unsetenv("NVM_NUMA_NODES") == 0);
    unsigned here = nvm_numa_count_nodes();
    CHECK(here >= 1 && here <= NVM_NUMA_NODES_MAX);
    struct nvm_numa *units = nvm_numa_create("system", 100, 100, 0);
    CHECK(nvm_numa_nodes(units) == here && nvm_numa_here(units) < here);
    nvm_numa_destroy(units);

    CHECK(setenv("NVM_NUMA_NODES", "3", 1) == 0 && nvm_numa_count_nodes() == 3);
    units = nvm_numa_create("stated", 100, 100, 0);
    CHECK(nvm_numa_nodes(units) == 3 && nvm_numa_here(units) < 3);
    CHECK(vmem_source(nvm_numa_node_arena(units, 2)) == nvm_numa_heap_arena(units));
    CHECK(strcmp(vmem_name(nvm_numa_node_arena(units, 2)), "stated node 2") == 0);
    CHECK(nvm_numa_alloc(units, 7, 1) != NVM_NUMA_NONE); /* node 1 */
    CHECK(vmem_size(nvm_numa_node_arena(units, 1), VMEM_ALLOC) == 1);
    nvm_numa_destroy(units);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK(setenv("NVM_NUMA_NODES", bad[i], 1) == 0 && nvm_numa_count_nodes() == 0);
        CHECK(nvm_numa_create("bad", 100, 100, 0) == NULL && errno == EINVAL);
    }
    units = nvm_numa_create("aligned", 100, 100, 1);
    CHECK(nvm_numa_alloc_aligned(units, 1, 3) == NVM_NUMA_NONE && errno == EINVAL);
    CHECK(nvm_numa_alloc_aligned(units, 1, 0) == NVM_NUMA_NONE && errno == EINVAL);
    nvm_numa_destroy(units);
    CHECK(unsetenv("NVM_NUMA_NODES") == 0);
    CHECK(nvm_numa_create("none", 0, 100, 1) == NULL && errno == EINVAL);
    CHECK(nvm_numa_create("shrunk", 101, 100, 1) == NULL && errno == EINVAL);
    CHECK(nvm_numa_create("many", 100, 100, 65) == NULL && errno == EINVAL);
}

/* With the heap full of free units a node's small allocations lie in batches of its own.
 */
static void test_nodes_allocate_apart_while_there_is_room(void)
{
    enum { UNITS = 8192, EACH = 256 };
    struct nvm_numa *units = nvm_numa_create("apart", UNITS, UNITS, 2);
    static uint8_t node_of[UNITS / 64];

    for (unsigned i = 0; i < 2 * EACH; i++) {
        uint64_t unit = nvm_numa_alloc(units, i % 2, 1);
        CHECK(unit < UNITS);
        CHECK(node_of[unit / 64] == 0 || node_of[unit / 64] == i % 2 + 1);
        node_of[unit / 64] = (uint8_t)(i % 2 + 1);
    }
    CHECK(vmem_size(nvm_numa_heap_arena(units), VMEM_ALLOC) == 2 * EACH);
    nvm_numa_destroy(units);
}

/* ---- against a map ---- */

enum { MAP_MAX = 3000, PIECES = 300 };

typedef struct model {
    struct nvm_numa *units;
    uint64_t rng, total;
    uint8_t used[MAP_MAX];
    struct {
        uint64_t first, count;
    } piece[PIECES];
} model_t;

static bool has_run(const model_t *m, uint64_t count)
{
    uint64_t run = 0;

    for (uint64_t i = 0; i < m->total && run < count; i++)
        run = m->used[i] ? 0 : run + 1;
    return run >= count;
}

/* The run that holds count units at a multiple of align, if there is one. */
static bool has_aligned_run(const model_t *m, uint64_t count, uint64_t align)
{
    for (uint64_t first = 0, run = 0; first + count <= m->total; first += align) {
        for (run = 0; run < count && !m->used[first + run]; run++)
            continue;
        if (run == count)
            return true;
    }
    return false;
}

static bool is_free(const model_t *m, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++)
        if (i >= m->total || m->used[i])
            return false;
    return true;
}

static void take(model_t *m, size_t at, uint64_t first, uint64_t count)
{
    CHECK(is_free(m, first, count)); /* U1 */
    memset(m->used + first, 1, count);
    m->piece[at].first = first;
    m->piece[at].count = count;
}

static void give(model_t *m, size_t at)
{
    nvm_numa_free(m->units, m->piece[at].first, m->piece[at].count);
    memset(m->used + m->piece[at].first, 0, m->piece[at].count);
    m->piece[at].count = 0;
}

static void model_step(model_t *m)
{
    size_t at = test_random(&m->rng) % PIECES;
    uint64_t roll = test_random(&m->rng) % 1000;
    unsigned node = (unsigned)(test_random(&m->rng) % 5);
    uint64_t count = 1 + test_random(&m->rng) % (roll % 8 ? 12 : 150);

    if (m->piece[at].count != 0) {
        give(m, at);
    } else if (roll < 5 && m->total < MAP_MAX) {
        uint64_t more = 1 + test_random(&m->rng) % (MAP_MAX - m->total);
        CHECK(nvm_numa_grow(m->units, more) == 0);
        m->total += more;
    } else if (roll < 150) {
        uint64_t first = test_random(&m->rng) % m->total;
        bool free = is_free(m, first, count);
        CHECK(nvm_numa_claim(m->units, first, count) == free);
        if (free)
            take(m, at, first, count);
    } else if (roll < 300) {
        uint64_t align = (uint64_t)1 << test_random(&m->rng) % 7;
        bool fits = has_aligned_run(m, count, align);
        uint64_t first = nvm_numa_alloc_aligned(m->units, count, align);
        CHECK((first != NVM_NUMA_NONE) == fits); /* U2 */
        CHECK(!fits || first % align == 0);
        if (fits)
            take(m, at, first, count);
    } else {
        bool fits = has_run(m, count);
        uint64_t first = nvm_numa_alloc(m->units, node, count);
        CHECK((first != NVM_NUMA_NONE) == fits); /* U2 */
        if (fits)
            take(m, at, first, count);
    }
}

static void random_run(unsigned nodes, uint64_t seed)
{
    static model_t m;
    uint64_t used = 0;

    m = (model_t){.rng = seed, .total = 1500};
    m.units = nvm_numa_create("model", m.total, MAP_MAX, nodes);
    for (unsigned long i = 0; i < steps; i++) {
        model_step(&m);
        if (i % 256 == 0)
            CHECK_UNITS(m.units);
        if (i % 8192 == 8191) /* room again: batches come back */
            for (size_t at = 0; at < PIECES; at++)
                if (m.piece[at].count != 0 && at % 8 != 0)
                    give(&m, at);
    }
    for (uint64_t i = 0; i < m.total; i++)
        used += m.used[i];
    CHECK(nvm_numa_free_count(m.units) == m.total - used);
    CHECK(nvm_numa_total(m.units) == m.total);
    for (size_t at = 0; at < PIECES; at++)
        if (m.piece[at].count != 0)
            give(&m, at);
    CHECK(nvm_numa_alloc(m.units, 0, m.total) == 0);
    CHECK_UNITS(m.units);
    nvm_numa_destroy(m.units);
}

static void test_random_runs_against_a_map(void)
{
    for (unsigned nodes = 1; nodes <= 4; nodes++)
        random_run(nodes, 1000 + nodes);
}

/* ---- threads ---- */

enum { CROWD_UNITS = 4096, CROWD = 4, HELD = 64 };

static struct nvm_numa *crowded;
static _Atomic uint8_t holder[CROWD_UNITS];

static void mark(uint64_t first, uint64_t count, uint8_t from, uint8_t to)
{
    for (uint64_t i = first; i < first + count; i++)
        CHECK(atomic_exchange(&holder[i], to) == from);
}

static void *grower(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 8; i++) {
        usleep(1000);
        CHECK(nvm_numa_grow(crowded, CROWD_UNITS / 32) == 0);
        CHECK_UNITS(crowded);
    }
    return NULL;
}

static void *crowd(void *arg)
{
    uint8_t me = (uint8_t)(uintptr_t)arg;
    uint64_t rng = 31 * me;
    struct {
        uint64_t first, count;
    } held[HELD] = {{0, 0}};

    for (unsigned long i = 0; i < steps / 4; i++) {
        size_t at = test_random(&rng) % HELD;
        if (held[at].count != 0) {
            mark(held[at].first, held[at].count, me, 0);
            nvm_numa_free(crowded, held[at].first, held[at].count);
            held[at].count = 0;
            continue;
        }
        uint64_t count = 1 + test_random(&rng) % (test_random(&rng) % 16 ? 16 : 200);
        uint64_t first = nvm_numa_alloc(crowded, me % 2, count);
        if (first == NVM_NUMA_NONE)
            continue;
        mark(first, count, 0, me);
        held[at].first = first;
        held[at].count = count;
    }
    for (size_t at = 0; at < HELD; at++) {
        if (held[at].count == 0)
            continue;
        mark(held[at].first, held[at].count, me, 0);
        nvm_numa_free(crowded, held[at].first, held[at].count);
    }
    return NULL;
}

static void test_threads_on_two_nodes(void)
{
    pthread_t thread[CROWD], growing[2];

    crowded = nvm_numa_create("crowd", CROWD_UNITS / 2, CROWD_UNITS, 2);
    for (uintptr_t i = 0; i < CROWD; i++)
        CHECK(pthread_create(&thread[i], NULL, crowd, (void *)(i + 1)) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&growing[i], NULL, grower, NULL) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(growing[i], NULL) == 0);
    for (int i = 0; i < CROWD; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    CHECK(nvm_numa_free_count(crowded) == CROWD_UNITS);
    CHECK(nvm_numa_alloc(crowded, 1, CROWD_UNITS) == 0);
    CHECK_UNITS(crowded);
    nvm_numa_destroy(crowded);
}

static void free_twice(void)
{
    struct nvm_numa *units = nvm_numa_create("twice", 100, 100, 2);
    uint64_t a = nvm_numa_alloc(units, 1, 3);
    nvm_numa_free(units, a, 3);
    nvm_numa_free(units, a, 3);
}

static void free_beyond(void)
{
    nvm_numa_free(nvm_numa_create("beyond", 100, 100, 2), 100, 1);
}

static void test_misuse_aborts(void)
{
    const char *const twice[] = {"twice node 1", "found no allocation", NULL};
    const char *const beyond[] = {"beyond", "found no allocation", NULL};

    check_aborts(free_twice, twice);
    check_aborts(free_beyond, beyond);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        steps = strtoul(argv[1], NULL, 10);
    RUN(test_one_node_places_like_a_single_arena);
    RUN(test_a_run_across_all_arenas_can_be_had);
    RUN(test_a_dry_node_gets_what_others_have_free);
    RUN(test_claims_at_open_and_while_running);
    RUN(test_growth_lengthens_the_free_run_at_the_end);
    RUN(test_nodes_are_found_and_can_be_stated);
    RUN(test_nodes_allocate_apart_while_there_is_room);
    RUN(test_random_runs_against_a_map);
    RUN(test_threads_on_two_nodes);
    RUN(test_misuse_aborts);
    return 0;
}
