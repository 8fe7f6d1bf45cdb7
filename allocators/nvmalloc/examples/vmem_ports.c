/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An arena of integers that are no memory: the ports that a server hands out.
 *
 *   cc vmem_ports.c -lvmem -lpthread && ./a.out
 *
 * Next fit goes round all ports before it gives one out again; two services have pools
 * of their own, which import ranges of 256 ports from the whole and give them back.
 */
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "vmem.h"

#define PORT(n) ((void *)(uintptr_t)(n))

int main(void)
{
    vmem_t *all = vmem_create("ports", PORT(49152), 65536 - 49152, 256, NULL, NULL, NULL,
                              0, VM_SLEEP | VMC_IDENTIFIER);
    vmem_t *web = vmem_create("web", NULL, 0, 1, vmem_alloc, vmem_free, all, 0,
                              VM_SLEEP | VMC_IDENTIFIER);
    vmem_t *mail = vmem_create("mail", NULL, 0, 1, vmem_alloc, vmem_free, all, 0,
                               VM_SLEEP | VMC_IDENTIFIER);
    if (all == NULL || web == NULL || mail == NULL)
        return 1;

    void *first = vmem_alloc(web, 1, VM_NOSLEEP | VM_NEXTFIT);
    void *second = vmem_alloc(web, 1, VM_NOSLEEP | VM_NEXTFIT);
    void *pair = vmem_xalloc(mail, 2, 2, 0, 0, NULL, NULL, VM_NOSLEEP);
    printf("web: %d and %d; mail: an even one and the next, %d\n", (int)(uintptr_t)first,
           (int)(uintptr_t)second, (int)(uintptr_t)pair);
    vmem_free(web, first, 1);
    first = vmem_alloc(web, 1, VM_NOSLEEP | VM_NEXTFIT);
    printf("web, not the one just freed: %d\n", (int)(uintptr_t)first);
    fflush(stdout);
    vmem_dump_fd(STDOUT_FILENO, VMEM_DUMP_TEXT);

    vmem_xfree(mail, pair, 2);
    printf("mail has given its range back: %zu ports left to it\n",
           vmem_size(mail, VMEM_SPAN));
    size_t left = vmem_destroy(web);
    vmem_destroy(mail);
    vmem_destroy(all);
    printf("web was destroyed with %zu ports in use\n", left);
    return 0;
}
