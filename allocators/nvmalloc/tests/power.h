/* SPDX-License-Identifier: Apache-2.0 */
/*
 * power.h - memory whose power can be cut: what a crash may leave of an image.
 *
 * The model (persist.h): a line reaches the media when it is flushed or written
 * past the caches and then fenced; and at any instant before, because a cache may
 * evict any line at any time.  So a cut leaves, of each line, one of
 *   what was fenced, what was flushed since, what the processor sees.
 * Granularity: whole lines.
 */
#ifndef POWER_H
#define POWER_H

#include <stddef.h>
#include <stdint.h>

#define POWER_LINE 64u

struct power_pending {
    size_t line;
    int taken; /* content as it was flushed; 0: written past the caches, still in memory
                */
    char content[POWER_LINE];
};

struct power {
    char *memory; /* what the processor sees; the caller's */
    char *media;  /* what is surely there */
    size_t bytes;
    struct power_pending *pending;
    size_t count;
    size_t capacity;
    uint64_t random;
};

enum power_cut { POWER_NOTHING_EVICTED, POWER_ALL_EVICTED, POWER_RANDOM };

/* Memory is on media as it is. */
void power_on(struct power *power, char *memory, size_t bytes, uint64_t seed);
void power_off(struct power *power);
/* An event of nvm_observe(), about to take effect. */
void power_event(struct power *power, int kind, const void *address, size_t length);
/* What a cut now may leave. */
void power_image(struct power *power, enum power_cut cut, char *image);

uint64_t power_draw(uint64_t *state);

#endif
