# SPDX-License-Identifier: Apache-2.0
"""libvmem on its own: what the libraries export, and a program that has nothing but its header."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from project import REPOSITORY

NVMALLOC = REPOSITORY / "allocators" / "nvmalloc"
EXAMPLE = NVMALLOC / "examples" / "vmem_ports.c"
PREFIXES = ("vmem", "objcache", "magazine", "objslab")


def declared() -> set[str]:
    """Functions of the public headers."""
    names: set[str] = set()
    for header in ("vmem.h", "objcache.h"):
        text = (NVMALLOC / "include" / header).read_text()
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        names |= set(re.findall(r"^VMEM_API[^;(]*?\b(\w+)\(", code, flags=re.MULTILINE))
        plain = re.findall(
            r"^(?!VMEM_API|typedef|#)[^\n;{}]*?\b((?:vmem|objcache)_\w+)\(", code, re.MULTILINE
        )
        assert not plain, f"{header} declares {plain} without VMEM_API"
    return names


def test_the_reference_is_complete() -> None:
    """docs/vmem.md has every function and every constant, and the tests that it names exist."""
    reference = (REPOSITORY / "docs" / "vmem.md").read_text()
    for name in declared():
        assert re.search(rf"`{name}\b", reference), f"docs/vmem.md says nothing of {name}"
    header = (NVMALLOC / "include" / "vmem.h").read_text()
    constants = set(re.findall(r"^#define (VMC?_[A-Z_]+)", header, re.MULTILINE))
    counters = set(re.findall(r"\b(vk_\w+);", header))
    assert len(constants) == 9
    assert len(counters) == 14
    assert {name for name in constants | counters if f"`{name}`" not in reference} == set()
    tests = [*(NVMALLOC / "tests").glob("*.c"), *REPOSITORY.glob("tests/*/test_*.py")]
    defined = set(re.findall(r"\b(test_\w+)\(", "".join(path.read_text() for path in tests)))
    named = set(re.findall(r"`(test_\w+)`", reference))
    assert len(named) > 50
    assert named - defined == set()


@pytest.mark.native
@pytest.mark.parametrize("library", ["libvmem.so", "libnvmalloc.so"])
def test_the_interface_is_exported_and_nothing_else_of_vmem(
    native_build: Path, library: str
) -> None:
    file = native_build / "allocators" / "nvmalloc" / library
    output = subprocess.run(
        ["nm", "-D", "--defined-only", file], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in output.splitlines()}
    interface = declared()
    assert len(interface) > 35
    assert {name for name in exported if name.startswith(PREFIXES)} == interface
    if library == "libvmem.so":
        assert exported == interface


@pytest.mark.native
@pytest.mark.parametrize("library", ["libvmem.a", "libvmem.so", "libnvmalloc.so"])
def test_the_example_runs_with_each_library(
    native_build: Path, library: str, tmp_path: Path
) -> None:
    folder = native_build / "allocators" / "nvmalloc"
    program = tmp_path / "ports"
    command = [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror"]
    command += [str(EXAMPLE), f"-I{NVMALLOC / 'include'}"]
    command += [str(folder / library), f"-Wl,-rpath,{folder}"]
    subprocess.run([*command, "-lpthread", "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    lines = result.stdout.splitlines()
    assert lines[0] == "web: 49152 and 49153; mail: an even one and the next, 49408"
    assert lines[1] == "web, not the one just freed: 49154"
    tree = {line.split()[1]: line for line in lines[3:-2]}
    assert (
        tree["web"].index("web") == tree["mail"].index("mail") == tree["ports"].index("ports") + 2
    )
    assert lines[-2:] == [
        "mail has given its range back: 0 ports left to it",
        "web was destroyed with 2 ports in use",
    ]
