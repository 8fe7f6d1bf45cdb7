// SPDX-License-Identifier: Apache-2.0
/*
 * command_sequences.c - every short history, every state of each.
 *
 * An alphabet of ten letters: {alloc, free, realloc, move, publish} x {small, large}, on
 * fixed slots; a heap that holds one small and one large block already, so that each
 * letter can come first.  All words of 1 .. length letters are gone through.  A word with
 * a letter that is impossible when its turn comes (its slot is full, or empty) is counted
 * and left out: without that letter it is a shorter word.
 *
 * A history repeats exactly, so the crash points of a word before its last letter are
 * those of the shorter word that it begins with: only the rest is tried, each state of
 * it.  The words of one letter have the crash points of the prologue, too.
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

/* Slots as bits: which must be full and empty before the letter, and are full after it.
 */
static const struct {
    const char *text;
    uint32_t full, empty, filled;
} letters[] = {
    {"a0:" SMALL, 0, 1 << 0, 1 << 0},
    {"a1:" LARGE, 0, 1 << 1, 1 << 1},
    {"f2", 1 << 2, 0, 0},
    {"f3", 1 << 3, 0, 0},
    {"r2:300", 1 << 2, 0, 1 << 2},
    {"r3:200000", 1 << 3, 0, 1 << 3},
    {"m2>4", 1 << 2, 1 << 4, 1 << 4},
    {"m3>5", 1 << 3, 1 << 5, 1 << 5},
    {"g6:48,7:" SMALL, 0, 1 << 6 | 1 << 7, 1 << 6 | 1 << 7},
    {"g8:" SMALL ",9:" LARGE, 0, 1 << 8 | 1 << 9, 1 << 8 | 1 << 9},
};
static const char *const prologue = "a2:" SMALL " a3:" LARGE;
static const uint32_t prologue_filled = 1 << 2 | 1 << 3;

enum { letter_count = sizeof letters / sizeof letters[0] };

/* False if the word has a letter that is impossible. */
static bool write_word(uint64_t number, uint64_t length, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s", prologue);
    uint32_t slots = prologue_filled;
    for (uint64_t i = 0; i < length && used < size; i++, number /= letter_count) {
        size_t letter = number % letter_count;
        if ((slots & letters[letter].full) != letters[letter].full ||
            (slots & letters[letter].empty) != 0)
            return false;
        slots = (slots & ~letters[letter].full) | letters[letter].filled;
        used += (size_t)snprintf(text + used, size - used, " %s", letters[letter].text);
    }
    return true;
}

static uint64_t words_of(uint64_t length)
{
    uint64_t words = 1;
    while (length-- > 0)
        words *= letter_count;
    return words;
}

struct words {
    uint64_t tried, impossible, incomplete;
};

static enum nvl_outcome run_word(struct nvl_trial *trial,
                                 struct nvl_trial_options *options, const char *word,
                                 struct words *words)
{
    uint64_t missing = trial->sum->points - trial->sum->points_complete;
    options->script_text = word;
    options->generations = 1;
    enum nvl_outcome outcome = nvl_trial_run(trial);
    options->script_text = NULL;
    words->tried++;
    words->incomplete += trial->sum->points - trial->sum->points_complete > missing;
    return outcome;
}

static enum nvl_outcome run_words(struct nvl_trial *trial,
                                  struct nvl_command_options *options,
                                  struct words *words)
{
    uint64_t number = 0;
    enum nvl_outcome outcome = NVL_SURVIVED;
    for (uint64_t length = 1; length <= options->length; length++) {
        options->trial.last_operation = length > 1;
        for (uint64_t word = 0; word < words_of(length) && outcome == NVL_SURVIVED;
             word++) {
            char text[256];
            if (number++ % options->shards != options->shard)
                continue;
            if (write_word(word, length, text, sizeof text))
                outcome = run_word(trial, &options->trial, text, words);
            else
                words->impossible++;
        }
    }
    return outcome;
}

static void emit_words(const struct words *words,
                       const struct nvl_command_options *options)
{
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "type", json_object_new_string("sequences"));
    json_object_object_add(document, "length", json_object_new_uint64(options->length));
    json_object_object_add(document, "tried", json_object_new_uint64(words->tried));
    json_object_object_add(document, "impossible",
                           json_object_new_uint64(words->impossible));
    json_object_object_add(document, "incomplete",
                           json_object_new_uint64(words->incomplete));
    nvd_emit(document);
}

int nvl_command_sequences(int argc, char **argv)
{
    struct nvl_command_options options;
    struct nvl_trial trial;
    struct words words = {0};
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
    trial.quiet = true;
    code = nvl_trial_measure(&trial);
    enum nvl_outcome outcome =
        code == NVD_OK ? run_words(&trial, &options, &words) : NVL_BROKEN;
    if (outcome == NVL_BROKEN)
        return NVD_ENVIRONMENT;
    emit_words(&words, &options);
    nvl_trial_conclude(&trial, outcome);
    return outcome == NVL_FAILED ? NVD_INCORRECT : NVD_OK;
}
