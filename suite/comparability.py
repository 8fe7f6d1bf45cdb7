# SPDX-License-Identifier: Apache-2.0
"""Were two runs made under the same conditions?  Numbers from different ones tell nothing.

What differs is of three sorts: an *obstacle* (another machine, another medium, other windows:
no figure may be compared, unless forced), a cell that was measured differently (its workload has
other parameters: it alone is left out), and a *note* (worth knowing: another version, a seed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suite.results import Environment, Run

__all__ = ["FACTS", "changed_workloads", "notes_on", "obstacles"]

MEMORY_TOLERANCE = 0.02
"""The kernel's own share of the memory differs a little from boot to boot."""
LIMIT_TOLERANCE = 0.1

FACTS: dict[str, Callable[[Environment], Any]] = {
    "CPU": lambda e: e.cpu_model,
    "number of CPUs": lambda e: e.cpus,
    "usable CPUs": lambda e: len(e.usable_cpus),
    "kernel": lambda e: e.kernel,
    "frequency governor": lambda e: e.governor,
    "turbo": lambda e: e.turbo,
    "SMT": lambda e: e.smt,
    "NUMA nodes": lambda e: e.numa_nodes,
    "transparent huge pages": lambda e: e.transparent_huge_pages,
    "NVM directory's file system": lambda e: e.nvm.fstype,
    "DAX": lambda e: e.nvm.dax,
    "MAP_SYNC": lambda e: e.nvm.map_sync,
    "emulated NVM": lambda e: e.nvm.emulated,
    "runner": lambda e: e.runner.get("name"),
}
SETTINGS = ("warmup_s", "seconds", "latency_s", "pm_model", "device")
"""Keys of `config` that shape every sample."""


def obstacles(base: Run, new: Run) -> list[str]:
    """Why no figure of the two may be compared; empty if they may."""
    old, now = base.environment, new.environment
    found = [
        f"{name}: {fact(old)} in the base, {fact(now)} in the new run"
        for name, fact in FACTS.items()
        if fact(old) != fact(now)
    ]
    if abs(old.memory_bytes - now.memory_bytes) > MEMORY_TOLERANCE * old.memory_bytes:
        found.append(
            f"memory: {old.memory_bytes / 1e9:.1f} GB in the base, "
            f"{now.memory_bytes / 1e9:.1f} GB in the new run"
        )
    return found + [
        f"{key}: {base.config.get(key)} in the base, {new.config.get(key)} in the new run"
        for key in SETTINGS
        if base.config.get(key) != new.config.get(key)
    ]


def changed_workloads(base: Run, new: Run) -> dict[str, str]:
    """The workloads that both runs have, but with other parameters; and how they differ."""
    old: dict[str, Any] = base.config.get("workloads") or {}
    now: dict[str, Any] = new.config.get("workloads") or {}
    changed = {}
    for name in old.keys() & now.keys():
        for key in ("heap_bytes", "parameters", "cases"):
            before, after = old[name].get(key), now[name].get(key)
            if before != after:
                changed[name] = f"{key} {before} in the base, {after} in the new run"
    return changed


def notes_on(base: Run, new: Run) -> list[str]:
    """What a reader should know of two runs that may be compared."""
    old, now = base.environment, new.environment
    notes = []
    if old.hostname != now.hostname:
        notes.append(f"another host: {old.hostname}, {now.hostname}")
    if base.config.get("seed") != new.config.get("seed"):
        notes.append(
            f"other seeds ({base.config.get('seed')}, {new.config.get('seed')}): counted figures "
            "are compared less sharply; `bench --seed` repeats the base's"
        )
    if old.python != now.python:
        notes.append("another Python: the machine's pace is not taken out")
    for name in sorted(old.allocators.keys() & now.allocators.keys()):
        before = old.allocators[name].get("library_version")
        after = now.allocators[name].get("library_version")
        if before != after:
            notes.append(f"{name}: version {before} in the base, {after} in the new run")
    return (
        notes
        + _limits(old, now)
        + [
            f"the {which} run was interrupted"
            for which, run in (("base", base), ("new", new))
            if run.interrupted
        ]
    )


def _limits(old: Environment, now: Environment) -> list[str]:
    """What the machine itself was measured to take, where it changed."""
    notes = []
    for key in ("flush_fence_ns", "nt_fence_ns"):
        before, after = ((each.calibration or {}).get(key) for each in (old, now))
        if before and after and abs(after / before - 1) > LIMIT_TOLERANCE:
            notes.append(
                f"the machine's own {key.removesuffix('_ns').replace('_', ' ')}: {before:.0f} ns in "
                f"the base, {after:.0f} ns in the new run"
            )
    return notes
