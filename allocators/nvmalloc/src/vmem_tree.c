/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of arenas, each under its source: for inspection and for people. */
#include "vmem_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <unistd.h>

static void fill_info(vmem_t *vmp, unsigned depth, vmem_info_t *info)
{
    vmem_lock(vmp);
    *info = (vmem_info_t){
        .vi_id = vmp->vm_id,
        .vi_depth = depth,
        .vi_cflags = vmp->vm_cflags,
        .vi_quantum = vmp->vm_quantum,
        .vi_qcache_max = vmp->vm_qcache_max,
        .vi_hash_size = vmp->vm_hash_mask + 1,
        .vi_segs_free = vmp->vm_nsegfree,
        .vi_kstat = vmp->vm_kstat,
    };
    for (size_t i = 0; i < sizeof(info->vi_name); i++)
        info->vi_name[i] = vmp->vm_name[i];
    vmem_unlock(vmp);
}

/*
 * The arena with the least id above `after` whose source has the id `source_id`. The list
 * is gone through anew each time: so that no lock is held while the visitor runs, and
 * arenas that come and go meanwhile do no harm.
 */
static bool next_child(uint32_t source_id, uint32_t after, unsigned depth,
                       vmem_info_t *info)
{
    vmem_t *found = NULL;

    pthread_mutex_lock(&vmem_list_lock);
    for (vmem_t *vmp = vmem_list; vmp != NULL; vmp = vmp->vm_next)
        if (vmp->vm_kstat.vk_source_id == source_id && vmp->vm_id > after &&
            (found == NULL || vmp->vm_id < found->vm_id))
            found = vmp;
    if (found != NULL)
        fill_info(found, depth, info);
    pthread_mutex_unlock(&vmem_list_lock);
    return found != NULL;
}

static void visit_children(uint32_t source_id, unsigned depth, vmem_visitor_t *func,
                           void *arg)
{
    vmem_info_t info = {.vi_id = 0};

    while (next_child(source_id, info.vi_id, depth, &info)) {
        func(&info, arg);
        visit_children(info.vi_id, depth + 1, func, arg);
    }
}

void vmem_visit(vmem_visitor_t *func, void *arg)
{
    visit_children(0, 0, func, arg);
}

/* Formats into a buffer on the stack: stdio could call malloc. */
typedef struct dump {
    vmem_writer_t *du_write;
    void *du_arg;
    unsigned du_depth; /* JSON: of the arena that is open last */
    bool du_open;
} dump_t;

__attribute__((format(printf, 2, 3))) static void put(dump_t *dump, const char *fmt, ...)
{
    char text[768];
    va_list ap;

    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (len > 0)
        dump->du_write(dump->du_arg, text,
                       (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1);
}

static void put_line(const vmem_info_t *info, void *arg)
{
    const vmem_kstat_t *ks = &info->vi_kstat;
    int indent = 2 * (int)info->vi_depth;

    put(arg,
        "%4" PRIu32 "  %*s%-*s %8zu %14" PRIu64 " %14" PRIu64 " %14" PRIu64 " %12" PRIu64
        " %12" PRIu64 " %8" PRIu64 " %8" PRIu64 "%s\n",
        info->vi_id, indent, "", VMEM_NAMELEN - indent > 0 ? VMEM_NAMELEN - indent : 0,
        info->vi_name, info->vi_quantum, ks->vk_mem_inuse, ks->vk_mem_total,
        ks->vk_mem_import, ks->vk_alloc, ks->vk_free, ks->vk_wait, ks->vk_fail,
        info->vi_cflags & VMC_IDENTIFIER ? "  identifiers" : "");
}

/* A name as a JSON string. It may have been cut in the middle of a character: no byte
   that is not ASCII goes out. */
static void put_name(dump_t *dump, const char *name)
{
    put(dump, "\"");
    for (; *name != '\0'; name++) {
        unsigned char c = (unsigned char)*name;
        if (c < 0x20 || c == '"' || c == '\\')
            put(dump, "\\u%04x", c);
        else
            put(dump, "%c", c < 0x7f ? c : '?');
    }
    put(dump, "\"");
}

static void put_counters(dump_t *dump, const vmem_kstat_t *ks)
{
    put(dump,
        ",\"in_use\":%" PRIu64 ",\"total\":%" PRIu64 ",\"imported\":%" PRIu64
        ",\"alloc\":%" PRIu64 ",\"free\":%" PRIu64 ",\"wait\":%" PRIu64
        ",\"fail\":%" PRIu64,
        ks->vk_mem_inuse, ks->vk_mem_total, ks->vk_mem_import, ks->vk_alloc, ks->vk_free,
        ks->vk_wait, ks->vk_fail);
    put(dump,
        ",\"lookup\":%" PRIu64 ",\"search\":%" PRIu64 ",\"populate_wait\":%" PRIu64
        ",\"populate_fail\":%" PRIu64 ",\"contains\":%" PRIu64
        ",\"contains_search\":%" PRIu64,
        ks->vk_lookup, ks->vk_search, ks->vk_populate_wait, ks->vk_populate_fail,
        ks->vk_contains, ks->vk_contains_search);
}

/* Ends the arenas that are open and no ancestors of one at `depth`. */
static void close_to(dump_t *dump, unsigned depth)
{
    for (; dump->du_open && dump->du_depth > depth; dump->du_depth--)
        put(dump, "]}");
    if (dump->du_open && dump->du_depth == depth)
        put(dump, "]}");
}

static void put_object(const vmem_info_t *info, void *arg)
{
    dump_t *dump = arg;

    bool child = dump->du_open && info->vi_depth > dump->du_depth;
    close_to(dump, info->vi_depth);
    put(dump, "%s{\"id\":%" PRIu32 ",\"name\":", dump->du_open && !child ? "," : "",
        info->vi_id);
    put_name(dump, info->vi_name);
    if (info->vi_kstat.vk_source_id != 0)
        put(dump, ",\"source\":%" PRIu32, info->vi_kstat.vk_source_id);
    else
        put(dump, ",\"source\":null");
    put(dump,
        ",\"quantum\":%zu,\"identifier\":%s,\"populator\":%s,\"qcache_max\":%zu"
        ",\"hash_buckets\":%zu,\"segments_spare\":%zu",
        info->vi_quantum, info->vi_cflags & VMC_IDENTIFIER ? "true" : "false",
        info->vi_cflags & VMC_POPULATOR ? "true" : "false", info->vi_qcache_max,
        info->vi_hash_size, info->vi_segs_free);
    put_counters(dump, &info->vi_kstat);
    put(dump, ",\"arenas\":[");
    dump->du_open = true;
    dump->du_depth = info->vi_depth;
}

void vmem_dump(vmem_writer_t *write, void *arg, int format)
{
    dump_t dump = {.du_write = write, .du_arg = arg};

    if (format == VMEM_DUMP_JSON) {
        put(&dump, "{\"arenas\":[");
        vmem_visit(put_object, &dump);
        close_to(&dump, 0);
        put(&dump, "]}\n");
        return;
    }
    put(&dump, "%4s  %-*s %8s %14s %14s %14s %12s %12s %8s %8s\n", "id", VMEM_NAMELEN,
        "arena (under its source)", "quantum", "in use", "total", "imported", "allocs",
        "frees", "waits", "fails");
    vmem_visit(put_line, &dump);
}

typedef struct to_fd {
    int tf_fd;
    int tf_error;
} to_fd_t;

static void write_fd(void *arg, const char *text, size_t len)
{
    to_fd_t *to = arg;

    while (len > 0 && to->tf_error == 0) {
        ssize_t wrote = write(to->tf_fd, text, len);
        if (wrote >= 0) {
            text += wrote;
            len -= (size_t)wrote;
        } else if (errno != EINTR) {
            to->tf_error = errno;
        }
    }
}

int vmem_dump_fd(int fd, int format)
{
    to_fd_t to = {.tf_fd = fd};

    vmem_dump(write_fd, &to, format);
    return to.tf_error;
}
