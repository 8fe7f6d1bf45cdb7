/* SPDX-License-Identifier: Apache-2.0 */
/*
 * root.c - the root block.
 *
 * A root is made in two durable steps: its key (name, size) is written into
 * the entry and persisted while its `ref` is still 0; then a block is
 * reserved, zero-filled, persisted, and committed to `ref` by an ordinary
 * record.  A crash between leaves a key without a block, which the next call
 * takes up; the key is rewritten then, with the size asked for now.
 */
#include "root.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"

uint32_t nvm_root_crc(const struct nvm_root_entry *entry, uint32_t salt)
{
    return nvm_crc32c(salt, &entry->bytes,
                      offsetof(struct nvm_root_entry, crc) -
                          offsetof(struct nvm_root_entry, bytes));
}

static int make_root(struct nvm_tcache *tcache, struct nvm_root_entry *entry, size_t size)
{
    struct nvm_heap *heap = tcache->heap;
    struct nvm_block block;
    int error = nvm_reserve_block(tcache, size, &block);
    if (error != 0)
        return error;
    entry->bytes = size;
    memset(entry->name, 0, sizeof(entry->name));
    entry->crc = nvm_root_crc(entry, heap->salt);
    nvm_flush(&tcache->persist, entry, sizeof(*entry));
    void *address = nvm_heap_at(heap, block.offset);
    size_t bytes = nvm_block_bytes(heap, block);
    memset(address, 0, bytes);
    nvm_flush(&tcache->persist, address, bytes);
    /* Key and zeroes before the record that makes them reachable. */
    nvm_fence(&tcache->persist);
    nvm_commit_block(tcache, block, &entry->ref);
    return 0;
}

void *nvm_root(nvm_heap *heap, size_t size)
{
    struct nvm_root_entry *entry = nvm_heap_at(heap, NVM_ROOTS_OFFSET);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    int error = 0;
    pthread_mutex_lock(&heap->root_lock);
    if (entry->ref == 0)
        error = make_root(tcache, entry, size);
    else if (size > entry->bytes)
        error = EINVAL;
    nvm_ref ref = entry->ref;
    pthread_mutex_unlock(&heap->root_lock);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return nvm_heap_at(heap, ref);
}
