# SPDX-License-Identifier: Apache-2.0
"""A run as text: for a terminal, as Markdown, as CSV."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from suite.cost_tables import allocator_grid, calibration_grid, residual_grid
from suite.results import Run
from suite.standalone_tables import standalone_grids
from suite.summary import summarize
from suite.tables import (
    Grid,
    cost_grid,
    draw,
    overview_grids,
    power_cost_grid,
    power_grid,
    survival_grid,
    throughput_grid,
    to_csv,
    to_markdown,
    trial_grids,
)

__all__ = ["as_csv", "as_markdown", "grids", "headlines", "show"]

PLAIN_WIDTH = 180
"""Of tables that don't go to a terminal: no column is cut."""
DETAILED_ROWS = 60
"""Above that, people get an overview first, and rows of details when they ask."""


def grids(run: Run, baseline: str | None = None, *, details: bool | None = None) -> list[Grid]:
    """The tables that this run has something for.  Long ones (`details`; None: decide by their
    length) are replaced by an overview."""
    found = []
    if run.samples:
        summary = summarize(run, baseline)
        long = len(summary.rates) > DETAILED_ROWS
        if summary.rates and long:
            found += overview_grids(run, summary)
        if summary.rates and (details or (details is None and not long)):
            found += [throughput_grid(run, summary), cost_grid(summary)]
        found += trial_grids(summary)
        found += standalone_grids(run, baseline)
        behind = (residual_grid(run), calibration_grid(run)) if summary.rates else ()
        found += [grid for grid in behind if grid is not None]
    if run.verdicts:
        found.append(survival_grid(run))
    powers = [verdict.power for verdict in run.verdicts if verdict.power is not None]
    if powers:
        found.append(power_grid(run))
    if any(power.costs for power in powers):
        found.append(power_cost_grid(run))
    allocators = allocator_grid(run)
    return found if allocators is None or not found else [*found, allocators]


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


def show(
    run: Run, folder: Path | None, baseline: str | None = None, *, details: bool | None = None
) -> None:
    """Draws the run on standard output."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for grid in grids(run, baseline, details=details):
        draw(grid, console)
        console.print()
    for line in headlines(run, folder):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def as_markdown(run: Run, baseline: str | None = None) -> str:
    title = f"## nvcrucible {run.command}: {run.name}, {run.started:%Y-%m-%d %H:%M} UTC\n"
    tables = [to_markdown(grid) for grid in grids(run, baseline, details=True)]
    notes = "".join(f"- {line}\n" for line in headlines(run))
    return "\n".join([title, *tables, notes]).rstrip() + "\n"


def as_csv(run: Run, baseline: str | None = None) -> str:
    return "\n".join(to_csv(grid) for grid in grids(run, baseline, details=True) if not grid.pages)
