/* SPDX-License-Identifier: Apache-2.0 */
/*
 * numa.c - see numa.h.
 *
 * An address of the arenas is a unit's number + 1, since vmem has no address 0.
 *
 * `owner` says of each live allocation, at its first unit, whose it is: 1 + the node, or
 * 0 for the heap's own (claimed).  Only the allocation's owner reads or writes that
 * byte, so it needs no lock.
 *
 * Why U2 holds.  A node's arena fails only when its own free runs and every run of the
 * heap are too short.  Then all nodes' arenas are trimmed: what is free in them goes to
 * the heap, where it merges with its neighbours, and the import is tried again, with all
 * that is free in one arena.  What is freed after its arena was trimmed may be missed:
 * `frees` tells, and the search begins again.
 */
#include "numa.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dram.h"

/* 4 MiB: two huge pages, and 1/32 of a small heap of 128 MiB. */
#define BATCH        64u
#define RICH         (16 * BATCH) /* free in the heap, below which nobody hoards */
#define SEARCHES_MAX 8

#define NODES_LIST "/sys/devices/system/node/online"
#define NODE_IDS   1024

struct nvm_numa {
    vmem_t *heap;
    unsigned nodes;
    bool by_system; /* the nodes are the system's: `index` is filled in */
    vmem_t *node[NVM_NUMA_NODES_MAX];
    uint8_t *owner; /* max_units of them */
    uint64_t max_units;
    _Atomic uint64_t frees;
    uint8_t index[NODE_IDS]; /* of the node with that id in the system */
};

static void *address_of(uint64_t unit)
{
    return (void *)(uintptr_t)(unit + 1);
}

static uint64_t unit_at(const void *address)
{
    return (uint64_t)(uintptr_t)address - 1;
}

/* ---- the machine's nodes ---- */

/* Ids of "0-1,4\n" into ids, ascending; how many, 0 if that is no such list. */
static unsigned parse_list(const char *text, unsigned *ids)
{
    unsigned count = 0;
    for (;;) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (end == text)
            return 0;
        if (*end == '-') {
            text = end + 1;
            last = strtoul(text, &end, 10);
            if (end == text || last < first)
                return 0;
        }
        for (; first <= last && first < NODE_IDS && count < NVM_NUMA_NODES_MAX; first++)
            ids[count++] = (unsigned)first;
        if (*end != ',')
            return count;
        text = end + 1;
    }
}

/* Nodes come and go seldom, and heaps are opened often: looked up once. */
static unsigned known_ids[NVM_NUMA_NODES_MAX], known_count;

static void look_up_nodes(void)
{
    char text[512];
    int fd = open(NODES_LIST, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    known_count = parse_list(text, known_ids);
    if (known_count == 0) {
        known_ids[0] = 0;
        known_count = 1;
    }
}

/* The ids of the system's nodes, and in *count how many. */
static const unsigned *system_nodes(unsigned *count)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look_up_nodes);
    *count = known_count;
    return known_ids;
}

/* The number in NVM_NUMA_NODES; -1: not set, 0: set to something else. */
static int stated_nodes(void)
{
    const char *text = getenv("NVM_NUMA_NODES");
    if (text == NULL || *text == '\0')
        return -1;
    char *end;
    unsigned long count = strtoul(text, &end, 10);
    bool good = *text >= '0' && *text <= '9' && *end == '\0';
    return good && count <= NVM_NUMA_NODES_MAX ? (int)count : 0;
}

unsigned nvm_numa_count_nodes(void)
{
    unsigned count;
    int stated = stated_nodes();
    if (stated >= 0)
        return (unsigned)stated;
    system_nodes(&count);
    return count;
}

unsigned nvm_numa_here(const struct nvm_numa *units)
{
    unsigned cpu, node;
    if (units->nodes == 1 || getcpu(&cpu, &node) != 0)
        return 0;
    if (units->by_system)
        return node < NODE_IDS ? units->index[node] : 0;
    return cpu % units->nodes;
}

/* ---- the tree ---- */

static void *import_exact(vmem_t *heap, size_t *size, size_t align, int flags)
{
    (void)align; /* the quantum: nobody asks for more */
    return vmem_alloc(heap, *size, flags | VM_BESTFIT);
}

static void *import_batch(vmem_t *heap, size_t *size, size_t align, int flags)
{
    if (*size < BATCH && vmem_size(heap, VMEM_FREE) >= RICH) {
        void *batch = vmem_alloc(heap, BATCH, flags | VM_BESTFIT);
        if (batch != NULL) {
            *size = BATCH;
            return batch;
        }
    }
    return import_exact(heap, size, align, flags);
}

static bool make_arenas(struct nvm_numa *units, const char *name, uint64_t count)
{
    const int flags = VM_NOSLEEP | VMC_IDENTIFIER;
    units->heap = vmem_create(name, address_of(0), count, 1, NULL, NULL, NULL, 0, flags);
    if (units->heap == NULL)
        return false;
    for (unsigned i = 0; i < units->nodes; i++) {
        char node_name[48];
        snprintf(node_name, sizeof(node_name), "%.20s node %u", name, i);
        units->node[i] = vmem_xcreate(node_name, NULL, 0, 1,
                                      units->nodes == 1 ? import_exact : import_batch,
                                      vmem_free, units->heap, 0, flags);
        if (units->node[i] == NULL)
            return false;
    }
    return true;
}

/* `nodes` resolved, 0 if NVM_NUMA_NODES is bad; notes the system's numbering. */
static unsigned settle_nodes(struct nvm_numa *units, unsigned nodes)
{
    if (nodes != 0 || stated_nodes() >= 0)
        return nodes != 0 ? nodes : (unsigned)stated_nodes();
    const unsigned *ids = system_nodes(&nodes);
    units->by_system = true;
    for (unsigned i = 0; i < nodes; i++)
        units->index[ids[i]] = (uint8_t)i;
    return nodes;
}

struct nvm_numa *nvm_numa_create(const char *name, uint64_t count, uint64_t max_units,
                                 unsigned nodes)
{
    if (count == 0 || count > max_units || max_units >= (uint64_t)1 << 48 ||
        nodes > NVM_NUMA_NODES_MAX) {
        errno = EINVAL;
        return NULL;
    }
    struct nvm_numa *units = nvm_dram_map(sizeof(*units));
    if (units == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    int error = ENOMEM;
    units->max_units = max_units;
    units->nodes = settle_nodes(units, nodes);
    units->owner = nvm_dram_map(max_units);
    if (units->nodes == 0)
        error = EINVAL;
    else if (units->owner != NULL && make_arenas(units, name, count))
        return units;
    nvm_numa_destroy(units);
    errno = error;
    return NULL;
}

void nvm_numa_destroy(struct nvm_numa *units)
{
    for (unsigned i = 0; i < units->nodes; i++)
        if (units->node[i] != NULL)
            vmem_destroy(units->node[i]);
    if (units->heap != NULL)
        vmem_destroy(units->heap);
    if (units->owner != NULL)
        nvm_dram_unmap(units->owner, units->max_units);
    nvm_dram_unmap(units, sizeof(*units));
}

/* ---- allocation ---- */

static void trim_all(struct nvm_numa *units)
{
    for (unsigned i = 0; i < units->nodes; i++)
        vmem_trim(units->node[i]);
}

/*
 * What try() finds; and if it finds nothing, what it finds with all that is free in the
 * heap's arena, as long as frees meanwhile make another try worth while.
 */
typedef void *try_fn(const struct nvm_numa *units, unsigned node, uint64_t first,
                     uint64_t count);

static void *search(struct nvm_numa *units, try_fn *try, unsigned node, uint64_t first,
                    uint64_t count)
{
    void *address = try(units, node, first, count);
    if (units->nodes == 1)
        return address; /* its arena hoards nothing */
    for (int i = 0; address == NULL && i < SEARCHES_MAX; i++) {
        uint64_t before = atomic_load(&units->frees);
        trim_all(units);
        address = try(units, node, first, count);
        if (atomic_load(&units->frees) == before)
            break;
    }
    return address;
}

static void *try_alloc(const struct nvm_numa *units, unsigned node, uint64_t first,
                       uint64_t count)
{
    (void)first;
    return vmem_alloc(units->node[node], count, VM_NOSLEEP | VM_BESTFIT);
}

uint64_t nvm_numa_alloc(struct nvm_numa *units, unsigned node, uint64_t count)
{
    node %= units->nodes;
    void *address = search(units, try_alloc, node, 0, count);
    if (address == NULL)
        return NVM_NUMA_NONE;
    units->owner[unit_at(address)] = (uint8_t)(node + 1);
    return unit_at(address);
}

/* `first` is the alignment here. */
static void *try_aligned(const struct nvm_numa *units, unsigned node, uint64_t first,
                         uint64_t count)
{
    (void)node;
    /* A unit's address is one more than its number. */
    return vmem_xalloc(units->heap, count, first, first > 1 ? 1 : 0, 0, NULL, NULL,
                       VM_NOSLEEP | VM_BESTFIT);
}

uint64_t nvm_numa_alloc_aligned(struct nvm_numa *units, uint64_t count, uint64_t align)
{
    if (align == 0 || (align & (align - 1)) != 0) {
        errno = EINVAL;
        return NVM_NUMA_NONE;
    }
    void *address = search(units, try_aligned, 0, align, count);
    if (address == NULL)
        return NVM_NUMA_NONE;
    units->owner[unit_at(address)] = 0;
    return unit_at(address);
}

static void *try_claim(const struct nvm_numa *units, unsigned node, uint64_t first,
                       uint64_t count)
{
    (void)node;
    /* Next fit: claims in ascending order find their place at the rotor. */
    return vmem_xalloc(units->heap, count, 0, 0, 0, address_of(first),
                       address_of(first + count), VM_NOSLEEP | VM_NEXTFIT);
}

bool nvm_numa_claim(struct nvm_numa *units, uint64_t first, uint64_t count)
{
    if (count == 0 || count > units->max_units || first > units->max_units - count ||
        search(units, try_claim, 0, first, count) == NULL)
        return false;
    units->owner[first] = 0;
    return true;
}

void nvm_numa_free(struct nvm_numa *units, uint64_t first, uint64_t count)
{
    /* Out of range: no arena has it allocated, and the heap's will say so. */
    unsigned owner = first < units->max_units ? units->owner[first] : 0;
    vmem_free(owner == 0 ? units->heap : units->node[owner - 1], address_of(first),
              count);
    if (units->nodes > 1)
        atomic_fetch_add(&units->frees, 1);
}

int nvm_numa_grow(struct nvm_numa *units, uint64_t more)
{
    void *added = NULL;
    do {
        uint64_t total = nvm_numa_total(units);
        if (more == 0 || more > units->max_units - total)
            return EINVAL;
        added = vmem_extend(units->heap, address_of(total), more, VM_NOSLEEP);
    } while (added == NULL && errno == EEXIST); /* another thread was faster */
    if (added == NULL)
        return errno;
    atomic_fetch_add(&units->frees, 1);
    return 0;
}

/* ---- what can be asked ---- */

uint64_t nvm_numa_total(struct nvm_numa *units)
{
    return vmem_size(units->heap, VMEM_SPAN);
}

uint64_t nvm_numa_free_count(struct nvm_numa *units)
{
    uint64_t count = vmem_size(units->heap, VMEM_FREE);
    for (unsigned i = 0; i < units->nodes; i++)
        count += vmem_size(units->node[i], VMEM_FREE);
    return count;
}

unsigned nvm_numa_nodes(const struct nvm_numa *units)
{
    return units->nodes;
}

vmem_t *nvm_numa_heap_arena(const struct nvm_numa *units)
{
    return units->heap;
}

vmem_t *nvm_numa_node_arena(const struct nvm_numa *units, unsigned node)
{
    return units->node[node % units->nodes];
}

bool nvm_numa_check(struct nvm_numa *units, char *why, size_t len)
{
    if (!vmem_check(units->heap, why, len))
        return false;
    for (unsigned i = 0; i < units->nodes; i++)
        if (!vmem_check(units->node[i], why, len))
            return false;
    return true;
}
