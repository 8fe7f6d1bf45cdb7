/* SPDX-License-Identifier: Apache-2.0 */
/* reread.c - see reread.h. */
#include "reread.h"

#if defined(__x86_64__)
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "driver.h"
#include "lines.h"

#define ROUNDS_MIN 20u
#define ROUNDS_MAX 2048u
#define SEED       UINT64_C(0x6e76637265726561)

/* Bytes that flush's store goes to: not those of the chain. */
#define OFFSET_STORE 8

static uint64_t *link_of(char *memory, size_t line)
{
    return (uint64_t *)(void *)(memory + line * NVD_LINE_BYTES);
}

/* Links all lines into one cycle (Sattolo, 1986): line i holds its successor's index. */
static void make_chain(char *memory, size_t lines)
{
    struct nvd_random random;
    nvd_random_seed(&random, SEED);
    for (size_t i = 0; i < lines; i++)
        *link_of(memory, i) = i;
    for (size_t i = lines - 1; i > 0; i--) {
        size_t j = (size_t)nvd_random_below(&random, i);
        uint64_t other = *link_of(memory, j);
        *link_of(memory, j) = *link_of(memory, i);
        *link_of(memory, i) = other;
    }
}

static uint64_t follow_chain(char *memory, size_t lines)
{
    uint64_t at = 0;
    for (size_t i = 0; i < lines; i++)
        at = *(volatile uint64_t *)link_of(memory, (size_t)at);
    return at;
}

static void prepare(enum nvd_reread after, enum nvd_flush flush, char *memory,
                    size_t lines)
{
    for (size_t i = 0; i < lines; i++) {
        char *line = memory + i * NVD_LINE_BYTES;
        if (after == NVD_REREAD_FLUSH) {
            *(volatile uint64_t *)(void *)(line + OFFSET_STORE) = i;
            nvd_flush_line(flush, line);
        } else if (after == NVD_REREAD_NT) {
            nvd_stream_line(line, *link_of(memory, i));
        }
    }
    nvd_fence();
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double nvd_reread_ns(enum nvd_reread after, char *memory, size_t lines, double seconds)
{
    static double ns[ROUNDS_MAX];
    enum nvd_flush flush = nvd_best_flush();
    make_chain(memory, lines);
    follow_chain(memory, lines);
    uint64_t enough = nvd_monotonic_ns() + (uint64_t)(seconds * 1e9);
    unsigned rounds = 0;
    uint64_t now = 0;
    while (rounds < ROUNDS_MIN || (rounds < ROUNDS_MAX && now < enough)) {
        prepare(after, flush, memory, lines);
        uint64_t before = nvd_monotonic_ns();
        follow_chain(memory, lines);
        now = nvd_monotonic_ns();
        ns[rounds++] = (double)(now - before) / (double)lines;
    }
    qsort(ns, rounds, sizeof *ns, ascending);
    return rounds % 2 == 1 ? ns[rounds / 2] : (ns[rounds / 2 - 1] + ns[rounds / 2]) / 2;
}

#else

double nvd_reread_ns(enum nvd_reread after, char *memory, size_t lines, double seconds)
{
    (void)after;
    (void)memory;
    (void)lines;
    (void)seconds;
    return 0;
}

#endif
