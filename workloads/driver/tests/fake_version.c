// SPDX-License-Identifier: Apache-2.0
/* fake_version - an adapter of a later version of the contract. */
#include "adapter.h"

static const struct nvc_adapter adapter = {
    .version = NVC_ADAPTER_VERSION + 1,
    .struct_size = sizeof(struct nvc_adapter),
    .name = "fake-version",
};

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    return &adapter;
}
