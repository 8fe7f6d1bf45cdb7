# SPDX-License-Identifier: Apache-2.0
"""The charts of the page, a card for each workload."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from suite.html_report.charts import Line, Point, Style, line_chart
from suite.html_report.scales import categorical, linear, logarithmic, tail
from suite.latency import merged_percentiles
from suite.results import Run
from suite.summary import Figure, Row, Summary

__all__ = ["Card", "curve_cards", "latency_cards", "recovery_cards", "scaling_cards"]

SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)
MEGABYTE = 1e6


@dataclass(frozen=True)
class Card:
    """A chart and its title; `threads` empty: of several thread counts."""

    title: str
    chart: Markup
    threads: str = ""


def _point(x: float, figure: Figure, row: Row) -> Point:
    found, metric = figure.estimate, figure.metric
    title = (
        f"{row.allocator}, {row.workload}, {row.threads} threads: {metric.heading} "
        f"{metric.shown(found.median)} ({metric.shown(found.low)} .. {metric.shown(found.high)}, "
        f"{found.count} samples)"
    )
    places = ",".join(map(str, figure.samples))
    scale = metric.scale
    return Point(
        x, found.median * scale, found.low * scale, found.high * scale, title, places, metric.name
    )


def scaling_cards(summary: Summary, styles: dict[str, Style]) -> list[Card]:
    """For each workload that ran on several thread counts."""
    cards = []
    for workload in dict.fromkeys(row.workload for row in summary.rates):
        rows = [row for row in summary.rates if row.workload == workload and row.rate]
        counts = sorted({row.threads for row in rows})
        if len(counts) < 2:
            continue
        lines = [
            Line(
                name,
                style,
                [
                    _point(row.threads, row.figures["ops_per_s"], row)
                    for row in sorted(rows, key=lambda row: row.threads)
                    if row.allocator == name
                ],
            )
            for name, style in styles.items()
        ]
        values = [y for line in lines for p in line.points for y in (p.low, p.high, p.y) if y]
        chart = line_chart(
            lines, categorical(counts), logarithmic(values), "threads", "Mops/s",
            f"{workload}: throughput over threads",
        )  # fmt: skip
        cards.append(Card(workload, chart))
    return cards


def latency_cards(run: Run, summary: Summary, styles: dict[str, Style]) -> list[Card]:
    """For each workload and thread count whose operations were timed."""
    cards = []
    keys = dict.fromkeys((row.workload, row.threads) for row in summary.rates)
    for workload, threads in keys:
        rows = {
            row.allocator: row
            for row in summary.rates
            if (row.workload, row.threads) == (workload, threads) and "p50_ns" in row.figures
        }
        lines = []
        for name, style in styles.items():
            row = rows.get(name)
            points = [] if row is None else _latency_points(run, row)
            if points:
                lines.append(Line(name, style, points))
        if not lines:
            continue
        values = [point.y for line in lines for point in line.points]
        chart = line_chart(
            lines, tail(SHARES), logarithmic(values), "% of operations", "ns",
            f"{workload}, {threads} threads: latency percentiles",
        )  # fmt: skip
        cards.append(Card(f"{workload}, {_threads(threads)}", chart, str(threads)))
    return cards


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _latency_points(run: Run, row: Row) -> list[Point]:
    figure = row.figures["p50_ns"]
    histograms = [(run.samples[place].raw or {}).get("latency") for place in figure.samples]
    found = merged_percentiles([each for each in histograms if each], SHARES)
    places = ",".join(map(str, figure.samples))
    return [
        Point(
            share, value, None, None,
            f"{row.allocator}, {row.workload}: {100 * share:g} % within {value:.0f} ns "
            f"({len(figure.samples)} samples together)",
            places, "p99_ns" if share == 0.99 else "p999_ns" if share == 0.999 else "p50_ns",
        )
        for share, value in found.items()
    ]  # fmt: skip


def recovery_cards(summary: Summary, styles: dict[str, Style]) -> list[Card]:
    """Time until rebuilt, and until open, over the live objects."""
    rows = [row for row in summary.trials if "live_objects" in row.figures]
    cards = []
    for name, title in (("rebuilt_ms", "everything rebuilt"), ("first_op_ms", "first allocation")):
        lines = []
        for allocator, style in styles.items():
            points = [
                _point(row.median("live_objects") or 0.0, row.figures[name], row)
                for row in rows
                if row.allocator == allocator and name in row.figures
            ]
            lines.append(Line(allocator, style, sorted(points, key=lambda point: point.x)))
        drawn = [point for line in lines for point in line.points]
        if drawn:
            chart = line_chart(
                lines, logarithmic([point.x for point in drawn]),
                logarithmic([point.y for point in drawn]), "live objects", "ms",
                f"recovery: {title}",
            )  # fmt: skip
            cards.append(Card(title, chart))
    return cards


def curve_cards(run: Run, styles: dict[str, Style]) -> list[Card]:
    """For each trial whose samples have a `series` of footprints."""
    curves: dict[str, dict[str, tuple[int, list[dict[str, Any]]]]] = defaultdict(dict)
    for place, sample in enumerate(run.samples):
        series = (sample.raw or {}).get("series")
        if sample.accepted and sample.error is None and series and sample.case is None:
            curves[sample.workload].setdefault(sample.allocator, (place, series))
    cards = []
    for workload, by_allocator in curves.items():
        lines = [_held(series) for _, series in list(by_allocator.values())[:1]]
        for name, style in styles.items():
            if name in by_allocator:
                lines.append(_curve(name, style, *by_allocator[name]))
        drawn = [point for line in lines for point in line.points]
        if drawn:
            chart = line_chart(
                lines, linear([point.x for point in drawn]), linear([point.y for point in drawn]),
                "allocated so far, MB", "MB", f"{workload}: footprint over time",
            )  # fmt: skip
            cards.append(Card(workload, chart))
    return cards


HELD = Style(-1)


def _held(series: Sequence[dict[str, Any]]) -> Line:
    points = [
        Point(each["allocated_bytes"] / MEGABYTE, each["live_bytes"] / MEGABYTE, None, None, "", "")
        for each in series
        if _whole(each)
    ]
    return Line("", HELD, points, marked=False)


def _whole(point: dict[str, Any]) -> bool:
    keys = ("allocated_bytes", "footprint_bytes", "live_bytes")
    return all(isinstance(point.get(key), int | float) for key in keys)


def _curve(name: str, style: Style, place: int, series: Sequence[dict[str, Any]]) -> Line:
    points = [
        Point(
            each["allocated_bytes"] / MEGABYTE, each["footprint_bytes"] / MEGABYTE, None, None,
            f"{name}: {each['footprint_bytes'] / MEGABYTE:.1f} MB taken for "
            f"{each['live_bytes'] / MEGABYTE:.1f} MB held",
            str(place), "footprint_ratio",
        )
        for each in series
        if _whole(each)
    ]  # fmt: skip
    return Line(name, style, points)
