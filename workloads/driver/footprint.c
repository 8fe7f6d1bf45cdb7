// SPDX-License-Identifier: Apache-2.0
/* footprint.c - see footprint.h. */
#include <json-c/json.h>

#include "footprint.h"

struct nvd_footprint nvd_footprint_of(const struct nvc_adapter *adapter,
                                      const struct nvc_stats *stats, uint64_t resident,
                                      uint64_t requested, uint64_t table_bytes)
{
    struct nvd_footprint footprint = {.live = requested};
    if (stats->used_bytes != UINT64_MAX) {
        footprint.source = "heap";
        footprint.bytes = stats->used_bytes;
        /* A volatile adapter's table lies in memory of its own. */
        if (adapter->capabilities & NVC_PERSISTENT)
            footprint.live += table_bytes;
    } else if (resident != UINT64_MAX) {
        footprint.source = "resident";
        footprint.bytes = resident;
        footprint.live += table_bytes;
    }
    return footprint;
}

double nvd_footprint_ratio(const struct nvd_footprint *footprint)
{
    bool known = footprint->source != NULL && footprint->live >= NVD_FOOTPRINT_LEAST;
    return known ? (double)footprint->bytes / (double)footprint->live : 0;
}

void nvd_footprint_add(const struct nvd_footprint *footprint, uint64_t requested,
                       struct json_object *to)
{
    const double ratio = nvd_footprint_ratio(footprint);
    const bool known = footprint->source != NULL;
    json_object_object_add(to, "requested_bytes", json_object_new_uint64(requested));
    json_object_object_add(to, "footprint_bytes",
                           known ? json_object_new_uint64(footprint->bytes) : NULL);
    json_object_object_add(to, "footprint_source",
                           known ? json_object_new_string(footprint->source) : NULL);
    json_object_object_add(to, "footprint_ratio",
                           ratio > 0 ? json_object_new_double(ratio) : NULL);
}
