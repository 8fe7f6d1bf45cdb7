/* SPDX-License-Identifier: Apache-2.0 */
#include "contract_heap.h"

#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAP_BYTES (UINT64_C(32) << 20)

void contract_load(struct contract *contract, const char *library)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle != NULL ? dlsym(handle, NVC_ADAPTER_SYMBOL) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    nvc_adapter_get_fn *get;
    memcpy(&get, &symbol, sizeof get);
    contract->adapter = get();
    contract->size = HEAP_BYTES;
    if (contract->size < contract->adapter->min_size) {
        contract->size = contract->adapter->min_size;
    }
    const char *where = getenv("NVC_TEST_DIR");
    if (where == NULL) {
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir;
    }
    snprintf(contract->folder, sizeof contract->folder, "%s/conformance-XXXXXX", where);
    if (mkdtemp(contract->folder) == NULL) {
        perror(contract->folder);
        exit(1);
    }
    snprintf(contract->path, sizeof contract->path, "%s/heap", contract->folder);
}

void contract_unload(struct contract *contract)
{
    unlink(contract->path);
    rmdir(contract->folder);
}

bool contract_can(const struct contract *contract, uint32_t capability)
{
    return (contract->adapter->capabilities & capability) != 0;
}

void contract_expect(const struct contract *contract, int expected, int returned,
                     const char *call)
{
    const char *reason = contract->adapter->last_error();
    if (returned != expected) {
        fail_msg("%s gave %d (%s), not %d (%s); last_error: %s", call, returned,
                 strerror(returned), expected, strerror(expected), reason);
    }
    if (returned != 0 && (reason == NULL || reason[0] == '\0')) {
        fail_msg("%s gave %s without a reason in last_error()", call, strerror(returned));
    }
}

static struct contract_heap adopt(const struct contract *contract, struct nvc_heap *heap)
{
    struct contract_heap made = {.adapter = contract->adapter, .heap = heap};
    made.table = made.adapter->slots(heap, &made.slots);
    assert_non_null(made.table);
    assert_int_equal(made.slots, CONTRACT_SLOTS);
    return made;
}

struct contract_heap contract_create(const struct contract *contract)
{
    struct nvc_options options = {
        .size = contract->size, .slots = CONTRACT_SLOTS, .extra = ""};
    struct nvc_heap *heap = NULL;
    int error = contract->adapter->create(contract->path, &options, &heap);
    contract_expect(contract, 0, error, "create");
    return adopt(contract, heap);
}

struct contract_heap contract_open(const struct contract *contract)
{
    struct nvc_options options = {.extra = ""};
    struct nvc_heap *heap = NULL;
    int error = contract->adapter->open(contract->path, &options, &heap);
    contract_expect(contract, 0, error, "open");
    return adopt(contract, heap);
}

void contract_close(struct contract_heap *heap)
{
    assert_int_equal(heap->adapter->close(heap->heap), 0);
    heap->heap = NULL;
}

void *contract_slot(const struct contract_heap *heap, size_t index)
{
    return heap->table + index * heap->adapter->slot_size;
}

struct nvc_block contract_read(const struct contract_heap *heap, size_t index)
{
    return heap->adapter->read(heap->heap, contract_slot(heap, index));
}

void contract_alloc(const struct contract_heap *heap, size_t index, size_t size)
{
    int error = heap->adapter->alloc_to(heap->heap, contract_slot(heap, index), size);
    if (error != 0) {
        fail_msg("alloc_to(slot %zu, %zu bytes): %s: %s", index, size, strerror(error),
                 heap->adapter->last_error());
    }
}

void contract_free(const struct contract_heap *heap, size_t index)
{
    int error = heap->adapter->free_from(heap->heap, contract_slot(heap, index));
    if (error != 0) {
        fail_msg("free_from(slot %zu): %s: %s", index, strerror(error),
                 heap->adapter->last_error());
    }
}

uint64_t contract_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static unsigned char content(uint64_t index, uint64_t sequence, size_t at)
{
    uint64_t state = index * UINT64_C(0x100000001) + sequence * 977 + at / 8;
    return (unsigned char)(contract_random(&state) >> (at % 8 * 8));
}

void contract_fill(const struct contract_heap *heap, struct nvc_block block, size_t size,
                   uint64_t index, uint64_t sequence)
{
    unsigned char *bytes = block.address;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = content(index, sequence, i);
    }
    heap->adapter->persist(heap->heap, bytes, size);
}

bool contract_holds(struct nvc_block block, size_t size, uint64_t index,
                    uint64_t sequence)
{
    const unsigned char *bytes = block.address;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != content(index, sequence, i)) {
            return false;
        }
    }
    return true;
}

struct block_list {
    struct nvc_block *blocks;
    size_t count;
    size_t capacity;
};

static int collect(void *context, struct nvc_block block)
{
    struct block_list *list = context;
    if (list->count == list->capacity) {
        return EOVERFLOW; /* more blocks than anyone asked for */
    }
    list->blocks[list->count++] = block;
    return 0;
}

static int by_address(const void *left, const void *right)
{
    uintptr_t a = (uintptr_t)((const struct nvc_block *)left)->address;
    uintptr_t b = (uintptr_t)((const struct nvc_block *)right)->address;
    return (a > b) - (a < b);
}

static void assert_disjoint_in_range(const struct contract_heap *heap,
                                     const struct block_list *list)
{
    struct nvc_block range = heap->adapter->range(heap->heap);
    uintptr_t end = 0;
    for (size_t i = 0; i < list->count; i++) {
        uintptr_t at = (uintptr_t)list->blocks[i].address;
        assert_true(at >= end);
        end = at + list->blocks[i].usable;
        if (range.address != NULL) {
            assert_true(at >= (uintptr_t)range.address);
            assert_true(end <= (uintptr_t)range.address + range.usable);
        }
    }
}

size_t contract_consistent(const struct contract_heap *heap, size_t nested)
{
    size_t capacity = heap->slots + nested;
    struct block_list live = {calloc(capacity, sizeof(struct nvc_block)), 0, capacity};
    struct block_list walked = {calloc(capacity, sizeof(struct nvc_block)), 0, capacity};
    assert_non_null(live.blocks);
    assert_non_null(walked.blocks);
    for (size_t i = 0; i < heap->slots; i++) {
        struct nvc_block block = contract_read(heap, i);
        if (block.address != NULL) {
            live.blocks[live.count++] = block;
        }
    }
    qsort(live.blocks, live.count, sizeof *live.blocks, by_address);
    assert_disjoint_in_range(heap, &live);
    if ((heap->adapter->capabilities & NVC_WALK) != 0) {
        assert_int_equal(heap->adapter->walk(heap->heap, collect, &walked), 0);
        qsort(walked.blocks, walked.count, sizeof *walked.blocks, by_address);
        assert_disjoint_in_range(heap, &walked);
        assert_int_equal(walked.count, live.count + nested);
        size_t found = 0;
        for (size_t i = 0; i < walked.count && found < live.count; i++) {
            if (walked.blocks[i].address == live.blocks[found].address) {
                assert_int_equal(walked.blocks[i].usable, live.blocks[found].usable);
                found++;
            }
        }
        assert_int_equal(found, live.count);
    }
    if (heap->adapter->check != NULL) {
        int error = heap->adapter->check(heap->heap);
        if (error != 0) {
            fail_msg("check: %s: %s", strerror(error), heap->adapter->last_error());
        }
    }
    size_t count = live.count;
    free(live.blocks);
    free(walked.blocks);
    return count;
}
