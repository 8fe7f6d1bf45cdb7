# SPDX-License-Identifier: Apache-2.0
"""The shared library under test: ``NVM_VMEM_LIB``, else built here from the sources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmem_binding import Library

NVMALLOC = Path(__file__).resolve().parents[2] / "allocators" / "nvmalloc"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    given = os.environ.get("NVM_VMEM_LIB")
    if given is not None:
        return Library(Path(given))
    target = tmp_path_factory.mktemp("vmem") / "libvmem.so"
    sources = sorted(NVMALLOC.glob("src/vmem*.c")) + sorted(NVMALLOC.glob("src/objcache*.c"))
    command = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC"]
    command += ["-shared", f"-I{NVMALLOC / 'include'}", *map(str, sources), "-o", str(target)]
    subprocess.run([*command, "-lpthread"], check=True)
    return Library(target)


@pytest.fixture(autouse=True, scope="module")
def one_cpu() -> Iterator[None]:
    """Stay on one CPU: which magazine serves an object depends on it, and replays must not."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)
