# SPDX-License-Identifier: Apache-2.0
"""How much of a durable operation's time is the fences', and how much the allocator's own.

    expected = effective fences an operation x what one costs here (calibrated in the same run)
    residual = measured time of an operation - expected

The measured time is CPU time (a thread that waits for its fence has the CPU, one that a neighbour
displaced has not); where it is unknown, threads / throughput.  What is left is instructions, cache
misses, further flushes under the same fence, spinning on locks; and the driver's own loop.  A
negative residual says that fences overlapped with other work, or that the allocator's fences have
less to wait for than the calibration's.

With a device model, the waits that it added are known and are shown apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from suite.calibration import fence_ns, limit_ops_per_s
from suite.results import Metrics, Run, Sample
from suite.summary import is_persistent

__all__ = ["ResidualRow", "residuals"]


@dataclass(frozen=True)
class ResidualRow:
    """A durable allocator on a workload with so many threads; times in ns an operation."""

    workload: str
    threads: int
    allocator: str
    measured_ns: float
    fences: float | None
    """Effective ones; None: the library can't be observed."""
    fence_ns: float | None
    """What one costs here."""
    emulated_ns: float | None
    """What a device model added; None: there was none."""
    multiple: float | None
    """How many times its throughput the machine's limit is: one durable line an operation."""

    @property
    def expected_ns(self) -> float | None:
        if self.fences is None or self.fence_ns is None:
            return None
        return self.fences * self.fence_ns

    @property
    def residual_ns(self) -> float | None:
        if self.expected_ns is None:
            return None
        return self.measured_ns - self.expected_ns - (self.emulated_ns or 0.0)

    @property
    def share(self) -> float | None:
        """The fences' share of the measured time."""
        return None if self.expected_ns is None else self.expected_ns / self.measured_ns


def residuals(run: Run) -> list[ResidualRow]:
    """In the order of the tables: by workload, threads, and as the allocators were named."""
    calibration = run.environment.calibration
    if not calibration:
        return []
    named = [str(name) for name in run.config.get("allocators", [])]
    groups: dict[tuple[str, int, str], list[Sample]] = {}
    for sample in run.samples:
        if sample.case is None and sample.accepted and sample.error is None:
            key = (sample.workload, sample.threads, sample.allocator)
            groups.setdefault(key, []).append(sample)
    rows = []
    for workload, threads, allocator in sorted(
        groups, key=lambda k: (k[0], k[1], _rank(named, k[2]))
    ):
        facts = run.environment.allocators.get(allocator, {})
        if not is_persistent(run, allocator) or facts.get("program"):
            continue
        samples = groups[workload, threads, allocator]
        rate = _median(samples, lambda metrics: metrics.ops_per_s)
        if rate is None:
            continue
        busy_ns = _median(samples, lambda metrics: metrics.cpu_ns_per_op)
        limit = limit_ops_per_s(calibration, threads)
        rows.append(
            ResidualRow(
                workload=workload,
                threads=threads,
                allocator=allocator,
                measured_ns=busy_ns if busy_ns is not None else threads * 1e9 / rate,
                fences=_median(samples, lambda metrics: metrics.fences_per_op),
                fence_ns=fence_ns(calibration, threads, _nt_share(samples)),
                emulated_ns=_emulated(samples),
                multiple=None if limit is None else limit / rate,
            )
        )
    return rows


def _rank(named: list[str], allocator: str) -> tuple[int, str]:
    return (named.index(allocator) if allocator in named else len(named), allocator)


def _median(samples: Iterable[Sample], pick: Callable[[Metrics], float | None]) -> float | None:
    figures = [figure for figure in (pick(s.metrics) for s in samples) if figure is not None]
    return median(figures) if figures else None


def _nt_share(samples: list[Sample]) -> float:
    """Of the lines that reach the medium, those written by non-temporal stores."""
    flushes = _median(samples, lambda metrics: metrics.flushes_per_op) or 0.0
    streamed = _median(samples, lambda metrics: metrics.nt_lines_per_op) or 0.0
    return streamed / (flushes + streamed) if flushes + streamed else 0.0


def _emulated(samples: list[Sample]) -> float | None:
    """The median of what the device model made the operations of a sample wait for."""
    waits = []
    for sample in samples:
        device = (sample.raw or {}).get("device")
        if device and sample.metrics.ops_per_s is not None and device.get("ops"):
            waits.append(float(device["delayed_ns"]) / float(device["ops"]))
    return median(waits) if waits else None
