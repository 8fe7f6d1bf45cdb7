/* SPDX-License-Identifier: Apache-2.0 */
/* device.c - see device.h. */
#include <stdatomic.h>
#include <string.h>

#include "clock.h"
#include "device.h"
#include "driver.h"

static const struct {
    const char *key;
    size_t offset;
    uint64_t min, max;
} fields[] = {
#define FIELD(key, min, max)                                                             \
    {                                                                                    \
#key, offsetof(struct nvd_device_figures, key), min, max                         \
    }
    FIELD(fence_ns, 0, 1000000),         FIELD(line_ns, 0, 1000000),
    FIELD(reflush_ns, 0, 1000000),       FIELD(read_ns, 0, 1000000),
    FIELD(read_buffered_ns, 0, 1000000), FIELD(media_write_ns, 0, 1000000),
    FIELD(unit_bytes, 64, 4096),         FIELD(units, 1, NVD_XPLINES),
    FIELD(flush_evicts, 0, 1),
#undef FIELD
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

static uint64_t *field_of(struct nvd_device_figures *figures, size_t field)
{
    return (uint64_t *)(void *)((char *)figures + fields[field].offset);
}

/* ---- the text ---- */

/* Takes one "key=value"; the field's index, FIELDS for the name, or -1. */
static int take(char *assignment, struct nvd_device_figures *figures)
{
    char *value = strchr(assignment, '=');
    if (value == NULL)
        return -1;
    *value++ = '\0';
    if (strcmp(assignment, "name") == 0) {
        size_t length = strlen(value);
        if (length == 0 || length >= sizeof figures->name)
            return -1;
        memcpy(figures->name, value, length + 1);
        return FIELDS;
    }
    for (int i = 0; i < FIELDS; i++) {
        if (strcmp(assignment, fields[i].key) == 0)
            return nvd_parse_u64(value, fields[i].min, fields[i].max,
                                 field_of(figures, (size_t)i))
                       ? i
                       : -1;
    }
    return -1;
}

const char *nvd_device_parse(const char *text, struct nvd_device_figures *figures)
{
    char copy[512];
    size_t length = strlen(text);
    if (length >= sizeof copy)
        return "--device: too long";
    memcpy(copy, text, length + 1);
    unsigned seen = 0;
    char *rest = NULL;
    for (char *part = strtok_r(copy, ",", &rest); part != NULL;
         part = strtok_r(NULL, ",", &rest)) {
        int index = take(part, figures);
        if (index < 0)
            return "--device: an unknown key, or a value out of range";
        if (seen & 1u << index)
            return "--device: a key is there twice";
        seen |= 1u << index;
    }
    if (seen != (1u << (FIELDS + 1)) - 1)
        return "--device: the name and every figure must be given";
    if ((figures->unit_bytes & (figures->unit_bytes - 1)) != 0)
        return "--device: unit_bytes must be a power of two";
    return NULL;
}

/* ---- the model ---- */

/* The line's entry in the table of evicted lines. */
static uintptr_t *evicted_entry(struct nvd_device *device, uintptr_t line)
{
    /* Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4). */
    uint64_t hash = (uint64_t)line * UINT64_C(11400714819323198485);
    return &device->evicted[hash >> 52];
}
_Static_assert(NVD_EVICTED == 1u << 12, "the hash's upper 12 bits are the index");

static uint64_t write_line(struct nvd_device *device,
                           const struct nvd_device_figures *figures, bool counting,
                           enum nvc_event event, uintptr_t line)
{
    uint64_t wait = 0;
    uintptr_t unit = line / (figures->unit_bytes / NVD_LINE);
    uintptr_t *entry = evicted_entry(device, line);
    bool was_evicted = *entry == line;
    bool flushed = event == NVC_EVENT_FLUSH;
    if (flushed && was_evicted) {
        bool buffered = nvd_list_has(device->units, figures->units, unit);
        wait = buffered ? figures->read_buffered_ns : figures->read_ns;
        device->counts.buffered_reads += counting && buffered;
        device->counts.media_reads += counting && !buffered;
    }
    if (flushed) {
        bool again = nvd_list_promote(device->flushed, NVD_REFLUSH_WINDOW, line);
        device->pending_reflushes += again;
        device->counts.reflushes += counting && again;
    }
    if (!flushed || figures->flush_evicts)
        *entry = line;
    else if (was_evicted)
        *entry = 0; /* it is in the cache again, and stays */
    bool absorbed = nvd_list_promote(device->units, figures->units, unit);
    device->pending_writes += !absorbed;
    device->counts.media_writes += counting && !absorbed;
    device->pending_lines++;
    return wait;
}

static uint64_t fence(struct nvd_device *device, const struct nvd_device_figures *figures,
                      uint64_t now_ns)
{
    if (device->pending_lines == 0)
        return 0;
    uint64_t wait = figures->fence_ns + (device->pending_lines - 1) * figures->line_ns +
                    device->pending_reflushes * figures->reflush_ns;
    uint64_t begin = device->idle_at_ns > now_ns ? device->idle_at_ns : now_ns;
    device->idle_at_ns = begin + device->pending_writes * figures->media_write_ns;
    uint64_t ahead = device->idle_at_ns - now_ns;
    uint64_t absorbed = figures->units * figures->media_write_ns;
    device->pending_lines = device->pending_reflushes = device->pending_writes = 0;
    return wait + (ahead > absorbed ? ahead - absorbed : 0);
}

uint64_t nvd_device_follow(struct nvd_device *device,
                           const struct nvd_device_figures *figures, bool counting,
                           enum nvc_event event, const void *address, size_t length,
                           uint64_t now_ns)
{
    uint64_t wait = 0;
    if (event == NVC_EVENT_FENCE) {
        wait = fence(device, figures, now_ns);
    } else if (length > 0) {
        uintptr_t first = (uintptr_t)address / NVD_LINE;
        uintptr_t last = ((uintptr_t)address + length - 1) / NVD_LINE;
        for (uintptr_t line = first; line <= last; line++)
            wait += write_line(device, figures, counting, event, line);
    }
    device->counts.delays += counting && wait > 0;
    device->counts.delayed_ns += counting ? wait : 0;
    return wait;
}

/* ---- the process's devices ---- */

static struct nvd_device pool[NVD_EVENT_THREADS];
static atomic_uint claimed;
static struct {
    struct nvd_device_figures figures;
    struct nvd_clock clock;
    bool observed;
} model;

void nvd_device_start(const struct nvd_device_figures *figures, bool observed)
{
    model.figures = *figures;
    model.observed = observed;
    nvd_clock_start(&model.clock);
    nvd_clock_settle(&model.clock);
}

static uint64_t now_ns(void)
{
    return nvd_clock_ns(&model.clock,
                        nvd_clock_ticks(&model.clock) - model.clock.start_ticks);
}

void nvd_device_observe(void *context, enum nvc_event event, const void *address,
                        size_t length)
{
    static _Thread_local struct nvd_device *mine;
    uint64_t begin = now_ns();
    if (model.observed)
        nvd_events_observe(context, event, address, length);
    if (mine == NULL) {
        unsigned index = atomic_fetch_add(&claimed, 1);
        /* A thread too many shares the last device: no event goes undelayed. */
        mine = &pool[index < NVD_EVENT_THREADS ? index : NVD_EVENT_THREADS - 1];
    }
    uint64_t wait = nvd_device_follow(mine, &model.figures, nvd_events_counting(), event,
                                      address, length, begin);
    /* What following the event took is a part of the wait, where there is one. */
    while (wait > 0 && now_ns() - begin < wait)
        ;
}

struct json_object *nvd_device_json(uint64_t ops)
{
    struct nvd_device_counts total = {0};
    unsigned threads = atomic_load(&claimed);
    for (unsigned i = 0; i < threads && i < NVD_EVENT_THREADS; i++) {
        total.delays += pool[i].counts.delays;
        total.delayed_ns += pool[i].counts.delayed_ns;
        total.media_writes += pool[i].counts.media_writes;
        total.media_reads += pool[i].counts.media_reads;
        total.buffered_reads += pool[i].counts.buffered_reads;
        total.reflushes += pool[i].counts.reflushes;
    }
    struct json_object *of = json_object_new_object();
    json_object_object_add(of, "name", json_object_new_string(model.figures.name));
    struct json_object *figures = json_object_new_object();
    for (size_t i = 0; i < FIELDS; i++)
        json_object_object_add(figures, fields[i].key,
                               json_object_new_uint64(*field_of(&model.figures, i)));
    json_object_object_add(of, "figures", figures);
    const struct {
        const char *key;
        uint64_t value;
    } counts[] = {{"delays", total.delays},
                  {"delayed_ns", total.delayed_ns},
                  {"media_writes", total.media_writes},
                  {"media_reads", total.media_reads},
                  {"buffered_reads", total.buffered_reads},
                  {"reflushes", total.reflushes},
                  {"ops", ops}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_object_object_add(of, counts[i].key,
                               json_object_new_uint64(counts[i].value));
    return of;
}
