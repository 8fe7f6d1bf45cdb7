// SPDX-License-Identifier: Apache-2.0
/*
 * parse.c - whole-string parsers for command-line values.
 *
 * Stricter than strtoull(): no blanks, no sign, decimal only, and nothing may
 * follow the value, so that "4x", "-1" and "" are errors and not 4, 2^64-1
 * and 0.  On failure the output is left alone.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

/* Reads digits at *cursor and moves past them; false on none or overflow. */
static bool scan_u64(const char **cursor, uint64_t *value)
{
    const char *at = *cursor;
    uint64_t sum = 0;
    if (*at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum))
            return false;
    }
    *cursor = at;
    *value = sum;
    return true;
}

bool nvd_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    uint64_t parsed;
    if (!scan_u64(&text, &parsed) || *text != '\0' || parsed < min || parsed > max)
        return false;
    *value = parsed;
    return true;
}

bool nvd_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t parsed;
    unsigned shift = 0;
    if (!scan_u64(&text, &parsed))
        return false;
    switch (*text) {
    case 'K':
    case 'k':
        shift = 10;
        text++;
        break;
    case 'M':
    case 'm':
        shift = 20;
        text++;
        break;
    case 'G':
    case 'g':
        shift = 30;
        text++;
        break;
    default:
        break;
    }
    if (*text != '\0' || parsed > UINT64_MAX >> shift)
        return false;
    *bytes = parsed << shift;
    return true;
}

bool nvd_parse_seconds(const char *text, double *seconds)
{
    /* strtod() would also take blanks, signs, hexadecimals, "inf" and "nan". */
    if (*text == '\0' || text[strspn(text, "0123456789.eE-")] != '\0' || *text == '-')
        return false;
    char *end;
    double parsed = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(parsed))
        return false;
    *seconds = parsed;
    return true;
}

int nvd_parse_cpus(const char *text, int *cpus, int capacity)
{
    const uint64_t highest = 1u << 16; /* far above CPU_SETSIZE */
    int count = 0;
    for (;;) {
        uint64_t first, last;
        if (!scan_u64(&text, &first))
            return -1;
        last = first;
        if (*text == '-') {
            text++;
            if (!scan_u64(&text, &last))
                return -1;
        }
        if (last < first || last > highest)
            return -1;
        for (uint64_t cpu = first; cpu <= last; cpu++) {
            if (count == capacity)
                return -1;
            cpus[count++] = (int)cpu;
        }
        if (*text == '\0')
            return count;
        if (*text++ != ',')
            return -1;
    }
}
