// SPDX-License-Identifier: Apache-2.0
/* instructions.c - see instructions.h, and perf_event_open(2). */
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "instructions.h"

int nvd_instructions_open(void)
{
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof attributes,
        .config = PERF_COUNT_HW_INSTRUCTIONS,
        .disabled = 1,
        .exclude_kernel = 1,
        .exclude_hv = 1,
        .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
    };
    return (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1,
                        PERF_FLAG_FD_CLOEXEC);
}

void nvd_instructions_start(int counter)
{
    if (counter < 0)
        return;
    ioctl(counter, PERF_EVENT_IOC_RESET, 0);
    ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
}

bool nvd_instructions_stop(int counter, uint64_t *count)
{
    struct {
        uint64_t value, enabled, running;
    } reading;
    if (counter < 0)
        return false;
    ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
    if (read(counter, &reading, sizeof reading) != (ssize_t)sizeof reading ||
        reading.running == 0)
        return false;
    *count =
        (uint64_t)((unsigned __int128)reading.value * reading.enabled / reading.running);
    return true;
}

void nvd_instructions_close(int counter)
{
    if (counter >= 0)
        close(counter);
}
