// SPDX-License-Identifier: Apache-2.0
/*
 * sources.c - debug information, a module at a time, kept open.
 */
#include "sources.h"

#include <dlfcn.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    modules_max = 32,
    report_base = 0x10000, /* where a module is reported: any address but 0 */
};

static struct {
    char *path;
    Dwfl *dwfl;
    Dwfl_Module *module;
} known[modules_max];
static int known_count;

static char *no_debuginfo_path = NULL;
static const Dwfl_Callbacks callbacks = {
    .find_elf = dwfl_build_id_find_elf,
    .find_debuginfo = dwfl_standard_find_debuginfo,
    .section_address = dwfl_offline_section_address,
    .debuginfo_path = &no_debuginfo_path,
};

static Dwfl_Module *module_at(const char *path)
{
    for (int i = 0; i < known_count; i++) {
        if (strcmp(known[i].path, path) == 0)
            return known[i].module;
    }
    if (known_count == modules_max)
        return NULL;
    Dwfl *dwfl = dwfl_begin(&callbacks);
    Dwfl_Module *module = NULL;
    if (dwfl != NULL) {
        dwfl_report_begin(dwfl);
        module = dwfl_report_elf(dwfl, path, path, -1, report_base, true);
        dwfl_report_end(dwfl, NULL, NULL);
    }
    known[known_count].path = strdup(path);
    known[known_count].dwfl = dwfl;
    known[known_count].module = module;
    known_count++;
    return module;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void add(struct nvl_places *places, const char *file, int line,
                const char *function)
{
    if (places->count == NVL_PLACES_MAX)
        return;
    struct nvl_source *place = &places->place[places->count++];
    snprintf(place->file, sizeof place->file, "%s", file != NULL ? base_name(file) : "");
    place->line = line;
    snprintf(place->function, sizeof place->function, "%s",
             function != NULL ? function : "");
}

static int number_of(Dwarf_Die *die, unsigned attribute)
{
    Dwarf_Attribute found;
    Dwarf_Word value;
    if (dwarf_attr(die, attribute, &found) == NULL ||
        dwarf_formudata(&found, &value) != 0)
        return 0;
    return (int)value;
}

static const char *file_number(Dwarf_Die *unit, int number)
{
    Dwarf_Files *files;
    size_t count;
    if (dwarf_getsrcfiles(unit, &files, &count) != 0 || number <= 0 ||
        (size_t)number >= count)
        return NULL;
    return dwarf_filesrc(files, (size_t)number, NULL, NULL);
}

/* The innermost function with its line, then what inlined it, and so on outwards. */
static bool add_inlined(struct nvl_places *places, Dwfl_Module *module, Dwarf_Addr at,
                        const char *file, int line)
{
    Dwarf_Addr bias;
    Dwarf_Die *unit = dwfl_module_addrdie(module, at, &bias);
    Dwarf_Die *innermost = NULL, *scopes = NULL;
    /* The scopes of an address leave the inlined code for its definition; those of the
       innermost one's DIE lead outwards to what it was inlined into. */
    int count = unit != NULL ? dwarf_getscopes(unit, at - bias, &innermost) : 0;
    if (count > 0)
        count = dwarf_getscopes_die(&innermost[0], &scopes);
    free(innermost);
    bool named = false;
    for (int i = 0; i < count; i++) {
        int tag = dwarf_tag(&scopes[i]);
        if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram)
            continue;
        add(places, file, line, dwarf_diename(&scopes[i]));
        named = true;
        if (tag == DW_TAG_subprogram)
            break;
        file = file_number(unit, number_of(&scopes[i], DW_AT_call_file));
        line = number_of(&scopes[i], DW_AT_call_line);
    }
    free(scopes);
    return named;
}

void nvl_sources_of(const char *path, uint64_t offset, struct nvl_places *places)
{
    Dwfl_Module *module = module_at(path);
    /* A return address lies behind its call. */
    Dwarf_Addr at = report_base + offset - 1;
    if (module == NULL)
        return;
    Dwfl_Line *found = dwfl_module_getsrc(module, at);
    int line = 0;
    const char *file =
        found != NULL ? dwfl_lineinfo(found, NULL, &line, NULL, NULL, NULL) : NULL;
    if (file != NULL && add_inlined(places, module, at, file, line))
        return;
    /* No debug information: the library, and the function as far as it is exported. */
    add(places, file != NULL ? file : path, line, dwfl_module_addrname(module, at));
}

static bool is_primitive(const char *function)
{
    static const char *const words[] = {
        "flush",   "fence", "persist", "drain",      "notify", "event",  "clwb",
        "observe", "store", "_nt",     "write_line", "memcpy", "memset", "memmove"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strstr(function, words[i]) != NULL)
            return true;
    }
    return false;
}

static void find_telling(struct nvl_places *places)
{
    places->telling = 0;
    for (uint32_t i = 0; i < places->count; i++) {
        if (places->place[i].line > 0 && !is_primitive(places->place[i].function)) {
            places->telling = i;
            return;
        }
    }
}

/* The laboratory's own frames, its probe's among them, are nobody's fault. */
static bool is_own(const char *module)
{
    static char self[4096];
    if (self[0] == '\0') {
        ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
        self[length > 0 ? length : 0] = '\0';
    }
    return strcmp(module, self) == 0 ||
           strcmp(base_name(module), "libpmem-probe.so") == 0;
}

void nvl_sources_of_site(const struct nvl_trace *trace, uint32_t site,
                         struct nvl_places *places)
{
    places->count = 0;
    const struct nvl_site *frames = &trace->sites[site];
    for (uint32_t i = 0; i < frames->count; i++) {
        const char *module = trace->modules[frames->frame[i].module];
        if (!is_own(module))
            nvl_sources_of(module, frames->frame[i].offset, places);
    }
    find_telling(places);
}

bool nvl_module_of(uintptr_t address, const char **module, uint64_t *offset)
{
    static char self[4096];
    Dl_info info;
    if (dladdr((void *)(address - 1), &info) == 0 || info.dli_fname == NULL)
        return false;
    *offset = address - (uintptr_t)info.dli_fbase;
    *module = info.dli_fname;
    if (strchr(info.dli_fname, '/') == NULL) { /* the program itself, by argv[0] */
        ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
        if (length <= 0)
            return false;
        self[length] = '\0';
        *module = self;
    }
    return true;
}

void nvl_sources_of_frames(const uintptr_t *frames, uint32_t count,
                           struct nvl_places *places)
{
    places->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const char *module;
        uint64_t offset;
        if (frames[i] != 0 && nvl_module_of(frames[i], &module, &offset) &&
            !is_own(module))
            nvl_sources_of(module, offset, places);
    }
    find_telling(places);
}
