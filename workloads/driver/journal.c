// SPDX-License-Identifier: Apache-2.0
/*
 * journal.c - the file of journal.h: mapping it, and the order of its stores.
 *
 * Every store whose order matters is atomic with release; plain stores to the
 * other fields may move among themselves but never past the release after them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal.h"

static size_t file_length(uint64_t slots, uint64_t inner, uint64_t threads)
{
    return sizeof(struct nvd_journal_header) + threads * sizeof(struct nvd_inflight) +
           (slots + slots * inner) * sizeof(struct nvd_record);
}

static bool geometry_valid(uint32_t slots, uint32_t inner, uint32_t threads)
{
    return slots >= 1 && slots <= NVD_SLOTS_MAX && inner <= NVD_INNER_MAX &&
           threads >= 1 && threads <= NVD_THREADS_MAX;
}

static int map_file(struct nvd_journal *journal, int fd, size_t length)
{
    void *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return errno;
    journal->header = base;
    journal->inflight = (struct nvd_inflight *)(journal->header + 1);
    journal->length = length;
    return 0;
}

int nvd_journal_create(struct nvd_journal *journal, const char *path,
                       const struct nvd_geometry *geometry)
{
    if (!geometry_valid(geometry->slots, geometry->inner, geometry->threads))
        return EINVAL;
    size_t length = file_length(geometry->slots, geometry->inner, geometry->threads);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    /* Reserved now: a full disk must not become a bus error in the churn. */
    int error = posix_fallocate(fd, 0, (off_t)length);
    if (error == 0)
        error = map_file(journal, fd, length);
    close(fd);
    if (error != 0) {
        unlink(path);
        return error;
    }
    struct nvd_journal_header *header = journal->header;
    header->version = NVD_JOURNAL_VERSION;
    header->threads = geometry->threads;
    header->slots = geometry->slots;
    header->inner = geometry->inner;
    header->slot_size = geometry->slot_size;
    header->heap_size = geometry->heap_size;
    journal->records = (struct nvd_record *)(journal->inflight + header->threads);
    atomic_thread_fence(memory_order_release);
    header->magic = NVD_JOURNAL_MAGIC;
    return 0;
}

int nvd_journal_open(struct nvd_journal *journal, const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno;
    struct stat status;
    int error = 0;
    if (fstat(fd, &status) != 0)
        error = errno;
    else if ((size_t)status.st_size < sizeof(struct nvd_journal_header))
        error = EUCLEAN;
    else
        error = map_file(journal, fd, (size_t)status.st_size);
    close(fd);
    if (error != 0)
        return error;
    const struct nvd_journal_header *header = journal->header;
    if (header->magic != NVD_JOURNAL_MAGIC || header->version != NVD_JOURNAL_VERSION ||
        !geometry_valid(header->slots, header->inner, header->threads) ||
        file_length(header->slots, header->inner, header->threads) != journal->length) {
        nvd_journal_close(journal);
        return EUCLEAN;
    }
    journal->records = (struct nvd_record *)(journal->inflight + header->threads);
    return 0;
}

void nvd_journal_close(struct nvd_journal *journal)
{
    munmap(journal->header, journal->length);
    memset(journal, 0, sizeof *journal);
}

uint32_t nvd_journal_ids(const struct nvd_journal *journal)
{
    return journal->header->slots * (1 + journal->header->inner);
}

bool nvd_journal_is_inner(const struct nvd_journal *journal, uint32_t id)
{
    return id >= journal->header->slots;
}

uint32_t nvd_journal_outer(const struct nvd_journal *journal, uint32_t id)
{
    uint32_t slots = journal->header->slots;
    return id < slots ? id : (id - slots) / journal->header->inner;
}

uint32_t nvd_journal_inner(const struct nvd_journal *journal, uint32_t outer, uint32_t j)
{
    return journal->header->slots + outer * journal->header->inner + j;
}

const char *nvd_journal_name(const struct nvd_journal *journal, uint32_t id)
{
    static _Thread_local char names[2][32];
    static _Thread_local unsigned turn;
    char *name = names[turn++ % 2];
    if (nvd_journal_is_inner(journal, id))
        snprintf(name, sizeof names[0], "slot %u.%u", nvd_journal_outer(journal, id),
                 (id - journal->header->slots) % journal->header->inner);
    else
        snprintf(name, sizeof names[0], "slot %u", id);
    return name;
}

struct nvd_slot_state nvd_journal_state(const struct nvd_journal *journal, uint32_t id)
{
    uint64_t word =
        atomic_load_explicit(&journal->records[id].word, memory_order_acquire);
    return (struct nvd_slot_state){
        .seq = word >> 8,
        .full = (word & NVD_FULL) != 0,
        .persisted = (word & NVD_PERSISTED) != 0,
        .container = (word & NVD_CONTAINER) != 0,
    };
}

void nvd_journal_begin(struct nvd_journal *journal, uint32_t thread, enum nvd_op op,
                       uint32_t id, uint64_t size)
{
    struct nvd_inflight *inflight = &journal->inflight[thread];
    inflight->id = id;
    inflight->seq = nvd_journal_state(journal, id).seq + 1;
    inflight->size = size;
    atomic_store_explicit(&inflight->op, op, memory_order_release);
    /* The allocator's stores may not be moved above the op by the compiler
       (a release store alone lets later ones rise). */
    atomic_signal_fence(memory_order_seq_cst);
}

static void acknowledge(struct nvd_journal *journal, uint32_t thread, uint64_t flags)
{
    struct nvd_inflight *inflight = &journal->inflight[thread];
    struct nvd_record *record = &journal->records[inflight->id];
    atomic_store_explicit(&record->word, inflight->seq << 8 | flags,
                          memory_order_release);
    atomic_fetch_add_explicit(&inflight->acknowledged, 1, memory_order_relaxed);
    atomic_store_explicit(&inflight->op, NVD_OP_NONE, memory_order_release);
    /* Nor may the next operation's id and seq rise above op = NONE. */
    atomic_signal_fence(memory_order_seq_cst);
}

void nvd_journal_ack_alloc(struct nvd_journal *journal, uint32_t thread, uint64_t usable,
                           int64_t offset)
{
    const struct nvd_inflight *inflight = &journal->inflight[thread];
    struct nvd_record *record = &journal->records[inflight->id];
    record->size = inflight->size;
    record->usable = usable;
    record->offset = offset;
    acknowledge(journal, thread, NVD_FULL);
}

void nvd_journal_ack_free(struct nvd_journal *journal, uint32_t thread)
{
    acknowledge(journal, thread, 0);
}

void nvd_journal_cancel(struct nvd_journal *journal, uint32_t thread)
{
    atomic_store_explicit(&journal->inflight[thread].op, NVD_OP_NONE,
                          memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
}

void nvd_journal_persisted(struct nvd_journal *journal, uint32_t id, bool container)
{
    struct nvd_record *record = &journal->records[id];
    uint64_t word = atomic_load_explicit(&record->word, memory_order_relaxed);
    word |= NVD_PERSISTED | (container ? NVD_CONTAINER : 0);
    atomic_store_explicit(&record->word, word, memory_order_release);
}

bool nvd_journal_in_flight(const struct nvd_journal *journal, uint32_t thread,
                           enum nvd_op *op, uint32_t *id, uint64_t *size)
{
    const struct nvd_inflight *inflight = &journal->inflight[thread];
    uint32_t kind = atomic_load_explicit(&inflight->op, memory_order_acquire);
    if (kind != NVD_OP_ALLOC && kind != NVD_OP_FREE)
        return false;
    if (inflight->id >= nvd_journal_ids(journal) ||
        inflight->seq <= nvd_journal_state(journal, inflight->id).seq)
        return false;
    *op = (enum nvd_op)kind;
    *id = inflight->id;
    *size = inflight->size;
    return true;
}

uint64_t nvd_journal_acknowledged(const struct nvd_journal *journal)
{
    uint64_t sum = 0;
    for (uint32_t t = 0; t < journal->header->threads; t++)
        sum += atomic_load_explicit(&journal->inflight[t].acknowledged,
                                    memory_order_relaxed);
    return sum;
}

void nvd_journal_set_phase(struct nvd_journal *journal, uint32_t phase)
{
    atomic_store_explicit(&journal->header->phase, phase, memory_order_release);
}
