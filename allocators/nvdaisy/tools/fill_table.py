# SPDX-License-Identifier: Apache-2.0
"""Measures allocation against heap fill and puts the tables into a document.

    python allocators/nvdaisy/tools/fill_table.py --build build --document docs/daisy.md

Runs ``fill-time`` (fill-time.c says what it measures) for the two historical Daisy
designs and for nvdaisy, ``--repeat`` times each and in turns, and replaces what stands
between the lines ``<!-- fill: begin -->`` and ``<!-- fill: end -->``. A cell is the median
of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- fill: begin -->", "<!-- fill: end -->"
LEVELS = [round(0.1 * level, 1) for level in range(1, 10)]


@dataclass(frozen=True)
class Design:
    """A row of the tables."""

    title: str
    adapter: str
    options: str = ""


DESIGNS = [
    Design("daisy-bitmap", "daisy-bitmap"),
    Design("daisy-list", "daisy-list", "merge=0"),
    Design("daisy-list, free chunks merged", "daisy-list", "merge=1"),
    Design("**nvdaisy**", "nvdaisy"),
]


@dataclass
class Measured:
    """What the repeats of one design gave."""

    points: dict[float, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    full_at: list[float] = field(default_factory=list)


def measure(build: Path, design: Design, heap: Path, size: int, seed: int, into: Measured) -> None:
    """One run of one design on a fresh heap."""
    allocators = build / "allocators"
    command = [str(allocators / "nvdaisy" / "fill-time"), str(allocators / f"{design.adapter}.so")]
    command += [design.options, str(heap), str(size), str(seed)]
    try:
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    finally:
        heap.unlink(missing_ok=True)
    for line in output.splitlines():
        document = json.loads(line)
        if "full_at" in document:
            into.full_at.append(document["full_at"])
        else:
            into.points[round(document["fill"], 1)].append(document)


def in_words(nanoseconds: float) -> str:
    """A time with its unit: 640 ns, 25 us, 1.2 ms."""
    for limit, unit, scale in ((1e3, "ns", 1.0), (1e6, "us", 1e3), (1e9, "ms", 1e6)):
        if nanoseconds < limit:
            value = nanoseconds / scale
            return f"{value:.0f} {unit}" if value >= 10 or scale == 1 else f"{value:.1f} {unit}"
    return f"{nanoseconds / 1e9:.1f} s"


def share_of_free(point: dict[str, Any]) -> float:
    """The largest block that can be had, as a share of what is free."""
    free = point["free_bytes"]
    return float(min(1.0, point["largest_bytes"] / free)) if free else 0.0


def table(
    title: str,
    measured: dict[Design, Measured],
    value: Callable[[dict[str, Any]], float],
    shown: Callable[[float], str],
) -> list[str]:
    """One Markdown table: a row a design, a column a level."""
    lines = ["", f"| {title} | " + " | ".join(f"{level:.0%}" for level in LEVELS) + " |"]
    lines.append("|---|" + "---|" * len(LEVELS))
    for design, found in measured.items():
        cells = []
        for level in LEVELS:
            points = found.points.get(level)
            if points:
                cells.append(shown(statistics.median(map(value, points))))
            elif not any("full" in cell for cell in cells):
                cells.append(f"full at {statistics.median(found.full_at):.0%}")
            else:
                cells.append("")
        lines.append(f"| {design.title} | " + " | ".join(cells) + " |")
    return lines


def render(measured: dict[Design, Measured], size: int, repeat: int, seed: int) -> str:
    """What goes between the marker lines."""
    lines = table("median time of an allocation", measured, lambda p: p["p50_ns"], in_words)
    lines += table("slowest in a hundred", measured, lambda p: p["p99_ns"], in_words)
    lines += table(
        "largest block to be had, of what is free", measured, share_of_free, lambda x: f"{x:.0%}"
    )
    lines += [
        "",
        f"A heap of {size >> 20} MB, filled to the stated share with blocks of 64 to 1024 bytes;",
        f"medians of {repeat} runs from seed {seed}; {platform.machine()}, {os.cpu_count()} CPUs,",
        "tmpfs as emulated NVM.",
        "",
    ]
    return "\n".join(lines)


def replace(document: Path, text: str) -> None:
    """Puts the text between the marker lines of the document."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{document}: there are no lines '{BEGIN}' and '{END}'. Add them.")
    document.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=Path, required=True, help="the native build")
    parser.add_argument("--document", type=Path, help="default: print the tables")
    parser.add_argument("--pm", type=Path, default=Path("/dev/shm"), help="where heaps go")  # noqa: S108
    parser.add_argument("--heap-megabytes", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    size = options.heap_megabytes << 20
    measured = {design: Measured() for design in DESIGNS}
    with tempfile.TemporaryDirectory(dir=options.pm, prefix="fill-time-") as folder:
        for repeat in range(options.repeat):
            for design in DESIGNS:
                seed = options.seed + repeat
                measure(options.build, design, Path(folder) / "heap", size, seed, measured[design])
    text = render(measured, size, options.repeat, options.seed)
    if options.document is None:
        sys.stdout.write(text)
    else:
        replace(options.document, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
