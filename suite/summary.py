# SPDX-License-Identifier: Apache-2.0
"""What the tables and the HTML report show, computed once from a run for every output format.

A row is a workload on so many threads with one allocator.  Only accepted samples count, and only those
of adapters (standalone workloads have tables of their own, `standalone_tables`).  Which
figures there are follows from the samples: every metric of the registry that one of them
holds.  A row without a figure is a row with an error, and is shown as such; it never vanishes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from suite.metrics import METRICS, Group, Metric, kind_of, present
from suite.results import Run, Sample
from suite.statistics import Estimate, estimate, ratio

__all__ = ["Figure", "Row", "Summary", "is_persistent", "safety_of", "summarize"]

RATE = "ops_per_s"


AllocatorKind = Literal["durable", "not crash-safe", "volatile"]
KINDS: tuple[AllocatorKind, ...] = ("durable", "not crash-safe", "volatile")
"""In the order of the tables: the upper bound comes last."""


@dataclass(frozen=True)
class Figure:
    """A metric of a row."""

    metric: Metric
    estimate: Estimate
    samples: tuple[int, ...]
    """Where the values are: places in the run's `samples`."""


@dataclass
class Row:
    """An allocator on a workload with so many threads."""

    workload: str
    family: str
    """The workload's own name, without parameters."""
    threads: int
    allocator: str
    persistent: bool
    """Durable: `kind` says what the others are."""
    trial: bool
    """Not a rate, but a script with a beginning and an end."""
    figures: dict[str, Figure] = field(default_factory=dict)
    instructions_source: str | None = None
    """"perf" or "stepped"."""
    ratio: float | None = None
    """Of the rate to the baseline's."""
    best: bool = False
    """The fastest of its `kind` in the cell."""
    noisy: int = 0
    """Accepted samples over the noise limit."""
    errors: list[str] = field(default_factory=list)
    kind: AllocatorKind = "durable"

    @property
    def error(self) -> str | None:
        return self.errors[0] if self.errors else None

    @property
    def rate(self) -> Estimate | None:
        figure = self.figures.get(RATE)
        return None if figure is None else figure.estimate

    def median(self, name: str) -> float | None:
        figure = self.figures.get(name)
        return None if figure is None else figure.estimate.median


@dataclass(frozen=True)
class Summary:
    """The rows of a run in a stable order: workloads and threads sorted, durable allocators first."""

    rows: list[Row]
    baseline: str | None

    @property
    def rates(self) -> list[Row]:
        """Those of the throughput table."""
        return [row for row in self.rows if not row.trial]

    @property
    def trials(self) -> list[Row]:
        return [row for row in self.rows if row.trial]

    def metrics(self, rows: Iterable[Row], groups: Iterable[Group]) -> list[Metric]:
        """The metrics of these groups that any of the rows holds."""
        held = {name for row in rows for name in row.figures}
        wanted = set(groups)
        return [metric for metric in present(held) if metric.group in wanted and metric.in_tables]


Key = tuple[str, int, str]


def summarize(run: Run, baseline: str | None = None) -> Summary:
    """All rows of a run."""
    base = baseline if baseline is not None else run.config.get("baseline")
    rows = {key: _row(run, key, places) for key, places in _group(run).items()}
    best: dict[tuple[str, int, AllocatorKind], float] = {}
    for (workload, threads, _), row in rows.items():
        if row.rate is not None:
            kind = (workload, threads, row.kind)
            best[kind] = max(row.rate.median, best.get(kind, 0.0))
    for (workload, threads, _), row in rows.items():
        if row.rate is not None:
            row.best = row.rate.median == best[workload, threads, row.kind]
        against = rows.get((workload, threads, base)) if base else None
        row.ratio = ratio(row.rate, against.rate if against else None)
    has_base = any(row.allocator == base for row in rows.values())
    return Summary(list(rows.values()), base if has_base else None)


def safety_of(run: Run, allocator: str) -> AllocatorKind:
    """As the environment recorded it when the run began.  What nothing makes whole again after a
    crash can't be measured against what survives one: it pays for none of it."""
    facts = run.environment.allocators.get(allocator)
    if facts is None:
        facts = run.environment.unsupported.get(allocator, {})
    kind = facts.get("kind")
    if run.command == "bench":
        kind = facts.get("stands_as", kind)  # older runs say nothing of it
    if kind != "persistent":
        return "volatile"
    return "not crash-safe" if facts.get("consistency") == "none" else "durable"


def is_persistent(run: Run, allocator: str) -> bool:
    """Whether it is durable: every operation of it is to survive a crash."""
    return safety_of(run, allocator) == "durable"


def _group(run: Run) -> dict[Key, list[int]]:
    """Places of the samples by row."""
    named = [str(name) for name in run.config.get("allocators", [])]
    order = {name: index for index, name in enumerate(named)}
    groups: dict[Key, list[int]] = {}
    for place, sample in enumerate(run.samples):
        if sample.case is None and sample.applicable:
            key = (sample.workload, sample.threads, sample.allocator)
            groups.setdefault(key, []).append(place)

    def rank(key: Key) -> tuple[str, int, int, int, str]:
        return (key[0], key[1], KINDS.index(safety_of(run, key[2])), order.get(key[2], 999), key[2])

    return {key: groups[key] for key in sorted(groups, key=rank)}


def _row(run: Run, key: Key, places: list[int]) -> Row:
    workload, threads, allocator = key
    limit = float(run.config.get("noise_limit") or 1.0)
    usable = [place for place in places if _usable(run.samples[place])]
    row = Row(
        workload=workload,
        family=next((s.family for s in map(run.samples.__getitem__, places) if s.family), workload),
        threads=threads,
        allocator=allocator,
        persistent=is_persistent(run, allocator),
        kind=safety_of(run, allocator),
        trial=_is_trial(run, workload, [run.samples[place] for place in usable]),
    )
    for metric in METRICS:
        held = [(place, getattr(run.samples[place].metrics, metric.name)) for place in usable]
        pairs = [(place, float(value)) for place, value in held if value is not None]
        found = estimate([value for _, value in pairs])
        if found is not None:
            taken = tuple(place for place, _ in pairs)
            row.figures[metric.name] = Figure(metric, found, taken)
    for place in places:
        sample = run.samples[place]
        if sample.error is not None:
            row.errors.append(sample.error)
        elif sample.accepted and not (sample.observed or sample.stepped):
            row.noisy += (sample.noise or 0) > limit
        if sample.accepted and sample.metrics.instructions_source:
            row.instructions_source = sample.metrics.instructions_source
    return row


def _is_trial(run: Run, workload: str, samples: Iterable[Sample]) -> bool:
    described = (run.config.get("workloads") or {}).get(workload)
    if isinstance(described, dict) and described.get("shape"):
        return bool(described["shape"] == "trial")
    kinds = {
        kind_of(sample.raw or {}, observed=sample.observed, stepped=sample.stepped)
        for sample in samples
    }
    return "trial" in kinds


def _usable(sample: Sample) -> bool:
    return sample.accepted and sample.error is None
