/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Around fork(): all locks, in the order of vmem.c, 9. Holding them all means that what
 * the child inherits meets every invariant. What another thread had in hand between two
 * locked steps (a span just imported, a magazine being unloaded) is lost to the child:
 * unused, and never handed out.
 */
#include "vmem_impl.h"

#include "objcache_impl.h"

#include <unistd.h>

static pid_t locked_by; /* under vmem_init_lock */

void vmem_lockup(void)
{
    pthread_mutex_lock(&vmem_trim_lock);
    pthread_mutex_lock(&vmem_init_lock);
    locked_by = getpid();
    pthread_mutex_lock(&objcache_list_lock);
    pthread_mutex_lock(&vmem_list_lock);
    objcache_lock_all();
    pthread_mutex_lock(&vmem_refill_lock);
    for (vmem_t *vmp = vmem_list; vmp != NULL; vmp = vmp->vm_next)
        vmem_lock(vmp);
    pthread_mutex_lock(&vmem_segfree_lock);
}

void vmem_release(void)
{
    bool in_child = getpid() != locked_by;

    pthread_mutex_unlock(&vmem_segfree_lock);
    for (vmem_t *vmp = vmem_list; vmp != NULL; vmp = vmp->vm_next) {
        if (in_child) {
            /* The sleepers stayed with the parent; as would a destroy that awaits them.
             */
            vmem_cond_init(&vmp->vm_cv);
            vmp->vm_nwaiters = 0;
            vmp->vm_cursors = NULL; /* so did walkers, and their stacks are reused */
            vmp->vm_hash_busy = false;
        }
        vmem_unlock(vmp);
    }
    pthread_mutex_unlock(&vmem_refill_lock);
    objcache_unlock_all();
    pthread_mutex_unlock(&vmem_list_lock);
    pthread_mutex_unlock(&objcache_list_lock);
    pthread_mutex_unlock(&vmem_init_lock);
    pthread_mutex_unlock(&vmem_trim_lock);
}
