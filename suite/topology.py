# SPDX-License-Identifier: Apache-2.0
"""Where things lie on this machine, and what bounds the CPUs: read from /sys and /proc.

Every function takes the root of the file system, so that a test can show it another machine.
None: the kernel does not tell.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["clock_source", "cpu_quota", "numa_distance", "numa_node_of"]

ROOT = Path("/")


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return None


def _number(text: str | None) -> int | None:
    with contextlib.suppress(ValueError):
        return None if text is None else int(text)
    return None


def clock_source(root: Path = ROOT) -> str | None:
    """What the kernel tells the time by."""
    return _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")


def numa_node_of(path: Path, root: Path = ROOT) -> int | None:
    """The node of the block device that a directory lies on; None for what lies on no device
    (tmpfs), or on one that belongs to no node."""
    try:
        device = path.stat().st_dev
    except OSError:
        return None
    block = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for place in (block / "device", block.resolve().parent / "device"):
        node = _number(_text(place / "numa_node"))
        if node is not None:
            return node if node >= 0 else None
    return None


def numa_distance(node: int, cpus: Iterable[int], root: Path = ROOT) -> list[int]:
    """The distances from a node to those of these CPUs, as the firmware states them (10: itself)."""
    nodes = root / "sys/devices/system/node"
    distances = (_text(nodes / f"node{node}/distance") or "").split()
    found = set()
    for place in nodes.glob("node[0-9]*"):
        number = int(place.name[4:])
        near = any((place / f"cpu{cpu}").exists() for cpu in cpus)
        if near and number < len(distances):
            found.add(int(distances[number]))
    return sorted(found)


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many CPUs' time this process's cgroup may use: the tightest of its own and its parents'."""
    quotas = []
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controllers or "")
        relative = Path(path.lstrip("/"))
        # In a container the path may be the host's, which is not mounted: then the root is ours.
        for folder in (relative, *relative.parents):
            quota = _quota_in(mount / folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota_in(folder: Path) -> float | None:
    limit = (_text(folder / "cpu.max") or "").split()  # version 2: "max 100000" or "150000 100000"
    if len(limit) == 2 and limit[0].isdigit():
        return int(limit[0]) / int(limit[1])
    quota = _number(_text(folder / "cpu.cfs_quota_us"))  # version 1; -1: none
    period = _number(_text(folder / "cpu.cfs_period_us"))
    return quota / period if quota is not None and quota > 0 and period else None
