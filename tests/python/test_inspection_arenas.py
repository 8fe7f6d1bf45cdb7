# SPDX-License-Identifier: Apache-2.0
"""The tree of arenas in `nvcrucible inspect`."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from suite.inspection import draw_inspection

NODE = {
    "id": 8, "name": "units node 0", "source": 7, "identifier": True, "in_use": 30, "total": 64,
    "imported": 64, "alloc": 12, "free": 4, "fail": 0, "arenas": [],
}  # fmt: skip
HEAP = {
    "id": 7, "name": "units", "source": None, "identifier": True, "in_use": 100, "total": 8192,
    "imported": 0, "alloc": 3, "arenas": [NODE],
}  # fmt: skip
OWN = {"id": 1, "name": "vmem_heap", "source": None, "identifier": False, "in_use": 4096,
       "total": 262144, "imported": 262144, "arenas": []}  # fmt: skip


def test_arenas_are_drawn_under_their_sources() -> None:
    stream = io.StringIO()
    document = {"type": "heap", "bytes": 1 << 20, "arenas": [HEAP, OWN], "damage": []}
    draw_inspection(Path("heap"), document, Console(file=stream, width=160))
    lines = stream.getvalue().splitlines()
    at = lines.index("arenas")
    heap, node, own = lines[at + 1 : at + 4]
    assert "units  100 of 8,192 of its numbers in use  (3 allocations)" in heap
    assert "units node 0  30 of 64 of its numbers in use, 64 imported" in node
    assert "(12 allocations, 4 frees)" in node
    assert "vmem_heap  4,096 of 262,144 bytes in use, 262,144 imported" in own
    assert node.index("units") > heap.index("units") == own.index("vmem_heap")
