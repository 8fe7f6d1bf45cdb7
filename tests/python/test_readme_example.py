# SPDX-License-Identifier: Apache-2.0
"""The README's durable list: compiled as it stands there, killed while it works, and checked."""

from __future__ import annotations

import random
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from project import REPOSITORY, Project

pytestmark = pytest.mark.native

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
KILLS = 12
LINES_MAX = 40
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]


def section() -> str:
    return README[README.index("\n## nvmalloc\n") :]


def program() -> str:
    (code,) = re.findall(r"^```c\n(.*?)^```$", section(), re.MULTILINE | re.DOTALL)
    return str(code)


def commands() -> list[list[str]]:
    """Of the block behind the program: how it is compiled and run."""
    (block,) = re.findall(r"^```\n(cc .*?)^```$", section(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.fixture
def folder(native: Project) -> Iterator[Path]:
    """On the NVM, with the compiled list."""
    with tempfile.TemporaryDirectory(prefix="nvc-list-", dir=native.pm) as name:
        path = Path(name)
        (path / "list.c").write_text(program())
        compile_, *_ = commands()
        assert compile_[0] == "cc"
        places = {
            "-Iallocators/nvmalloc/include": f"-I{REPOSITORY / 'allocators/nvmalloc/include'}",
            "build/allocators/nvmalloc/libnvmalloc.a": str(
                native.build / "allocators/nvmalloc/libnvmalloc.a"
            ),
        }
        assert set(places) <= set(compile_)
        command = [compile_[0], *WARNINGS, *(places.get(word, word) for word in compile_[1:])]
        subprocess.run(command, cwd=path, check=True)
        yield path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [folder / "list", folder / "heap", *arguments], stdout=subprocess.PIPE, text=True
    )


def drain(folder: Path) -> list[int]:
    """The numbers of all nodes, of which each must be whole, from the newest on."""
    done = subprocess.run(
        [folder / "list", folder / "heap"], capture_output=True, text=True, check=True, timeout=60
    )
    return [number_of(line) for line in done.stdout.splitlines()]


def number_of(line: str) -> int:
    matched = re.fullmatch(r"this is node (\d+)", line)
    assert matched, f"a node that is not whole: {line!r}"
    return int(matched[1])


def kill_after(process: subprocess.Popen[str], lines: int, delay: float) -> list[str]:
    """Lets it print so many lines and work on a little, kills it with SIGKILL, and returns all
    whole lines that it had printed."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    time.sleep(delay)
    process.kill()
    said += process.stdout.readlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return [line.strip() for line in said if line.endswith("\n")]


def test_it_is_short_enough_to_read() -> None:
    assert len(program().splitlines()) <= LINES_MAX
    assert [words[0] for words in commands()] == ["cc", "./list", "./list"]
    assert commands()[1:] == [["./list", "HEAP", "push"], ["./list", "HEAP"]]


def test_a_list_that_is_killed_while_it_pushes(folder: Path) -> None:
    draw = random.Random(20)
    assert drain(folder) == []
    expected = 0
    for _ in range(KILLS):
        process = start(folder, "push")
        said = kill_after(process, draw.randrange(1, 3000), draw.random() * 0.01)
        acknowledged = [int(line.removeprefix("pushed ")) for line in said]
        # It goes on where the dead one stopped: nothing was lost, nothing is there twice.
        assert acknowledged[0] in (expected, expected + 1)
        assert acknowledged == list(range(acknowledged[0], acknowledged[-1] + 1))
        expected = acknowledged[-1] + 1
    found = drain(folder)
    # The last push may have been durable when the process died before it could say so.
    assert found[0] in (expected - 1, expected)
    assert found == list(range(found[0], -1, -1))
    assert drain(folder) == []


def test_a_list_that_is_killed_while_it_pops(folder: Path) -> None:
    draw = random.Random(21)
    assert drain(folder) == []
    process = start(folder, "push")
    # More than all rounds take, with what each is ahead of us: a pipe's worth.
    kill_after(process, 400_000, 0)
    newest = None
    for _ in range(KILLS):
        taken = [number_of(line) for line in kill_after(start(folder), draw.randrange(1, 1000), 0)]
        assert taken == list(range(taken[0], taken[-1] - 1, -1))
        # A node is shown before it is taken off.
        assert newest is None or taken[0] in (newest, newest - 1)
        newest = taken[-1]
    left = drain(folder)
    assert newest is not None
    assert left[0] in (newest, newest - 1)
    assert left == list(range(left[0], -1, -1))


def test_a_heap_that_is_full_ends_it(folder: Path) -> None:
    process = start(folder, "push")
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line.removeprefix("pushed "))
    process.stdout.close()
    assert process.wait() == 0
    assert last > 700_000  # of 64 bytes, in 64 MiB
    assert drain(folder) == list(range(last, -1, -1))
