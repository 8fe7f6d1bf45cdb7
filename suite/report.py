# SPDX-License-Identifier: Apache-2.0
"""A run as text: for a terminal, as Markdown, as CSV."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from suite.results import Run
from suite.summary import summarize
from suite.tables import (
    Grid,
    cost_grid,
    draw,
    survival_grid,
    throughput_grid,
    to_csv,
    to_markdown,
)

__all__ = ["as_csv", "as_markdown", "grids", "headlines", "show"]

PLAIN_WIDTH = 180
"""Of tables that don't go to a terminal: no column is cut."""


def grids(run: Run, baseline: str | None = None) -> list[Grid]:
    """The tables that this run has something for."""
    found = []
    if run.samples:
        summary = summarize(run, baseline)
        found += [throughput_grid(run, summary), cost_grid(summary)]
    if run.verdicts:
        found.append(survival_grid(run))
    return found


def headlines(run: Run, folder: Path | None = None) -> list[str]:
    """What a reader must know besides the tables."""
    lines = [f"left out: {reason}" for reason in run.environment.skipped.values()]
    lines += [f"note: {note}" for note in run.environment.notes]
    limit = _limit(run)
    if limit:
        lines.append(limit)
    if run.interrupted:
        lines.append("This run was interrupted; the tables show what had been measured.")
    if folder is not None:
        lines.append(f"Results: {folder}/run.json")
        lines += [
            f"Replay: nvcrucible replay {folder}/{verdict.failures[0].path}"
            for verdict in run.verdicts
            if verdict.failures and verdict.failures[0].path
        ]
    return lines


def _limit(run: Run) -> str | None:
    """The calibration in words: the least that a durable operation can take here."""
    calibration = run.environment.calibration or {}
    figures = [
        f"{key.removesuffix('_ns').replace('_', ' ')} {value:.0f} ns"
        for key, value in calibration.items()
        if key.endswith("_ns") and isinstance(value, int | float)
    ]
    return f"This machine's limits: {', '.join(figures)}." if figures else None


def show(run: Run, folder: Path | None, baseline: str | None = None) -> None:
    """Draws the run on standard output."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for grid in grids(run, baseline):
        draw(grid, console)
        console.print()
    for line in headlines(run, folder):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def as_markdown(run: Run, baseline: str | None = None) -> str:
    title = f"## nvcrucible {run.command}: {run.name}, {run.started:%Y-%m-%d %H:%M} UTC\n"
    tables = [to_markdown(grid) for grid in grids(run, baseline)]
    notes = "".join(f"- {line}\n" for line in headlines(run))
    return "\n".join([title, *tables, notes]).rstrip() + "\n"


def as_csv(run: Run, baseline: str | None = None) -> str:
    return "\n".join(to_csv(grid) for grid in grids(run, baseline))
