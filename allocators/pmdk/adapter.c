/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - libpmemobj (PMDK) through its atomic API.
 *
 * pmemobj_alloc() and pmemobj_free() publish into a PMEMoid that lies in the
 * pool, durably and atomically: just what alloc_to and free_from promise, so both
 * are single calls.  Everything else: pool.h.
 *
 * ENOMEM of a heap that is not full.  libpmemobj 1.12 takes back runs that have become
 * empty when it opens a pool, and hardly before: small blocks, all freed, can keep a
 * large one out until then.  pmemobj_defrag() of no objects would make it do so at
 * once; the adapter leaves it, since what is measured and judged here is what
 * pmemobj_alloc() does for everyone.
 */
#include <errno.h>

#include "pool.h"

static int pmdk_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    PMEMoid *oid = slot;
    if (!OID_IS_NULL(*oid) || size == 0) {
        return pmdk_fail(EINVAL, "alloc_to needs an empty slot and a size");
    }
    if (pmemobj_alloc(heap->pool, oid, size, PMDK_BLOCK_TYPE, NULL, NULL) == 0) {
        return 0;
    }
    return pmdk_fail(pmdk_alloc_error(errno), "pmemobj_alloc of %zu bytes: %s", size,
                     pmemobj_errormsg());
}

static int pmdk_free_from(struct nvc_heap *heap, void *slot)
{
    (void)heap;
    PMEMoid *oid = slot;
    if (OID_IS_NULL(*oid)) {
        return pmdk_fail(EINVAL, "free_from needs a slot that is not empty");
    }
    pmemobj_free(oid);
    return 0;
}

/* pmemobj_defrag() takes pointers to the PMEMoids, NULL ones passed over. */
static int pmdk_defrag(struct nvc_heap *heap, void *const slots[], size_t count)
{
    struct pobj_defrag_result result;
    if (pmemobj_defrag(heap->pool, (PMEMoid **)(uintptr_t)slots, count, &result) == 0) {
        return 0;
    }
    return pmdk_fail(errno, "pmemobj_defrag: %s", pmemobj_errormsg());
}

static const struct nvc_adapter pmdk_adapter = {
    .name = "pmdk",
    .consistency = NVC_CONSISTENCY_LOG,
    .alloc_to = pmdk_alloc_to,
    .free_from = pmdk_free_from,
    .defrag = pmdk_defrag,
    PMDK_POOL_FUNCTIONS,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &pmdk_adapter;
}
