# SPDX-License-Identifier: Apache-2.0
"""How much CPU time others took while a sample ran.

noise = (busy CPU time - what our job and we used - what starting a job costs the
         engine) / (wall time x CPUs), cut off at 0,

taken twice, the larger figure counts: over all CPUs of the machine (others disturb through
shared caches, memory and the clock wherever they run), and over those alone that the sample was
pinned to, on which a neighbour takes the whole CPU away, however many there are besides.  Of the
second, only the job's own time is subtracted: where we ran is not known.

Busy time is /proc/stat's user, nice, system, irq, softirq and steal (time that the
hypervisor gave to other guests).  Its tick is 10 ms, so over a sample of half a second on
two CPUs the figure is good to about 2 %; on one CPU to 4 %.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["Neighbours", "NoiseMeter", "Reading", "busy_seconds", "noise_note", "watch_neighbours"]

BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq, steal; not idle, iowait, nor guest (part of user)."""
STEAL_FIELD = 7
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
TICKS_BLURRED = 2
"""A reading of one CPU is off by up to a tick at each end; less than that says nothing."""


def _seconds(line: str, fields: Sequence[int]) -> float:
    values = [int(field) for field in line.split()[1:]]
    return sum(values[index] for index in fields if index < len(values)) / TICKS_PER_S


def _total_line(stat: str) -> str:
    line = stat.split("\n", 1)[0]
    if line.split()[:1] != ["cpu"]:
        raise ValueError("the first line of /proc/stat does not begin with 'cpu'")
    return line


def busy_seconds(stat: str) -> float:
    """Busy time of all CPUs since boot, from the text of /proc/stat."""
    return _seconds(_total_line(stat), BUSY_FIELDS)


def _busy_by_cpu(stat: str) -> dict[int, float]:
    """Busy time of each CPU since boot."""
    busy = {}
    for line in stat.splitlines()[1:]:
        name = line.split(" ", 1)[0]
        if name.startswith("cpu") and name[3:].isdigit():
            busy[int(name[3:])] = _seconds(line, BUSY_FIELDS)
    return busy


@dataclass(frozen=True)
class Reading:
    """The clocks at one instant, in seconds."""

    wall: float
    busy: float
    own: float
    """CPU time of this process (the orchestrator), all its threads."""
    by_cpu: dict[int, float] = field(default_factory=dict)
    steal: float = 0.0


class NoiseMeter:
    """Measures the noise of one sample after another."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self.overhead_s = 0.0
        """CPU time that starting one job costs the engine (not in the job's own usage)."""

    def read(self) -> Reading | None:
        """None where the kernel does not tell."""
        try:
            text = self._stat.read_text()
            total = _total_line(text)
        except (OSError, ValueError):
            return None
        return Reading(
            wall=time.monotonic(),
            busy=_seconds(total, BUSY_FIELDS),
            own=time.process_time(),
            by_cpu=_busy_by_cpu(text),
            steal=_seconds(total, (STEAL_FIELD,)),
        )

    def others_s(self, before: Reading | None, job_cpu_s: float | None) -> float | None:
        """CPU seconds that neither we nor the job used since `before`."""
        after = self.read()
        if before is None or after is None or job_cpu_s is None:
            return None
        return _others(before, after, job_cpu_s)

    def share(
        self, before: Reading | None, job_cpu_s: float | None, cpus: Iterable[int] = ()
    ) -> float | None:
        """The noise since `before`, 0..1, of a job that ran on these CPUs; None: not known."""
        after = self.read()
        if before is None or after is None or job_cpu_s is None or after.wall <= before.wall:
            return None
        wall = after.wall - before.wall
        others = max(0.0, _others(before, after, job_cpu_s) - self.overhead_s)
        everywhere = others / (wall * (os.cpu_count() or 1))
        return min(1.0, max(everywhere, self._beside(before, after, job_cpu_s, set(cpus))))

    def _beside(self, before: Reading, after: Reading, job_cpu_s: float, cpus: set[int]) -> float:
        """Of the CPUs that the job was pinned to, what others took."""
        known = cpus & before.by_cpu.keys() & after.by_cpu.keys()
        if not known or known != cpus:
            return 0.0
        busy = sum(after.by_cpu[cpu] - before.by_cpu[cpu] for cpu in known)
        others = busy - job_cpu_s - self.overhead_s - TICKS_BLURRED * len(known) / TICKS_PER_S
        return max(0.0, others / ((after.wall - before.wall) * len(known)))


def _others(before: Reading, after: Reading, job_cpu_s: float) -> float:
    return max(0.0, after.busy - before.busy - (after.own - before.own) - job_cpu_s)


@dataclass(frozen=True)
class Neighbours:
    """What runs on this machine beside us."""

    busy: float
    """Share of all CPU time that others take, 0..1."""
    stolen: float
    """Share that the hypervisor gives to other guests; a part of `busy`."""


def watch_neighbours(seconds: float) -> Neighbours | None:
    """Looks on for a while; None where the kernel does not tell."""
    meter = NoiseMeter()
    before = meter.read()
    time.sleep(seconds)
    after = meter.read()
    if before is None or after is None:
        return None
    available = (after.wall - before.wall) * (os.cpu_count() or 1)
    return Neighbours(
        busy=min(1.0, _others(before, after, 0.0) / available),
        stolen=min(1.0, max(0.0, after.steal - before.steal) / available),
    )


class _Taken(Protocol):
    """Of a sample, what noise is about."""

    @property
    def accepted(self) -> bool: ...
    @property
    def noise(self) -> float | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def observed(self) -> bool: ...
    @property
    def stepped(self) -> bool: ...


def noise_note(samples: Iterable[_Taken], limit: float) -> str | None:
    """What a reader has to know about the neighbours of a run; None: they kept quiet."""
    timed = [sample for sample in samples if not (sample.observed or sample.stepped)]
    good = [sample for sample in timed if sample.error is None]
    repeated = sum(not sample.accepted for sample in good)
    loud = [s.noise for s in good if s.accepted and s.noise is not None and s.noise > limit]
    if not repeated and not loud:
        return None
    parts = [f"busy neighbours (others took more than {100 * limit:.0f} % of the CPUs):"]
    if repeated:
        parts.append(f"{repeated} samples were repeated;")
    if loud:
        kept = len(good) - repeated
        parts.append(f"{len(loud)} of {kept} stayed above, the worst at {100 * max(loud):.0f} %")
    else:
        parts.append("none stayed above")
    return " ".join(parts)
