# SPDX-License-Identifier: Apache-2.0
"""Judges this machine: what helps or hurts a measurement here, and what to change."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.build import BUILD_VARIABLE
from suite.errors import CrucibleError, EnvironmentMissing
from suite.machine import Machine, instructions_countable, read_machine
from suite.nvm import find_nvm
from suite.runners import first_sentence

__all__ = ["Check", "examine"]

Grade = Literal["good", "fair", "poor", "missing"]
GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One fact, judged."""

    name: str
    grade: Grade
    found: str
    advice: str = ""
    """What to change; empty when there is nothing to gain."""


def examine(root: Path, pm: Path | None) -> list[Check]:
    """All checks, the NVM first.  Never raises for what it examines."""
    machine = read_machine()
    return [
        *_nvm(pm),
        _flush(machine),
        _build(root),
        _docker(),
        _instructions(machine),
        _cpus(machine),
        _governor(machine),
        _turbo(machine),
        _smt(machine),
        _numa(machine),
        _huge_pages(machine),
        _memory(machine),
        Check("kernel", "good", machine.kernel),
    ]


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
    )
    sync = Check(
        "MAP_SYNC",
        "good" if nvm.map_sync else "fair",
        "granted" if nvm.map_sync else f"refused on {nvm.fstype}",
        ""
        if nvm.map_sync
        else "Only a DAX file system on real or emulated pmem grants it "
        "(kernel parameter memmap=, or an NVDIMM).",
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
        return Check("Docker", "fair", first_sentence(str(error)), advice)
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
    return Check("instruction counts", "fair", f"{level}, does not count", advice)


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


def _numa(machine: Machine) -> Check:
    if machine.numa_nodes == 1:
        return Check("NUMA", "good", "one node")
    return Check(
        "NUMA", "fair", f"{machine.numa_nodes} nodes",
        "Run on the NVM's node: `numactl --cpunodebind=N nvcrucible bench ...`.",
    )  # fmt: skip


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
