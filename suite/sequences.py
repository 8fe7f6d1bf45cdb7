# SPDX-License-Identifier: Apache-2.0
"""Every short sequence of operations, every state of each: `python -m suite.sequences`.

`make fault-exhaustive` runs it: nvmalloc in each of its modes, all sequences of up to three of
{alloc, free, realloc, move, publish} x {small, large}, shards of them side by side.  Exit code 0: all
states of all crash points were decided, and nothing failed; 4: something failed, or a crash point's states
were not all decided (then it says how many).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from suite.build import find_build
from suite.errors import CrucibleError, EnvironmentMissing
from suite.project import project_root

__all__ = ["Total", "main", "run_shard"]

MODES = ("owned", "strict", "gc")
INCORRECT = 4
SHARDS_PER_WORKER = 4
"""So that workers end at about the same time."""
LIMIT_S = 6 * 3600.0

COUNTS = {
    "sequences": ("tried", "impossible", "incomplete"),
    "verdict": (
        "crash_points", "crash_points_complete", "recovery_crash_points", "states_checked",
        "states_distinct", "recovery_states_checked", "cpu_seconds",
    ),
}  # fmt: skip


@dataclass
class Total:
    """The sums over a mode's shards."""

    mode: str
    sums: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, documents: Sequence[dict[str, Any]]) -> None:
        """A shard's documents, the verdict last."""
        for document in documents:
            for name in COUNTS.get(document["type"], ()):
                self.sums[name] = self.sums.get(name, 0) + document[name]
        verdict = documents[-1]
        if verdict["verdict"] != "ok":
            self.failures.append(f"{verdict['verdict']}: {verdict['detail']}")

    @property
    def exhaustive(self) -> bool:
        """No crash point was left with states that nobody decided."""
        points = self.sums.get("crash_points", 0)
        return 0 < points == self.sums["crash_points_complete"] and not self.sums["incomplete"]


def run_shard(
    nvlab: Path, lens: Path, heaps: Path, mode: str, length: int, shard: int, shards: int
) -> list[dict[str, Any]]:
    """Its documents; `EnvironmentMissing` if there was no verdict."""
    with (
        tempfile.TemporaryDirectory(prefix="nvcrucible-sequences-") as work,
        tempfile.TemporaryDirectory(dir=heaps, prefix="nvcrucible-") as images,
    ):
        command = [
            str(nvlab), "sequences", "--adapter", str(lens), "--options", f"mode={mode}",
            "--work", work, "--dir", images, "--length", str(length), "--shard", f"{shard}/{shards}",
        ]  # fmt: skip
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    documents = [json.loads(line) for line in ended.stdout.splitlines()]
    if ended.returncode in (0, INCORRECT) and documents and "verdict" in documents[-1]:
        return documents
    errors = [str(each.get("message")) for each in documents if each["type"] == "error"]
    raise EnvironmentMissing(
        f"nvlab gave no verdict (exit code {ended.returncode}): {'; '.join(errors)}\n{ended.stderr}"
        f"Command: {' '.join(command)}"
    )


def _table(totals: Sequence[Total], length: int) -> Table:
    title = f"Every state of every sequence of up to {length} operations"
    table = Table(title=title, title_justify="left")
    table.add_column("mode")
    columns = [name for names in COUNTS.values() for name in names]
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("all decided")
    for total in totals:
        figures = [f"{total.sums.get(name, 0):,.0f}" for name in columns]
        table.add_row(total.mode, *figures, "yes" if total.exhaustive else "NO")
    return table


def run(options: argparse.Namespace, console: Console) -> int:
    """All shards of all modes; an exit code."""
    build = find_build(project_root())
    lens = build.lenses.get("nvmalloc")
    if lens is None:
        raise EnvironmentMissing("The build has no nvmalloc.lens.so: libdw-dev was missing.")
    modes = options.modes.split(",")
    shards = 1 if options.length == 1 else options.workers * SHARDS_PER_WORKER
    jobs = [(mode, shard) for mode in modes for shard in range(shards)]
    totals = {mode: Total(mode) for mode in modes}
    began = time.monotonic()

    def job(item: tuple[str, int]) -> list[dict[str, Any]]:
        mode, shard = item
        return run_shard(build.nvlab, lens, options.heaps, mode, options.length, shard, shards)

    with ThreadPoolExecutor(options.workers) as pool:
        for (mode, shard), documents in zip(jobs, pool.map(job, jobs), strict=True):
            totals[mode].add(documents)
            console.print(f"{mode}: shard {shard + 1} of {shards} done", style="dim")
    console.print(_table(list(totals.values()), options.length))
    console.print(f"{time.monotonic() - began:.0f} s, {options.workers} at a time")
    for total in totals.values():
        for failure in total.failures:
            console.print(f"{total.mode}: {failure}", style="red")
    good = all(total.exhaustive and not total.failures for total in totals.values())
    return 0 if good else INCORRECT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it for the command line."""
    parser = argparse.ArgumentParser(prog="python -m suite.sequences", description=__doc__)
    parser.add_argument("--length", type=int, default=3, choices=(1, 2, 3, 4), help="at most (3)")
    parser.add_argument("-n", "--workers", type=int, default=2, help="shards at a time (2)")
    parser.add_argument("--modes", default=",".join(MODES), help="of nvmalloc")
    parser.add_argument("--heaps", type=Path, default=Path("/dev/shm"), help="a tmpfs, for heaps")  # noqa: S108 - a tmpfs is what it is
    try:
        return run(parser.parse_args(arguments), Console(highlight=False, markup=False, width=200))
    except CrucibleError as error:
        sys.stderr.write(f"sequences: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
