// SPDX-License-Identifier: Apache-2.0
/*
 * px86_buffer.c - see px86_buffer.h.
 */
#include "px86_buffer.h"

#include <string.h>

bool px86_buffer_enter(struct px86_buffer *buffer, const struct px86_entry *entry)
{
    if (buffer->count == PX86_BUFFERED)
        return false;
    buffer->entry[buffer->count++] = *entry;
    return true;
}

void px86_buffer_leave(struct px86_buffer *buffer, uint32_t thread, struct px86 *model,
                       enum px86_domain domain, uint8_t *visible)
{
    const struct px86_entry *entry = &buffer->entry[0];
    const struct px86_store store = {.thread = thread,
                                     .offset = entry->offset,
                                     .length = entry->length,
                                     .data = entry->data};
    switch (entry->kind) {
    case PX86_STORE:
        px86_store(model, &store);
        break;
    case PX86_STORE_WHOLE:
        px86_store_whole(model, &store);
        break;
    case PX86_STORE_NT:
        px86_store_nontemporal(model, &store);
        break;
    case PX86_FLUSH:
        if (domain == PX86_ADR)
            px86_flush(model, thread, entry->offset, entry->length);
        break;
    case PX86_CLFLUSH:
        px86_clflush(model, entry->offset, entry->length);
        break;
    case PX86_SFENCE:
        px86_fence(model, thread);
        break;
    }
    if (entry->kind <= PX86_STORE_NT)
        memcpy(visible + entry->offset, entry->data, entry->length);
    buffer->count--;
    memmove(&buffer->entry[0], &buffer->entry[1],
            buffer->count * sizeof buffer->entry[0]);
}

uint8_t px86_buffer_read(const struct px86_buffer *buffer, const uint8_t *visible,
                         size_t offset)
{
    for (uint32_t i = buffer->count; i > 0; i--) {
        const struct px86_entry *entry = &buffer->entry[i - 1];
        if (entry->kind <= PX86_STORE_NT && offset >= entry->offset &&
            offset < entry->offset + entry->length)
            return entry->data[offset - entry->offset];
    }
    return visible[offset];
}
