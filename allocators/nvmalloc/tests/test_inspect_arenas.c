/* SPDX-License-Identifier: Apache-2.0 */
/* The arenas of a heap as nvm-inspect shows them: the tree, and the counts in it. */
#include "test_vmem.h"

#include "../tools/inspect_arenas.h"

static struct json_object *field(struct json_object *arena, const char *key)
{
    struct json_object *value = NULL;

    CHECK(json_object_object_get_ex(arena, key, &value));
    return value;
}

static int64_t number(struct json_object *arena, const char *key)
{
    return json_object_get_int64(field(arena, key));
}

static bool is_called(struct json_object *arena, const char *name)
{
    return strcmp(json_object_get_string(field(arena, "name")), name) == 0;
}

static void test_units_first_then_vmems_own(void)
{
    struct nvm_numa *units = nvm_numa_create("units", 1000, 1000, 2);

    CHECK(nvm_numa_claim(units, 0, 10) && nvm_numa_claim(units, 500, 90));
    CHECK(nvm_numa_alloc(units, 1, 3) != NVM_NUMA_NONE);
    struct json_object *arenas = inspect_arenas(units);
    CHECK(arenas != NULL && json_object_array_length(arenas) == 2);
    struct json_object *heap = json_object_array_get_idx(arenas, 0);
    CHECK(is_called(heap, "units") &&
          json_object_get_type(field(heap, "source")) == json_type_null);
    CHECK(number(heap, "total") == 1000 && number(heap, "in_use") == 100 + 3);
    struct json_object *nodes = field(heap, "arenas");
    CHECK(json_object_array_length(nodes) == 2);
    struct json_object *node = json_object_array_get_idx(nodes, 1);
    CHECK(is_called(node, "units node 1"));
    CHECK(number(node, "source") == number(heap, "id"));
    CHECK(number(node, "in_use") == 3 && number(node, "imported") == 3);
    CHECK(is_called(json_object_array_get_idx(arenas, 1), "vmem_heap"));
    json_object_put(arenas);
    nvm_numa_destroy(units);
}

int main(void)
{
    RUN(test_units_first_then_vmems_own);
    return 0;
}
