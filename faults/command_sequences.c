// SPDX-License-Identifier: Apache-2.0
/*
 * command_sequences.c - every short history, every state of each.
 *
 * An alphabet of ten letters: {alloc, free, realloc, move, publish} x {small, large}, on
 * fixed slots; a heap that holds one small and one large block already, so that each
 * letter can come first.  All words of 1 .. length letters are recorded (a letter whose
 * operation is impossible when its turn comes is left out by the script's rule), and all
 * states of all their crash points are decided.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"

#define SMALL "100"
#define LARGE "100000"

static const char *const letters[] = {
    "a0:" SMALL,
    "a1:" LARGE,
    "f2",
    "f3",
    "r2:300",
    "r3:200000",
    "m2>4",
    "m3>5",
    "g6:48,7:" SMALL,
    "g8:" SMALL ",9:" LARGE,
};
static const char *const prologue = "a2:" SMALL " a3:" LARGE;

enum { letter_count = sizeof letters / sizeof letters[0] };

static void write_word(uint64_t number, uint64_t length, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s", prologue);
    for (uint64_t i = 0; i < length && used < size; i++, number /= letter_count)
        used += (size_t)snprintf(text + used, size - used, " %s",
                                 letters[number % letter_count]);
}

static uint64_t words_of(uint64_t length)
{
    uint64_t words = 1;
    while (length-- > 0)
        words *= letter_count;
    return words;
}

static enum nvl_outcome run_word(struct nvl_trial *trial,
                                 struct nvl_trial_options *options, const char *word)
{
    options->script_text = word;
    options->generations = 1;
    return nvl_trial_run(trial);
}

int nvl_command_sequences(int argc, char **argv)
{
    struct nvl_command_options options;
    struct nvl_trial trial;
    struct timespec time;
    int code = nvl_options_parse(&options, argc, argv, true);
    if (code != NVD_OK)
        return code;
    clock_gettime(CLOCK_MONOTONIC, &time);
    trial =
        (struct nvl_trial){.options = &options.trial,
                           .sum = nvl_tally_new(),
                           .began = (double)time.tv_sec + (double)time.tv_nsec * 1e-9};
    options.trial.states = UINT64_C(1) << 40; /* all of them */
    options.trial.payload = 32; /* or it alone would have millions of states */
    if (mkdir(options.trial.work, 0700) != 0 && errno != EEXIST) {
        nvd_emit_error("work", errno, "%s: %s", options.trial.work, strerror(errno));
        return NVD_ENVIRONMENT;
    }
    code = nvl_trial_measure(&trial);
    enum nvl_outcome outcome = code == NVD_OK ? NVL_SURVIVED : NVL_BROKEN;
    uint64_t number = 0;
    trial.quiet = true;
    for (uint64_t length = 1; length <= options.length; length++) {
        for (uint64_t word = 0; word < words_of(length) && outcome == NVL_SURVIVED;
             word++) {
            char text[256];
            if (number++ % options.shards != options.shard)
                continue;
            write_word(word, length, text, sizeof text);
            outcome = run_word(&trial, &options.trial, text);
        }
    }
    if (outcome == NVL_BROKEN)
        return NVD_ENVIRONMENT;
    nvl_trial_conclude(&trial, outcome);
    return outcome == NVL_FAILED ? NVD_INCORRECT : NVD_OK;
}
