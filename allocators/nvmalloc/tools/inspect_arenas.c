/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_arenas.c - see inspect_arenas.h. */
#include "inspect_arenas.h"

struct reader {
    struct json_tokener *tokener;
    struct json_object *document;
};

/* The dump comes in pieces; the parser takes them as they come. */
static void feed(void *arg, const char *text, size_t len)
{
    struct reader *reader = arg;
    if (reader->document == NULL)
        reader->document = json_tokener_parse_ex(reader->tokener, text, (int)len);
}

static void append_roots(struct json_object *to, struct json_object *roots, int64_t id,
                         bool wanted)
{
    for (size_t i = 0; i < json_object_array_length(roots); i++) {
        struct json_object *arena = json_object_array_get_idx(roots, i), *its_id;
        if (json_object_object_get_ex(arena, "id", &its_id) &&
            (json_object_get_int64(its_id) == id) == wanted)
            json_object_array_add(to, json_object_get(arena));
    }
}

struct json_object *inspect_arenas(const struct nvm_numa *units)
{
    struct reader reader = {.tokener = json_tokener_new()};
    struct json_object *roots = NULL, *shown = NULL;
    if (reader.tokener == NULL)
        return NULL;
    vmem_dump(feed, &reader, VMEM_DUMP_JSON);
    if (json_object_object_get_ex(reader.document, "arenas", &roots)) {
        int64_t id = vmem_id(nvm_numa_heap_arena(units));
        shown = json_object_new_array();
        append_roots(shown, roots, id, true);
        append_roots(shown, roots, id, false);
    }
    json_object_put(reader.document);
    json_tokener_free(reader.tokener);
    return shown;
}
