/* SPDX-License-Identifier: Apache-2.0 */
/* placement.c - see placement.h.  Reads without stdio, which would allocate. */
#include "placement.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether a line of /proc/self/maps is that of the heap and has the address. */
static bool is_heap_line(const char *line, uintptr_t address, const char *prefix)
{
    char *end;
    uintptr_t from = strtoul(line, &end, 16);
    uintptr_t to = strtoul(end + 1, &end, 16);
    const char *path = strchr(line, '/');
    return address >= from && address < to && strncmp(end, " rw-s", 5) == 0 &&
           path != NULL && strncmp(path, prefix, strlen(prefix)) == 0 &&
           strstr(path, " (deleted)") != NULL;
}

bool is_on_nvm(const void *address)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char text[1 << 18];
    size_t length = 0;
    ssize_t got;
    pthread_mutex_lock(&lock);
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    text[length] = '\0';
    const char *prefix = getenv("NVM_MALLOC_HEAP");
    bool found = false;
    for (char *line = text, *end;
         prefix != NULL && !found && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        found = is_heap_line(line, (uintptr_t)address, prefix);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static unsigned char byte_at(const void *was, size_t size, size_t i)
{
    return (unsigned char)(((uintptr_t)was >> 4) * 31 + size * 7 + i * 13 + (i >> 8));
}

void fill(void *block, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)block)[i] = byte_at(block, size, i);
}

bool is_filled_as(const void *block, const void *was, size_t size, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (((const unsigned char *)block)[i] != byte_at(was, size, i))
            return false;
    return true;
}

bool is_filled(const void *block, size_t size)
{
    return is_filled_as(block, block, size, size);
}

uint64_t next_random(uint64_t *state)
{
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15u);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}
