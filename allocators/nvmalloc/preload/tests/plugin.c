/* SPDX-License-Identifier: Apache-2.0 */
/* plugin.c - a library that is loaded late: it allocates while it is, and has
   thread-local storage of the kind for which the dynamic linker allocates when a thread
   first asks. */
#include <stdlib.h>
#include <string.h>

__attribute__((visibility("default"))) void *plugin_block;
static _Thread_local char plenty[100000];

__attribute__((constructor)) static void allocate(void)
{
    plugin_block = malloc(1000);
    memset(plugin_block, 'p', 1000);
}

__attribute__((destructor)) static void give_back(void)
{
    free(plugin_block);
}

__attribute__((visibility("default"))) char *plugin_storage(void);
char *plugin_storage(void)
{
    plenty[99999] = 1;
    return plenty;
}
