# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible inspect` on real heaps: whole, killed, damaged in every part, and foreign."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from made_heaps import hold, live_slots, make, size_of
from project import Project
from suite.errors import BadInput
from suite.inspection import draw_inspection, inspect_heap

pytestmark = pytest.mark.native

UNIT = 64 << 10
PAGE = 4096
WATERMARKS = 2 * PAGE
ROOTS = 3 * PAGE
LIVE_BLOCKS = len(live_slots()) + 3
"""The root block and two names."""
MUTATIONS = int(os.environ.get("NVCRUCIBLE_INSPECT_MUTATIONS", "180"))
"""For all three modes together."""


@pytest.fixture
def home(native: Project) -> Iterator[Project]:
    """With a folder of its own on the NVM."""
    with tempfile.TemporaryDirectory(prefix="nvc-inspection-", dir=native.pm) as folder:
        yield replace(native, pm=Path(folder))


def library(project: Project) -> Path:
    return project.build / "allocators" / "nvmalloc" / "libnvmalloc.so"


def inspected(project: Project, heap: Path) -> dict[str, Any]:
    """The document, and the same drawn, on a file that stays as it was."""
    before = heap.read_bytes()
    document = inspect_heap(project.build / "allocators" / "nvmalloc" / "nvm-inspect", heap)
    stream = io.StringIO()
    draw_inspection(heap, document, Console(file=stream, width=160))
    assert "map" in stream.getvalue()
    assert heap.read_bytes() == before
    return document


def made(project: Project, mode: str, **how: Any) -> Path:
    heap = project.pm / "heap"
    make(library(project), heap, mode, **how)
    return heap


def damage_of(document: dict[str, Any]) -> dict[int, str]:
    return {each["offset"]: each["found"] for each in document["damage"]}


def offsets(heap: Path) -> dict[str, int]:
    """Of the areas, as the superblock says (layout.h)."""
    data = heap.read_bytes()[:PAGE]
    names = ("lanes", "chunks", "bitmaps", "data", "units", "max_units")
    found = dict(zip(names, struct.unpack_from("<6Q", data, 88), strict=True))
    assert data[:8] == b"NVMALLOC"
    return found


@pytest.mark.parametrize("mode", ["owned", "strict", "gc"])
def test_a_heap_that_was_closed(home: Project, mode: str) -> None:
    document = inspected(home, made(home, mode))
    assert (document["mode"], document["clean"], document["damage"]) == (mode, True, [])
    assert (document["live_blocks"], document["in_use"]) == (LIVE_BLOCKS, False)
    wanted = sum(size_of(slot) for slot in live_slots()) + 8 * 300 + 100 + 2_000_000
    assert wanted <= document["live_bytes"] <= wanted * 1.2
    assert document["opened"]["check"] == "ok"
    for key in ("live_blocks", "live_bytes"):
        assert document["opened"][key] == document[key]
    assert sum(each["live"] for each in document["classes"]) == LIVE_BLOCKS - 3
    assert document["extents"] == {"count": 3, "units": 2 * 11 + 31}
    assert document["map"].count("#") == 2 * 11 + 31
    assert document["map"].count(".") == document["free_units"]
    assert document["lanes"]["pending"] == 0
    assert document["pending_by_lane"] == []


def test_names_are_shown_with_what_they_refer_to(home: Project) -> None:
    roots = {each["name"]: each for each in inspected(home, made(home, "owned"))["roots"]}
    assert set(roots) == {"(the root block)", "small", "large"}
    assert roots["small"]["refers_to"] == "a block of 104 bytes"
    assert roots["large"]["refers_to"] == "an extent of 31 units"
    assert roots["large"]["offset"] % UNIT == 0


@pytest.mark.parametrize("mode", ["owned", "strict"])
def test_a_heap_that_was_killed_shows_what_is_pending(home: Project, mode: str) -> None:
    document = inspected(home, made(home, mode, end="kill"))
    assert (document["clean"], document["damage"]) == (False, [])
    pending = document["lanes"]["pending"]
    assert 0 < pending <= document["lanes"]["records"]
    assert sum(each["pending"] for each in document["pending_by_lane"]) == pending
    newest = max(each["newest"] for each in document["pending_by_lane"])
    assert newest > document["lanes"]["watermark"]
    opened = document["opened"]
    assert (opened["check"], opened["live_blocks"]) == ("ok", LIVE_BLOCKS)
    assert opened["replayed"] == pending


def test_a_gc_heap_that_was_killed_has_no_counts_of_its_own(home: Project) -> None:
    document = inspected(home, made(home, "gc", end="kill"))
    assert "live_blocks" not in document
    assert all("live" not in each for each in document["classes"])
    assert "?" in document["map"]
    assert document["damage"] == []
    assert (document["opened"]["check"], document["opened"]["live_blocks"]) == ("ok", LIVE_BLOCKS)


def test_growth_and_holes(home: Project) -> None:
    document = inspected(home, made(home, "owned", size=0, max_size=128 << 20))
    assert document["max_bytes"] == 128 << 20
    assert document["bytes"] == document["file_bytes"] < 64 << 20
    assert document["max_units"] > document["units"]
    assert document["holes"]["possible"] is True  # it was trimmed
    assert document["holes"]["allocated_bytes"] <= document["bytes"]


def test_arenas_hold_what_is_in_use(home: Project) -> None:
    document = inspected(home, made(home, "owned"))
    units = document["arenas"][0]
    assert (units["name"], units["total"]) == ("units", document["units"])
    assert units["in_use"] == document["units"] - document["free_units"]


def test_a_heap_that_somebody_has_open(home: Project) -> None:
    heap = home.pm / "heap"
    process = hold(library(home), heap, "owned")
    try:
        document = inspect_heap(home.build / "allocators" / "nvmalloc" / "nvm-inspect", heap)
    finally:
        process.communicate(timeout=30)
    assert (document["in_use"], document["clean"]) == (True, False)
    assert document["opened"]["live_blocks"] == LIVE_BLOCKS
    assert inspected(home, heap)["in_use"] is False


def flip(heap: Path, offset: int) -> None:
    with heap.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("copy", [0, 1])
def test_a_damaged_superblock(home: Project, copy: int) -> None:
    heap = made(home, "owned")
    flip(heap, copy * PAGE + 100)
    document = inspected(home, heap)
    assert damage_of(document).keys() == {copy * PAGE}
    assert document["opened"]["live_blocks"] == LIVE_BLOCKS


def test_both_superblocks_damaged(home: Project) -> None:
    heap = made(home, "owned")
    flip(heap, 100)
    flip(heap, PAGE + 100)
    with pytest.raises(BadInput, match="both superblocks are damaged"):
        inspected(home, heap)


def test_a_damaged_watermark_line(home: Project) -> None:
    heap = made(home, "owned", end="kill")
    flip(heap, WATERMARKS + 64 + 3)
    document = inspected(home, heap)
    assert "watermark line 1" in damage_of(document)[WATERMARKS + 64]
    assert document["lanes"]["watermark"] < document["pending_by_lane"][0]["newest"]


def test_a_damaged_bitmap_is_named_and_quarantined(home: Project) -> None:
    heap = made(home, "owned")
    whole = inspected(home, heap)
    at = offsets(heap)["bitmaps"] + 1024 * whole["map"].index("0")
    flip(heap, at)
    document = inspected(home, heap)
    assert "word 0 of its bitmap" in damage_of(document)[at]
    assert document["map"].count("!") > 0
    assert document["opened"]["quarantined_bytes"] > 0
    assert document["live_blocks"] < whole["live_blocks"]


def test_a_damaged_chunk_table_hides_what_is_behind(home: Project) -> None:
    heap = made(home, "owned")
    whole = inspected(home, heap)
    unit = whole["map"].index("#")
    at = offsets(heap)["chunks"] + 8 * unit
    flip(heap, at + 2)
    document = inspected(home, heap)
    assert f"entry of unit {unit}" in damage_of(document)[at]
    assert document["map"] == whole["map"][:unit] + "!" * (whole["units"] - unit)
    assert "chunk table" in document["opened"]["error"]


def test_a_damaged_record_is_told_by_the_open(home: Project) -> None:
    heap = made(home, "owned", end="kill")
    ring = inspected(home, heap)["lanes"]["ring"]
    data = heap.read_bytes()
    lanes = offsets(heap)["lanes"]
    seq = {i: struct.unpack_from("<Q", data, lanes + 64 * i + 24)[0] for i in range(ring)}
    newest = max(seq, key=lambda i: seq[i])
    flip(heap, lanes + 64 * ((newest - 2) % ring) + 8)
    assert "is damaged" in inspected(home, heap)["opened"]["error"]


def test_a_damaged_root(home: Project) -> None:
    heap = made(home, "owned")
    flip(heap, ROOTS + 16)
    document = inspected(home, heap)
    assert "root entry 0" in damage_of(document)[ROOTS]
    assert "root entry 0" in document["opened"]["check"]
    flip(heap, ROOTS + 16)
    flip(heap, ROOTS)  # the reference, which has no checksum
    assert "no block begins" in damage_of(inspected(home, heap))[ROOTS]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "EMEDIUMTYPE"),
        (b"\0" * 100, "EMEDIUMTYPE"),
        (b"not a heap, but a text\n" * 5000, "EMEDIUMTYPE"),
        (bytes(random.Random(1).randbytes(300_000)), "EMEDIUMTYPE"),
        (b"NVMALLOC" + b"\xff" * 20_000, "NOTSUP"),
        (b"NVMALLOC" + b"\0" * 20_000, "EUCLEAN"),
    ],
)
def test_foreign_files(home: Project, content: bytes, expected: str) -> None:
    heap = home.pm / "heap"
    heap.write_bytes(content)
    with pytest.raises(BadInput, match=expected):
        inspected(home, heap)


def test_truncated_heaps(home: Project) -> None:
    heap = made(home, "owned")
    whole = heap.read_bytes()
    for length in (100, 192, PAGE, PAGE + 192, 3 * PAGE, 100_000, len(whole) // 2, len(whole) - 1):
        heap.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"EUCLEAN|EMEDIUMTYPE"):
            inspected(home, heap)


def _metadata_in_use(heap: Path, document: dict[str, Any]) -> list[tuple[int, int]]:
    """Ranges of the file by which a reader can be led astray."""
    at = offsets(heap)
    lanes = document["lanes"]
    used = [unit for unit, state in enumerate(document["map"]) if state not in ".#"]
    return [
        (0, 200),
        (PAGE, PAGE + 200),
        (WATERMARKS, WATERMARKS + 128),
        (ROOTS, ROOTS + 64 * 1024),
        (at["lanes"], at["lanes"] + max(64, 64 * lanes["ring"] * lanes["used"])),
        (at["chunks"], at["chunks"] + 8 * at["units"]),
        *((at["bitmaps"] + 1024 * unit, at["bitmaps"] + 1024 * unit + 64) for unit in used[:8]),
    ]


def _mutate(data: bytearray, ranges: list[tuple[int, int]], draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(*draw.choice(ranges))
        what = draw.randrange(4)
        if what == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            data[at // 8 * 8 : at // 8 * 8 + 8] = draw.randbytes(8)
        elif what == 2:
            data[at // 64 * 64 : at // 64 * 64 + 64] = bytes(64)
        else:
            page = at // PAGE * PAGE
            other = draw.choice(ranges)[0] // PAGE * PAGE
            data[page : page + PAGE] = data[other : other + PAGE]


@pytest.mark.parametrize("mode", ["owned", "strict", "gc"])
def test_no_damage_crashes_it(home: Project, mode: str) -> None:
    """Each mutation gives a document; the library that is tried on it survives, too."""
    program = home.build / "allocators" / "nvmalloc" / "nvm-inspect"
    heap = made(home, mode, end="kill", size=16 << 20)
    whole, ranges = heap.read_bytes(), _metadata_in_use(heap, inspected(home, heap))
    damaged = 0
    for seed in range(MUTATIONS // 3):
        data = bytearray(whole)
        _mutate(data, ranges, random.Random(f"{mode} {seed}"))
        heap.write_bytes(data)
        done = subprocess.run([program, heap], capture_output=True, timeout=90, check=False)
        assert done.returncode in (0, 3), f"seed {seed}: {done.returncode} {done.stderr!r}"
        document = json.loads(done.stdout)
        assert "signal" not in document.get("opened", {}).get("error", ""), f"seed {seed}"
        opened = document.get("opened", {})
        harmed = opened.get("check") != "ok" or opened["live_blocks"] != LIVE_BLOCKS
        damaged += bool(document.get("damage")) or harmed
    assert damaged > MUTATIONS // 9  # a third of this mode's
