/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of arenas, each under its source: for inspection and for people. */
#include "vmem_impl.h"

#include <inttypes.h>

static void fill_info(vmem_t *vmp, unsigned depth, vmem_info_t *info)
{
    vmem_lock(vmp);
    *info = (vmem_info_t){
        .vi_id = vmp->vm_id,
        .vi_depth = depth,
        .vi_cflags = vmp->vm_cflags,
        .vi_quantum = vmp->vm_quantum,
        .vi_qcache_max = vmp->vm_qcache_max,
        .vi_hash_size = vmp->vm_hash_mask + 1,
        .vi_segs_free = vmp->vm_nsegfree,
        .vi_kstat = vmp->vm_kstat,
    };
    for (size_t i = 0; i < sizeof(info->vi_name); i++)
        info->vi_name[i] = vmp->vm_name[i];
    vmem_unlock(vmp);
}

/*
 * The arena with the least id above `after` whose source has the id `source_id`. The list
 * is gone through anew each time: so that no lock is held while the visitor runs, and
 * arenas that come and go meanwhile do no harm.
 */
static bool next_child(uint32_t source_id, uint32_t after, unsigned depth,
                       vmem_info_t *info)
{
    vmem_t *found = NULL;

    pthread_mutex_lock(&vmem_list_lock);
    for (vmem_t *vmp = vmem_list; vmp != NULL; vmp = vmp->vm_next)
        if (vmp->vm_kstat.vk_source_id == source_id && vmp->vm_id > after &&
            (found == NULL || vmp->vm_id < found->vm_id))
            found = vmp;
    if (found != NULL)
        fill_info(found, depth, info);
    pthread_mutex_unlock(&vmem_list_lock);
    return found != NULL;
}

static void visit_children(uint32_t source_id, unsigned depth, vmem_visitor_t *func,
                           void *arg)
{
    vmem_info_t info = {.vi_id = 0};

    while (next_child(source_id, info.vi_id, depth, &info)) {
        func(&info, arg);
        visit_children(info.vi_id, depth + 1, func, arg);
    }
}

void vmem_visit(vmem_visitor_t *func, void *arg)
{
    visit_children(0, 0, func, arg);
}

static void print_line(const vmem_info_t *info, void *arg)
{
    FILE *out = arg;
    const vmem_kstat_t *ks = &info->vi_kstat;
    int indent = 2 * (int)info->vi_depth;

    fprintf(out,
            "%4" PRIu32 "  %*s%-*s %8zu %14" PRIu64 " %14" PRIu64 " %14" PRIu64
            " %12" PRIu64 " %12" PRIu64 " %8" PRIu64 " %8" PRIu64 "%s\n",
            info->vi_id, indent, "",
            VMEM_NAMELEN - indent > 0 ? VMEM_NAMELEN - indent : 0, info->vi_name,
            info->vi_quantum, ks->vk_mem_inuse, ks->vk_mem_total, ks->vk_mem_import,
            ks->vk_alloc, ks->vk_free, ks->vk_wait, ks->vk_fail,
            info->vi_cflags & VMC_IDENTIFIER ? "  identifiers" : "");
}

void vmem_dump(FILE *out)
{
    fprintf(out, "%4s  %-*s %8s %14s %14s %14s %12s %12s %8s %8s\n", "id", VMEM_NAMELEN,
            "arena (under its source)", "quantum", "in use", "total", "imported",
            "allocs", "frees", "waits", "fails");
    vmem_visit(print_line, out);
}
