/* SPDX-License-Identifier: Apache-2.0 */
/*
 * root.c - the root block, and names.
 *
 * Entry 0 is the unnamed root; the others are a hash table of names with
 * linear probing, at most all but one of them in use.  An entry is in use if
 * its key's checksum fits.  A key is written and persisted while its `ref` is
 * 0; so a crash leaves a name with an empty slot, or none.  A name that is
 * taken away leaves its entry with a key that does not fit but is not zero,
 * which a search passes over and a new name may take.
 *
 * The root block: its key is persisted, then a block is reserved, zero-filled,
 * persisted, and committed to `ref` by an ordinary record.  A crash between
 * leaves a key without a block, which the next call takes up; the key is
 * rewritten then, with the size asked for now.
 */
#include "root.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "commit.h"
#include "error.h"

uint32_t nvm_root_crc(const struct nvm_root_entry *entry, uint32_t salt)
{
    return nvm_crc32c(salt, &entry->bytes,
                      offsetof(struct nvm_root_entry, crc) -
                          offsetof(struct nvm_root_entry, bytes));
}

bool nvm_root_valid(const struct nvm_root_entry *entry, uint32_t salt)
{
    return entry->crc == nvm_root_crc(entry, salt);
}

static struct nvm_root_entry *table(const struct nvm_heap *heap)
{
    return nvm_heap_at(heap, NVM_ROOTS_OFFSET);
}

/* Writes the key of an entry whose slot is empty; durable on return. */
static void write_key(struct nvm_tcache *tcache, struct nvm_root_entry *entry,
                      const char *name, size_t bytes)
{
    entry->ref = 0;
    entry->bytes = bytes;
    memset(entry->name, 0, sizeof(entry->name));
    memcpy(entry->name, name, strlen(name));
    entry->reserved = 0;
    entry->crc = nvm_root_crc(entry, tcache->heap->salt);
    nvm_flush(&tcache->persist, entry, sizeof(*entry));
    /* The key before anything is put into its slot. */
    nvm_fence(&tcache->persist);
}

/* --- the root block --- */

static int make_root(struct nvm_tcache *tcache, struct nvm_root_entry *entry, size_t size)
{
    struct nvm_heap *heap = tcache->heap;
    struct nvm_effect effect = {.op = NVM_OP_ALLOC, .dest = &entry->ref};
    int error = nvm_reserve_block(tcache, size, 1, &effect.block);
    if (error != 0)
        return nvm_no_room(error, size);
    void *address = nvm_heap_at(heap, effect.block.offset);
    size_t bytes = nvm_block_bytes(heap, effect.block);
    memset(address, 0, bytes);
    nvm_flush(&tcache->persist, address, bytes);
    /* Key and zeroes before the record that makes them reachable. */
    write_key(tcache, entry, "", size);
    nvm_commit(tcache, &effect, 1);
    return 0;
}

void *nvm_root(nvm_heap *heap, size_t size)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    if (tcache == NULL) {
        errno = nvm_tcache_refused(heap);
        return NULL;
    }
    struct nvm_root_entry *entry = table(heap);
    struct nvm_block block;
    int error = 0;
    pthread_mutex_lock(&heap->root_lock);
    if (entry->ref == 0)
        error = make_root(tcache, entry, size);
    else if (!nvm_root_valid(entry, heap->salt) ||
             !nvm_find_block(heap, entry->ref, NVM_BLOCK_LIVE, &block) ||
             nvm_block_bytes(heap, block) < entry->bytes)
        error = nvm_fail(EUCLEAN, "the root's entry (offset %llu) is damaged",
                         (unsigned long long)NVM_ROOTS_OFFSET);
    else if (size > entry->bytes)
        error = nvm_fail(EINVAL, "the root has %llu bytes, not %zu",
                         (unsigned long long)entry->bytes, size);
    nvm_ref ref = entry->ref;
    pthread_mutex_unlock(&heap->root_lock);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return nvm_heap_at(heap, ref);
}

/* --- names --- */

static uint32_t hash(const char *name)
{
    uint64_t words[5] = {0};
    memcpy(words, name, strlen(name));
    return nvm_crc32c(0, words, sizeof(words));
}

static bool never_used(const struct nvm_root_entry *entry)
{
    return entry->crc == 0 && entry->bytes == 0 && entry->name[0] == '\0';
}

/* The name's entry, or NULL; *place: where it could be made, or NULL.  *damaged: the name
   may have been that of an entry whose key is damaged: one that is not in use refers to
   nothing. */
static struct nvm_root_entry *search(const struct nvm_heap *heap, const char *name,
                                     struct nvm_root_entry **place, bool *damaged)
{
    uint32_t entries = heap->super.roots - 1;
    *place = NULL;
    *damaged = false;
    for (uint32_t i = 0, at = hash(name) % entries; i < entries; i++) {
        struct nvm_root_entry *entry = &table(heap)[1 + (at + i) % entries];
        bool used = nvm_root_valid(entry, heap->salt);
        if (used && strncmp(entry->name, name, sizeof(entry->name)) == 0)
            return entry;
        if (!used && entry->ref != 0)
            *damaged = true;
        else if (!used && *place == NULL)
            *place = entry;
        if (!used && entry->ref == 0 && never_used(entry))
            break;
    }
    return NULL;
}

static nvm_ref *named_locked(struct nvm_tcache *tcache, const char *name, int create)
{
    struct nvm_root_entry *place;
    bool damaged;
    struct nvm_root_entry *entry = search(tcache->heap, name, &place, &damaged);
    if (entry != NULL)
        return &entry->ref;
    if (damaged || !create || place == NULL) {
        errno = damaged ? EUCLEAN : create ? ENOMEM : ENOENT;
        nvm_fail(errno,
                 damaged  ? "no name \"%s\", but a damaged entry that may have been it"
                 : create ? "no room for the name \"%s\""
                          : "no name \"%s\"",
                 name);
        return NULL;
    }
    write_key(tcache, place, name, 0);
    return &place->ref;
}

nvm_ref *nvm_named(nvm_heap *heap, const char *name, int create)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    size_t length = strlen(name);
    if (tcache == NULL || length == 0 || length > NVM_NAME_MAX) {
        errno = tcache == NULL
                    ? nvm_tcache_refused(heap)
                    : nvm_misuse(tcache, "a name has 1 to NVM_NAME_MAX characters");
        return NULL;
    }
    pthread_mutex_lock(&heap->root_lock);
    nvm_ref *slot = named_locked(tcache, name, create);
    pthread_mutex_unlock(&heap->root_lock);
    return slot;
}

int nvm_unname(nvm_heap *heap, const char *name)
{
    NVM_WINDOW(heap);
    struct nvm_tcache *tcache = nvm_tcache_get(heap);
    struct nvm_root_entry *place;
    bool damaged;
    int error = 0;
    if (tcache == NULL)
        return nvm_tcache_refused(heap);
    if (strlen(name) > NVM_NAME_MAX || *name == '\0')
        return nvm_misuse(tcache, "a name has 1 to NVM_NAME_MAX characters");
    pthread_mutex_lock(&heap->root_lock);
    struct nvm_root_entry *entry = search(heap, name, &place, &damaged);
    if (entry == NULL) {
        error = nvm_fail(damaged ? EUCLEAN : ENOENT, "no name \"%s\"", name);
    } else if (entry->ref != 0) {
        error = nvm_misuse(tcache, "the name's slot is not empty");
    } else {
        /* Records of the slot must be history before somebody else gets it. */
        if (!tcache->gc)
            nvm_lanes_checkpoint(heap);
        entry->crc = ~entry->crc;
        nvm_flush_one(&tcache->persist, &entry->crc);
        nvm_fence(&tcache->persist);
    }
    pthread_mutex_unlock(&heap->root_lock);
    return error;
}

int nvm_each_name(nvm_heap *heap, nvm_name_fn *visit, void *context)
{
    if (heap->foreign)
        return nvm_tcache_refused(heap);
    nvm_protect_look(heap);
    for (uint32_t i = 1; i < heap->super.roots; i++) {
        struct nvm_root_entry *entry = &table(heap)[i];
        if (!nvm_root_valid(entry, heap->salt))
            continue;
        int result = visit(context, entry->name, &entry->ref);
        if (result != 0)
            return result;
    }
    return 0;
}
