// SPDX-License-Identifier: Apache-2.0
/*
 * subject.h - the heap under test together with its journal.
 *
 * The only place where a fault command calls alloc_to and free_from on the
 * journalled slots, so that each call is announced, acknowledged and followed
 * by its payload in the order of journal.h.
 *
 * The slot table has the journal's slots first and NVD_BRIM_SLOTS more behind
 * them, which only the fill to the brim uses (brim.h).
 */
#ifndef NVD_SUBJECT_H
#define NVD_SUBJECT_H

#include "adapter.h"
#include "journal.h"
#include "verdict.h"

/* Enough for 20 halvings of the size with many blocks of one size class. */
#define NVD_BRIM_SLOTS 2048u

struct nvd_subject {
    const struct nvc_adapter *adapter;
    const char *extra; /* the adapter's options */
    struct nvc_heap *heap;
    struct nvd_journal journal;
    unsigned char *table;   /* the adapter's slot table */
    size_t table_slots;     /* entries of it */
    struct nvc_block range; /* the adapter's range() */
};

/* Slots that one container holds under this adapter. */
uint32_t nvd_subject_inner(const struct nvc_adapter *adapter);

/* Makes heap and journal, and enters the calling thread. 0 or an errno value;
   nothing is left on failure. */
int nvd_subject_create(struct nvd_subject *subject, const char *heap_path,
                       const char *journal_path, size_t heap_size, uint32_t slots,
                       uint32_t threads);
/* Opens (recovers) the heap of an open journal, and enters the calling thread;
   an accusation on failure. */
bool nvd_subject_open(struct nvd_subject *subject, const char *heap_path,
                      struct nvd_finding *finding);
/* Leaves the thread and closes the heap, not the journal. */
bool nvd_subject_close(struct nvd_subject *subject, struct nvd_finding *finding);

/* The address of a slot; of an inner one only while its container is live. */
void *nvd_subject_slot(const struct nvd_subject *subject, uint32_t id);
struct nvc_block nvd_subject_read(const struct nvd_subject *subject, uint32_t id);

/*
 * Allocates into an empty slot; on success *block is the new block, whose
 * payload is not written yet (nvd_subject_settle).  0, ENOMEM (nothing
 * happened), or another errno value, which is the allocator's fault; the
 * operation is left in flight then.
 */
int nvd_subject_alloc(struct nvd_subject *subject, uint32_t thread, uint32_t id,
                      size_t size, struct nvc_block *block);
/* Fills and persists a fresh block, as a container if asked, and says so. */
void nvd_subject_settle(struct nvd_subject *subject, uint32_t id, struct nvc_block block,
                        bool container);
/* Frees a full slot (a container whose inner slots are empty). 0 or an errno value. */
int nvd_subject_free(struct nvd_subject *subject, uint32_t thread, uint32_t id);

/* True if a block of this size can begin with the inner slots. */
bool nvd_subject_can_contain(const struct nvd_subject *subject, size_t size);

/* Writes into the journal, for each operation in flight, whether the heap
   shows it whole or absent. Returns how many there were. */
uint32_t nvd_subject_resolve(struct nvd_subject *subject);

#endif
