// SPDX-License-Identifier: Apache-2.0
/* latency.c - see latency.h. */
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "latency.h"

uint64_t nvd_latency_lowest(size_t index)
{
    if (index < 2048)
        return index;
    unsigned exponent = (unsigned)(index / 1024) + 9;
    return (uint64_t)(index % 1024 + 1024) << (exponent - 10);
}

struct nvd_latency *nvd_latency_new(const struct nvd_clock *clock)
{
    struct nvd_latency *latency = malloc(sizeof *latency);
    if (latency != NULL) {
        memset(latency, 0, sizeof *latency);
        latency->clock = clock;
    }
    return latency;
}

void nvd_latency_add(struct nvd_latency *into, const struct nvd_latency *from)
{
    into->samples += from->samples;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
    for (size_t i = 0; i < NVD_LATENCY_BUCKETS; i++)
        into->counts[i] += from->counts[i];
}

struct json_object *nvd_latency_json(const struct nvd_latency *latency)
{
    struct json_object *counts = json_object_new_array();
    for (size_t i = 0; i < NVD_LATENCY_BUCKETS; i++) {
        if (latency->counts[i] == 0)
            continue;
        struct json_object *pair = json_object_new_array();
        json_object_array_add(pair, json_object_new_uint64(nvd_latency_lowest(i)));
        json_object_array_add(pair, json_object_new_uint64(latency->counts[i]));
        json_object_array_add(counts, pair);
    }
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "counts", counts);
    json_object_object_add(document, "max_ns", json_object_new_uint64(latency->max_ns));
    json_object_object_add(document, "samples", json_object_new_uint64(latency->samples));
    return document;
}
