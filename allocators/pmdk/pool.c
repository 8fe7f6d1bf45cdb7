/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - see pool.h.
 *
 * check() and the open pool.  libpmemobj judges a pool only while nobody has it
 * open (it takes the file's lock), and closing it would move every address that
 * the driver holds.  So check() judges a copy in anonymous memory, in which
 * pages of zeros stay holes.  Checking in open(), before the pool is opened,
 * would be charged to recovery, and would miss what the generation then breaks.
 */
#include <errno.h>
#include <stdbool.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cpuid.h>
#include <libpmem.h>
#include <libpmemobj.h>

#include "format.h"
#include "pool.h"

#define LAYOUT     "nvcrucible"
#define ROOT_MAGIC UINT64_C(0x31746f6f72636e76) /* "nvcroot1" */
#define PAGE_BYTES 4096

/* The root object.
 *   offset 0   u64 magic
 *          8   u64 slots
 *         16   PMEMoid table[slots]
 * Valid iff magic is ROOT_MAGIC and the object holds exactly `slots` entries. */
struct pmdk_root {
    uint64_t magic;
    uint64_t slots;
    PMEMoid table[];
};
_Static_assert(sizeof(PMEMoid) == 16, "a slot is 16 bytes");
_Static_assert(sizeof(struct pmdk_root) == 16, "the table follows the header");

static _Thread_local char last_error[512];

int pmdk_fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

const char *pmdk_last_error(void)
{
    return last_error;
}

const char *pmdk_library_version(void)
{
    /* The API version of the headers is no version of the library: ask the
       linker which file serves, whose name ends with the full version. */
    static char text[64];
    Dl_info info;
    void *address;
    PMEMobjpool *(*function)(const char *, const char *) = pmemobj_open;
    memcpy(&address, &function, sizeof address);
    char *file = NULL;
    if (dladdr(address, &info) != 0 && info.dli_fname != NULL) {
        file = realpath(info.dli_fname, NULL);
    }
    const char *slash = file != NULL ? strrchr(file, '/') : NULL;
    snprintf(text, sizeof text, "api %d.%d (%s)", PMEMOBJ_MAJOR_VERSION,
             PMEMOBJ_MINOR_VERSION, slash != NULL ? slash + 1 : "libpmemobj");
    free(file);
    return text;
}

/* --- create, open, close ------------------------------------------------- */

static int construct_root(PMEMobjpool *pool, void *address, void *argument)
{
    struct pmdk_root *root = address;
    size_t slots = *(const size_t *)argument;
    size_t bytes = sizeof *root + slots * sizeof(PMEMoid);
    pmemobj_memset(pool, root, 0, bytes, 0);
    root->magic = ROOT_MAGIC;
    root->slots = slots;
    pmemobj_persist(pool, root, sizeof *root);
    return 0;
}

/* Fills *heap for an open pool; closes the pool if it can't. */
static int adopt(const char *path, PMEMobjpool *pool, PMEMoid root,
                 struct nvc_heap **heap)
{
    struct stat status;
    int error = 0;
    struct nvc_heap *made = malloc(sizeof *made);
    if (made == NULL) {
        error = pmdk_fail(ENOMEM, "heap handle");
    } else if (stat(path, &status) != 0) {
        error = pmdk_fail(errno, "%s: %s", path, strerror(errno));
    }
    if (error != 0) {
        free(made);
        pmemobj_close(pool);
        return error;
    }
    *made = (struct nvc_heap){
        .pool = pool, .size = (size_t)status.st_size, .root = pmemobj_direct(root)};
    *heap = made;
    return 0;
}

static int refuse_options(const struct nvc_options *options)
{
    if (options->extra != NULL && options->extra[0] != '\0') {
        return pmdk_fail(EINVAL,
                         "libpmemobj's adapters have no options, but were given \"%s\"",
                         options->extra);
    }
    return 0;
}

int pmdk_create(const char *path, const struct nvc_options *options,
                struct nvc_heap **heap)
{
    int error = refuse_options(options);
    if (error != 0) {
        return error;
    }
    if (options->size < PMEMOBJ_MIN_POOL) {
        return pmdk_fail(EINVAL, "%s: %zu bytes are too few for a pool, which takes %zu",
                         path, options->size, (size_t)PMEMOBJ_MIN_POOL);
    }
    if (options->slots == 0 || options->slots > options->size / sizeof(PMEMoid)) {
        return pmdk_fail(EINVAL, "%s: a table of %zu slots in a heap of %zu bytes", path,
                         options->slots, options->size);
    }
    PMEMobjpool *pool = pmemobj_create(path, LAYOUT, options->size, 0600);
    if (pool == NULL) {
        return pmdk_fail(errno, "%s: %s", path, pmemobj_errormsg());
    }
    size_t slots = options->slots;
    PMEMoid root = pmemobj_root_construct(
        pool, sizeof(struct pmdk_root) + slots * sizeof(PMEMoid), construct_root, &slots);
    if (OID_IS_NULL(root)) {
        pmdk_fail(ENOMEM, "%s: no room for %zu slots: %s", path, slots,
                  pmemobj_errormsg());
        pmemobj_close(pool);
        unlink(path); /* made by this call: pmemobj_create refuses an existing file */
        return ENOMEM;
    }
    return adopt(path, pool, root, heap);
}

/* What libpmemobj's refusal to open a file that looks like our pool means. */
static int open_error(int error)
{
    switch (error) {
    case EAGAIN:
        return EBUSY;
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return error;
    default: /* EINVAL, EIO, and at times -1 */
        return EUCLEAN;
    }
}

int pmdk_open(const char *path, const struct nvc_options *options, struct nvc_heap **heap)
{
    int error = refuse_options(options);
    if (error != 0) {
        return error;
    }
    switch (pmdk_identify(path, LAYOUT)) {
    case PMDK_UNREADABLE:
        return pmdk_fail(errno, "%s: %s", path, strerror(errno));
    case PMDK_FOREIGN:
        return pmdk_fail(EMEDIUMTYPE, "%s: not a libpmemobj pool with layout " LAYOUT,
                         path);
    case PMDK_NEWER:
        return pmdk_fail(ENOTSUP, "%s: a libpmemobj pool of a newer format", path);
    case PMDK_SHORT:
        return pmdk_fail(EUCLEAN, "%s: a libpmemobj pool that was cut off", path);
    case PMDK_POOL:
        break;
    }
    PMEMobjpool *pool = pmemobj_open(path, LAYOUT);
    if (pool == NULL) {
        return pmdk_fail(open_error(errno), "%s: %s", path, pmemobj_errormsg());
    }
    /* pmemobj_root() would allocate a root where there is none: ask the size first. */
    size_t bytes = pmemobj_root_size(pool);
    const struct pmdk_root *root = NULL;
    PMEMoid root_oid = OID_NULL;
    if (bytes >= sizeof *root) {
        root_oid = pmemobj_root(pool, bytes);
        root = pmemobj_direct(root_oid);
    }
    if (root == NULL || root->magic != ROOT_MAGIC || root->slots == 0 ||
        root->slots != (bytes - sizeof *root) / sizeof(PMEMoid)) {
        pmdk_fail(EUCLEAN,
                  "%s: the pool has no slot table (creation was cut short, or damage)",
                  path);
        pmemobj_close(pool);
        return EUCLEAN;
    }
    return adopt(path, pool, root_oid, heap);
}

int pmdk_close(struct nvc_heap *heap)
{
    pmemobj_close(heap->pool);
    free(heap);
    return 0;
}

/* --- check --------------------------------------------------------------- */

/* Copies the pool into fd, leaving pages of zeros as holes. */
static int copy_pool(const struct nvc_heap *heap, int fd)
{
    static const char zeros[PAGE_BYTES];
    const char *from = (const char *)heap->pool;
    if (ftruncate(fd, (off_t)heap->size) != 0) {
        return errno;
    }
    for (size_t at = 0; at < heap->size; at += PAGE_BYTES) {
        size_t length = heap->size - at < PAGE_BYTES ? heap->size - at : PAGE_BYTES;
        if (memcmp(from + at, zeros, length) == 0) {
            continue;
        }
        ssize_t written = pwrite(fd, from + at, length, (off_t)at);
        if (written != (ssize_t)length) {
            return written < 0 ? errno : ENOSPC;
        }
    }
    return 0;
}

int pmdk_check(struct nvc_heap *heap)
{
    int fd = memfd_create("pmdk-check", MFD_CLOEXEC);
    if (fd < 0) {
        return pmdk_fail(errno, "no memory file for the copy to check: %s",
                         strerror(errno));
    }
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int error = copy_pool(heap, fd);
    if (error != 0) {
        pmdk_fail(error, "copying the pool to check it: %s", strerror(error));
    } else {
        int verdict = pmemobj_check(path, LAYOUT);
        if (verdict == 0) {
            error = pmdk_fail(EUCLEAN, "pmemobj_check: %s", pmemobj_errormsg());
        } else if (verdict < 0) {
            error = pmdk_fail(errno > 0 ? errno : EUCLEAN, "pmemobj_check: %s",
                              pmemobj_errormsg());
        }
    }
    close(fd);
    return error;
}

/* --- slots and blocks ---------------------------------------------------- */

void *pmdk_slots(struct nvc_heap *heap, size_t *count)
{
    *count = heap->root->slots;
    return heap->root->table;
}

struct nvc_block pmdk_range(struct nvc_heap *heap)
{
    return (struct nvc_block){heap->pool, heap->size};
}

int pmdk_alloc_error(int error)
{
    /* EINVAL: above PMEMOBJ_MAX_ALLOC_SIZE, which no heap has room for. */
    return error == EINVAL || error == ENOSPC ? ENOMEM : error;
}

void *pmdk_address(struct nvc_heap *heap, const void *slot)
{
    uint64_t offset = ((const PMEMoid *)slot)->off;
    return offset != 0 ? (void *)((uintptr_t)heap->pool + (uintptr_t)offset) : NULL;
}

struct nvc_block pmdk_read(struct nvc_heap *heap, const void *slot)
{
    PMEMoid oid = *(const PMEMoid *)slot;
    struct nvc_block block = {pmdk_address(heap, slot), 0};
    /* libpmemobj follows any offset, so ask it only about one inside the pool. */
    if (block.address != NULL && oid.off < heap->size &&
        pmemobj_direct(oid) == block.address) {
        block.usable = pmemobj_alloc_usable_size(oid);
    }
    return block;
}

void pmdk_persist(struct nvc_heap *heap, const void *address, size_t length)
{
    pmemobj_persist(heap->pool, address, length);
}

int pmdk_walk(struct nvc_heap *heap, nvc_walk_fn *visit, void *context)
{
    PMEMoid oid = pmemobj_first(heap->pool);
    while (!OID_IS_NULL(oid)) {
        struct nvc_block block = {pmemobj_direct(oid), pmemobj_alloc_usable_size(oid)};
        int stop = visit(context, block);
        if (stop != 0) {
            return stop;
        }
        oid = pmemobj_next(oid);
    }
    return 0;
}

/* --- figures and events -------------------------------------------------- */

/* The instruction libpmem flushes with, by the rule of libpmem(7): the best that
   the processor has and that no PMEM_NO_... variable forbids. */
static const char *flush_instruction(void)
{
    unsigned eax, ebx, ecx, edx;
    const char *off = getenv("PMEM_NO_FLUSH");
    if (off != NULL && strcmp(off, "1") == 0) {
        return "none";
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) {
        return "clflush";
    }
    const char *no_clwb = getenv("PMEM_NO_CLWB");
    const char *no_opt = getenv("PMEM_NO_CLFLUSHOPT");
    if ((ebx & bit_CLWB) != 0 && !(no_clwb != NULL && strcmp(no_clwb, "1") == 0)) {
        return "clwb";
    }
    if ((ebx & bit_CLFLUSHOPT) != 0 && !(no_opt != NULL && strcmp(no_opt, "1") == 0)) {
        return "clflushopt";
    }
    return "clflush";
}

/* Does the mapping that holds address have MAP_SYNC ("sf" among its VmFlags)? */
static bool mapped_sync(const void *address)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    if (maps == NULL) {
        return false;
    }
    char line[512];
    bool inside = false;
    bool sync = false;
    while (!sync && fgets(line, sizeof line, maps) != NULL) {
        char *dash, *space;
        uintptr_t start = strtoul(line, &dash, 16);
        uintptr_t end = *dash == '-' ? strtoul(dash + 1, &space, 16) : 0;
        if (end != 0 && *space == ' ') {
            inside = start <= (uintptr_t)address && (uintptr_t)address < end;
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            sync = strstr(line, " sf") != NULL;
        }
    }
    fclose(maps);
    return sync;
}

void pmdk_stats(struct nvc_heap *heap, struct nvc_stats *stats)
{
    /* libpmemobj's own statistics of live bytes would have to be switched on, and
       then cost flushes in every operation: unknown. */
    *stats = (struct nvc_stats){.live_bytes = UINT64_MAX,
                                .heap_bytes = heap->size,
                                .used_bytes = pmdk_used_bytes(heap->pool, heap->size),
                                .flushes = UINT64_MAX,
                                .fences = UINT64_MAX,
                                .nt_lines = UINT64_MAX,
                                .map_sync = mapped_sync(heap->pool) ? 1 : 0};
    /* Off pmem libpmem calls msync() instead; there is no instruction to name. */
    if (pmem_is_pmem(heap->pool, heap->size)) {
        snprintf(stats->flush, sizeof stats->flush, "%s", flush_instruction());
    }
}

int pmdk_observe(nvc_event_fn *fn, void *context)
{
    void (*observe)(nvc_event_fn *, void *);
    void *address = dlsym(RTLD_DEFAULT, "nvc_libpmem_observe");
    if (address == NULL) {
        return fn == NULL
                   ? 0
                   : pmdk_fail(ENOTSUP, "libpmem-probe.so is not preloaded: libpmem's "
                                        "events can't be seen");
    }
    memcpy(&observe, &address, sizeof observe);
    observe(fn, context);
    return 0;
}
