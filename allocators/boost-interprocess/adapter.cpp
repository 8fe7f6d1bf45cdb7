// SPDX-License-Identifier: Apache-2.0
/*
 * adapter.cpp - Boost.Interprocess's managed_mapped_file, as it comes.
 *
 * The allocator that C++ programs reach for when they want a heap in a file:
 * rbtree_best_fit under one process-shared mutex, both in the file itself.  Nothing
 * is logged and nothing is flushed, so its claim is modest, and the adapter makes
 * no more of it: the heap survives a clean close (NVC_PERSISTENT) and no crash
 * (NVC_CONSISTENCY_NONE).
 *
 * After a crash the trees may be half linked and the mutex locked by a process that
 * is no more; the next operation then hangs or writes anywhere, and the library has
 * no recovery to offer.  What a program can do is know that it happened: the file
 * says whether somebody has it open, and open() refuses (EUCLEAN) one that nobody
 * closed.
 *
 * File: the managed segment, and behind it a page of ours, the trailer.  Valid iff
 * the magic number is there and the size is the file's.  The library would take any
 * file for a segment, or wait for its creator, so the trailer is looked at first.
 * The library maps the trailer along when it opens the file and leaves it alone: the
 * segment's end stands in its own header.
 *
 * A slot is a block's offset from the beginning of the mapping, 8 bytes.
 */
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/version.hpp>

#include "adapter.h"

namespace bip = boost::interprocess;

namespace
{

constexpr uint64_t MAGIC = UINT64_C(0x3174736f6f62766e); /* "nvboost1" */
constexpr size_t PAGE = 4096;
constexpr size_t MIN_SIZE = size_t{1} << 20;

enum state : uint64_t {
    STATE_CLOSED = 1,
    STATE_OPEN = 2,
};

/* The last page of the file. */
struct trailer {
    uint64_t magic;
    uint64_t size;  /* of the file */
    uint64_t state; /* enum state */
    uint64_t table; /* offset of the slot table from the file's beginning */
    uint64_t slots; /* its entries */
};
static_assert(sizeof(trailer) <= PAGE, "the trailer fits its page");

thread_local char last_error[512];

__attribute__((format(printf, 2, 3))) int fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

/* A descriptor whose lock says that the heap is in use. */
class locked_file
{
  public:
    explicit locked_file(int descriptor) : descriptor_(descriptor)
    {
    }
    ~locked_file()
    {
        if (descriptor_ >= 0) {
            close(descriptor_);
        }
    }
    locked_file(const locked_file &) = delete;
    locked_file &operator=(const locked_file &) = delete;
    int get() const
    {
        return descriptor_;
    }

  private:
    int descriptor_;
};

} // namespace

struct nvc_heap {
    nvc_heap(int descriptor, const trailer &end) : file(descriptor), last(end)
    {
    }
    locked_file file;
    trailer last;
    bip::managed_mapped_file segment;
    char *base = nullptr;
};

namespace
{

int write_trailer(const nvc_heap &heap)
{
    ssize_t written = pwrite(heap.file.get(), &heap.last, sizeof heap.last,
                             static_cast<off_t>(heap.last.size - PAGE));
    return written == static_cast<ssize_t>(sizeof heap.last)
               ? 0
               : fail(written < 0 ? errno : ENOSPC,
                      "the heap's last page can't be written");
}

/* The errno value of what the library threw. */
int thrown(const char *path, const bip::interprocess_exception &problem)
{
    int error = problem.get_native_error();
    if (problem.get_error_code() == bip::already_exists_error) {
        error = EEXIST;
    } else if (problem.get_error_code() == bip::corrupted_error) {
        error = EUCLEAN;
    }
    return fail(error > 0 ? error : EIO, "%s: %s", path, problem.what());
}

int refuse_options(const nvc_options *options)
{
    if (options->extra != nullptr && options->extra[0] != '\0') {
        return fail(EINVAL, "boost-interprocess has no options, but was given \"%s\"",
                    options->extra);
    }
    return 0;
}

/* A slot table of zeros in a new segment. */
int make_table(const char *path, nvc_heap &heap, size_t slots)
{
    size_t bytes = slots * sizeof(uint64_t);
    void *table = heap.segment.allocate_aligned(bytes, alignof(uint64_t), std::nothrow);
    if (table == nullptr) {
        return fail(ENOMEM, "%s: no room for %zu slots", path, slots);
    }
    memset(table, 0, bytes);
    heap.last.table = static_cast<uint64_t>(static_cast<char *>(table) - heap.base);
    heap.last.slots = slots;
    return write_trailer(heap);
}

/* Gives the file its whole size, so that a full file system is an error, no signal. */
int reserve(const char *path, int descriptor, size_t size)
{
    int error = posix_fallocate(descriptor, 0, static_cast<off_t>(size));
    return error == 0 ? 0 : fail(error, "%s: no room for %zu bytes", path, size);
}

int make_heap(const char *path, const nvc_options *options,
              std::unique_ptr<nvc_heap> &made)
{
    bip::managed_mapped_file segment;
    try {
        segment = bip::managed_mapped_file(bip::create_only, path, options->size - PAGE,
                                           nullptr, bip::permissions(0600));
    } catch (const bip::interprocess_exception &problem) {
        return thrown(path, problem);
    }
    int error = 0;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    trailer last = {MAGIC, options->size, STATE_OPEN, 0, 0};
    made = std::make_unique<nvc_heap>(descriptor, last);
    made->segment = std::move(segment);
    made->base = static_cast<char *>(made->segment.get_address());
    if (descriptor < 0 || flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        error = fail(errno, "%s: %s", path, strerror(errno));
    }
    if (error == 0) {
        error = reserve(path, descriptor, options->size);
    }
    if (error == 0) {
        error = make_table(path, *made, options->slots);
    }
    if (error != 0) {
        made.reset();
        unlink(path); /* made by this call: create_only refuses an existing file */
    }
    return error;
}

int boost_create(const char *path, const nvc_options *options, nvc_heap **heap)
{
    int error = refuse_options(options);
    if (error != 0) {
        return error;
    }
    if (options->size < MIN_SIZE) {
        return fail(EINVAL, "%s: %zu bytes are too few for a heap, which takes %zu", path,
                    options->size, MIN_SIZE);
    }
    if (options->slots == 0 || options->slots > options->size / sizeof(uint64_t)) {
        return fail(EINVAL, "%s: a table of %zu slots in a heap of %zu bytes", path,
                    options->slots, options->size);
    }
    try {
        std::unique_ptr<nvc_heap> made;
        error = make_heap(path, options, made);
        if (error == 0) {
            *heap = made.release();
        }
    } catch (const std::bad_alloc &) {
        error = fail(ENOMEM, "heap handle");
    }
    return error;
}

/* Reads the trailer of an open file; 0, or why this is no heap that can be opened. */
int examine(const char *path, int descriptor, trailer &last)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0) {
        return fail(errno, "%s: %s", path, strerror(errno));
    }
    auto size = static_cast<uint64_t>(status.st_size);
    ssize_t found = -1;
    if (S_ISREG(status.st_mode) && size >= MIN_SIZE) {
        found = pread(descriptor, &last, sizeof last,
                      status.st_size - static_cast<off_t>(PAGE));
    }
    if (found != static_cast<ssize_t>(sizeof last) || last.magic != MAGIC) {
        return fail(EMEDIUMTYPE,
                    "%s: not a heap of boost-interprocess, or not all of one", path);
    }
    if (last.size != size || last.slots == 0 || last.slots > size / sizeof(uint64_t) ||
        last.table > size - PAGE - last.slots * sizeof(uint64_t)) {
        return fail(EUCLEAN, "%s: the heap's last page is damaged", path);
    }
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        return fail(errno == EWOULDBLOCK ? EBUSY : errno, "%s: the heap is in use", path);
    }
    if (last.state != STATE_CLOSED) {
        return fail(
            EUCLEAN,
            "%s: whoever had the heap open never closed it, and Boost.Interprocess "
            "promises nothing for a heap after a crash",
            path);
    }
    return 0;
}

int boost_open(const char *path, const nvc_options *options, nvc_heap **heap)
{
    int error = refuse_options(options);
    if (error != 0) {
        return error;
    }
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) {
        return fail(errno, "%s: %s", path, strerror(errno));
    }
    try {
        auto made = std::make_unique<nvc_heap>(descriptor, trailer{});
        error = examine(path, descriptor, made->last);
        if (error == 0) {
            made->segment = bip::managed_mapped_file(bip::open_only, path);
            made->base = static_cast<char *>(made->segment.get_address());
            made->last.state = STATE_OPEN;
            error = write_trailer(*made);
        }
        if (error == 0) {
            *heap = made.release();
        }
    } catch (const bip::interprocess_exception &problem) {
        error = thrown(path, problem);
    } catch (const std::bad_alloc &) {
        error = fail(ENOMEM, "heap handle");
    }
    return error;
}

int boost_close(nvc_heap *heap)
{
    std::unique_ptr<nvc_heap> ended(heap);
    if (!ended->segment.flush()) {
        return fail(errno, "the heap can't be written back: %s", strerror(errno));
    }
    ended->last.state = STATE_CLOSED;
    return write_trailer(*ended);
}

int boost_check(nvc_heap *heap)
{
    return heap->segment.check_sanity()
               ? 0
               : fail(EUCLEAN, "check_sanity: the free list and the blocks disagree");
}

void *boost_slots(nvc_heap *heap, size_t *count)
{
    *count = heap->last.slots;
    return heap->base + heap->last.table;
}

nvc_block boost_range(nvc_heap *heap)
{
    return {heap->base, heap->last.size - PAGE};
}

int boost_alloc_to(nvc_heap *heap, void *slot, size_t size)
{
    auto *place = static_cast<uint64_t *>(slot);
    if (*place != 0 || size == 0) {
        return fail(EINVAL, "alloc_to needs an empty slot and a size");
    }
    /* The library's arithmetic overflows on sizes that no heap has room for. */
    void *block =
        size < heap->last.size ? heap->segment.allocate(size, std::nothrow) : nullptr;
    if (block == nullptr) {
        return fail(ENOMEM, "no room for %zu bytes", size);
    }
    *place = static_cast<uint64_t>(static_cast<char *>(block) - heap->base);
    return 0;
}

int boost_free_from(nvc_heap *heap, void *slot)
{
    auto *place = static_cast<uint64_t *>(slot);
    if (*place == 0) {
        return fail(EINVAL, "free_from needs a slot that is not empty");
    }
    void *block = heap->base + *place;
    *place = 0;
    heap->segment.deallocate(block);
    return 0;
}

void *boost_address(nvc_heap *heap, const void *slot)
{
    uint64_t offset = *static_cast<const uint64_t *>(slot);
    return offset != 0 ? heap->base + offset : nullptr;
}

nvc_block boost_read(nvc_heap *heap, const void *slot)
{
    nvc_block block = {boost_address(heap, slot), 0};
    uint64_t offset = *static_cast<const uint64_t *>(slot);
    /* The library reads the header before any address it is asked about. */
    if (block.address != nullptr && offset % 16 == 0 && offset < heap->last.size - PAGE) {
        block.usable = heap->segment.get_segment_manager()->size(block.address);
    }
    return block;
}

/* What the library's own flush() does, of fewer pages. */
void boost_persist(nvc_heap *heap, const void *address, size_t length)
{
    (void)heap;
    auto begin = reinterpret_cast<uintptr_t>(address) / PAGE * PAGE;
    uintptr_t end = reinterpret_cast<uintptr_t>(address) + length;
    msync(reinterpret_cast<void *>(begin), end - begin, MS_SYNC);
}

void boost_stats(nvc_heap *heap, nvc_stats *stats)
{
    *stats = nvc_stats{};
    stats->live_bytes = UINT64_MAX;
    stats->heap_bytes = heap->last.size;
    stats->used_bytes = heap->last.size - heap->segment.get_free_memory();
    stats->flushes = stats->fences = stats->nt_lines = UINT64_MAX;
}

int boost_observe(nvc_event_fn *fn, void *)
{
    return fn == nullptr ? 0 : fail(ENOTSUP, "Boost.Interprocess flushes nothing");
}

const char *boost_last_error(void)
{
    return last_error;
}

const char *boost_version(void)
{
    return BOOST_LIB_VERSION;
}

nvc_adapter describe()
{
    nvc_adapter adapter = {};
    adapter.version = NVC_ADAPTER_VERSION;
    adapter.struct_size = sizeof adapter;
    adapter.name = "boost-interprocess";
    adapter.capabilities = NVC_PERSISTENT | NVC_THREADS | NVC_NESTED_SLOTS;
    adapter.consistency = NVC_CONSISTENCY_NONE;
    adapter.slot_size = sizeof(uint64_t);
    adapter.min_size = MIN_SIZE;
    adapter.library_version = boost_version;
    adapter.create = boost_create;
    adapter.open = boost_open;
    adapter.close = boost_close;
    adapter.check = boost_check;
    adapter.slots = boost_slots;
    adapter.range = boost_range;
    adapter.alloc_to = boost_alloc_to;
    adapter.free_from = boost_free_from;
    adapter.read = boost_read;
    adapter.persist = boost_persist;
    adapter.stats = boost_stats;
    adapter.observe = boost_observe;
    adapter.last_error = boost_last_error;
    adapter.address = boost_address;
    return adapter;
}

} // namespace

extern "C" {

nvc_adapter_get_fn nvc_adapter_get;

const struct nvc_adapter *nvc_adapter_get(void)
{
    static const nvc_adapter adapter = describe();
    return &adapter;
}
}
