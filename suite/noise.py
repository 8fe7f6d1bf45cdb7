# SPDX-License-Identifier: Apache-2.0
"""How much CPU time others took while a sample ran.

noise = (busy CPU time of the machine - what our job and we used
         - what starting a job costs the engine) / (wall time x CPUs),
cut off at 0.  Busy time is /proc/stat's user, nice, system, irq, softirq and
steal (time that the hypervisor gave to other guests).  Its tick is 10 ms, so
over a sample of half a second on two CPUs the figure is good to about 2 %.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NoiseMeter", "Reading", "busy_seconds"]

BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq, steal; not idle, iowait, nor guest (part of user)."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def busy_seconds(stat: str) -> float:
    """Busy time of all CPUs since boot, from the text of /proc/stat."""
    fields = stat.split("\n", 1)[0].split()
    if not fields or fields[0] != "cpu":
        raise ValueError("the first line of /proc/stat does not begin with 'cpu'")
    values = [int(field) for field in fields[1:]]
    return sum(values[index] for index in BUSY_FIELDS if index < len(values)) / TICKS_PER_S


@dataclass(frozen=True)
class Reading:
    """The clocks at one instant, in seconds."""

    wall: float
    busy: float
    own: float
    """CPU time of this process (the orchestrator), all its threads."""


class NoiseMeter:
    """Measures the noise of one sample after another."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self.overhead_s = 0.0
        """CPU time that starting one job costs the engine (not in the job's own usage)."""

    def read(self) -> Reading | None:
        """None where the kernel does not tell."""
        try:
            busy = busy_seconds(self._stat.read_text())
        except (OSError, ValueError):
            return None
        return Reading(time.monotonic(), busy, time.process_time())

    def others_s(self, before: Reading | None, job_cpu_s: float | None) -> float | None:
        """CPU seconds that neither we nor the job used since `before`."""
        after = self.read()
        if before is None or after is None or job_cpu_s is None:
            return None
        return max(0.0, after.busy - before.busy - (after.own - before.own) - job_cpu_s)

    def share(self, before: Reading | None, job_cpu_s: float | None) -> float | None:
        """The noise since `before`, 0..1; None: not known."""
        others = self.others_s(before, job_cpu_s)
        if others is None or before is None:
            return None
        available = (time.monotonic() - before.wall) * (os.cpu_count() or 1)
        if available <= 0:
            return None
        return min(1.0, max(0.0, others - self.overhead_s) / available)
