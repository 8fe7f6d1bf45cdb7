# SPDX-License-Identifier: Apache-2.0
"""The tables, as a grid of text that each output format draws its own way."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from suite.metrics import Metric, metric_named
from suite.noise import noise_note
from suite.results import LEGAL_LIMIT, PowerStates, Run, Verdict
from suite.summary import KINDS, Row, Summary, safety_of

__all__ = [
    "REMARKS",
    "Grid",
    "conditions",
    "cost_grid",
    "draw",
    "overview_grids",
    "power_cost_grid",
    "power_grid",
    "short",
    "survival_cells",
    "survival_grid",
    "throughput_grid",
    "to_csv",
    "to_markdown",
    "trial_grids",
]

ERROR_WIDTH = 60
REMARKS_WIDTH = 16
INSTRUCTIONS = "instructions_per_op"
INSTRUCTIONS_BY = "instr. by"
"""Beside the instructions: who counted them."""
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
    pages: bool = False
    """Columns that don't fit go into further tables, below, with the `left` columns again."""


def throughput_grid(run: Run, summary: Summary) -> Grid:
    """Allocator x workload x threads: the median and its interval, best ones marked."""
    base = summary.baseline
    columns = ["workload", "threads", "allocator", "kind", "Mops/s", "95 % interval", "best"]
    if base:
        columns.append(f"x {base}")
    columns.append(REMARKS)
    return Grid(
        title="Throughput (each malloc and each free counts)",
        columns=columns,
        rows=[_throughput_cells(row, base) for row in summary.rates],
        left=4,
        strong={index for index, row in enumerate(summary.rates) if row.best},
        alarming={index for index, row in enumerate(summary.rates) if row.error},
        group=2,
        caption=conditions(run),
        optional=("95 % interval", "kind", f"x {base}", "best"),
    )


def _throughput_cells(row: Row, base: str | None) -> list[str]:
    rate = row.rate
    kind = _kind(row)
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
    cells.append(_remarks(row))
    return cells


def _kind(row: Row) -> str:
    return row.kind


def _remarks(row: Row) -> str:
    remarks = [short(row.error)] if row.error else []
    if row.noisy:
        remarks.append(f"{row.noisy} noisy")
    return "; ".join(remarks)


def conditions(run: Run) -> str:
    """Under which conditions: no number without its environment."""
    nvm = run.environment.nvm
    parts = [
        f"{nvm.path} ({nvm.fstype}{', emulated' if nvm.emulated else ''})",
        f"MAP_SYNC {'held' if nvm.map_sync else 'refused'}",
        run.environment.cpu_model,
        f"runner {run.environment.runner.get('name', '?')}",
        f"seed {run.config.get('seed')}",
    ]
    model = run.config.get("pm_model")
    if model:
        parts.insert(1, f"device model {model['name']}, EMULATED: waits added in software")
    limit = run.config.get("noise_limit")
    noise = noise_note(run.samples, float(limit)) if limit is not None else None
    return "; ".join([*parts, noise] if noise else parts)


def cost_grid(summary: Summary) -> Grid:
    """Per operation: what is flushed, fenced, executed; how long it takes, how much memory."""
    rows = [row for row in summary.rates if row.figures]
    metrics = summary.metrics(rows, ("cost", "latency", "memory"))
    return _metric_grid(
        "Costs of one operation",
        rows,
        metrics,
        "An effective fence has a flush or a non-temporal store pending. "
        "Flushes and fences come from a sample of their own, in which they are counted. "
        "Instructions are the machine's count (perf), or the mean of some hundred operations "
        "that were stepped over; the driver's loop is included. docs/metrics.md defines each.",
    )


def trial_grids(summary: Summary) -> list[Grid]:
    """A table for each workload that is a trial."""
    families = dict.fromkeys(row.family for row in summary.trials)
    grids = []
    for family in families:
        rows = [row for row in summary.trials if row.family == family]
        metrics = summary.metrics(rows, ("recovery", "memory"))
        grids.append(_metric_grid(f"Trial {family}", rows, metrics, "Medians.", remarks=True))
    return grids


def _metric_grid(
    title: str,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    caption: str,
    *,
    remarks: bool = False,
) -> Grid:
    columns = ["workload", "threads", "allocator"]
    for metric in metrics:
        columns.append(metric.heading)
        if metric.name == INSTRUCTIONS:
            columns.append(INSTRUCTIONS_BY)
    lightest_first = sorted(metrics, key=lambda metric: metric.weight)
    optional = [metric.heading for metric in lightest_first]
    if INSTRUCTIONS_BY in columns:
        optional.insert(0, INSTRUCTIONS_BY)
    return Grid(
        title=title,
        columns=columns + ([REMARKS] if remarks else []),
        rows=[_metric_cells(row, metrics, remarks=remarks) for row in rows],
        left=3,
        strong=set(),
        alarming={index for index, row in enumerate(rows) if remarks and row.error},
        group=2,
        caption=caption,
        optional=tuple(optional[:-2]),
    )


def _metric_cells(row: Row, metrics: Sequence[Metric], *, remarks: bool) -> list[str]:
    cells = [row.workload, str(row.threads), row.allocator]
    for metric in metrics:
        cells.append(metric.shown(row.median(metric.name)))
        if metric.name == INSTRUCTIONS:
            cells.append(row.instructions_source or "-")
    return [*cells, _remarks(row)] if remarks else cells


def overview_grids(run: Run, summary: Summary) -> list[Grid]:
    """The same at a glance: a row for each allocator, a column for each workload and thread count."""
    grids = [_overview(run, summary.rates, metric_named("ops_per_s"), "Throughput at a glance")]
    durable = [row for row in summary.rates if "fences_per_op" in row.figures]
    if durable:
        title = "Effective fences of an operation"
        grids.append(_overview(run, durable, metric_named("fences_per_op"), title))
    return grids


def _overview(run: Run, rows: Sequence[Row], metric: Metric, title: str) -> Grid:
    cells = list(dict.fromkeys((row.workload, row.threads) for row in rows))
    found = {(row.workload, row.threads, row.allocator): row for row in rows}
    names = list(dict.fromkeys((row.allocator, row.kind) for row in rows))
    unsupported = [(name, safety_of(run, name)) for name in run.environment.unsupported]
    kinds = {kind for _, kind in names}
    names += [each for each in unsupported if each[1] in kinds]
    names.sort(key=lambda name: KINDS.index(name[1]))

    def figure(workload: str, threads: int, allocator: str) -> str:
        if allocator in run.environment.unsupported:
            return "not supported"
        row = found.get((workload, threads, allocator))
        if row is None:
            return ""
        return "failed" if row.error and not row.figures else metric.shown(row.median(metric.name))

    return Grid(
        title=f"{title} ({metric.heading}; medians)",
        columns=["allocator", "kind", *(f"{workload} x{threads}" for workload, threads in cells)],
        rows=[
            [name, kind, *(figure(workload, threads, name) for workload, threads in cells)]
            for name, kind in names
        ],
        left=2,
        strong=set(),
        alarming=set(),
        group=0,
        caption=conditions(run),
        pages=True,
    )


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


def power_grid(run: Run) -> Grid:
    """Power failures: states legal, decided, tried; how fast."""
    verdicts = [verdict for verdict in run.verdicts if verdict.power is not None]
    return Grid(
        title="States after a power failure",
        columns=["allocator", "fault", "lens", "operations", "crash points", "complete", "legal",
                 "decided", "checked", "distinct", "states/s"],
        rows=[_power_cells(verdict, verdict.power) for verdict in verdicts if verdict.power],
        left=3,
        strong=set(),
        alarming=set(),
        group=1,
        caption="legal: what the x86 model allows at all crash points; decided: the share of these that "
        "a checked state stands for; complete: crash points of which every state is decided; "
        "states/s: of a worker's CPU time.",
        optional=("lens", "distinct", "complete", "operations"),
    )  # fmt: skip


def _power_cells(verdict: Verdict, power: PowerStates) -> list[str]:
    share = power.covered / power.legal if power.legal else 0.0
    rate = power.all_checked / power.cpu_seconds if power.cpu_seconds else 0.0
    return [
        verdict.allocator,
        verdict.fault,
        power.lens or "-",
        str(power.operations),
        str(power.crash_points),
        str(power.complete_points) if power.legal else "-",
        _legal_states(power.legal),
        f"{100 * share:.4g} %" if power.legal else "-",
        str(power.checked),
        str(power.distinct) if power.distinct else "-",
        f"{rate:.0f}",
    ]


def _legal_states(count: float) -> str:
    if not count:
        return "-"
    return f"{count:.3g}" if count < LEGAL_LIMIT else f"> {LEGAL_LIMIT:.0e}"


def power_cost_grid(run: Run) -> Grid:
    """Where flushes and fences are spent without need."""
    found = [
        (verdict.allocator, cost)
        for verdict in run.verdicts
        for cost in (verdict.power.costs if verdict.power else [])
    ]
    return Grid(
        title="Flushes and fences that need not be",
        columns=["allocator", "finding", "where", "function", "times", "of"],
        rows=[
            [
                name,
                cost.kind,
                f"{cost.file}:{cost.line}",
                cost.function,
                str(cost.times),
                str(cost.of),
            ]
            for name, cost in found
        ],
        left=4,
        strong=set(),
        alarming=set(),
        group=1,
        caption="needless-flush: nothing to flush; needless-fence: nothing pending; reflush: the line "
        "was among the last four flushed. Counted in the first history of each case.",
        optional=("function",),
    )


def survival_cells(verdict: Verdict) -> list[str]:
    """One row of the survival table."""
    if verdict.failed:
        result = "FAILED"
    elif not verdict.cases or not verdict.states:
        result = "not judged"
    else:
        result = "survived"
    remarks = [f"{kind} {count}" for kind, count in sorted(verdict.by_kind.items())]
    if verdict.cases_dir:
        remarks.append(f"see {verdict.cases_dir}/")
    if verdict.failed and verdict.known_finding:
        what = "known" if not verdict.unexplained else "partly known"
        remarks.append(f"{what}: {verdict.known_finding}")
    if verdict.cases and not verdict.states and not verdict.failed:
        remarks.append("no crash state to judge")
    if verdict.stopped_early and verdict.planned:
        remarks.append(f"stopped early, {verdict.planned} were planned")
    if verdict.errors:
        remarks.append(f"{verdict.errors} without verdict: {short(verdict.error or '')}")
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


def short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ERROR_WIDTH else line[: ERROR_WIDTH - 3] + "..."


def draw(grid: Grid, console: Console) -> None:
    """On a terminal, or as plain text elsewhere; narrow terminals get fewer columns, or more
    tables below each other."""
    if grid.pages:
        for page in _pages(grid, console.width):
            console.print(_table(page, []))
        return
    hidden: list[str] = []
    for column in grid.optional:
        if _width(grid, hidden) <= console.width:
            break
        hidden.append(column)
    if _width(grid, hidden) <= console.width:
        console.print(_table(grid, hidden))
    else:
        for page in _pages(_without(grid, hidden), console.width):
            console.print(_table(page, []))
    if hidden:
        console.print(f"A wider terminal also shows: {', '.join(hidden)}.", style="dim")


def _without(grid: Grid, hidden: Sequence[str]) -> Grid:
    kept = [index for index, column in enumerate(grid.columns) if column not in hidden]
    return replace(
        grid,
        columns=[grid.columns[index] for index in kept],
        rows=[[row[index] for index in kept] for row in grid.rows],
        left=sum(1 for index in kept if index < grid.left),
    )


def _pages(grid: Grid, width: int) -> list[Grid]:
    """The grid in parts that are no wider than that, as far as single columns allow."""
    fixed = range(grid.left)
    start = 1 + sum(3 + _column_width(grid, index) for index in fixed)
    parts: list[list[int]] = [[]]
    used = start
    for index in range(grid.left, len(grid.columns)):
        needed = 3 + _column_width(grid, index)
        if parts[-1] and used + needed > width:
            parts.append([])
            used = start
        parts[-1].append(index)
        used += needed
    pages = []
    for number, part in enumerate(parts):
        shown = [*fixed, *part]
        pages.append(
            replace(
                grid,
                title=grid.title if number == 0 else "",
                columns=[grid.columns[index] for index in shown],
                rows=[[row[index] for index in shown] for row in grid.rows],
                caption=grid.caption if number == len(parts) - 1 else "",
            )
        )
    return pages


def _column_width(grid: Grid, index: int) -> int:
    """So that no figure and no word of the heading is cut."""
    texts = grid.columns[index].split()
    cells = [row[index] for row in grid.rows]
    if grid.columns[index] != REMARKS:
        texts += cells
    else:  # enough to be read in some lines
        texts += [text[:REMARKS_WIDTH] for text in cells]
    return max(len(text) for text in texts)


def _width(grid: Grid, hidden: list[str]) -> int:
    """Terminal columns that the table takes at least; each cell is padded and has a border."""
    shown = (index for index, column in enumerate(grid.columns) if column not in hidden)
    return 1 + sum(3 + _column_width(grid, index) for index in shown)


def _table(grid: Grid, hidden: list[str]) -> Table:
    shown = [index for index, column in enumerate(grid.columns) if column not in hidden]
    table = Table(title=grid.title or None, caption=grid.caption or None, title_justify="left")
    for index in shown:
        column = grid.columns[index]
        words = index < grid.left or column in (REMARKS, "best")
        width = None if column == REMARKS else _column_width(grid, index)
        justify: Literal["left", "right"] = "left" if words else "right"
        table.add_column(Text(column), justify=justify, width=width, overflow="fold")
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
