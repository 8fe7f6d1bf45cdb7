// SPDX-License-Identifier: Apache-2.0
/*
 * planted_slowdown.c - makes every durable allocation and free of nvmalloc slower by
 * PLANTED_PERCENT of its own time: the regression that `nvcrucible compare` must find.
 *
 * Built into nvmalloc's adapter by `meson setup -Dplant_slowdown=PERCENT`, where the
 * linker sends the adapter's calls of nvm_malloc_to() and nvm_free_from() here (--wrap).
 *
 * How slow is a tenth slower?  Not a loop of a tenth of a call's time: much of it would
 * run while the call's fence is being waited for, and cost nothing.  And the time of a
 * call changes: a fresh heap's pages are touched, a workload turns from allocating to
 * freeing.  So each thread controls the delay, a chain of dependent multiplications after
 * each call: of every PERIOD blocks of calls the first one has no delay, and if the
 * second one did not take the planted share longer, the chain grows by a link, else it
 * shrinks by one.  Whatever disturbs a block moves the chain by one link only, so that
 * half of the pairs lie above the share and half below.  Blocks are timed as wholes and
 * are long, because a clock read right after a call waits for its fence, and calls right
 * after slower ones are quicker than others.  What comes out of a planted 10 is 8 to 12.
 */
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "nvmalloc.h"

enum { BLOCK = 2048, PERIOD = 4, LINKS_MAX = 100000 };

int __real_nvm_malloc_to(nvm_heap *heap, nvm_ref *slot, size_t size);
int __real_nvm_free_from(nvm_heap *heap, nvm_ref *slot);
int __wrap_nvm_malloc_to(nvm_heap *heap, nvm_ref *slot, size_t size);
int __wrap_nvm_free_from(nvm_heap *heap, nvm_ref *slot);

static _Thread_local struct {
    uint32_t links;   /* of the chain that follows each call; the control's output */
    uint32_t delay;   /* links that the calls of this block get: `links` or none */
    uint32_t calls;   /* of this block */
    uint32_t block;   /* of this period */
    uint64_t began;   /* this block, ns */
    uint64_t without; /* ns of this period's block without delay */
} pace;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void chain(uint32_t links)
{
    uint64_t value = links;
    for (uint32_t i = 0; i < links; i++) {
        value *= UINT64_C(6364136223846793005);
        __asm__ volatile("" : "+r"(value)); /* keep it, and keep it in order */
    }
}

/* Block 0 of a period has ended without delay, or block 1 with it. */
static void block_ended(uint64_t took)
{
    if (pace.block == 0)
        pace.without = took;
    else if (took < pace.without + pace.without * PLANTED_PERCENT / 100)
        pace.links += pace.links < LINKS_MAX;
    else
        pace.links -= pace.links > 0;
}

/* After each call. */
static void slow_down(void)
{
    chain(pace.delay);
    if (++pace.calls < BLOCK)
        return;
    pace.calls = 0;
    if (pace.block < 2) {
        const uint64_t now = now_ns();
        block_ended(now - pace.began);
        pace.began = now;
    }
    pace.block = (pace.block + 1) % PERIOD;
    if (pace.block == 0)
        pace.began = now_ns();
    pace.delay = pace.block == 0 ? 0 : pace.links;
}

int __wrap_nvm_malloc_to(nvm_heap *heap, nvm_ref *slot, size_t size)
{
    const int error = __real_nvm_malloc_to(heap, slot, size);
    slow_down();
    return error;
}

int __wrap_nvm_free_from(nvm_heap *heap, nvm_ref *slot)
{
    const int error = __real_nvm_free_from(heap, slot);
    slow_down();
    return error;
}
