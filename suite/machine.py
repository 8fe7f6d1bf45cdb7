# SPDX-License-Identifier: Apache-2.0
"""What this machine is: the facts that a number depends on, read from the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from suite import __version__
from suite.results import Environment, NvmDirectory

__all__ = ["Machine", "describe_environment", "instructions_countable", "read_machine"]

SYSCALL_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
PERF_TYPE_HARDWARE = 0
PERF_COUNT_HW_INSTRUCTIONS = 1
PERF_EXCLUDE_KERNEL_AND_HYPERVISOR = (1 << 5) | (1 << 6)
PERF_ATTRIBUTE_SIZE = 128
FLUSH_INSTRUCTIONS = ("clwb", "clflushopt", "clflush", "movdir64b")


@dataclass(frozen=True)
class Machine:
    """Facts that hold for the whole machine; None: the kernel does not tell."""

    hostname: str
    kernel: str
    cpu_model: str
    cpus: int
    usable_cpus: list[int]
    memory_bytes: int
    flush_instructions: list[str]
    governor: str | None
    turbo: bool | None
    smt: bool | None
    numa_nodes: int
    transparent_huge_pages: str | None
    perf_event_paranoid: int | None


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text(encoding="utf-8").strip()
    return None


def _cpu() -> tuple[str, list[str]]:
    model, flags = platform.machine(), set[str]()
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    return model, [name for name in FLUSH_INSTRUCTIONS if name in flags]


def _turbo() -> bool | None:
    no_turbo = _text("/sys/devices/system/cpu/intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    boost = _text("/sys/devices/system/cpu/cpufreq/boost")
    return None if boost is None else boost == "1"


def _huge_pages() -> str | None:
    text = _text("/sys/kernel/mm/transparent_hugepage/enabled")
    if text is None or "[" not in text:
        return None
    return text[text.index("[") + 1 : text.index("]")]


def _number(text: str | None) -> int | None:
    with contextlib.suppress(ValueError):
        return None if text is None else int(text)
    return None


def read_machine() -> Machine:
    """The machine as it is now."""
    model, flush = _cpu()
    smt = _text("/sys/devices/system/cpu/smt/active")
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    return Machine(
        hostname=socket.gethostname(),
        kernel=platform.release(),
        cpu_model=model,
        cpus=os.cpu_count() or 1,
        usable_cpus=sorted(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        flush_instructions=flush,
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(),
        smt=None if smt is None else smt == "1",
        numa_nodes=max(1, nodes),
        transparent_huge_pages=_huge_pages(),
        perf_event_paranoid=_number(_text("/proc/sys/kernel/perf_event_paranoid")),
    )


def instructions_countable() -> bool:
    """Whether perf_event_open really counts user-space instructions of this process.

    The sysctl alone does not tell: containers filter the call, and many virtual
    machines have no counter behind it.
    """
    number = SYSCALL_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        return False
    # struct perf_event_attr: type, size, config, sample_period, sample_type, read_format, flags.
    head = struct.pack(
        "=IIQQQQQ",
        PERF_TYPE_HARDWARE,
        PERF_ATTRIBUTE_SIZE,
        PERF_COUNT_HW_INSTRUCTIONS,
        0,
        0,
        0,
        PERF_EXCLUDE_KERNEL_AND_HYPERVISOR,
    )
    attribute = ctypes.create_string_buffer(head.ljust(PERF_ATTRIBUTE_SIZE, b"\0"))
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(
        ctypes.c_long(number), attribute, ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(-1),
        ctypes.c_ulong(0),
    )  # fmt: skip
    if descriptor < 0:
        return False
    try:
        data = os.read(descriptor, 8)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return len(data) == 8 and struct.unpack("=Q", data)[0] > 0


def _commit(root: Path) -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return result.stdout.strip() or None if result.returncode == 0 else None
    return None


def describe_environment(root: Path, nvm: NvmDirectory) -> Environment:
    """The environment of a result, without what only a run adds (runner, calibration)."""
    facts = vars(read_machine())
    return Environment(
        nvcrucible=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        commit=_commit(root),
        instructions_counted=instructions_countable(),
        nvm=nvm,
        **facts,
    )
