# SPDX-License-Identifier: Apache-2.0
"""The three tables, as a grid of text that each output format draws its own way."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from suite.results import Run, Verdict
from suite.summary import CostRow, Summary, ThroughputRow

__all__ = [
    "Grid",
    "cost_grid",
    "draw",
    "survival_cells",
    "survival_grid",
    "throughput_grid",
    "to_csv",
    "to_markdown",
]

ERROR_WIDTH = 60
REMARKS = "remarks"
"""The one column whose text may be wrapped."""


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn.  The first `left` columns are text, the rest are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    left: int
    strong: set[int]
    """Rows to mark."""
    alarming: set[int]
    """Rows that tell of a failure."""
    group: int = 1
    """A line is drawn where the first `group` columns change."""
    caption: str = ""
    optional: tuple[str, ...] = ()
    """Columns that a narrow terminal does without, the first one first."""


def throughput_grid(run: Run, summary: Summary) -> Grid:
    """Allocator x workload x threads: the median and its interval, best ones marked."""
    base = summary.baseline
    columns = ["workload", "threads", "allocator", "kind", "Mops/s", "95 % interval", "best"]
    if base:
        columns.append(f"x {base}")
    columns.append(REMARKS)
    rows = [_throughput_cells(row, base) for row in summary.throughput]
    return Grid(
        title="Throughput (each malloc and each free counts)",
        columns=columns,
        rows=rows,
        left=4,
        strong={index for index, row in enumerate(summary.throughput) if row.best},
        alarming={index for index, row in enumerate(summary.throughput) if row.error},
        group=2,
        caption=_where(run),
        optional=("95 % interval", "kind"),
    )


def _throughput_cells(row: ThroughputRow, base: str | None) -> list[str]:
    rate = row.ops_per_s
    kind = "durable" if row.persistent else "volatile"
    cells = [
        row.workload,
        str(row.threads),
        row.allocator,
        kind,
        "-" if rate is None else _mops(rate.median),
        "-" if rate is None else f"{_mops(rate.low)} .. {_mops(rate.high)}",
        f"best {kind}" if row.best else "",
    ]
    if base:
        cells.append("-" if row.ratio is None else f"{row.ratio:.2f}")
    remarks = [_short(row.error)] if row.error else []
    if row.noisy:
        remarks.append(f"{row.noisy} noisy")
    cells.append("; ".join(remarks))
    return cells


def _where(run: Run) -> str:
    """Under which conditions: no number without its environment."""
    nvm = run.environment.nvm
    parts = [
        f"{nvm.path} ({nvm.fstype}{', emulated' if nvm.emulated else ''})",
        f"MAP_SYNC {'held' if nvm.map_sync else 'refused'}",
        run.environment.cpu_model,
        f"runner {run.environment.runner.get('name', '?')}",
        f"seed {run.config.get('seed')}",
    ]
    return "; ".join(parts)


def cost_grid(summary: Summary) -> Grid:
    """Per operation: what is flushed, fenced, executed; how long it takes."""
    return Grid(
        title="Costs of one operation",
        columns=[
            "workload", "threads", "allocator", "flushes", "eff. fences", "all fences", "nt lines",
            "reflushed", "instr.", "instr. by", "p50 ns", "p99 ns", "p99.9 ns", "max us", "peak MB",
        ],
        rows=[_cost_cells(row) for row in summary.costs],
        left=3,
        strong=set(),
        alarming=set(),
        group=2,
        caption="An effective fence has a flush or a non-temporal store pending. "
        "Flushes and fences come from a sample of their own, in which they are counted. "
        "Instructions are the machine's count (perf), or the mean of some hundred operations "
        "that were stepped over; the driver's loop is included.",
        optional=(
            "peak MB", "max us", "reflushed", "nt lines", "all fences", "p99.9 ns", "instr. by",
            "instr.",
        ),
    )  # fmt: skip


def _cost_cells(row: CostRow) -> list[str]:
    maximum = None if row.max_ns is None else row.max_ns / 1000
    peak = None if row.peak_bytes is None else row.peak_bytes / 1e6
    share = "-" if row.reflush_ratio is None else f"{100 * row.reflush_ratio:.0f} %"
    return [
        row.workload,
        str(row.threads),
        row.allocator,
        _figure(row.flushes, 2),
        _figure(row.effective_fences, 2),
        _figure(row.fences, 2),
        _figure(row.nt_lines, 2),
        share,
        _figure(row.instructions, 0),
        row.instructions_source or "-",
        _figure(row.p50_ns, 0),
        _figure(row.p99_ns, 0),
        _figure(row.p999_ns, 0),
        _figure(maximum, 0),
        _figure(peak, 1),
    ]


def survival_grid(run: Run) -> Grid:
    """Cases, passed, failures by kind, where the cases lie."""
    return Grid(
        title="Survival",
        columns=["allocator", "fault", "result", "cases", "passed", "failed", "states", REMARKS],
        rows=[survival_cells(verdict) for verdict in run.verdicts],
        left=3,
        strong={i for i, v in enumerate(run.verdicts) if v.cases and not v.failed and not v.errors},
        alarming={i for i, v in enumerate(run.verdicts) if v.failed or v.errors or not v.cases},
        group=0,
        caption=f"seed {run.config.get('seed')}; a state is one crash that was recovered and checked",
    )


def survival_cells(verdict: Verdict) -> list[str]:
    """One row of the survival table."""
    if verdict.failed:
        result = "FAILED"
    elif not verdict.cases:
        result = "not judged"
    else:
        result = "survived"
    remarks = [f"{kind} {count}" for kind, count in sorted(verdict.by_kind.items())]
    if verdict.cases_dir:
        remarks.append(f"see {verdict.cases_dir}/")
    if verdict.failed and verdict.known_finding:
        what = "known" if not verdict.unexplained else "partly known"
        remarks.append(f"{what}: {verdict.known_finding}")
    if verdict.stopped_early and verdict.planned:
        remarks.append(f"stopped early, {verdict.planned} were planned")
    if verdict.errors:
        remarks.append(f"{verdict.errors} without verdict: {_short(verdict.error or '')}")
    return [
        verdict.allocator,
        verdict.fault,
        result,
        str(verdict.cases),
        str(verdict.passed),
        str(verdict.failed),
        str(verdict.states),
        "; ".join(remarks),
    ]


def _mops(rate: float) -> str:
    return f"{rate / 1e6:.3g}" if rate < 1e8 else f"{rate / 1e6:.0f}"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ERROR_WIDTH else line[: ERROR_WIDTH - 3] + "..."


def draw(grid: Grid, console: Console) -> None:
    """On a terminal, or as plain text elsewhere; narrow terminals get fewer columns."""
    hidden: list[str] = []
    for column in grid.optional:
        if _width(grid, hidden) <= console.width:
            break
        hidden.append(column)
    console.print(_table(grid, hidden))
    if hidden:
        console.print(f"A wider terminal also shows: {', '.join(hidden)}.", style="dim")


def _column_width(grid: Grid, index: int) -> int:
    """So that no figure and no word of the heading is cut."""
    texts = grid.columns[index].split()
    if grid.columns[index] != REMARKS:
        texts += [row[index] for row in grid.rows]
    return max(len(text) for text in texts)


def _width(grid: Grid, hidden: list[str]) -> int:
    """Terminal columns that the table takes at least; each cell is padded and has a border."""
    shown = (index for index, column in enumerate(grid.columns) if column not in hidden)
    return 1 + sum(3 + _column_width(grid, index) for index in shown)


def _table(grid: Grid, hidden: list[str]) -> Table:
    shown = [index for index, column in enumerate(grid.columns) if column not in hidden]
    table = Table(title=grid.title, caption=grid.caption or None, title_justify="left")
    for index in shown:
        column = grid.columns[index]
        words = index < grid.left or column in (REMARKS, "best")
        width = None if column == REMARKS else _column_width(grid, index)
        table.add_column(Text(column), justify="left" if words else "right", width=width)
    for index, row in enumerate(grid.rows):
        style = "red" if index in grid.alarming else "bold green" if index in grid.strong else None
        following = grid.rows[index + 1] if index + 1 < len(grid.rows) else row
        ends = grid.group > 0 and following[: grid.group] != row[: grid.group]
        table.add_row(*(Text(row[cell]) for cell in shown), style=style, end_section=ends)
    return table


def to_markdown(grid: Grid) -> str:
    """A GitHub table with its title."""
    ruler = [
        "---" if index < grid.left or column == REMARKS else "---:"
        for index, column in enumerate(grid.columns)
    ]
    lines = [grid.columns, ruler]
    for index, row in enumerate(grid.rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append([f"**{cell}**" if cell and index in grid.strong else cell for cell in cells])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    caption = f"\n\n{grid.caption}" if grid.caption else ""
    return f"### {grid.title}\n\n{body}{caption}\n"


def to_csv(grid: Grid) -> str:
    """Rows as they are, under their column names, each with the table's name before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    name = grid.title.split(" (")[0].split(" of ")[0].lower()
    writer.writerow(["table", *grid.columns])
    writer.writerows([name, *row] for row in grid.rows)
    return text.getvalue()
