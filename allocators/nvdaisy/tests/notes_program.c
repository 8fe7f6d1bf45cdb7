/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notes_program.c - what the test program of the notes does, and a second one that finds
 * what it left.
 *
 *   notes_program write    makes a heap of 64 KB, an int in it, binds it to id 1, says so
 * on stdout, and waits to be killed notes_program read     in another process: finds the
 * int by its id
 *
 * It knows p_mmap.h and links the shared library, as an application does.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "p_mmap.h"

enum { VALUE = 1, ID = 1 };

static int complain(const char *call)
{
    fprintf(stderr, "%s: %s\n", call, p_error());
    return 1;
}

static int write_and_wait(void)
{
    int *number = p_malloc(sizeof *number);
    if (number == NULL)
        return complain("p_malloc");
    *number = VALUE;
    if (p_persist(number, sizeof *number) != 0)
        return complain("p_persist");
    if (p_bind(ID, number, sizeof *number) != 0)
        return complain("p_bind");
    printf("id %d is an int with the value %d\n", ID, *number);
    fflush(stdout);
    for (;;)
        pause();
}

static int read_back(void)
{
    int size; /* an int, as in the notes */
    const int *number = p_get_bind_node(ID, &size);
    if (number == NULL)
        return complain("p_get_bind_node");
    if (size != sizeof *number || number != p_get_malloc(ID)) {
        fprintf(stderr, "id %d has %d bytes\n", ID, size);
        return 1;
    }
    printf("id %d is an int with the value %d\n", ID, *number);
    return *number == VALUE ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (p_init(64 * 1024) != 0)
        return complain("p_init");
    return argc == 2 && strcmp(argv[1], "write") == 0 ? write_and_wait() : read_back();
}
