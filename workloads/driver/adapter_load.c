// SPDX-License-Identifier: Apache-2.0
/*
 * adapter_load.c - turns a path into an adapter, or into a clear error.
 *
 * RTLD_NOW, so that a missing symbol of the library underneath is an error
 * here and not a crash in the middle of a measurement.  RTLD_LOCAL and no
 * RTLD_DEEPBIND on purpose: several allocator libraries export malloc() beside
 * their prefixed names.  Loaded this way their malloc() never takes the place
 * of the C library's, neither in the driver (whose symbols come first) nor in
 * the adapter; everybody who calls malloc() and free() means the same pair.
 * With RTLD_DEEPBIND the adapter's free() would be the library's while the
 * memory may come from the C library (strdup, getline), and sanitizers refuse
 * it.  Adapters therefore call the prefixed names (mallocx, mi_malloc, ...).
 *
 * An adapter stays loaded until the process ends: allocators keep
 * thread-exit hooks, which must not outlive their code.
 */
#include <dlfcn.h>

#include "driver.h"

/* Whether every function that the contract demands of this kind is there. */
static const char *missing_function(const struct nvc_adapter *adapter)
{
    if (adapter->create == NULL)
        return "create";
    if (adapter->open == NULL && (adapter->capabilities & NVC_PERSISTENT))
        return "open";
    if (adapter->close == NULL)
        return "close";
    if (adapter->slots == NULL)
        return "slots";
    if (adapter->alloc_to == NULL)
        return "alloc_to";
    if (adapter->free_from == NULL)
        return "free_from";
    if (adapter->read == NULL)
        return "read";
    if (adapter->persist == NULL)
        return "persist";
    if (adapter->walk == NULL && (adapter->capabilities & NVC_WALK))
        return "walk";
    if (adapter->stats == NULL)
        return "stats";
    if (adapter->last_error == NULL)
        return "last_error";
    if (adapter->observe == NULL && (adapter->capabilities & NVC_OBSERVABLE))
        return "observe";
    return NULL;
}

static bool sound(const char *path, const struct nvc_adapter *adapter)
{
    if (adapter->version != NVC_ADAPTER_VERSION) {
        nvd_emit_error("adapter", 0,
                       "'%s' was built for version %u of adapter.h, this driver is "
                       "version %u: rebuild the adapter",
                       path, adapter->version, NVC_ADAPTER_VERSION);
        return false;
    }
    if (adapter->struct_size != sizeof *adapter) {
        nvd_emit_error("adapter", 0,
                       "'%s': its struct nvc_adapter has %u bytes, this driver's %zu: "
                       "rebuild the adapter",
                       path, adapter->struct_size, sizeof *adapter);
        return false;
    }
    uint32_t kind = adapter->capabilities & (NVC_PERSISTENT | NVC_VOLATILE);
    if (kind != NVC_PERSISTENT && kind != NVC_VOLATILE) {
        nvd_emit_error("adapter", 0,
                       "'%s' must have one of NVC_PERSISTENT and NVC_VOLATILE", path);
        return false;
    }
    if (adapter->name == NULL || adapter->slot_size == 0 || adapter->slot_size % 8 != 0) {
        nvd_emit_error("adapter", 0,
                       "'%s': the name is missing, or slot_size (%zu) is not a positive "
                       "multiple of 8",
                       path, adapter->slot_size);
        return false;
    }
    const char *function = missing_function(adapter);
    if (function != NULL) {
        nvd_emit_error("adapter", 0, "'%s' ('%s') lacks %s()", path, adapter->name,
                       function);
        return false;
    }
    return true;
}

const struct nvc_adapter *nvd_adapter_load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        nvd_emit_error("adapter", 0, "cannot load: %s", dlerror());
        return NULL;
    }
    /* POSIX has dlsym() return functions as void *; ISO C has no such cast. */
    union {
        void *object;
        nvc_adapter_get_fn *function;
    } symbol = {.object = dlsym(library, NVC_ADAPTER_SYMBOL)};
    if (symbol.object == NULL) {
        nvd_emit_error("adapter", 0, "'%s' is no adapter: it does not export %s()", path,
                       NVC_ADAPTER_SYMBOL);
        return NULL;
    }
    const struct nvc_adapter *adapter = symbol.function();
    if (adapter == NULL) {
        nvd_emit_error("adapter", 0, "'%s': %s() returned NULL", path,
                       NVC_ADAPTER_SYMBOL);
        return NULL;
    }
    return sound(path, adapter) ? adapter : NULL;
}
