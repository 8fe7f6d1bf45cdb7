# SPDX-License-Identifier: Apache-2.0
"""What the tables show, computed once from a run for every output format.

Only accepted samples count.  A cell without one is a cell with an error, and
is shown as such; it never vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from suite.results import Metrics, Run, Sample
from suite.statistics import Estimate, estimate, ratio

__all__ = ["CostRow", "Summary", "ThroughputRow", "summarize"]


@dataclass(frozen=True)
class ThroughputRow:
    """An allocator on a workload with so many threads."""

    workload: str
    threads: int
    allocator: str
    persistent: bool
    ops_per_s: Estimate | None
    ratio: float | None
    """To the baseline, in the same cell."""
    best: bool
    """The fastest of its kind (durable or volatile) in the cell."""
    noisy: int
    """Accepted samples over the noise limit."""
    error: str | None


@dataclass(frozen=True)
class CostRow:
    """What an operation costs; medians."""

    workload: str
    threads: int
    allocator: str
    flushes: float | None
    effective_fences: float | None
    fences: float | None
    nt_lines: float | None
    reflush_ratio: float | None
    instructions: float | None
    instructions_source: str | None
    """"perf" or "stepped"."""
    p50_ns: float | None
    p99_ns: float | None
    p999_ns: float | None
    max_ns: float | None
    peak_bytes: float | None
    """Heap bytes (volatile: resident bytes) taken at the peak."""


@dataclass(frozen=True)
class Summary:
    """The figures of a run, row by row in a stable order."""

    throughput: list[ThroughputRow]
    costs: list[CostRow]
    baseline: str | None


Key = tuple[str, int, str]


def summarize(run: Run, baseline: str | None = None) -> Summary:
    """The rows of the throughput and cost tables."""
    base = baseline if baseline is not None else run.config.get("baseline")
    groups = _group(run)
    limit = float(run.config.get("noise_limit") or 1.0)
    rates = {key: _estimate(samples, lambda m: m.ops_per_s) for key, samples in groups.items()}
    return Summary(
        throughput=[
            _throughput(run, key, samples, rates, base, limit) for key, samples in groups.items()
        ],
        costs=[
            _costs(key, samples) for key, samples in groups.items() if any(map(_usable, samples))
        ],
        baseline=base if any(key[2] == base for key in groups) else None,
    )


def is_persistent(run: Run, allocator: str) -> bool:
    """As the environment recorded it when the run began."""
    return run.environment.allocators.get(allocator, {}).get("kind") == "persistent"


def _group(run: Run) -> dict[Key, list[Sample]]:
    """Samples by cell: workloads and threads sorted, allocators in the run's order, durable first."""
    named = [str(name) for name in run.config.get("allocators", [])]
    order = {name: index for index, name in enumerate(named)}
    groups: dict[Key, list[Sample]] = {}
    for sample in run.samples:
        groups.setdefault((sample.workload, sample.threads, sample.allocator), []).append(sample)

    def rank(key: Key) -> tuple[str, int, bool, int, str]:
        return (key[0], key[1], not is_persistent(run, key[2]), order.get(key[2], 999), key[2])

    return {key: groups[key] for key in sorted(groups, key=rank)}


def _usable(sample: Sample) -> bool:
    return sample.accepted and sample.error is None


def _values(samples: Iterable[Sample], pick: Callable[[Metrics], float | None]) -> list[float]:
    figures = (pick(sample.metrics) for sample in samples if _usable(sample))
    return [figure for figure in figures if figure is not None]


def _estimate(
    samples: Iterable[Sample], pick: Callable[[Metrics], float | None]
) -> Estimate | None:
    return estimate(_values(samples, pick))


def _median(samples: Iterable[Sample], pick: Callable[[Metrics], float | None]) -> float | None:
    found = _estimate(samples, pick)
    return None if found is None else found.median


def _throughput(
    run: Run,
    key: Key,
    samples: list[Sample],
    rates: dict[Key, Estimate | None],
    baseline: str | None,
    limit: float,
) -> ThroughputRow:
    workload, threads, allocator = key
    durable = is_persistent(run, allocator)
    rivals = [
        rate.median
        for (other_workload, other_threads, other), rate in rates.items()
        if (other_workload, other_threads) == (workload, threads)
        and rate is not None
        and is_persistent(run, other) == durable
    ]
    rate = rates[key]
    base = rates.get((workload, threads, baseline)) if baseline else None
    errors = [sample.error for sample in samples if sample.error is not None]
    return ThroughputRow(
        workload=workload,
        threads=threads,
        allocator=allocator,
        persistent=durable,
        ops_per_s=rate,
        ratio=ratio(rate, base),
        best=rate is not None and rate.median == max(rivals),
        noisy=sum(
            1
            for sample in samples
            if _usable(sample)
            and not (sample.observed or sample.stepped)
            and (sample.noise or 0) > limit
        ),
        error=errors[0] if errors else None,
    )


def _costs(key: Key, samples: list[Sample]) -> CostRow:
    return CostRow(
        workload=key[0],
        threads=key[1],
        allocator=key[2],
        flushes=_median(samples, lambda m: m.flushes_per_op),
        effective_fences=_median(samples, lambda m: m.fences_per_op),
        fences=_median(samples, lambda m: m.fences_all_per_op),
        nt_lines=_median(samples, lambda m: m.nt_lines_per_op),
        reflush_ratio=_median(samples, lambda m: m.reflush_ratio),
        instructions=_median(samples, lambda m: m.instructions_per_op),
        instructions_source=next(
            (
                sample.metrics.instructions_source
                for sample in samples
                if _usable(sample) and sample.metrics.instructions_source is not None
            ),
            None,
        ),
        p50_ns=_median(samples, lambda m: m.p50_ns),
        p99_ns=_median(samples, lambda m: m.p99_ns),
        p999_ns=_median(samples, lambda m: m.p999_ns),
        max_ns=_median(samples, lambda m: m.max_ns),
        peak_bytes=_median(samples, lambda m: m.peak_bytes),
    )
