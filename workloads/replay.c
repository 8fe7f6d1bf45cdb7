// SPDX-License-Identifier: Apache-2.0
/*
 * replay - what a real program allocates and frees, in its own order (trace.h;
 * `nvcrucible record` makes the trace, --input names it).
 *
 * Sizes, lifetimes and the order are the program's; what it does in between is left
 * out.  Each block is marked, and looked at before it is freed; what a realloc moves is
 * copied.  A realloc is an alloc and a free, since that is what every allocator has.
 * Requests below 8 bytes are raised to 8, for the mark.
 *
 * A window lasts for whole passes over the trace, one at least: part of a program is
 * another program.  After a pass what the program left to its exit is freed.
 *
 * Threads.  A program of one thread is replayed by every worker, each with slots of
 * its own: copies side by side.  Of a program of several threads, worker j takes the
 * threads t with t mod N == j; the slots are shared.  Every operation knows its turn
 * among those of its slot, and waits for it, so a block is freed after it was allocated
 * and before its slot is filled again, whoever does it.  The operation that comes first
 * in the recorded order of those not yet done never waits: no deadlock.
 * All workers make the same number of passes, see agree().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"
#include "workload.h"

/* The trace of this process; read before the heap is made, since that needs its slots.
   Constant afterwards. */
static struct nvd_trace trace;
static uint32_t *turns;  /* of each operation among its slot's; NULL: one thread */
static uint32_t *totals; /* operations of each slot in a pass */

/* Who is where; of the whole run where the slots are shared, else of each worker. */
struct conductor {
    /* 2 p: p passes are to be made; 2 p + 1: and then the window is over. */
    _Alignas(NVD_CACHE_ALIGN) atomic_size_t goal;
};

struct player {
    size_t passes; /* made */
    size_t at;     /* the next operation of the pass */
};

/* A free for each slot that is full at the end, by the thread that filled it. */
static bool add_exit(void)
{
    const size_t slots = trace.head.slots;
    size_t *filled = calloc(slots, sizeof *filled); /* by which operation, plus one */
    size_t left = 0;
    for (size_t i = 0; filled != NULL && i < trace.count; i++)
        filled[trace.ops[i].slot] = trace.ops[i].kind == NVD_OP_FREE ? 0 : i + 1;
    for (size_t s = 0; filled != NULL && s < slots; s++)
        left += filled[s] != 0;
    const size_t count = trace.count + left;
    struct nvd_op *ops =
        filled == NULL ? NULL : realloc(trace.ops, count * sizeof *trace.ops);
    trace.ops = ops == NULL ? trace.ops : ops;
    uint16_t *threads = trace.threads;
    if (ops != NULL && threads != NULL)
        threads = realloc(trace.threads, count * sizeof *threads);
    bool enough = ops != NULL && (trace.threads == NULL || threads != NULL);
    trace.threads = threads == NULL ? trace.threads : threads;
    for (size_t s = 0; enough && s < slots; s++) {
        if (filled[s] == 0)
            continue;
        if (trace.threads != NULL)
            trace.threads[trace.count] = trace.threads[filled[s] - 1];
        trace.ops[trace.count++] = (struct nvd_op){.slot = (uint32_t)s};
    }
    free(filled);
    return enough;
}

static bool add_turns(void)
{
    if (trace.threads == NULL)
        return true;
    turns = malloc(trace.count * sizeof *turns);
    totals = calloc(trace.head.slots, sizeof *totals);
    if (turns == NULL || totals == NULL)
        return false;
    for (size_t i = 0; i < trace.count; i++)
        turns[i] = totals[trace.ops[i].slot]++;
    return true;
}

static const char *input(const char *path)
{
    const char *wrong = nvd_trace_read(path, &trace);
    if (wrong == NULL && trace.count == 0)
        wrong = "the trace has no operations";
    if (wrong == NULL && !(add_exit() && add_turns()))
        wrong = "no memory for the trace";
    return wrong;
}

static bool shared_slots(void)
{
    return trace.threads != NULL;
}

static size_t slot_count(const uint64_t *values, unsigned threads)
{
    (void)values;
    return trace.head.slots * (shared_slots() ? 1 : threads);
}

/* The conductors; then, if slots are shared, how many operations each has seen. */
static size_t shared_size(const uint64_t *values, unsigned threads)
{
    size_t counts = shared_slots() ? slot_count(values, threads) : 0;
    return threads * sizeof(struct conductor) + counts * sizeof(_Atomic uint64_t);
}

static _Atomic uint64_t *seen(const struct nvd_worker *worker, uint32_t slot)
{
    struct conductor *conductors = worker->run->shared;
    return (_Atomic uint64_t *)&conductors[worker->run->threads] + slot;
}

/* ---- one operation ---- */

static void *slot_of(const struct nvd_worker *worker, const struct nvd_op *op)
{
    size_t base = shared_slots() ? 0 : worker->index * (size_t)trace.head.slots;
    return nvd_slot(worker, base + op->slot);
}

/* Waits until everything that comes before operation i on its slot is done; false if
   that will never be. */
static bool await_turn(const struct nvd_worker *worker, const struct player *player,
                       size_t i)
{
    const uint32_t slot = trace.ops[i].slot;
    const uint64_t turn = (uint64_t)player->passes * totals[slot] + turns[i];
    unsigned spins = 0;
    while (atomic_load_explicit(seen(worker, slot), memory_order_acquire) != turn) {
        if (nvd_failed(worker))
            return false;
        nvd_pause(&spins);
    }
    return true;
}

static void end_turn(const struct nvd_worker *worker, uint32_t slot)
{
    _Atomic uint64_t *count = seen(worker, slot);
    uint64_t done = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, done + 1, memory_order_release);
}

/* The new block gets the old one's content, but for the mark. */
static void copy_content(const struct nvd_worker *worker, void *to, const void *from,
                         size_t size)
{
    const char *old = nvd_block(worker, from);
    if (old == NULL)
        return;
    size_t old_size = (size_t)(*(const uint64_t *)(const void *)old >> 32);
    size_t length = size < old_size ? size : old_size;
    char *new = nvd_block(worker, to);
    memcpy(new + NVD_MIN_BLOCK, old + NVD_MIN_BLOCK, length - NVD_MIN_BLOCK);
}

/* False when the run has failed. */
static bool perform(struct nvd_worker *worker, size_t i)
{
    const struct nvd_op *op = &trace.ops[i];
    void *slot = slot_of(worker, op);
    if (op->kind == NVD_OP_FREE)
        return !nvd_kept_full(worker, slot) || nvd_free_checked(worker, slot);
    if (!nvd_alloc(worker, slot, op->size))
        return !nvd_failed(worker);
    if (op->kind == NVD_OP_MOVE)
        copy_content(worker, slot, slot_of(worker, op + 1), op->size);
    nvd_touch(worker, slot, op->size);
    return true;
}

static bool perform_in_turn(struct nvd_worker *worker, struct player *player, size_t i)
{
    bool moves = trace.ops[i].kind == NVD_OP_MOVE;
    if (!await_turn(worker, player, i) || (moves && !await_turn(worker, player, i + 1)) ||
        !perform(worker, i))
        return false;
    end_turn(worker, trace.ops[i].slot);
    return true;
}

/* ---- passes ---- */

/* False when the run has failed. */
static bool pass(struct nvd_worker *worker, struct player *player)
{
    const unsigned workers = worker->run->threads;
    bool going = true;
    for (; going && player->at < trace.count; player->at++) {
        if (!shared_slots())
            going = perform(worker, player->at);
        else if (trace.threads[player->at] % workers == worker->index)
            going = perform_in_turn(worker, player, player->at);
        if (!going)
            return false;
    }
    player->at = 0;
    player->passes++;
    return true;
}

/*
 * Whether to make another pass.  Where slots are shared all must come to the same answer,
 * though they ask at different times and the window may end in between.  So the first to
 * ask after a pass settles it in `goal`, for all.  A window's first pass is made in any
 * case.
 */
static bool agree(struct nvd_worker *worker, const struct player *player, bool first)
{
    struct conductor *conductors = worker->run->shared;
    atomic_size_t *goal = &conductors[shared_slots() ? 0 : worker->index].goal;
    size_t found = atomic_load(goal);
    while (found >> 1 == player->passes) {
        bool over = found & 1;
        if (over && !first)
            return false;
        size_t wanted = first || nvd_running(worker) ? (player->passes + 1) << 1
                                                     : player->passes << 1 | 1;
        if (atomic_compare_exchange_weak(goal, &found, wanted))
            found = wanted;
    }
    return true;
}

static void run(struct nvd_worker *worker)
{
    struct player *player = worker->state;
    bool first = true;
    while (agree(worker, player, first)) {
        if (!pass(worker, player))
            return;
        first = false;
    }
}

static struct nvd_workload replay = {
    .name = "replay",
    .summary = "the allocations of a recorded program, pass after pass",
    .heap_bytes = UINT64_C(512) << 20,
    .state_size = sizeof(struct player),
    .input = input,
    .slot_count = slot_count,
    .shared_size = shared_size,
    .run = run,
};
NVD_WORKLOAD(replay);
