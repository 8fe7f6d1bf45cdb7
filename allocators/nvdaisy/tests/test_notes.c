/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_notes.c - what the notes report of the Daisy heap, each as a test by its name:
 * their program, the four troubles, the three questions; and that ids, sizes and errors
 * are what p_mmap.h says.
 *
 *   test_notes NOTES_PROGRAM
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "p_mmap.h"
#include "process.h"

static const char *program;

/* ---- the program of the notes ---- */

static pid_t start_program(const char *argument, int *output)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, argument, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *output = ends[0];
    return child;
}

static void expect_line(int output, const char *expected)
{
    char line[128] = {0};
    size_t length = 0;
    while (length < sizeof line - 1 && strchr(line, '\n') == NULL) {
        ssize_t got = read(output, line + length, sizeof line - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    assert_string_equal(line, expected);
}

static void the_notes_program_works_and_its_int_survives_kill_9(void **state)
{
    (void)state;
    static const char told[] = "id 1 is an int with the value 1\n";
    int output, status;
    for (int round = 0; round < 3; round++) {
        /* From the second round on id 1 is there, and gets a new int. */
        pid_t first = start_program("write", &output);
        expect_line(output, told);
        assert_int_equal(kill(first, SIGKILL), 0);
        assert_int_equal(waitpid(first, &status, 0), first);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        close(output);
        pid_t second = start_program("read", &output);
        expect_line(output, told);
        assert_int_equal(waitpid(second, &status, 0), second);
        assert_int_equal(status, 0);
        close(output);
    }
}

/* ---- the four troubles ---- */

static void write_all(void *block, size_t size, int byte)
{
    memset(block, byte, size);
    for (size_t i = 0; i < size; i++)
        NEED(((volatile unsigned char *)block)[i] == (unsigned char)byte);
}

static void allocate_free_allocate(void *context)
{
    (void)context;
    uint64_t random = 1;
    void *blocks[64] = {0};
    size_t sizes[64];
    NEED(p_init(64 * 1024) == 0);
    for (int n = 0; n < 20000; n++) {
        size_t i = next_random(&random) % 64;
        if (blocks[i] != NULL) {
            NEED(((unsigned char *)blocks[i])[sizes[i] - 1] == (unsigned char)i);
            NEED(p_free(blocks[i]) == 0);
        }
        sizes[i] = 1 + next_random(&random) % 700;
        blocks[i] = p_malloc((int64_t)sizes[i]);
        NEED(blocks[i] != NULL);
        NEED((uintptr_t)blocks[i] % 16 == 0);
        write_all(blocks[i], sizes[i], (int)i);
    }
}

static void trouble_1_malloc_after_free_gives_a_usable_address(void **state)
{
    (void)state;
    run_step(allocate_free_allocate, NULL);
    run_step(allocate_free_allocate, NULL); /* and in a heap that is not fresh */
}

static void allocate_once(void *size)
{
    NEED(p_init(64 * 1024) == 0);
    void *block = p_malloc(*(int64_t *)size);
    NEED(block != NULL);
    write_all(block, *(size_t *)size, 0x5a);
    unsigned char *base = p_get_base();
    NEED((unsigned char *)block > base);
    NEED(p_free(block) == 0);
}

static void trouble_2_the_first_malloc_gives_a_usable_address(void **state)
{
    for (int64_t size = 1; size <= 64 * 1024; size *= 2) {
        run_step(allocate_once, &size);
        heap_teardown(state); /* each is the first of a fresh heap */
        heap_setup(state);
    }
}

static void new_ids(void *context)
{
    const int first = *(int *)context;
    NEED(p_init(1 << 20) == 0);
    for (int id = first; id < first + 100; id++) {
        NEED(p_get(id, 1) == NULL && errno == ENOENT);
        unsigned char *block = p_new(id, 1000);
        NEED(block != NULL);
        for (int i = 0; i < 1000; i++)
            NEED(block[i] == 0);
        write_all(block, 1000, id);
        NEED(p_persist(block, 1000) == 0);
    }
    NEED(p_delete(first + 50) == 0);
}

static void ids_exist_if_made(void *context)
{
    const int first = *(int *)context;
    NEED(p_init(1 << 20) == 0);
    for (int id = first; id < first + 100; id++) {
        void *block = p_get(id, 1000);
        if (id == first + 50) {
            NEED(block == NULL && errno == ENOENT);
            continue;
        }
        NEED(block != NULL && *(unsigned char *)block == (unsigned char)id);
        NEED(p_new(id, 1000) == NULL && errno == EEXIST);
        NEED(p_get(id, 1000) == block);
    }
    NEED(p_new(first + 50, 1) != NULL);
    NEED(p_delete(first + 50) == 0);
    NEED(p_new(first + 100, 1) != NULL); /* a neighbour that never was */
    NEED(p_delete(first + 100) == 0);
}

static void trouble_3_new_says_exists_only_for_ids_that_do(void **state)
{
    (void)state;
    const int firsts[] = {1, 500, 1000, 10000, P_MAX_ID - 100};
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        int first = firsts[i];
        run_step(new_ids, &first);
        run_step(ids_exist_if_made, &first);
        run_step(ids_exist_if_made, &first);
    }
}

/* Allocates blocks of a size until there is no room; how many. */
static size_t fill(void **blocks, size_t capacity, int64_t size)
{
    for (size_t count = 0; count < capacity; count++) {
        blocks[count] = p_malloc(size);
        if (blocks[count] == NULL) {
            NEED(errno == ENOMEM || errno == ENOSPC);
            return count;
        }
        memset(blocks[count], (int)count, (size_t)size);
    }
    NEED(!"the heap has more room than was asked for many times over");
    return 0;
}

static void drain(void **blocks, size_t count, int64_t size)
{
    for (size_t i = 0; i < count; i++) {
        NEED(((unsigned char *)blocks[i])[size - 1] == (unsigned char)i);
        NEED(p_free(blocks[i]) == 0);
    }
}

enum { HEAP_BYTES = 1 << 20 };

static void fill_and_drain(void *context)
{
    (void)context;
    static void *blocks[HEAP_BYTES];
    static const int64_t sizes[] = {16, 100, 240, 1000, 1008, 5000, 30000, 100000};
    NEED(p_init(HEAP_BYTES) == 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t count = fill(blocks, HEAP_BYTES, sizes[i]);
        /* What was asked for in p_init() has been given out, headers counted. */
        NEED(count * (size_t)(sizes[i] + 16) >= HEAP_BYTES);
        NEED(p_free(blocks[0]) == 0);
        blocks[0] = p_malloc(sizes[i]); /* and what is free can be had again */
        NEED(blocks[0] != NULL);
        memset(blocks[0], 0, (size_t)sizes[i]);
        drain(blocks, count, sizes[i]);
    }
    void *whole = p_malloc(HEAP_BYTES);
    NEED(whole != NULL);
    NEED(p_free(whole) == 0);
}

static void trouble_4_malloc_fails_only_when_the_heap_is_full(void **state)
{
    (void)state;
    run_step(fill_and_drain, NULL);
    run_step(fill_and_drain, NULL);
}

/* ---- the three questions ---- */

static void leave_unbound(void *context)
{
    (void)context;
    NEED(p_init(HEAP_BYTES) == 0);
    for (int n = 0; n < 300; n++)
        NEED(p_malloc(1000) != NULL);
    raise(SIGKILL);
}

static void leave_blocks(void *context)
{
    NEED(p_init(HEAP_BYTES) == 0);
    for (int id = 1; id <= 20; id++) {
        NEED(p_malloc_id(id, 1000) != NULL);
        void *block = p_malloc(1000);
        NEED(block != NULL && p_bind(100 + id, block, 1000) == 0);
    }
    p_close();
    leave_unbound(context);
}

/* How many blocks of 1000 bytes there is room for. */
static void count_room(void *context)
{
    static void *blocks[HEAP_BYTES / 1000 * 4];
    NEED(p_init(HEAP_BYTES) == 0);
    *(size_t *)context = fill(blocks, sizeof blocks / sizeof *blocks, 1000);
}

static void *shared_memory(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

static void question_1_space_belongs_to_an_id_or_ends_with_its_process(void **state)
{
    (void)state;
    size_t *room = shared_memory(sizeof *room);
    run_step(count_room, room);
    run_step(count_room, room); /* whose 2,000 blocks ended with their process */
    const size_t fresh = *room;
    assert_true(run_killed(leave_blocks, NULL, UINT64_MAX));
    run_step(count_room, room);
    const size_t taken = fresh - *room;
    /* The 40 with ids, and what of their slabs can't serve others; not the 300. */
    assert_in_range(taken, 40, 100);
    for (int round = 0; round < 5; round++) {
        assert_true(run_killed(leave_unbound, NULL, UINT64_MAX));
        run_step(count_room, room);
        assert_int_equal(fresh - *room, taken);
    }
    munmap(room, sizeof *room);
}

/* A list whose nodes have no ids but the head, linked by offsets from the base: 32 bits
   in the even nodes, 64 in the odd ones. */
struct node {
    uint32_t narrow;
    uint32_t number;
    uint64_t wide;
};

enum { LIST_ID = 1234, NODES = 3000 };

static void write_list(void *context)
{
    (void)context;
    NEED(p_init(HEAP_BYTES) == 0);
    unsigned char *base = p_get_base();
    struct node *next = NULL;
    for (uint32_t n = NODES; n-- > 0;) {
        struct node *node = p_malloc(sizeof *node);
        NEED(node != NULL);
        const uint64_t offset =
            next == NULL ? 0 : (uint64_t)((unsigned char *)next - base);
        *node =
            (struct node){n % 2 == 0 ? (uint32_t)offset : 0, n, n % 2 == 0 ? 0 : offset};
        NEED(p_persist(node, sizeof *node) == 0);
        next = node;
        NEED(p_malloc(100) != NULL); /* nobody's, between them */
    }
    NEED(p_bind(LIST_ID, next, sizeof *next) == 0);
    raise(SIGKILL);
}

static void read_list(void *context)
{
    (void)context;
    int64_t size;
    NEED(p_init(HEAP_BYTES) == 0);
    unsigned char *base = p_get_base();
    struct node *node = p_get_bind_node(LIST_ID, &size);
    NEED(node != NULL && size == sizeof *node);
    /* What is free now is given to others, and must not be the list's. */
    for (int n = 0; n < 1000; n++) {
        void *block = p_malloc(1 + n % 200);
        NEED(block != NULL);
        memset(block, 0xff, 1 + (size_t)n % 200);
    }
    for (uint32_t n = 0; n < NODES; n++) {
        NEED(node->number == n);
        const uint64_t offset = n % 2 == 0 ? node->narrow : node->wide;
        NEED((offset == 0) == (n == NODES - 1));
        node = (struct node *)(void *)(base + offset);
    }
}

static void bind_numbers(void *context)
{
    (void)context;
    NEED(p_init(HEAP_BYTES) == 0);
    for (int id = 1; id <= 1000; id++) {
        int64_t *block = id % 2 == 0 ? p_malloc(8) : p_malloc_id(id, 8);
        NEED(block != NULL);
        *block = -id;
        NEED(p_persist(block, 8) == 0);
        NEED(id % 2 != 0 || p_bind(id, block, 8) == 0);
    }
    raise(SIGKILL);
}

static void find_numbers(void *context)
{
    (void)context;
    NEED(p_init(HEAP_BYTES) == 0);
    for (int id = 1; id <= 1000; id++) {
        int64_t size;
        int64_t *block = p_get_bind_node(id, &size);
        NEED(block != NULL && size == 8 && *block == -id);
        NEED(p_get(id, 8) == block && p_get_malloc(id) == block);
        NEED(p_mmap(NULL, 8, PROT_READ | PROT_WRITE, id) == block);
    }
}

static void question_2_saved_data_is_found_by_its_id(void **state)
{
    assert_true(run_killed(bind_numbers, NULL, UINT64_MAX));
    run_step(find_numbers, NULL);
    run_step(find_numbers, NULL);
    heap_teardown(state);
    heap_setup(state);
    assert_true(run_killed(write_list, NULL, UINT64_MAX));
    run_step(read_list, NULL);
    run_step(read_list, NULL);
}

/* Rounds of sizes that don't fit into each other's gaps, in a heap kept nearly full: at
   the end there is as much room as at the beginning. */
static void shuffle_sizes(void *context)
{
    static void *blocks[HEAP_BYTES / 32];
    const size_t capacity = sizeof blocks / sizeof *blocks;
    static const int64_t sizes[] = {100, 3000, 500, 20000, 60, 8000};
    size_t *room = context;
    uint64_t random = 5;
    NEED(p_init(HEAP_BYTES) == 0);
    room[0] = fill(blocks, capacity, 1000);
    drain(blocks, room[0], 1000);
    for (int round = 0; round < 30; round++) {
        const int64_t size = sizes[round % 6];
        size_t count = fill(blocks, capacity, size);
        for (size_t i = count; i-- > 0;) { /* freed in no order */
            size_t j = next_random(&random) % (i + 1);
            void *block = blocks[j];
            blocks[j] = blocks[i];
            NEED(p_free(block) == 0);
        }
    }
    room[1] = fill(blocks, capacity, 1000);
    drain(blocks, room[1], 1000);
    NEED(p_malloc(HEAP_BYTES) != NULL);
}

static void question_3_free_space_does_not_stay_in_pieces(void **state)
{
    (void)state;
    size_t *room = shared_memory(2 * sizeof *room);
    run_step(shuffle_sizes, room);
    /* But for the slab or two in which tables of unbound blocks now lie elsewhere. */
    assert_in_range(room[1], room[0] - room[0] / 20, room[0]);
    munmap(room, 2 * sizeof *room);
}

/* ---- ids, sizes, errors ---- */

enum { MILLION = 1000000 };

static void bind_a_million(void *context)
{
    (void)context;
    NEED(p_init(INT64_C(64) << 20) == 0);
    for (int id = 1; id <= MILLION; id++) {
        int *block = p_malloc_id(id, sizeof *block);
        NEED(block != NULL);
        *block = ~id;
        NEED(id % 1000 != 0 || p_persist(block, sizeof *block) == 0);
    }
    raise(SIGKILL);
}

static double lookups_take(uint64_t seed, int ids)
{
    struct timespec begin, end;
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (int n = 0; n < 20000; n++) {
            int id = 1 + (int)(next_random(&seed) % (uint64_t)ids);
            NEED(*(int *)p_get_malloc(id) == ~id);
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        double seconds = (double)(end.tv_sec - begin.tv_sec) +
                         (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void find_a_million(void *context)
{
    (void)context;
    NEED(p_init(INT64_C(64) << 20) == 0);
    for (int id = 1; id <= MILLION; id++) {
        int *block = p_get_malloc(id);
        NEED(block != NULL && *block == ~id);
    }
    NEED(p_get_malloc(MILLION + 1) == NULL && errno == EINVAL);
    /* A thousand times as many ids: more cache misses, but nothing like a thousand
       times as long. */
    NEED(lookups_take(1, MILLION) < 50 * lookups_take(2, 1000));
}

static void a_million_ids_are_found_at_once(void **state)
{
    (void)state;
    assert_true(run_killed(bind_a_million, NULL, UINT64_MAX));
    run_step(find_a_million, NULL);
}

static void ask_for_much(void *context)
{
    (void)context;
    const int64_t sizes[] = {INT64_C(1) << 32, (INT64_C(1) << 32) + 4, INT64_C(1) << 40,
                             INT64_MAX};
    NEED(p_init(64 * 1024) == 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        /* Not what is left of the number in 32 bits, which there would be room for. */
        NEED(p_malloc(sizes[i]) == NULL && errno == ENOMEM);
        NEED(p_new(1, sizes[i]) == NULL && errno == ENOMEM);
        NEED(p_malloc_id(1, sizes[i]) == NULL && errno == ENOMEM);
        NEED(p_get_small_region(1, sizes[i]) == -1 && errno == ENOMEM);
        NEED(p_get_malloc(1) == NULL && errno == ENOENT);
    }
    NEED(p_malloc_id(1, 64) != NULL);
    NEED(p_bind(1, p_get_malloc(1), (INT64_C(1) << 32) + 4) == -1 && errno == EINVAL);
    NEED(p_get(1, (INT64_C(1) << 32) + 4) == NULL && errno == EINVAL);
}

static void sizes_have_64_bits(void **state)
{
    (void)state;
    run_step(ask_for_much, NULL);
}

static void errors_before_init(void)
{
    int64_t size;
    NEED(p_clear() == -1 && errno == EINVAL);
    NEED(strstr(p_error(), "p_init") != NULL);
    NEED(p_close() == -1 && errno == EINVAL);
    NEED(p_get_base() == NULL && errno == EINVAL);
    NEED(p_malloc(1) == NULL && errno == EINVAL);
    NEED(p_free(&size) == -1 && errno == EINVAL);
    NEED(p_bind(1, &size, 1) == -1 && errno == EINVAL);
    NEED(p_get_bind_node(1, &size) == NULL && errno == EINVAL);
    NEED(p_new(1, 1) == NULL && errno == EINVAL);
    NEED(p_delete(1) == -1 && errno == EINVAL);
    NEED(p_get(1, 1) == NULL && errno == EINVAL);
    NEED(p_malloc_id(1, 1) == NULL && errno == EINVAL);
    NEED(p_free_id(1) == -1 && errno == EINVAL);
    NEED(p_get_malloc(1) == NULL && errno == EINVAL);
    NEED(p_get_small_region(1, 1) == -1 && errno == EINVAL);
    NEED(p_mmap(NULL, 1, PROT_READ | PROT_WRITE, 1) == NULL && errno == EINVAL);
    NEED(p_persist(&size, 1) == -1 && errno == EINVAL);
    NEED(p_init(0) == -1 && errno == EINVAL);
    NEED(p_init(-1) == -1 && errno == EINVAL);
}

static void errors_of_blocks(void)
{
    char *block = p_malloc(100);
    int on_stack;
    NEED(block != NULL);
    NEED(p_malloc(0) == NULL && errno == EINVAL);
    NEED(p_malloc(-1) == NULL && errno == EINVAL);
    NEED(p_free(NULL) == -1 && errno == EINVAL);
    NEED(p_free(&on_stack) == -1 && errno == EINVAL);
    NEED(p_free(block + 16) == -1 && errno == EINVAL);
    NEED(p_free(block + 1) == -1 && errno == EINVAL);
    NEED(p_free(p_get_base()) == -1 && errno == EINVAL);
    NEED(p_bind(1, block + 16, 4) == -1 && errno == EINVAL);
    NEED(p_bind(1, block, -1) == -1 && errno == EINVAL);
    NEED(p_bind(1, block, 100000) == -1 && errno == EINVAL);
    NEED(p_free(block) == 0);
    NEED(p_free(block) == -1 && errno == EINVAL);
    NEED(p_bind(1, block, 4) == -1 && errno == EINVAL);
    NEED(strlen(p_error()) > 0);
}

static void errors_of_ids(void)
{
    static const int none[] = {0, -1, P_MAX_ID + 1, INT_MAX, INT_MIN};
    int64_t size;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        void *block = p_malloc(8);
        NEED(p_new(none[i], 8) == NULL && errno == EINVAL);
        NEED(p_malloc_id(none[i], 8) == NULL && errno == EINVAL);
        NEED(p_bind(none[i], block, 8) == -1 && errno == EINVAL);
        NEED(p_get(none[i], 8) == NULL && errno == EINVAL);
        NEED(p_get_bind_node(none[i], &size) == NULL && errno == EINVAL);
        NEED(p_delete(none[i]) == -1 && errno == EINVAL);
        NEED(p_free(block) == 0);
    }
    NEED(p_get_bind_node(7, &size) == NULL && errno == ENOENT);
    NEED(p_get_malloc(7) == NULL && errno == ENOENT);
    NEED(p_delete(7) == -1 && errno == ENOENT);
    NEED(p_free_id(7) == -1 && errno == ENOENT);
    NEED(p_mmap(NULL, 1, PROT_READ | PROT_WRITE, 7) == NULL && errno == ENOENT);
    void *block = p_new(7, 100);
    NEED(block != NULL);
    NEED(p_new(7, 1) == NULL && errno == EEXIST);
    NEED(p_malloc_id(7, 1) == NULL && errno == EEXIST);
    NEED(p_bind(8, block, 8) == -1 && errno == EEXIST);
    NEED(p_get(7, 100) == block);
    NEED(p_get(7, 10000) == NULL && errno == EINVAL);
    NEED(p_get_small_region(7, 10000) == -1 && errno == EINVAL);
    NEED(p_get_small_region(7, 100) == 0);
    NEED(p_mmap(NULL, 100, PROT_READ, 7) == NULL && errno == ENOTSUP);
    NEED(p_get_bind_node(7, (int64_t *)NULL) == block);
    NEED(p_free(block) == 0); /* and the id goes with it */
    NEED(p_get(7, 1) == NULL && errno == ENOENT);
}

static void make_errors(void *context)
{
    (void)context;
    errors_before_init();
    NEED(p_init(64 * 1024) == 0);
    NEED(p_init(64 * 1024) == -1 && errno == EALREADY);
    errors_of_blocks();
    errors_of_ids();
    NEED(p_close() == 0);
    NEED(p_malloc(1) == NULL && errno == EINVAL);
    NEED(p_init(128 * 1024) == -1 && errno == EFBIG);
    NEED(strstr(p_error(), "65536") != NULL);
    NEED(p_init(1) == 0);
    pid_t other = fork();
    if (other == 0) {
        /* The parent's heap is open: in a process of its own nobody gets it. */
        execl("/proc/self/exe", program, "--second", (char *)NULL);
        _exit(127);
    }
    int status;
    NEED(waitpid(other, &status, 0) == other);
    NEED(status == 0);
}

static void fork_with_open_heap(void *context)
{
    (void)context;
    int status;
    NEED(p_init(64 * 1024) == 0);
    int *block = p_malloc_id(1, sizeof *block);
    pid_t child = fork();
    if (child == 0) {
        NEED(p_get_malloc(1) == NULL && errno == EPERM);
        NEED(p_malloc(1) == NULL && errno == EPERM);
        NEED(p_free_id(1) == -1 && errno == EPERM);
        NEED(p_close() == -1 && errno == EPERM);
        NEED(p_init(64 * 1024) == -1 && errno == EBUSY);
        _exit(0);
    }
    NEED(waitpid(child, &status, 0) == child);
    NEED(status == 0);
    NEED(p_get_malloc(1) == block);
    *block = 1;
    NEED(p_malloc(100) != NULL);
    NEED(p_free_id(1) == 0);
}

static void a_forked_child_has_no_heap(void **state)
{
    (void)state;
    run_step(fork_with_open_heap, NULL);
}

static int be_second(void)
{
    NEED(p_init(64 * 1024) == -1 && errno == EBUSY);
    NEED(p_malloc(1) == NULL && errno == EINVAL);
    return 0;
}

static void write_foreign_file(void)
{
    FILE *file = fopen(heap_path(), "we");
    assert_non_null(file);
    assert_true(fputs("somebody's only copy", file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void meet_foreign_file(void *context)
{
    (void)context;
    NEED(p_init(64 * 1024) == -1 && errno == EMEDIUMTYPE);
    char found[64] = {0};
    FILE *file = fopen(heap_path(), "re");
    NEED(file != NULL && fgets(found, sizeof found, file) != NULL);
    NEED(strcmp(found, "somebody's only copy") == 0);
}

static void errors_are_as_documented(void **state)
{
    run_step(make_errors, NULL);
    heap_teardown(state);
    heap_setup(state);
    write_foreign_file();
    run_step(meet_foreign_file, NULL);
}

/* ---- main ---- */

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--second") == 0)
        return be_second();
    if (argc != 2) {
        fprintf(stderr, "usage: %s NOTES_PROGRAM\n", argv[0]);
        return 2;
    }
    program = argv[1];
#define HEAP_TEST(test) cmocka_unit_test_setup_teardown(test, heap_setup, heap_teardown)
    const struct CMUnitTest tests[] = {
        HEAP_TEST(the_notes_program_works_and_its_int_survives_kill_9),
        HEAP_TEST(trouble_1_malloc_after_free_gives_a_usable_address),
        HEAP_TEST(trouble_2_the_first_malloc_gives_a_usable_address),
        HEAP_TEST(trouble_3_new_says_exists_only_for_ids_that_do),
        HEAP_TEST(trouble_4_malloc_fails_only_when_the_heap_is_full),
        HEAP_TEST(question_1_space_belongs_to_an_id_or_ends_with_its_process),
        HEAP_TEST(question_2_saved_data_is_found_by_its_id),
        HEAP_TEST(question_3_free_space_does_not_stay_in_pieces),
        HEAP_TEST(a_million_ids_are_found_at_once),
        HEAP_TEST(sizes_have_64_bits),
        HEAP_TEST(errors_are_as_documented),
        HEAP_TEST(a_forked_child_has_no_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
