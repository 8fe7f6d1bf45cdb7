/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c - runs fuzz targets without a fuzzer: every file of a folder, and then
 * seeded random inputs.
 *
 *     replay FOLDER [RANDOM_INPUTS]
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static uint8_t input[1 << 16];

static unsigned replay_folder(const char *folder)
{
    struct dirent **entries;
    unsigned files = 0;
    int count = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        FILE *file = entries[i]->d_name[0] != '.' ? fopen(path, "rb") : NULL;
        free(entries[i]);
        if (file == NULL)
            continue;
        size_t size = fread(input, 1, sizeof(input), file);
        fclose(file);
        fprintf(stderr, "%s\r", path);
        LLVMFuzzerTestOneInput(input, size);
        files++;
    }
    if (count >= 0)
        free(entries);
    return files;
}

int main(int argc, char **argv)
{
    unsigned files = argc > 1 ? replay_folder(argv[1]) : 0;
    unsigned wanted = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    uint64_t random = 88172645463325252u;
    for (unsigned i = 0; i < wanted; i++) {
        size_t size = 1 + 12 * (1 + i % 9);
        for (size_t at = 0; at < size; at++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            input[at] = (uint8_t)(random >> 56);
        }
        LLVMFuzzerTestOneInput(input, size);
    }
    printf("%u files, %u random inputs\n", files, wanted);
    return files == 0;
}
