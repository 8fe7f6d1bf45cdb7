/* SPDX-License-Identifier: Apache-2.0 */
/* process_heap.c - see process_heap.h. */
#include "process_heap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fork.h"
#include "nvmalloc.h"

#define NAMES_MAX 1000u /* that are tried, where others have the process's number too */
#define SUFFIX    32u   /* bytes of ".PID.N" */

/* No thread's cache has this id, and no address lies in it. */
static struct nvm_heap no_heap = {.id = UINT64_MAX};
struct nvm_heap *preload_heap = &no_heap;
_Thread_local bool preload_inside __attribute__((tls_model("initial-exec")));

static char prefix[PATH_MAX];

const char *preload_prefix(void)
{
    return prefix;
}

/* --- what is told to people --- */

static void say(const char *format, va_list arguments)
{
    static const char who[] = "nvmalloc-preload: ";
    char text[PATH_MAX + 512];
    size_t length = sizeof(who) - 1;
    memcpy(text, who, length);
    int more = vsnprintf(text + length, sizeof(text) - length - 1, format, arguments);
    length += more < 0 ? 0 : (size_t)more;
    if (length > sizeof(text) - 2)
        length = sizeof(text) - 2;
    text[length++] = '\n';
    (void)!write(STDERR_FILENO, text, length);
}

void preload_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

void preload_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    _exit(PRELOAD_EXIT);
}

/* --- the environment --- */

static void read_prefix(void)
{
    const char *given = getenv("NVM_MALLOC_HEAP");
    if (given == NULL || *given == '\0')
        preload_die("NVM_MALLOC_HEAP is not set. It must name the heap, by a path on the "
                    "file system of the NVM to which \".PID.N\" is appended: "
                    "NVM_MALLOC_HEAP=/mnt/pmem0/heap");
    size_t used = 0;
    /* Relative to where the process began: it may go elsewhere before it forks. */
    if (*given != '/') {
        if (getcwd(prefix, sizeof(prefix) - 1) == NULL)
            preload_die("NVM_MALLOC_HEAP=%s is relative, and the working directory has "
                        "no name (errno %d); expected an absolute path",
                        given, errno);
        used = strlen(prefix);
        prefix[used++] = '/';
    }
    size_t length = strlen(given);
    if (used + length + SUFFIX > sizeof(prefix))
        preload_die("NVM_MALLOC_HEAP: a path of %zu bytes; at most %zu are possible",
                    used + length, sizeof(prefix) - SUFFIX);
    memcpy(prefix + used, given, length + 1);
}

/* Bytes of "512M"; 0 if it is no size. */
static uint64_t parse_size(const char *text)
{
    static const char suffixes[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || errno != 0)
        return 0;
    unsigned shift = 0;
    const char *suffix = *end == '\0' ? NULL : strchr(suffixes, *end);
    if (suffix != NULL) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    return *end != '\0' || value > UINT64_MAX >> shift ? 0 : value << shift;
}

/* Bytes of the file system that the heap file will lie on. */
static uint64_t file_system_bytes(void)
{
    char folder[PATH_MAX];
    size_t length = (size_t)(strrchr(prefix, '/') - prefix);
    memcpy(folder, prefix, length);
    memcpy(folder + length, "/", 2);
    struct statvfs status;
    if (statvfs(folder, &status) != 0)
        preload_die("NVM_MALLOC_HEAP=%s: cannot look at the folder (errno %d: %s); "
                    "expected one that is there",
                    prefix, errno, strerrorname_np(errno));
    return (uint64_t)status.f_blocks * status.f_frsize;
}

static uint64_t limit_size(uint64_t size)
{
    struct rlimit limit;
    /* A longer file would raise SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < size)
        return limit.rlim_cur;
    return size;
}

static uint64_t read_size(void)
{
    const char *given = getenv("NVM_MALLOC_SIZE");
    uint64_t there = file_system_bytes();
    if (given == NULL || *given == '\0')
        return limit_size(there < PRELOAD_SIZE_DEFAULT ? there : PRELOAD_SIZE_DEFAULT);
    uint64_t size = parse_size(given);
    if (size < NVM_MIN_HEAP)
        preload_die("NVM_MALLOC_SIZE=%s: expected a number of bytes, of at least %zu; "
                    "512M, for example",
                    given, NVM_MIN_HEAP);
    return limit_size(size);
}

/* --- the file --- */

static void name_file(char *path, unsigned number)
{
    snprintf(path, PATH_MAX + SUFFIX, "%s.%d.%u", prefix, (int)getpid(), number);
}

int preload_make_file(uint64_t size)
{
    char path[PATH_MAX + SUFFIX];
    int fd = -1;
    for (unsigned number = 0; number < NAMES_MAX && fd < 0; number++) {
        name_file(path, number);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
        if (fd < 0 && errno != EEXIST)
            return -1;
    }
    if (fd < 0)
        return -1;
    unlink(path);
    if (limit_size(size) < size || ftruncate(fd, (off_t)size) != 0) {
        close(fd);
        errno = EFBIG;
        return -1;
    }
    return fd;
}

/* --- the heap --- */

static void create(void)
{
    struct nvm_options options = {.mode = NVM_GC, .max_size = read_size()};
    struct nvm_heap *heap = NULL;
    char path[PATH_MAX + SUFFIX];
    int error = EEXIST;
    for (unsigned number = 0; number < NAMES_MAX && error == EEXIST; number++) {
        name_file(path, number);
        error = nvm_create_with(path, &options, &heap);
    }
    if (error != 0)
        preload_die("no heap of up to %llu bytes can be made for NVM_MALLOC_HEAP=%s: %s "
                    "(%s)",
                    (unsigned long long)options.max_size, prefix, nvm_error(),
                    strerrorname_np(error));
    unlink(path);
    error = nvm_region_detach(&heap->region);
    if (error != 0)
        preload_die("%s: its pages cannot be allocated through a mapping (%s); expected "
                    "Linux 5.14 or later, and a file system that has room",
                    path, strerrorname_np(error));
    preload_heap = heap;
}

void preload_make_heap(void)
{
    int saved = errno;
    preload_inside = true;
    read_prefix();
    /* Before nvmalloc watches forks: the last to prepare, so that nobody who takes part
       in the fork changes anything after it was copied, and the first in the child. */
    preload_watch_forks();
    create();
    /* The first call of each thread makes its cache; the first of all, what they share.
     */
    nvm_free(preload_heap, nvm_malloc(preload_heap, 1));
    preload_inside = false;
    errno = saved;
}

__attribute__((constructor)) static void begin(void)
{
    if (!preload_is_made())
        preload_make_heap();
    preload_find_functions();
}
