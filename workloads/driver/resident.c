// SPDX-License-Identifier: Apache-2.0
/* resident.c - see resident.h, and proc(5): clear_refs and status. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resident.h"

bool nvd_resident_reset_peak(void)
{
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool done = write(file, "5", 1) == 1;
    close(file);
    return done;
}

/* Takes "key:   123 kB"; false if the line has another key. */
static bool take(const char *line, const char *key, uint64_t *bytes)
{
    size_t length = strlen(key);
    if (strncmp(line, key, length) != 0)
        return false;
    char *end;
    uint64_t kilobytes = strtoull(line + length, &end, 10);
    if (end == line + length)
        return false;
    *bytes = kilobytes * 1024;
    return true;
}

bool nvd_resident_read(uint64_t *now, uint64_t *peak)
{
    FILE *status = fopen("/proc/self/status", "re");
    if (status == NULL)
        return false;
    char line[256];
    int found = 0;
    while (fgets(line, sizeof line, status) != NULL)
        found += take(line, "VmRSS:", now) + take(line, "VmHWM:", peak);
    fclose(status);
    return found == 2;
}
