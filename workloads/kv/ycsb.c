// SPDX-License-Identifier: Apache-2.0
/* ycsb.c - see ycsb.h. */
#include <math.h>
#include <string.h>

#include "payload.h"
#include "ycsb.h"

const struct ycsb_mix ycsb_mixes[6] = {
    {.share = {[YCSB_READ] = 50, [YCSB_UPDATE] = 50}},
    {.share = {[YCSB_READ] = 95, [YCSB_UPDATE] = 5}},
    {.share = {[YCSB_READ] = 100}},
    {.share = {[YCSB_READ] = 95, [YCSB_INSERT] = 5}, .latest = true},
    {.share = {[YCSB_SCAN] = 95, [YCSB_INSERT] = 5}},
    {.share = {[YCSB_READ] = 50, [YCSB_MODIFY] = 50}},
};

void ycsb_zipf_prepare(struct ycsb_zipf *zipf, uint64_t items, double theta)
{
    double zeta = 0;
    for (uint64_t i = 1; i <= items; i++)
        zeta += 1 / pow((double)i, theta);
    double zeta2 = 1 + 1 / pow(2, theta);
    *zipf = (struct ycsb_zipf){
        .items = items,
        .theta = theta,
        .zeta = zeta,
        .alpha = 1 / (1 - theta),
        .eta = (1 - pow(2 / (double)items, 1 - theta)) / (1 - zeta2 / zeta),
    };
}

uint64_t ycsb_zipf_rank(const struct ycsb_zipf *zipf, double u)
{
    double scaled = u * zipf->zeta;
    if (scaled < 1)
        return 0;
    if (scaled < 1 + pow(0.5, zipf->theta))
        return zipf->items > 1 ? 1 : 0;
    uint64_t rank =
        (uint64_t)((double)zipf->items * pow(zipf->eta * u - zipf->eta + 1, zipf->alpha));
    return rank < zipf->items ? rank : zipf->items - 1;
}

uint64_t ycsb_hash(uint64_t number)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < 8; i++) {
        hash = (hash ^ (number & 0xff)) * UINT64_C(0x100000001b3);
        number >>= 8;
    }
    return hash;
}

void ycsb_value_fill(void *value, size_t bytes, uint64_t record, uint64_t version)
{
    unsigned char *to = value;
    memcpy(to, &record, sizeof record);
    if (bytes < 16)
        memset(to + 8, 0, bytes - 8);
    else
        memcpy(to + 8, &version, sizeof version);
    if (bytes > 16)
        nvd_payload_fill(value, 16, bytes, (uint32_t)record, version);
}

uint64_t ycsb_value_record(const void *value)
{
    uint64_t record;
    memcpy(&record, value, sizeof record);
    return record;
}

uint64_t ycsb_value_version(const void *value, size_t bytes)
{
    uint64_t version = 0;
    if (bytes >= 16)
        memcpy(&version, (const char *)value + 8, sizeof version);
    return version;
}

size_t ycsb_value_check(const void *value, size_t bytes, uint64_t record)
{
    if (ycsb_value_record(value) != record)
        return 0;
    if (bytes <= 16)
        return bytes;
    uint64_t version = ycsb_value_version(value, bytes);
    return nvd_payload_check(value, 16, bytes, (uint32_t)record, version).offset;
}
