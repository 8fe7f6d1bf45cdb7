# SPDX-License-Identifier: Apache-2.0
"""The tables of standalone workloads, one each: from the run alone, as `config` describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from suite.results import Metrics, Run, Sample
from suite.statistics import Estimate, estimate, ratio
from suite.tables import REMARKS, Grid, conditions, short

__all__ = ["standalone_grids"]

UNIT_FACTOR = {"Mops/s": 1e-6, "kops/s": 1e-3, "ops/s": 1.0}

Key = tuple[str, int, str]
"""Case, threads, subject."""


@dataclass(frozen=True)
class _View:
    """A standalone workload of a run."""

    run: Run
    name: str
    config: dict[str, Any]
    baseline: str
    rows: dict[Key, list[Sample]]

    def rate(self, key: Key) -> Estimate | None:
        return estimate([m.ops_per_s for m in _metrics(self.rows.get(key, ())) if m.ops_per_s])


def standalone_grids(run: Run, baseline: str | None = None) -> list[Grid]:
    """A table for each standalone workload that the run has samples of."""
    names = sorted({sample.workload for sample in run.samples if sample.case is not None})
    return [_grid(_view(run, name, baseline)) for name in names]


def _view(run: Run, name: str, baseline: str | None) -> _View:
    config: dict[str, Any] = run.config.get("workloads", {}).get(name, {})
    cases = list(config.get("cases", {}))
    subjects = list(config.get("subjects", {}))
    rows: dict[Key, list[Sample]] = {}
    for sample in run.samples:
        if sample.workload == name and sample.case is not None:
            rows.setdefault((sample.case, sample.threads, sample.allocator), []).append(sample)

    def rank(key: Key) -> tuple[int, int, int, Key]:
        return (_position(cases, key[0]), key[1], _position(subjects, key[2]), key)

    ordered = {key: rows[key] for key in sorted(rows, key=rank)}
    base = (
        baseline
        if baseline is not None and baseline in subjects
        else str(config.get("baseline", ""))
    )
    return _View(run, name, config, base, ordered)


def _position(names: list[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _grid(view: _View) -> Grid:
    unit = str(view.config.get("unit", "Mops/s"))
    figures: dict[str, dict[str, Any]] = view.config.get("figures", {})
    peak = any(m.peak_bytes is not None for row in view.rows.values() for m in _metrics(row))
    labels = [str(figure.get("label", key)) for key, figure in figures.items()]
    columns = ["case", "threads", "subject", unit, "95 % interval", f"x {view.baseline}", *labels]
    columns += ["peak MB"] if peak else []
    operation = view.config.get("operation", "")
    return Grid(
        title=f"Workload {view.name} (an operation is {operation})",
        columns=[*columns, REMARKS],
        rows=[_cells(view, key, unit, figures, peak=peak) for key in view.rows],
        left=3,
        strong=_fastest(view),
        alarming={
            i for i, row in enumerate(view.rows.values()) if any(s.error is not None for s in row)
        },
        group=2,
        caption=conditions(view.run),
        optional=("95 % interval",),
    )


def _cells(
    view: _View, key: Key, unit: str, figures: dict[str, dict[str, Any]], *, peak: bool
) -> list[str]:
    samples, factor = view.rows[key], UNIT_FACTOR.get(unit, 1.0)
    rate = view.rate(key)
    times = ratio(rate, view.rate((key[0], key[1], view.baseline)))
    cells = [
        key[0],
        str(key[1]),
        key[2],
        "-" if rate is None else _number(rate.median * factor),
        "-" if rate is None else f"{_number(rate.low * factor)} .. {_number(rate.high * factor)}",
        "-" if times is None else f"{times:.2f}",
    ]
    for name, figure in figures.items():
        values = [m.figures[name] for m in _metrics(samples) if m.figures and name in m.figures]
        middle = estimate(values)
        digits = int(figure.get("digits", 2))
        cells.append("-" if middle is None else f"{middle.median:.{digits}f}")
    if peak:
        most = estimate([m.peak_bytes for m in _metrics(samples) if m.peak_bytes is not None])
        cells.append("-" if most is None else f"{most.median / 1e6:.1f}")
    errors = [sample.error for sample in samples if sample.error is not None]
    limit = float(view.run.config.get("noise_limit") or 1.0)
    noisy = sum(1 for sample in samples if sample.accepted and (sample.noise or 0) > limit)
    remarks = [short(errors[0])] if errors else []
    return [*cells, "; ".join(remarks + ([f"{noisy} noisy"] if noisy else []))]


def _fastest(view: _View) -> set[int]:
    """The row with the highest rate of each case and thread count."""
    rates = {key: view.rate(key) for key in view.rows}
    best: dict[tuple[str, int], float] = {}
    for (case, threads, _), rate in rates.items():
        if rate is not None:
            best[case, threads] = max(rate.median, best.get((case, threads), 0.0))
    return {
        index
        for index, ((case, threads, _), rate) in enumerate(rates.items())
        if rate is not None and rate.median == best[case, threads]
    }


def _metrics(samples: list[Sample] | tuple[()]) -> list[Metrics]:
    return [sample.metrics for sample in samples if sample.accepted and sample.error is None]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
