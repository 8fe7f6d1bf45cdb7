/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - libpmemobj (PMDK) through transactions, each operation one.
 *
 * How most programs on libpmemobj allocate: the slot is added to the transaction
 * (its old content goes into the undo log), the block is allocated or freed in
 * it, and the commit makes both durable or neither.  One transaction an
 * operation is the smallest that keeps the promise of alloc_to and free_from; a
 * program that does more in each pays less an operation.  Everything else:
 * ../pmdk/pool.h.
 *
 * The macros of the manual (TX_BEGIN and its kin), not the functions under them:
 * their setjmp() is a part of what a program pays.
 */
#include <errno.h>

#include "../pmdk/pool.h"

static int tx_alloc_to(struct nvc_heap *heap, void *slot, size_t size)
{
    PMEMoid *oid = slot;
    if (!OID_IS_NULL(*oid) || size == 0) {
        return pmdk_fail(EINVAL, "alloc_to needs an empty slot and a size");
    }
    volatile int error = 0; /* written between setjmp() and longjmp() */
    TX_BEGIN(heap->pool)
    {
        pmemobj_tx_add_range_direct(oid, sizeof *oid);
        *oid = pmemobj_tx_alloc(size, PMDK_BLOCK_TYPE);
    }
    TX_ONABORT
    {
        error = pmemobj_tx_errno();
    }
    TX_END
    if (error == 0) {
        return 0;
    }
    return pmdk_fail(pmdk_alloc_error(error),
                     "a transaction that allocates %zu bytes: %s", size,
                     pmemobj_errormsg());
}

static int tx_free_from(struct nvc_heap *heap, void *slot)
{
    PMEMoid *oid = slot;
    if (OID_IS_NULL(*oid)) {
        return pmdk_fail(EINVAL, "free_from needs a slot that is not empty");
    }
    volatile int error = 0;
    TX_BEGIN(heap->pool)
    {
        pmemobj_tx_add_range_direct(oid, sizeof *oid);
        pmemobj_tx_free(*oid);
        *oid = OID_NULL;
    }
    TX_ONABORT
    {
        error = pmemobj_tx_errno();
    }
    TX_END
    return error == 0
               ? 0
               : pmdk_fail(error, "a transaction that frees: %s", pmemobj_errormsg());
}

static const struct nvc_adapter pmdk_tx_adapter = {
    .name = "pmdk-tx",
    .consistency = NVC_CONSISTENCY_TX,
    .alloc_to = tx_alloc_to,
    .free_from = tx_free_from,
    PMDK_POOL_FUNCTIONS,
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &pmdk_tx_adapter;
}
