// SPDX-License-Identifier: Apache-2.0
/*
 * record.c - operations, marks and payloads, in the order of ledger.h.
 */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "brim.h"
#include "judge.h"
#include "payload.h"
#include "schedule.h"
#include "sources.h"

enum {
    slots_cached = 4096,
};

struct recorder {
    const struct nvl_record_options *options;
    const struct nvc_adapter *adapter;
    struct nvc_heap *heap;
    struct nvl_trace_writer *writer;
    struct nvl_ledger *ledger;
    uint8_t *shadow;
    char path[4096]; /* of the heap */
    bool *busy;      /* [slots]: a thread is at work on it */
    bool failed;     /* an operation failed as it must not; an error line was written */
    struct {
        uint64_t hash;
        uint32_t site;
    } cached[slots_cached]; /* of sites, by their frames */
};

static void *must(void *pointer)
{
    if (pointer == NULL)
        abort();
    return pointer;
}

/* ---- the trace ---- */

static uint32_t site_of(struct recorder *recorder, const struct nvl_sighted *sighted)
{
    uint64_t hash = sighted->frame_count;
    for (uint32_t i = 0; i < sighted->frame_count; i++)
        hash = (hash ^ sighted->frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
    size_t at = (size_t)(hash >> 40) % slots_cached;
    if (sighted->frame_count == 0)
        return 0;
    if (recorder->cached[at].hash == hash)
        return recorder->cached[at].site;
    struct nvl_site site = {0};
    for (uint32_t i = 0; i < sighted->frame_count; i++) {
        const char *module;
        uint64_t offset;
        if (!nvl_module_of(sighted->frames[i], &module, &offset))
            break;
        site.frame[site.count].module = nvl_trace_module(recorder->writer, module);
        site.frame[site.count++].offset = offset;
    }
    recorder->cached[at].hash = hash;
    recorder->cached[at].site = nvl_trace_site(recorder->writer, &site);
    return recorder->cached[at].site;
}

static void write_event(void *context, const struct nvl_sighted *sighted)
{
    struct recorder *recorder = context;
    struct nvl_event event = {.kind = sighted->kind,
                              .thread = sighted->thread,
                              .site = site_of(recorder, sighted),
                              .offset = sighted->offset,
                              .length = sighted->length,
                              .data = sighted->data};
    nvl_trace_write(recorder->writer, &event);
}

static void mark(struct recorder *recorder, const struct nvl_mark *mark)
{
    nvl_lens_settle();
    nvl_ledger_apply(recorder->ledger, mark);
    struct nvl_event event = {.kind = NVL_EVENT_MARK, .mark = *mark};
    nvl_trace_write(recorder->writer, &event);
}

/* ---- operations ---- */

static void complain(struct recorder *recorder, const char *doing, int error)
{
    if (!recorder->failed)
        nvd_emit_error("history", error,
                       "%s failed while the history was recorded: %s (%s)", doing,
                       strerror(error), recorder->adapter->last_error());
    recorder->failed = true;
}

static void *slot_address(struct recorder *recorder, uint32_t id)
{
    return nvl_slot_address(recorder->adapter, recorder->heap, recorder->ledger, id);
}

/* Fills and persists a fresh block as an application would, 8 bytes at a time. */
static void settle(struct recorder *recorder, uint32_t thread, uint32_t id,
                   struct nvc_block block, bool container)
{
    const struct nvl_ledger *ledger = recorder->ledger;
    size_t from = container ? (size_t)ledger->inner * ledger->slot_size : 0;
    size_t to = block.usable < recorder->options->payload ? block.usable
                                                          : recorder->options->payload;
    if (to < from)
        to = from;
    unsigned char *bytes = block.address;
    mark(recorder, &(struct nvl_mark){
                       .kind = NVL_MARK_SETTLING, .thread = (uint8_t)thread, .id = id});
    for (size_t at = 0; at < to; at += 8) {
        size_t length = to - at < 8 ? to - at : 8;
        nvl_lens_application_store(bytes + at, length);
        if (at < from)
            memset(bytes + at, 0, length);
        else
            nvd_payload_fill(bytes, at, at + length, id, ledger->slot[id].seq);
    }
    recorder->adapter->persist(recorder->heap, bytes, to);
    mark(recorder, &(struct nvl_mark){.kind = NVL_MARK_PERSISTED,
                                      .thread = (uint8_t)thread,
                                      .id = id,
                                      .payload_from = from,
                                      .payload_to = to});
}

static int call(struct recorder *recorder, const struct nvl_op *op)
{
    const struct nvc_adapter *adapter = recorder->adapter;
    void *slots[NVL_GROUP_MAX] = {NULL};
    size_t sizes[NVL_GROUP_MAX] = {0};
    for (unsigned i = 0; i < op->count; i++) {
        slots[i] = slot_address(recorder, op->id[i]);
        sizes[i] = op->size[i];
        if (slots[i] == NULL)
            return EFAULT;
    }
    switch ((enum nvl_op_kind)op->kind) {
    case NVL_ALLOC:
        return adapter->alloc_to(recorder->heap, slots[0], sizes[0]);
    case NVL_FREE:
        return adapter->free_from(recorder->heap, slots[0]);
    case NVL_REALLOC:
        return adapter->realloc_to(recorder->heap, slots[0], sizes[0]);
    case NVL_MOVE:
        return adapter->move_to(recorder->heap, slots[0], slots[1]);
    case NVL_GROUP:
        return adapter->alloc_group(recorder->heap, slots, sizes, op->count);
    default:
        return EINVAL;
    }
}

static void acknowledge(struct recorder *recorder, const struct nvl_op *op)
{
    struct nvl_mark ack = {.kind = NVL_MARK_ACK, .thread = op->thread};
    struct nvc_block block[NVL_GROUP_MAX] = {{NULL, 0}};
    bool fresh =
        op->kind == NVL_ALLOC || op->kind == NVL_GROUP || op->kind == NVL_REALLOC;
    for (unsigned i = 0; i < op->count && fresh; i++) {
        block[i] =
            recorder->adapter->read(recorder->heap, slot_address(recorder, op->id[i]));
        ack.place[i] = nvl_place_of(recorder->adapter, recorder->heap, block[i]);
        if (block[i].address == NULL || block[i].usable < op->size[i]) {
            complain(recorder, "an allocation that reported success", EPROTO);
            return;
        }
    }
    if (op->kind == NVL_MOVE) {
        const struct nvl_slot *from = &recorder->ledger->slot[op->id[0]];
        ack.place[1] = (struct nvl_place){from->offset, from->usable};
    }
    mark(recorder, &ack);
    for (unsigned i = 0; i < op->count && fresh; i++)
        settle(recorder, op->thread, op->id[i], block[i], op->container);
}

static bool open_heap(struct recorder *recorder)
{
    const struct nvl_record_options *options = recorder->options;
    struct nvc_options open = {0, 0, options->extra};
    struct nvc_options create = {options->heap_size, options->slots + NVD_BRIM_SLOTS,
                                 options->extra};
    bool exists = access(recorder->path, F_OK) == 0;
    int error = exists
                    ? recorder->adapter->open(recorder->path, &open, &recorder->heap)
                    : recorder->adapter->create(recorder->path, &create, &recorder->heap);
    if (error == 0 && recorder->adapter->thread_enter != NULL)
        error = recorder->adapter->thread_enter(recorder->heap);
    if (error != 0)
        complain(recorder, exists ? "open" : "create", error);
    return error == 0;
}

static bool close_heap(struct recorder *recorder)
{
    if (recorder->adapter->thread_leave != NULL)
        recorder->adapter->thread_leave(recorder->heap);
    int error = recorder->adapter->close(recorder->heap);
    recorder->heap = NULL;
    if (error != 0)
        complain(recorder, "close", error);
    return error == 0;
}

static void perform(struct recorder *recorder, const struct nvl_op *op)
{
    mark(recorder,
         &(struct nvl_mark){.kind = NVL_MARK_BEGIN, .thread = op->thread, .op = *op});
    if (op->kind == NVL_REOPEN) {
        if (close_heap(recorder) && open_heap(recorder))
            mark(recorder,
                 &(struct nvl_mark){.kind = NVL_MARK_ACK, .thread = op->thread});
        return;
    }
    int error = call(recorder, op);
    bool optional = op->kind != NVL_ALLOC && op->kind != NVL_FREE;
    bool full = error == ENOMEM && op->kind != NVL_FREE && op->kind != NVL_MOVE;
    if (error == 0)
        acknowledge(recorder, op);
    else if (full || (optional && error == ENOTSUP)) /* not in this mode, say */
        mark(recorder, &(struct nvl_mark){.kind = NVL_MARK_FAIL, .thread = op->thread});
    else
        complain(recorder, "an operation", error);
}

static void set_busy(struct recorder *recorder, const struct nvl_op *op, bool busy)
{
    for (unsigned i = 0; i < op->count; i++)
        recorder->busy[nvl_ledger_outer(recorder->ledger, op->id[i])] = busy;
}

/* One thread's part of the history. */
static void work(void *context, uint32_t thread)
{
    struct recorder *recorder = context;
    const struct nvl_record_options *options = recorder->options;
    struct nvd_random random;
    nvd_random_seed(&random, options->seed * NVL_THREADS_MAX + thread);
    bool enters = options->threads > 1 && recorder->adapter->thread_enter != NULL;
    if (enters && recorder->adapter->thread_enter(recorder->heap) != 0)
        abort();
    uint64_t count = options->script != NULL ? options->script->count
                                             : options->ops / options->threads;
    for (uint64_t i = 0; i < count && !recorder->failed; i++) {
        struct nvl_op op;
        if (options->script != NULL) {
            op = options->script->ops[i];
            if (op.thread % options->threads != thread ||
                !nvl_op_possible(recorder->ledger, &op, recorder->adapter,
                                 recorder->busy))
                continue;
            op.thread = (uint8_t)thread;
        } else if (!nvl_op_draw(recorder->ledger, &random, recorder->adapter,
                                recorder->busy, thread, options->threads == 1, &op)) {
            continue;
        }
        set_busy(recorder, &op, true);
        perform(recorder, &op);
        set_busy(recorder, &op, false);
    }
    if (enters && recorder->adapter->thread_leave != NULL)
        recorder->adapter->thread_leave(recorder->heap);
}

/* ---- beginning and end ---- */

static int write_file(const char *path, const void *image, size_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    const char *bytes = image;
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(fd, bytes + done, size - done);
        if (wrote <= 0) {
            int error = errno;
            close(fd);
            return error;
        }
        done += (size_t)wrote;
    }
    close(fd);
    return 0;
}

/* What became of the operations that the crash left in flight. */
static void resolve(struct recorder *recorder)
{
    struct nvl_ledger *shown = nvl_ledger_copy(recorder->ledger);
    nvl_resolve(recorder->adapter, recorder->heap, shown);
    for (uint32_t t = 0; t < NVL_THREADS_MAX; t++) {
        const struct nvl_op *op = &recorder->ledger->inflight[t].op;
        if (!recorder->ledger->inflight[t].active)
            continue;
        bool whole = false;
        for (unsigned i = 0; i < op->count; i++)
            whole |= shown->slot[op->id[i]].seq != recorder->ledger->slot[op->id[i]].seq;
        struct nvl_mark outcome = {.kind = whole ? NVL_MARK_ACK : NVL_MARK_FAIL,
                                   .thread = (uint8_t)t};
        for (unsigned i = 0; i < op->count; i++)
            outcome.place[i] = (struct nvl_place){shown->slot[op->id[i]].offset,
                                                  shown->slot[op->id[i]].usable};
        mark(recorder, &outcome);
    }
    free(shown);
}

static void fill_header(const struct recorder *recorder, struct nvl_trace_header *header)
{
    const struct nvl_record_options *options = recorder->options;
    memset(header, 0, sizeof *header);
    header->lens = options->lens;
    header->size = options->file_size;
    header->seed = options->seed;
    snprintf(header->adapter, sizeof header->adapter, "%s", recorder->adapter->name);
    snprintf(header->extra, sizeof header->extra, "%s", options->extra);
    if (options->script != NULL)
        nvl_script_print(options->script, recorder->ledger->slots,
                         recorder->ledger->inner, header->script, sizeof header->script);
}

static int begin(struct recorder *recorder)
{
    const struct nvl_record_options *options = recorder->options;
    const struct nvl_beginning *beginning = options->beginning;
    uint32_t inner = nvd_subject_inner(recorder->adapter);
    recorder->ledger =
        beginning != NULL
            ? nvl_ledger_copy(beginning->ledger)
            : nvl_ledger_new(options->slots, inner,
                             (uint32_t)recorder->adapter->slot_size, options->heap_size);
    recorder->shadow = must(calloc(1, options->file_size));
    recorder->busy = must(calloc(recorder->ledger->slots, sizeof *recorder->busy));
    snprintf(recorder->path, sizeof recorder->path, "%s/heap-%ld", options->folder,
             (long)getpid());
    if (beginning != NULL) {
        memcpy(recorder->shadow, beginning->image, options->file_size);
        int error = write_file(recorder->path, beginning->image, options->file_size);
        if (error != 0) {
            nvd_emit_error("heap", error, "%s: %s", recorder->path, strerror(error));
            return NVD_ENVIRONMENT;
        }
    }
    struct nvl_trace_header header;
    fill_header(recorder, &header);
    recorder->writer = nvl_trace_create(options->trace, &header, recorder->ledger,
                                        beginning != NULL ? beginning->image : NULL);
    if (recorder->writer == NULL) {
        nvd_emit_error("trace", errno, "%s: %s", options->trace, strerror(errno));
        return NVD_ENVIRONMENT;
    }
    int error = recorder->adapter->observe == NULL
                    ? ENOTSUP
                    : recorder->adapter->observe(nvl_lens_event, NULL);
    if (error != 0) {
        nvd_emit_error("observe", error,
                       "the adapter reports no flushes and fences: there is nothing to "
                       "cut the power between");
        return NVD_ENVIRONMENT;
    }
    return NVD_OK;
}

static int run(struct recorder *recorder)
{
    const struct nvl_record_options *options = recorder->options;
    nvl_mutation_use(options->mutation);
    nvl_lens_record(options->lens, recorder->path, write_event, recorder,
                    recorder->shadow, options->file_size);
    if (!open_heap(recorder))
        return NVD_INCORRECT;
    if (nvl_lens.size == 0) {
        nvd_emit_error("lens", 0,
                       "the adapter did not map its heap's file %s: nothing can be seen",
                       recorder->path);
        return NVD_ENVIRONMENT;
    }
    if (options->beginning == NULL)
        nvl_lens_synchronise(); /* create() may write the file by other means */
    else
        resolve(recorder);
    mark(recorder, &(struct nvl_mark){.kind = NVL_MARK_READY});
    nvl_schedule_run(options->threads, options->seed, work, recorder);
    /* Some histories end with a clean close, which may be cut short too. */
    if (!recorder->failed && options->seed % 4 == 0)
        close_heap(recorder);
    else if (nvl_lens.size > 0)
        nvl_lens_settle();
    return recorder->failed ? NVD_INCORRECT : NVD_OK;
}

static int report_blindness(const struct recorder *recorder)
{
    if (nvl_lens.blind_offset == UINT64_MAX ||
        recorder->options->lens == NVL_LENS_LIBRARY)
        return NVD_OK;
    struct nvl_places places;
    nvl_sources_of_frames(nvl_lens.blind_frames, 2, &places);
    nvd_emit_error("lens", 0,
                   "a store to offset 0x%llx was not seen before its flush at %s:%d: the "
                   "code that stores is not compiled for the lens (`nvlab flags`), or "
                   "stores past the caches without NVC_EVENT_NT_STORE",
                   (unsigned long long)nvl_lens.blind_offset,
                   places.count > 0 ? places.place[places.telling].file : "?",
                   places.count > 0 ? places.place[places.telling].line : 0);
    return NVD_ENVIRONMENT;
}

int nvl_record(const struct nvl_record_options *options)
{
    struct recorder *recorder = must(calloc(1, sizeof *recorder));
    recorder->options = options;
    recorder->adapter = options->adapter;
    int code = begin(recorder);
    if (code == NVD_OK)
        code = run(recorder);
    nvl_lens.mode = NVL_ASLEEP;
    if (recorder->adapter->observe != NULL)
        recorder->adapter->observe(NULL, NULL);
    unlink(recorder->path);
    if (recorder->writer != NULL) {
        int error = nvl_trace_close(recorder->writer);
        if (error != 0 && code == NVD_OK) {
            nvd_emit_error("trace", error, "%s: %s", options->trace, strerror(error));
            code = NVD_ENVIRONMENT;
        }
    }
    if (code == NVD_OK)
        code = report_blindness(recorder);
    /* The process ends with this; what the heap holds in DRAM goes with it. */
    return code;
}

int nvl_measure_fresh(const struct nvl_record_options *options, uint64_t *file_size,
                      uint64_t *fill_bytes)
{
    struct nvd_subject subject = {.adapter = options->adapter, .extra = options->extra};
    struct nvd_finding finding = {.verdict = NVD_VERDICT_OK};
    struct nvd_brim brim;
    struct stat status;
    char heap[4096], journal[4096];
    snprintf(heap, sizeof heap, "%s/fresh-%ld", options->folder, (long)getpid());
    snprintf(journal, sizeof journal, "%s/fresh-%ld.journal", options->folder,
             (long)getpid());
    int error = nvd_subject_create(&subject, heap, journal, options->heap_size,
                                   options->slots, 1);
    if (error != 0) {
        nvd_emit_error("create", error, "no fresh heap of %llu bytes: %s (%s)",
                       (unsigned long long)options->heap_size, strerror(error),
                       options->adapter->last_error());
        return NVD_ENVIRONMENT;
    }
    bool filled = nvd_brim_fill(&subject, &brim, &finding);
    int problem = stat(heap, &status) != 0 ? errno : 0;
    unlink(heap);
    unlink(journal);
    if (problem != 0 || !filled) {
        nvd_emit_error("fill", problem, "a fresh heap can't be filled: %s",
                       filled ? strerror(problem) : finding.detail);
        return NVD_ENVIRONMENT;
    }
    *file_size = ((uint64_t)status.st_size + 63) & ~UINT64_C(63);
    *fill_bytes = brim.bytes;
    return NVD_OK;
}
