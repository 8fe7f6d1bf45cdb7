# SPDX-License-Identifier: Apache-2.0
"""Judges this machine: what helps or hurts a measurement here, and what to change.

Each line has a grade:

    good      nothing to gain
    fair      numbers are usable, with what the line says in mind
    poor      numbers are not worth much before this is changed
    missing   no numbers at all without it

The overall grade is the worst of those that matter to any run; real NVM and containers are
worth having, but a machine without them measures as truly (and says that it emulates).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.build import BUILD_VARIABLE
from suite.errors import CrucibleError, EnvironmentMissing
from suite.machine import Machine, instructions_countable, read_machine
from suite.noise import watch_neighbours
from suite.nvm import find_nvm
from suite.runners import first_sentence
from suite.topology import clock_source, cpu_quota, numa_distance, numa_node_of

__all__ = ["Check", "Grade", "examine", "overall"]

Grade = Literal["good", "fair", "poor", "missing"]
GRADES: tuple[Grade, ...] = ("good", "fair", "poor", "missing")
GIB = 1 << 30
WATCH_S = 0.5
"""How long neighbours are watched."""
QUIET, LOUD = 0.03, 0.10
"""Shares of all CPU time; `bench` repeats samples above the second (--noise-limit)."""
REMOTE = 10
"""What the kernel calls the distance from a NUMA node to itself."""


@dataclass(frozen=True)
class Check:
    """One fact, judged."""

    name: str
    grade: Grade
    found: str
    advice: str = ""
    """What to change; empty when there is nothing to gain."""
    counts: bool = True
    """For the overall grade."""


def examine(root: Path, pm: Path | None) -> list[Check]:
    """All checks, the NVM first.  Never raises for what it examines."""
    machine = read_machine()
    return [
        *_nvm(pm),
        _flush(machine),
        _build(root),
        _docker(),
        _instructions(machine),
        _neighbours(),
        _cpus(machine),
        _quota(),
        _clock(),
        _governor(machine),
        _turbo(machine),
        _smt(machine),
        _numa(machine, pm),
        _huge_pages(machine),
        _memory(machine),
        Check("kernel", "good", machine.kernel),
    ]


def overall(checks: Sequence[Check]) -> Check:
    """The worst grade of all that counts, and which lines gave it."""
    worst = max((check.grade for check in checks if check.counts), key=GRADES.index)
    names = [check.name for check in checks if check.counts and check.grade == worst]
    if worst == "good":
        return Check("overall", worst, "numbers taken here can be trusted")
    found = {
        "fair": "numbers taken here are usable; better ones are to be had",
        "poor": "numbers taken here are not worth much yet",
        "missing": "nothing can be measured yet",
    }[worst]
    return Check("overall", worst, found, f"See: {', '.join(names)}.")


def _nvm(pm: Path | None) -> list[Check]:
    try:
        nvm = find_nvm(pm)
    except EnvironmentMissing as error:
        return [Check("NVM directory", "missing", first_sentence(str(error)), str(error))]
    place = f"{nvm.path} ({nvm.fstype}, {nvm.free_bytes / GIB:.1f} GiB free)"
    room = nvm.free_bytes >= GIB
    directory = Check(
        "NVM directory",
        "good" if nvm.dax and room else "fair" if room else "poor",
        place,
        ""
        if nvm.dax and room
        else "Mount NVM with `-o dax` on /mnt/pmem0, or name a DAX directory "
        "with --pm DIR; numbers taken here are labelled emulated."
        if room
        else "Less than 1 GiB is free; free some space or enlarge the mount.",
        counts=not room,
    )
    sync = Check(
        "MAP_SYNC",
        "good" if nvm.map_sync else "fair",
        "granted" if nvm.map_sync else f"refused on {nvm.fstype}",
        ""
        if nvm.map_sync
        else "Only a DAX file system on real or emulated pmem grants it "
        "(kernel parameter memmap=, or an NVDIMM).",
        counts=False,
    )
    return [directory, sync]


def _flush(machine: Machine) -> Check:
    found = machine.flush_instructions
    if "clwb" in found:
        return Check(
            "flush instruction", "good", "clwb" + (", movdir64b" if "movdir64b" in found else "")
        )
    if found:
        return Check(
            "flush instruction",
            "fair",
            found[0],
            "A CPU with clwb keeps flushed lines in its cache.",
        )
    return Check(
        "flush instruction", "missing", "none known on this CPU",
        "The allocators need an x86-64 CPU with clflush.",
    )  # fmt: skip


def _build(root: Path) -> Check:
    folder = Path(os.environ.get(BUILD_VARIABLE) or root / "build")
    if (folder / "workloads" / "nvdrive").is_file():
        return Check("native build", "good", str(folder))
    return Check(
        "native build", "missing", f"no nvdrive in {folder}",
        "Run `make build`; `bench` and `fault` also build when meson, ninja and a compiler are there.",
    )  # fmt: skip


def _docker() -> Check:
    try:
        module = importlib.import_module("suite.runners.docker")
        connect: Callable[[], object] = module.connect
        runner = connect()
    except (ImportError, CrucibleError) as error:
        advice = (
            "Start an engine, or stay with --runner local (jobs are processes of this machine)."
        )
        return Check("Docker", "fair", first_sentence(str(error)), advice, counts=False)
    close = getattr(runner, "close", None)
    if callable(close):
        close()
    return Check("Docker", "good", "an engine answers")


def _instructions(machine: Machine) -> Check:
    paranoid = machine.perf_event_paranoid
    level = "no perf_event" if paranoid is None else f"perf_event_paranoid = {paranoid}"
    if instructions_countable():
        return Check("instruction counts", "good", f"{level}, counts")
    advice = "A virtual machine has no counters, or a container forbids them: some operations of "
    advice += "each workload are stepped over instead."
    if paranoid is not None and paranoid > 2:
        advice = "`sysctl kernel.perf_event_paranoid=2` allows counting one's own processes."
    return Check("instruction counts", "fair", f"{level}, does not count", advice, counts=False)


def _neighbours() -> Check:
    seen = watch_neighbours(WATCH_S)
    if seen is None:
        return Check(
            "neighbours", "fair", "not visible", "/proc/stat can't be read: noise is unknown."
        )
    found = (
        f"others take {100 * seen.busy:.0f} % of the CPUs, other guests {100 * seen.stolen:.0f} %"
    )
    if seen.busy <= QUIET:
        return Check("neighbours", "good", found)
    advice = (
        "Other guests of this host take CPU time away (steal); only the host's owner can change that."
        if seen.stolen > seen.busy / 2
        else "End what else runs here (`top` shows it), or pin it elsewhere."
    )
    return Check("neighbours", "fair" if seen.busy <= LOUD else "poor", found, advice)


def _quota() -> Check:
    """A container's limit that no affinity shows: it stops the job in the middle of a sample."""
    quota = cpu_quota()
    usable = len(os.sched_getaffinity(0))
    if quota is None or quota >= usable:
        return Check("CPU quota", "good", "none" if quota is None else f"{quota:g} CPUs")
    return Check(
        "CPU quota", "poor", f"{quota:g} of {usable} CPUs' time",
        "The quota stops threads in mid-sample: limit the container by --cpuset-cpus, not by --cpus.",
    )  # fmt: skip


def _clock() -> Check:
    source = clock_source()
    if source is None:
        return Check("clock source", "fair", "not visible", "Nothing to set here.")
    if source in ("tsc", "kvm-clock", "arch_sys_counter"):
        return Check("clock source", "good", source)
    return Check(
        "clock source", "poor", source,
        "Reading this clock takes microseconds: boot with `clocksource=tsc`, if the CPU's is stable.",
    )  # fmt: skip


def _cpus(machine: Machine) -> Check:
    usable = len(machine.usable_cpus)
    found = f"{machine.cpu_model}, {usable} of {machine.cpus} usable"
    if usable >= 4:
        return Check("CPUs", "good", found)
    return Check(
        "CPUs", "fair" if usable > 1 else "poor", found,
        "Samples with as many threads as CPUs share one with the orchestrator; 4 or more are better.",
    )  # fmt: skip


def _governor(machine: Machine) -> Check:
    if machine.governor is None:
        return Check(
            "CPU governor", "fair", "not visible (virtual machine?)", "Nothing to set here."
        )
    if machine.governor == "performance":
        return Check("CPU governor", "good", machine.governor)
    return Check(
        "CPU governor", "poor", machine.governor,
        "`cpupower frequency-set -g performance` keeps the clock steady.",
    )  # fmt: skip


def _turbo(machine: Machine) -> Check:
    if machine.turbo is None:
        return Check("turbo", "fair", "not visible", "Nothing to set here.")
    if not machine.turbo:
        return Check("turbo", "good", "off")
    return Check(
        "turbo", "fair", "on",
        "Turn it off for steady numbers (intel_pstate/no_turbo = 1, or cpufreq/boost = 0).",
    )  # fmt: skip


def _smt(machine: Machine) -> Check:
    if machine.smt is None:
        return Check("SMT", "fair", "not visible", "Nothing to set here.")
    if not machine.smt:
        return Check("SMT", "good", "off")
    return Check(
        "SMT", "fair", "on",
        "Threads may share a core: `echo off > /sys/devices/system/cpu/smt/control`, or pin with taskset.",
    )  # fmt: skip


def _numa(machine: Machine, pm: Path | None) -> Check:
    if machine.numa_nodes == 1:
        return Check("NUMA", "good", "one node")
    advice = "Run on the NVM's node: `numactl --cpunodebind=N nvcrucible bench ...`."
    try:
        node = numa_node_of(Path(find_nvm(pm).path))
    except EnvironmentMissing:
        node = None
    if node is None:
        found = f"{machine.numa_nodes} nodes; the NVM directory is on none of them in particular"
        return Check("NUMA", "fair", found, "Run on one node: `numactl -N 0 -m 0 nvcrucible ...`.")
    farthest = max(numa_distance(node, machine.usable_cpus), default=REMOTE)
    found = (
        f"{machine.numa_nodes} nodes; NVM on node {node}, at distance {farthest} (here: {REMOTE})"
    )
    if farthest <= REMOTE:
        return Check("NUMA", "good", found)
    return Check("NUMA", "poor", found, advice.replace("=N", f"={node}"))


def _huge_pages(machine: Machine) -> Check:
    found = machine.transparent_huge_pages or "not visible"
    if found in ("madvise", "never"):
        return Check("transparent huge pages", "good", found)
    return Check(
        "transparent huge pages", "fair", found,
        "'always' lets volatile peers profit by chance; "
        "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`."
        if found == "always"
        else "Nothing to set here.",
    )  # fmt: skip


def _memory(machine: Machine) -> Check:
    found = f"{machine.memory_bytes / GIB:.1f} GiB"
    if machine.memory_bytes >= 4 * GIB:
        return Check("memory", "good", found)
    return Check("memory", "poor", found, "Heaps on tmpfs take memory; 4 GiB or more are needed.")
