# SPDX-License-Identifier: Apache-2.0
"""vmem_dump's JSON: every arena under its source, and every counter as vmem_kstat has it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from vmem_binding import Arena, Counters, Flag, Library, Segment

TEXT, JSON = 0, 1
NAMES = {"mem_inuse": "in_use", "mem_total": "total", "mem_import": "imported"}


def dumped(library: Library, form: int) -> str:
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as stream:
        assert library.c.vmem_dump_fd(writer, form) == 0
        os.close(writer)
        return stream.read()


def every(document: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    for arena in document["arenas"]:
        yield depth, arena
        yield from every(arena, depth + 1)


@pytest.fixture
def family(library: Library) -> Iterator[list[Arena]]:
    top = Arena(library, "family top", 4, span=Segment(4, 4000))
    mid = Arena(library, "family mid", 2, source=top, qcache_max=8)
    arenas = [top, mid, Arena(library, "family leaf", 1, source=mid)]
    arenas.append(Arena(library, "family aunt", 4, source=top))
    yield arenas
    for arena in reversed(arenas):
        arena.destroy()


def test_json_has_every_counter_of_every_arena(library: Library, family: list[Arena]) -> None:
    for arena in family:
        arena.alloc(10)
        arena.alloc(100, Flag.BESTFIT)
        arena.contains(4, 4)
        assert arena.alloc(100_000) is None
    document = json.loads(dumped(library, JSON))
    found = {arena["id"]: (depth, arena) for depth, arena in every(document)}
    depths = dict(zip([arena.id for arena in family], (0, 1, 2, 1), strict=True))
    for arena in family:
        depth, shown = found[arena.id]
        counters = arena.counters()
        assert depth == depths[arena.id]
        assert shown["quantum"] == arena.quantum
        assert shown["identifier"] is True
        assert shown["populator"] is False
        assert shown["source"] == (counters.value("source_id") or None)
        assert {child["source"] for child in shown["arenas"]} <= {arena.id}
        for name in (field[0] for field in Counters._fields_):
            if name != "source_id":
                assert shown[NAMES.get(name, name)] == counters.value(name), name
        assert shown["fail"] > 0
    assert found[family[1].id][1]["qcache_max"] == 8
    own = {arena["name"]: arena for _, arena in every(document)}
    assert own["vmem_seg"]["populator"] is True
    assert own["vmem_seg"]["source"] == own["vmem_internal"]["id"]


@pytest.mark.usefixtures("family")
def test_text_has_a_line_for_every_arena(library: Library) -> None:
    lines = dumped(library, TEXT).splitlines()
    document = json.loads(dumped(library, JSON))
    assert len(lines) == 1 + len(list(every(document)))
    for line, (depth, arena) in zip(lines[1:], every(document), strict=True):
        assert line[4 : 6 + 2 * depth].strip() == ""
        assert line[6 + 2 * depth :].startswith(arena["name"])
        assert line.split()[0] == str(arena["id"])
    assert any("family leaf" in line for line in lines)
