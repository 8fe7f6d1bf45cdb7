// SPDX-License-Identifier: Apache-2.0
/* false_sharing.c - see false_sharing.h. */
#include <inttypes.h>
#include <stdio.h>

#include "false_sharing.h"

size_t nvd_sharing_slots(const uint64_t *values, unsigned threads)
{
    (void)values;
    return threads;
}

/* `writes` times one more in the object's first word, which then must be what it was
   and so many: another thread's write there would show.  False when it does. */
static bool write_to(struct nvd_worker *worker, void *slot)
{
    volatile uint64_t *object = nvd_block(worker, slot);
    const uint64_t writes = worker->values[NVD_SHARING_WRITES];
    const uint64_t before = *object;
    for (uint64_t i = 0; i < writes; i++)
        *object = *object + 1;
    uint64_t after = *object;
    *object = before;
    if (after == before + writes)
        return true;
    char message[160];
    snprintf(message, sizeof message,
             "thread %u's object holds %#" PRIx64 " after %" PRIu64
             " writes of its own, expected %#" PRIx64,
             worker->index, after, writes, before + writes);
    nvd_worker_fail(worker, "sweep", 0, message);
    return false;
}

void nvd_sharing_run(struct nvd_worker *worker)
{
    void *slot = nvd_slot(worker, worker->index);
    const uint64_t size = worker->values[NVD_SHARING_SIZE];
    while (nvd_running(worker)) {
        if (nvd_block(worker, slot) != NULL) {
            if (!nvd_free_checked(worker, slot))
                return;
        } else if (nvd_alloc(worker, slot, size)) {
            nvd_touch(worker, slot, size);
            if (!write_to(worker, slot))
                return;
        }
    }
}

uint64_t nvd_sharing_cycle(const uint64_t *values)
{
    (void)values;
    return 2;
}
