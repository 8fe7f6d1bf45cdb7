# SPDX-License-Identifier: Apache-2.0
"""Draws what `nvm-inspect` reads in a heap file: header, occupancy, lanes, roots, damage, and what
an open would find.

The program only reads; it maps the file privately and follows nothing that does
not validate.  Its document is open-ended: what it says about a part that we
know is drawn as a table, any other fact as a line.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from suite.errors import BadInput, EnvironmentMissing

__all__ = ["draw_inspection", "inspect_heap"]

TIMEOUT_S = 120.0
ARENA_COUNTERS = {"alloc": "allocations", "free": "frees", "fail": "failed", "wait": "waits"}
"""Of an arena, besides what it holds; those that are 0 are left out."""
BAR_WIDTH = 24
MAP_WIDTH = 64
MAP_LEGEND = (
    "one character a unit: . free, 0-9 slab by tenths of live blocks, ? slab of a GC heap that was "
    "not closed, # extent, ! damaged, or behind the damage"
)
MAP_STYLES = {".": "dim", "#": "cyan", "?": "yellow", "!": "bold red"}
ADVICE = {
    "foreign": "Name a heap file that nvmalloc made.",
    "truncated": "Restore the file from a copy; do not open the heap before.",
    "newer": "Inspect it with the nvmalloc that made it, or a newer one.",
}
ERRNO_ADVICE = {
    "EMEDIUMTYPE": ADVICE["foreign"],
    "EUCLEAN": ADVICE["truncated"],
    "ENOTSUP": ADVICE["newer"],
    "EOPNOTSUPP": ADVICE["newer"],
    "EBUSY": "Close the program that has the heap open, or inspect a copy of the file.",
}


def inspect_heap(inspector: Path, heap: Path) -> dict[str, Any]:
    """The heap's document; the errors say what is wrong with the file."""
    if not heap.exists():
        raise BadInput(f"{heap} does not exist. Expected a heap file of nvmalloc; check the path.")
    if not heap.is_file():
        raise BadInput(f"{heap} is no file. Expected a heap file of nvmalloc; check the path.")
    if not inspector.is_file():
        raise EnvironmentMissing(
            f"The program {inspector} is not there; it reads nvmalloc's heap files. Run `make build`."
        )
    try:
        result = subprocess.run(
            [str(inspector), str(heap.resolve())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentMissing(
            f"{inspector.name} did not end within {TIMEOUT_S:.0f} s on {heap}. That is a fault of ours; "
            "please report it with the file."
        ) from error
    document = _last_document(result.stdout)
    if document is not None and document.get("type") == "error":
        raise BadInput(_explain(heap, document))
    if document is None or result.returncode not in (0, 4):
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EnvironmentMissing(
            f"{inspector.name} ended with code {result.returncode} on {heap} and printed no document"
            f"{': ' + said[-1] if said else ''}. Expected one JSON document. Build again with `make build`."
        )
    return document


def _last_document(output: bytes) -> dict[str, Any] | None:
    text = output.decode("utf-8", "replace").strip()
    for candidate in (text, text.splitlines()[-1] if text else ""):
        try:
            document = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document
    return None


def _explain(heap: Path, document: dict[str, Any]) -> str:
    message = str(document.get("message") or document.get("error") or "no reason given").rstrip(".")
    error = str(document.get("error") or "")
    advice = ERRNO_ADVICE.get(error, "Check that the path names a heap file of nvmalloc.")
    name = f" ({error})" if error else ""
    return f"{heap} can't be inspected{name}: {message}. {advice}"


def draw_inspection(heap: Path, document: dict[str, Any], console: Console) -> None:
    """Facts first, then each list of parts as a table, damage last and in red."""
    facts = Table(title=f"Heap {heap}", title_justify="left", show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in _facts(document):
        facts.add_row(Text(name), Text(value))
    console.print(facts)
    for name, value in document.items():
        if name == "arenas" and _is_table(value):
            console.print(_arenas(value))
        elif name != "damage" and _is_table(value):
            console.print(_part(name, value))
    if isinstance(document.get("map"), str):
        console.print(_map(document["map"]))
    damage = document.get("damage")
    if damage:
        console.print(
            _part("damage", damage if _is_table(damage) else [{"found": d} for d in damage], "red")
        )
    elif damage is not None:
        console.print("No damage was found.", style="green")


def _arenas(roots: list[dict[str, Any]]) -> Tree:
    """Each arena of the allocator under the one that it imports from."""
    tree = Tree(Text("arenas", style="bold"))
    _grow(tree, roots)
    return tree


def _grow(tree: Tree, arenas: list[dict[str, Any]]) -> None:
    for arena in arenas:
        used, total = int(arena.get("in_use", 0)), int(arena.get("total", 0))
        what = "of its numbers" if arena.get("identifier") else "bytes"
        label = Text(str(arena.get("name", "?")), style="bold cyan")
        label.append(f"  {used:,} of {total:,} {what} in use", style="not bold default")
        if arena.get("imported"):
            label.append(f", {int(arena['imported']):,} imported", style="not bold default")
        counts = [
            f"{int(arena[key]):,} {text}"
            for key, text in ARENA_COUNTERS.items()
            if int(arena.get(key, 0))
        ]
        label.append(f"  ({', '.join(counts)})" if counts else "", style="not bold dim")
        children = arena.get("arenas")
        _grow(tree.add(label), children if isinstance(children, list) else [])


def _map(units: str) -> Table:
    """The heap's units from its first to its last, with the unit number of each row."""
    table = Table(title="map", title_justify="left", caption=MAP_LEGEND, show_header=False)
    table.add_column(justify="right", style="dim")
    table.add_column(no_wrap=True)
    for start in range(0, len(units), MAP_WIDTH):
        row = Text()
        for unit in units[start : start + MAP_WIDTH]:
            row.append(unit, style=MAP_STYLES.get(unit, "green"))
        table.add_row(str(start), row)
    return table


def _facts(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for name, value in document.items():
        label = f"{prefix}{name}".replace("_", " ")
        if name in ("type", "damage", "map", "path") or _is_table(value):
            continue
        if isinstance(value, dict):
            facts += _facts(value, f"{label} ")
        elif value not in ([], None):
            facts.append((label, _text(name, value)))
    return facts


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _part(name: str, rows: list[dict[str, Any]], style: str | None = None) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    used, whole = _occupancy_columns(columns)
    table = Table(title=name.replace("_", " "), title_justify="left", style=style or "")
    for column in columns:
        numeric = all(isinstance(row.get(column, 0), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    if used and whole:
        table.add_column("occupancy")
    for row in rows:
        cells = [Text(_text(column, row.get(column, ""))) for column in columns]
        if used and whole:
            cells.append(Text(_bar(float(row.get(used) or 0), float(row.get(whole) or 0))))
        table.add_row(*cells, style=style)
    return table


def _occupancy_columns(columns: list[str]) -> tuple[str | None, str | None]:
    used = next((name for name in ("live", "used", "used_blocks") if name in columns), None)
    whole = next((name for name in ("blocks", "capacity", "total") if name in columns), None)
    return used, whole


def _bar(used: float, whole: float) -> str:
    share = min(1.0, used / whole) if whole > 0 else 0.0
    full = round(share * BAR_WIDTH)
    return f"{'#' * full}{'.' * (BAR_WIDTH - full)} {100 * share:3.0f} %"


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith(("bytes", "size")):
        return f"{value:,}"
    return str(value)
