# SPDX-License-Identifier: Apache-2.0
"""A metric over past runs: a row for each cell, a column for each run, and a line of blocks.

Only runs under the same conditions stand in one row (`comparability`): a step in a line must be
the program's doing, not that of another machine.  The newest run's conditions are shown, and how
many runs had others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from suite.comparability import obstacles
from suite.errors import BadInput
from suite.metrics import Metric
from suite.results import FILE_NAME, Run, load_run
from suite.statistics import Estimate
from suite.summary import summarize
from suite.tables import Grid, conditions

__all__ = ["History", "Series", "gather", "history_grid", "runs_in", "sparkline"]

BLOCKS = "▁▂▃▄▅▆▇█"
COLUMNS = 6
"""The newest runs that get a column of their own; the line of blocks has all."""


@dataclass
class Series:
    """A cell over the runs, the oldest first."""

    workload: str
    threads: int
    allocator: str
    values: list[Estimate | None] = field(default_factory=list)
    noisy: list[bool] = field(default_factory=list)
    """Whether most of a value's samples were taken while others used the machine."""


@dataclass(frozen=True)
class History:
    metric: Metric
    names: list[str]
    """Of the runs' folders."""
    dates: list[datetime]
    series: list[Series]
    elsewhere: int
    """Runs that were left out: other conditions than the newest one."""
    caption: str


def runs_in(parent: Path) -> tuple[list[tuple[str, Run]], list[str]]:
    """All readable runs of a results folder, the oldest first; and what is wrong with the others."""
    found, problems = [], []
    for file in sorted(parent.glob(f"*/{FILE_NAME}")):
        try:
            found.append((file.parent.name, load_run(file)))
        except BadInput as error:
            problems.append(str(error))
    return sorted(found, key=lambda pair: pair[1].started), problems


def gather(
    metric: Metric,
    runs: Sequence[tuple[str, Run]],
    *,
    allocators: Sequence[str] | None,
    workloads: Sequence[str] | None,
    threads: Sequence[int] | None,
    last: int,
) -> History:
    """The metric of the newest `last` runs that hold it under the newest one's conditions."""
    holding = [(name, run) for name, run in runs if _holds(run, metric)]
    if not holding:
        raise BadInput(
            f"No run here holds '{metric.name}' ({metric.heading}). Run `nvcrucible bench`, or name another "
            "folder of results with --results DIR."
        )
    newest = holding[-1][1]
    alike = [(name, run) for name, run in holding if not obstacles(run, newest)]
    kept = alike[-last:]
    series: dict[tuple[str, int, str], Series] = {}
    for number, (_, run) in enumerate(kept):
        for row in summarize(run).rows:
            figure = row.figures.get(metric.name)
            wanted = (
                (allocators is None or row.allocator in allocators)
                and (workloads is None or row.workload in workloads or row.family in workloads)
                and (threads is None or row.threads in threads)
            )
            if figure is None or not wanted:
                continue
            key = (row.workload, row.threads, row.allocator)
            each = series.setdefault(key, Series(*key))
            gap = number - len(each.values)
            each.values += [None] * gap + [figure.estimate]
            each.noisy += [False] * gap + [2 * row.noisy > figure.estimate.count]
    for each in series.values():
        gap = len(kept) - len(each.values)
        each.values += [None] * gap
        each.noisy += [False] * gap
    return History(
        metric,
        [name for name, _ in kept],
        [run.started for _, run in kept],
        [series[key] for key in sorted(series)],
        len(holding) - len(alike),
        conditions(newest),
    )


def _holds(run: Run, metric: Metric) -> bool:
    return any(
        sample.accepted and getattr(sample.metrics, metric.name) is not None
        for sample in run.samples
        if sample.case is None
    )


def sparkline(values: Sequence[float | None]) -> str:
    """A block for each value, between the least and the largest; a gap where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    steps = len(BLOCKS) - 1
    return "".join(
        " "
        if value is None
        else BLOCKS[round((value - low) / span * steps) if span else steps // 2]
        for value in values
    )


def history_grid(history: History) -> Grid:
    """The newest runs in columns; older ones in the line only."""
    metric = history.metric
    shown = history.dates[-COLUMNS:]
    labels = _labels(shown)
    rows = []
    for each in history.series:
        medians = [None if value is None else value.median for value in each.values]
        rows.append(
            [each.workload, str(each.threads), each.allocator]
            + [
                metric.shown(median) + ("~" if noisy else "")
                for median, noisy in list(zip(medians, each.noisy, strict=True))[-COLUMNS:]
            ]
            + [_change(medians), sparkline(medians)]
        )
    better = {"higher": ", higher is better", "lower": ", lower is better", "neither": ""}
    return Grid(
        title=f"{metric.heading} over {len(history.names)} runs{better[metric.direction]}",
        columns=["workload", "threads", "allocator", *labels, "change", "history"],
        rows=rows,
        left=3,
        strong=set(),
        alarming=set(),
        group=2,
        caption=f"~: most of its samples were taken amid noise. {history.caption}",
        optional=tuple(labels[:-1]),
    )


def _labels(dates: Sequence[datetime]) -> list[str]:
    """Days, with the time where a day has several runs; each label once."""
    days = [f"{date:%m-%d}" for date in dates]
    texts = [
        f"{date:%m-%d %H:%M}" if days.count(day) > 1 else day
        for date, day in zip(dates, days, strict=True)
    ]
    return [
        f"{text} ({texts[:place].count(text) + 1})" if texts.count(text) > 1 else text
        for place, text in enumerate(texts)
    ]


def _change(values: Sequence[float | None]) -> str:
    """From the oldest value to the newest."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or not known[0]:
        return "-"
    return f"{100 * (known[-1] / known[0] - 1):+.1f} %"
