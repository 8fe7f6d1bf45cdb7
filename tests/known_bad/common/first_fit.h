// SPDX-License-Identifier: Apache-2.0
/*
 * first_fit.h - what a known-bad allocator changes of the good one.
 *
 * Each folder of tests/known_bad has an adapter.c that defines
 * first_fit_personality; first_fit.c is the allocator that all of them share.
 * With no fault switched on it is correct under SIGKILL (good-minimal).
 */
#ifndef FIRST_FIT_H
#define FIRST_FIT_H

#include <stdbool.h>

struct first_fit_personality {
    const char *name;
    bool walks; /* offers walk() */

    /* Alloc writes no record, and stores the pointer before the extent entry. */
    bool publish_before_mark;
    /* Free clears the slot but not the extent entry. */
    bool free_forgets_mark;
    /* Open believes the high-water mark of the last clean close: blocks above
       it are free in its eyes. */
    bool forgets_above_high_water;
    /* Each recovery takes a run of free granules out of service for good. */
    bool leaks_at_recovery;
    /* Recovery of an interrupted free waits for a state that never comes. */
    bool hangs_in_recovery;
    /* The record stays armed, and recovery undoes it: also what was acknowledged. */
    bool rolls_back_acknowledged;
    /* Each recovery writes into the first live block that it finds. */
    bool scribbles_at_recovery;
    /* check() sees damage after each recovery. */
    bool check_cries_wolf;
    /* Every so many-th free is refused; 0: none. */
    unsigned refuses_free_each;
    /* The process dies at the so many-th allocation from a heap that it made; 0:
       never. So it dies while it works, and the heap that it leaves is sound. */
    unsigned crashes_at_alloc;
};

extern const struct first_fit_personality first_fit_personality;

#endif
