/* SPDX-License-Identifier: Apache-2.0 */
/* power.c - see power.h. */
#include "power.h"

#include <stdlib.h>
#include <string.h>

uint64_t power_draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void power_on(struct power *power, char *memory, size_t bytes, uint64_t seed)
{
    *power = (struct power){
        .memory = memory, .bytes = bytes, .random = seed * 0x9e3779b97f4a7c15u + 1};
    power->media = malloc(bytes);
    memcpy(power->media, memory, bytes);
}

void power_off(struct power *power)
{
    free(power->media);
    free(power->pending);
    *power = (struct power){.bytes = 0};
}

static void note_line(struct power *power, size_t line, int flushed)
{
    if (power->count == power->capacity) {
        power->capacity = power->capacity != 0 ? 2 * power->capacity : 64;
        power->pending =
            realloc(power->pending, power->capacity * sizeof(*power->pending));
    }
    struct power_pending *pending = &power->pending[power->count++];
    pending->line = line;
    pending->taken = flushed;
    memcpy(pending->content, power->memory + line * POWER_LINE, POWER_LINE);
}

static void put(const struct power *power, const struct power_pending *pending,
                char *image)
{
    memcpy(image + pending->line * POWER_LINE,
           pending->taken ? pending->content : power->memory + pending->line * POWER_LINE,
           POWER_LINE);
}

void power_event(struct power *power, int kind, const void *address, size_t length)
{
    if (kind == 1) {
        for (size_t i = 0; i < power->count; i++)
            put(power, &power->pending[i], power->media);
        power->count = 0;
        return;
    }
    size_t from = (size_t)((const char *)address - power->memory);
    for (size_t line = from / POWER_LINE; line <= (from + length - 1) / POWER_LINE;
         line++)
        note_line(power, line, kind == 0);
}

void power_image(struct power *power, enum power_cut cut, char *image)
{
    if (cut == POWER_ALL_EVICTED) {
        memcpy(image, power->memory, power->bytes);
        return;
    }
    memcpy(image, power->media, power->bytes);
    if (cut == POWER_NOTHING_EVICTED)
        return;
    for (size_t i = 0; i < power->count; i++)
        if (power_draw(&power->random) & 1)
            put(power, &power->pending[i], image);
    for (size_t line = 0; line < power->bytes / POWER_LINE; line++) {
        const char *seen = power->memory + line * POWER_LINE;
        if (memcmp(power->media + line * POWER_LINE, seen, POWER_LINE) != 0 &&
            power_draw(&power->random) & 1)
            memcpy(image + line * POWER_LINE, seen, POWER_LINE);
    }
}
