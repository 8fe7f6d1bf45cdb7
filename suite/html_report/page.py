# SPDX-License-Identifier: Apache-2.0
"""The run as what the template shows.  See the package for what holds for the whole page."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from suite.cost_tables import allocator_grid, calibration_grid, residual_grid
from suite.html_report.cards import Card, curve_cards, latency_cards, recovery_cards, scaling_cards
from suite.html_report.charts import Style, swatch
from suite.metrics import METRICS, Metric
from suite.report import headlines
from suite.results import Run, Sample, Verdict
from suite.standalone_tables import standalone_grids
from suite.summary import KINDS, Figure, Row, Summary, safety_of, summarize
from suite.tables import REMARKS, Grid, conditions

__all__ = ["render"]

TABLE_GROUPS = (
    ("costs", "Costs of one operation", ("cost",)),
    ("latency-table", "Latency of one operation", ("latency",)),
    ("memory", "Memory", ("memory",)),
)


@dataclass(frozen=True)
class Cell:
    """Of a sortable table."""

    text: str
    value: str = ""
    """What it is sorted by; empty: the text."""
    title: str = ""
    samples: str = ""
    metric: str = ""
    css: str = ""


@dataclass(frozen=True)
class TableRow:
    allocator: str
    threads: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    anchor: str
    title: str
    columns: list[tuple[str, str]]
    """Heading and explanation."""
    left: int
    rows: list[TableRow]
    caption: str = ""


@dataclass(frozen=True)
class Bar:
    row: Row
    width: float
    low: float
    interval: float
    text: str
    title: str
    samples: str


@dataclass(frozen=True)
class BarCard:
    title: str
    groups: Sequence[tuple[str, list[Bar]]]


def render(run: Run, folder: Path | None, file: Path, baseline: str | None = None) -> str:
    """The page; links to cases are relative to where `file` will lie."""
    summary = summarize(run, baseline)
    styles = _styles(run, summary)
    here = files("suite.html_report")
    environment = Environment(
        loader=DictLoader({"page": (here / "template.html.j2").read_text(encoding="utf-8")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page").render(
        run=run,
        style=Markup((here / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        script=Markup((here / "script.js").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        data=_data(run),
        conditions=conditions(run),
        facts=_facts(run),
        headlines=headlines(run),
        allocators=_allocators(run, styles),
        thread_counts=sorted({row.threads for row in summary.rows}),
        bar_cards=_bar_cards(summary),
        styles=styles,
        sections=_sections(run, summary, styles),
        kinds=list(dict.fromkeys(safety_of(run, name) for name in styles)),
        tables=_tables(summary) + [_plain(grid) for grid in _other_grids(run, baseline)],
        faults=list(dict.fromkeys(verdict.fault for verdict in run.verdicts)),
        survival=_survival(run, folder, file),
    )


def _other_grids(run: Run, baseline: str | None) -> list[Grid]:
    found = [*standalone_grids(run, baseline), residual_grid(run), calibration_grid(run)]
    return [grid for grid in [*found, allocator_grid(run)] if grid is not None]


def _styles(run: Run, summary: Summary) -> dict[str, Style]:
    """Durable allocators first, so that they get the plainest lines."""
    names = [row.allocator for row in summary.rows] + [each.allocator for each in run.verdicts]
    known = sorted(dict.fromkeys(names), key=lambda name: KINDS.index(safety_of(run, name)))
    return {name: Style(number) for number, name in enumerate(known)}


def _allocators(run: Run, styles: dict[str, Style]) -> list[dict[str, Any]]:
    described = run.environment.allocators
    return [
        {
            "name": name,
            "kind": safety_of(run, name),
            "swatch": swatch(style),
            "version": described.get(name, {}).get("library_version") or "",
            "consistency": described.get(name, {}).get("consistency") or "",
        }
        for name, style in styles.items()
    ]


def _facts(run: Run) -> list[tuple[str, str]]:
    environment = run.environment
    facts = [
        ("machine", f"{environment.cpu_model}, {environment.cpus} CPUs"),
        ("memory", f"{environment.memory_bytes / 1e9:.0f} GB"),
        ("kernel", environment.kernel),
        ("heaps", f"{environment.nvm.path} ({environment.nvm.fstype})"),
        ("MAP_SYNC", "held" if environment.nvm.map_sync else "refused"),
        ("runner", str(environment.runner.get("name", "?"))),
        ("profile", str(run.config.get("profile", "-"))),
        ("seed", str(run.config.get("seed", "-"))),
        ("commit", environment.commit or "-"),
    ]
    for key in ("flush_fence_ns", "nt_fence_ns"):
        figure = (environment.calibration or {}).get(key)
        if figure:
            what = key.removesuffix("_ns").replace("_", " + ").replace("nt", "non-temporal line")
            facts.append((what, f"{figure:.0f} ns"))
    return facts


def places(figure: Figure) -> str:
    return ",".join(map(str, figure.samples))


def _shown_interval(figure: Figure) -> str:
    metric, found = figure.metric, figure.estimate
    count = f"{found.count} sample{'s' if found.count > 1 else ''}"
    if found.low == found.high:
        return f"{metric.heading}: {metric.shown(found.median)}, {count}"
    return (
        f"{metric.heading}: median {metric.shown(found.median)} of {count}, 95 % interval "
        f"{metric.shown(found.low)} .. {metric.shown(found.high)}"
    )


def _bar_cards(summary: Summary) -> list[BarCard]:
    workloads = dict.fromkeys(row.workload for row in summary.rates)
    cards = []
    for workload in workloads:
        rows = [row for row in summary.rates if row.workload == workload]
        groups = []
        for kind in KINDS:
            own = [row for row in rows if row.kind == kind]
            top = max((row.rate.high for row in own if row.rate), default=0.0)
            fastest: dict[str, float] = {}
            for row in own:
                rate = row.median("ops_per_s") or 0.0
                fastest[row.allocator] = max(rate, fastest.get(row.allocator, 0.0))
            own.sort(key=lambda row: (-fastest[row.allocator], row.allocator, row.threads))
            bars = [_bar(row, top) for row in own]
            if bars:
                groups.append((kind, bars))
        cards.append(BarCard(workload, groups))
    return cards


def _bar(row: Row, top: float) -> Bar:
    figure = row.figures.get("ops_per_s")
    if figure is None or not top:
        return Bar(row, 0, 0, 0, "failed", row.error or "not measured", "")
    rate = figure.estimate
    title = f"{row.allocator}, {row.workload}, {row.threads} threads. {_shown_interval(figure)}"
    if row.noisy:
        title += f"; {row.noisy} of the samples noisy"
    return Bar(
        row,
        width=round(100 * rate.median / top, 2),
        low=round(100 * rate.low / top, 2),
        interval=round(100 * (rate.high - rate.low) / top, 2),
        text=figure.metric.shown(rate.median),
        title=title,
        samples=places(figure),
    )


def _sections(
    run: Run, summary: Summary, styles: dict[str, Style]
) -> list[tuple[str, str, str, list[Card]]]:
    """Anchor, title, explanation, cards; without those that have nothing to show."""
    every = [
        (
            "scaling", "Scaling over threads",
            "Throughput of all threads together; logarithmic.",
            scaling_cards(summary, styles),
        ),
        (
            "latency", "Latency",
            "The time that a share of the operations stays within, of all samples together.",
            latency_cards(run, summary, styles),
        ),
        (
            "footprint", "Footprint over time",
            "Memory taken while the sizes change; grey: what the application holds.",
            curve_cards(run, styles),
        ),
        (
            "recovery", "Recovery against live objects",
            "From opening the heap of a killed process until everything is rebuilt, logarithmic.",
            recovery_cards(summary, styles),
        ),
    ]  # fmt: skip
    return [section for section in every if section[3]]


def _tables(summary: Summary) -> list[Table]:
    tables = [_throughput(summary)] if summary.rates else []
    for anchor, title, groups in TABLE_GROUPS:
        rows = [row for row in summary.rates if row.figures]
        metrics = summary.metrics(rows, groups)  # type: ignore[arg-type]
        if metrics:
            tables.append(_metric_table(anchor, title, rows, metrics))
    for family in dict.fromkeys(row.family for row in summary.trials):
        rows = [row for row in summary.trials if row.family == family]
        metrics = summary.metrics(rows, ("recovery", "memory"))
        tables.append(_metric_table(f"trial-{family}", f"Trial {family}", rows, metrics))
    return tables


def _head(row: Row) -> list[Cell]:
    return [Cell(row.workload), Cell(str(row.threads), str(row.threads)), Cell(row.allocator)]


HEAD = [("workload", ""), ("threads", ""), ("allocator", "")]


def _figure_cell(row: Row, metric: Metric) -> Cell:
    figure = row.figures.get(metric.name)
    if figure is None:
        return Cell("-", "")
    return Cell(
        metric.shown(figure.estimate.median),
        f"{figure.estimate.median:.9g}",
        _shown_interval(figure),
        places(figure),
        metric.name,
    )


def _throughput(summary: Summary) -> Table:
    rows = []
    for row in summary.rates:
        figure = row.figures.get("ops_per_s")
        cells = [*_head(row), Cell(row.kind)]
        if figure is None:
            cells += [Cell("failed", "", row.error or ""), Cell("-")]
        else:
            best = "best" if row.best else ""
            cell = _figure_cell(row, figure.metric)
            cells.append(Cell(cell.text, cell.value, cell.title, cell.samples, cell.metric, best))
            low, high = (
                figure.metric.shown(figure.estimate.low),
                figure.metric.shown(figure.estimate.high),
            )
            cells.append(
                Cell(f"{low} .. {high}", f"{figure.estimate.spread:.6g}", "sorted by its width")
            )
        if summary.baseline:
            known = "" if row.ratio is None else f"{row.ratio:.6g}"
            cells.append(Cell("-" if row.ratio is None else f"{row.ratio:.2f}", known))
        remarks = [row.error or "", f"{row.noisy} noisy" if row.noisy else ""]
        cells.append(Cell("; ".join(filter(None, remarks)), css="remarks"))
        rows.append(TableRow(row.allocator, str(row.threads), cells))
    columns = [*HEAD, ("kind", ""), ("Mops/s", _explained("ops_per_s")), ("95 % interval", "")]
    columns += [(f"x {summary.baseline}", "times the baseline")] if summary.baseline else []
    return Table("throughput-table", "Throughput", [*columns, ("remarks", "")], 4, rows)


def _explained(name: str) -> str:
    metric = next(metric for metric in METRICS if metric.name == name)
    return f"{metric.definition} Source: {metric.source}."


def _metric_table(anchor: str, title: str, rows: Sequence[Row], metrics: Sequence[Metric]) -> Table:
    columns = HEAD + [(metric.heading, _explained(metric.name)) for metric in metrics]
    shown = [
        TableRow(
            row.allocator,
            str(row.threads),
            _head(row)
            + [_figure_cell(row, metric) for metric in metrics]
            + [Cell(row.error or "", css="remarks")],
        )
        for row in rows
    ]
    return Table(anchor, title, [*columns, ("remarks", "")], 3, shown)


def _plain(grid: Grid) -> Table:
    """A table that knows no samples of its own."""
    place = grid.columns.index("allocator") if "allocator" in grid.columns else None
    rows = [
        TableRow(row[place] if place is not None else "", "", _plain_cells(grid, row))
        for row in grid.rows
    ]
    anchor = "".join(letter if letter.isalnum() else "-" for letter in grid.title.lower())
    columns = [(name, "") for name in grid.columns]
    return Table(anchor, grid.title, columns, grid.left, rows, grid.caption)


def _plain_cells(grid: Grid, row: Sequence[str]) -> list[Cell]:
    cells = []
    for column, text in zip(grid.columns, row, strict=True):
        number = text.removesuffix(" %").replace(" ", "")
        value = number if number.lstrip("-").replace(".", "", 1).isdigit() else ""
        cells.append(Cell(text, value, css="remarks" if column == REMARKS else ""))
    return cells


@dataclass(frozen=True)
class Outcome:
    """A cell of the survival matrix."""

    css: str
    symbol: str
    text: str
    cases: list[tuple[str, str, str | None]]
    """Kind, detail and the link to the folder, if it was kept."""
    finding: str | None
    note: str


def _survival(run: Run, folder: Path | None, file: Path) -> list[tuple[str, list[Outcome | None]]]:
    by_key = {(each.allocator, each.fault): each for each in run.verdicts}
    names = dict.fromkeys(each.allocator for each in run.verdicts)
    faults = dict.fromkeys(each.fault for each in run.verdicts)
    return [
        (name, [_outcome(by_key.get((name, fault)), folder, file) for fault in faults])
        for name in names
    ]


def _outcome(verdict: Verdict | None, folder: Path | None, file: Path) -> Outcome | None:
    if verdict is None:
        return None
    cases = [(case.kind, case.detail, _link(folder, file, case.path)) for case in verdict.failures]
    note = f"{verdict.states} crash states recovered and checked"
    if verdict.stopped_early:
        note += f"; given up early, {verdict.planned} cases were planned"
    if verdict.errors:
        note += f"; {verdict.errors} cases without a verdict: {verdict.error}"
    if verdict.failed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(verdict.by_kind.items()))
        text = f"{verdict.failed} of {verdict.cases} failed: {kinds}"
        known = bool(verdict.known_finding) and not verdict.unexplained
        css, symbol = ("known", "▲") if known else ("failed", "✗")
        return Outcome(css, symbol, text, cases, verdict.known_finding, note)
    if not verdict.cases:
        return Outcome("unjudged", "?", "not judged", cases, None, note)
    return Outcome("survived", "✓", f"survived all {verdict.cases}", cases, None, note)


def _link(folder: Path | None, file: Path, path: str | None) -> str | None:
    if folder is None or path is None:
        return None
    return Path(os.path.relpath(folder.resolve() / path, file.resolve().parent)).as_posix()


def _data(run: Run) -> Markup:
    """Every sample and every metric's definition, as JSON that can't end the script element."""
    document = {
        "metrics": {
            metric.name: {
                "heading": metric.heading,
                "unit": metric.unit,
                "definition": metric.definition,
                "source": metric.source,
                "scale": metric.scale,
                "digits": metric.digits,
            }
            for metric in METRICS
        },
        "samples": [_sample(sample) for sample in run.samples],
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)  # noqa: S704 - nothing that HTML knows is left in it


def _sample(sample: Sample) -> dict[str, Any]:
    return sample.model_dump(
        mode="json",
        exclude={"raw", "family", "parameters"},
        exclude_none=True,
        exclude_defaults=False,
    )
