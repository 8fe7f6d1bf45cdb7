# SPDX-License-Identifier: Apache-2.0
"""Is the new run worse than the base?  For each cell and each judged metric one of three answers.

    regressed     worse by more than `fail_on`, and not by chance
    ok            not worse by more than `fail_on`: the whole interval says so
    inconclusive  these samples can't tell; the reason is stated

A cell is a workload (with a case, if it has cases) on so many threads with one allocator.
Everything is computed as a factor of worsening: 1.1 is a tenth worse, whichever way the metric
runs (`suite.metrics` knows), so that one rule fits all.

Figures that depend on the machine (noise model `timed`)
 1. Only clean samples count: accepted, and others took no more than CLEAN of the CPUs meanwhile.
 2. The machine's pace is taken out.  Machines drift: a virtual one on a quiet host was seen to
    change its pace by 10 % within minutes.  Each sample carries `pace_ns` (suite/speed.py).  How
    much an allocator depends on it (from 0, it waits for fences, to 1, it only computes) is
    the slope of the samples' logarithms over the pace's, within cells and within runs,
    pooled over the allocator's cells; each sample is then scaled to the mean pace.
 3. The factor is the ratio of the medians, with a 95 % bootstrap interval.
 4. The p-value is that of the Mann-Whitney test that the new values are the worse ones, adjusted
    by Holm's method over all tests of this kind in the comparison.
 5. Two runs differ as wholes too, in ways that no sample of one of them shows (whatever else the
    host does, where the memory lies): we saw idle hours apart by 10 % where page faults are all
    that is measured.  So the interval's lower end is moved down by an allowance:
      drift   what is common to all: the median factor of the *other* allocators' cells, if it
              is a worsening
      spread  what is not: twice the robust deviation of this allocator's own cells around their
              median (DEFAULT_SPREAD where there are fewer than LEAST_CELLS).  It is left out where
              the median of its cells itself, less drift and twice its error, lies beyond
              1 + fail_on: then it is the allocator that got slower, not a cell that happens to lie badly.
 6. `regressed` needs both: the interval's lower end, less the allowance, lies beyond 1 + fail_on,
    and p <= ALPHA.  `ok` needs the interval's upper end at or below 1 + fail_on.

Figures that the program itself determines (`counted`, `sized`)
    The same work gives the same count, so that one sample a side may do.  The interval is the
    ratio of the medians, widened by the metric's repeatability (how far two runs of one
    build were seen to differ, `suite.metrics`), by two standard errors where the figure has one
    and the runs' seeds differ, and by the bootstrap where there are several samples; no p-value.
    Differences below the metric's floor don't count, however large their share.

Besides, an allocator that has lost the ability to run a cell, or that fails faults which it
survived before, has regressed.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from suite.metrics import METRICS, Kind, Metric, kind_of
from suite.results import Run, Sample
from suite.statistics import (
    MEDIAN_EFFICIENCY,
    Estimate,
    detectable,
    holm,
    least_samples,
    mann_whitney,
    ratio_interval,
    slope,
)

__all__ = ["ALPHA", "CLEAN", "Comparison", "Finding", "Power", "Verdict", "compare"]

ALPHA = 0.05
CLEAN = 0.05
"""Share of all CPU time that others may have taken during a sample whose speed counts."""
LEAST_CLEAN = 3
"""Clean samples a side below which nothing is said of a timed figure."""
LEAST_CELLS = 5
DEFAULT_SPREAD = 0.02
"""What the cells of most allocators showed between runs of one build, as a logarithm."""
LEAST_OF_POOLED = 0.75
"""An allocator's few cells may agree by chance: its spread is at least this share of that of all."""
TOO_WIDE = "the interval is too wide to tell"
DEVIATION_OF_MAD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
OUTLYING = 0.3
"""Logarithms further than this from their cell's median tell nothing of the pace."""

Verdict = Literal["regressed", "ok", "inconclusive"]
Key = tuple[str, str, int, str]
"""Workload, case, threads, allocator."""


@dataclass(frozen=True)
class Finding:
    """One metric of one cell."""

    workload: str
    case: str
    threads: int
    allocator: str
    metric: str
    """A metric's name; "runs" and "survival" are what a cell or an allocator does at all."""
    base: float | None
    new: float | None
    factor: Estimate | None
    """Of worsening, with its interval."""
    p: float | None
    """Of a timed figure, unadjusted."""
    p_adjusted: float | None
    verdict: Verdict
    reason: str
    counts: tuple[int, int]
    """Samples that were used on each side."""

    @property
    def cell(self) -> Key:
        return (self.workload, self.case, self.threads, self.allocator)


@dataclass(frozen=True)
class Power:
    """What these runs could have shown at all."""

    tests: int
    """Timed figures tested: the family of Holm's correction."""
    samples_needed: int
    """Clean samples a side below which no test can be significant."""
    short: int
    """Tests with fewer."""
    median_detectable: float | None
    """The factor of worsening that half of the timed cells would have shown, nine times in ten."""
    poor_detectable: float | None
    """The same for nine cells in ten."""


@dataclass(frozen=True)
class Comparison:
    """All findings, in the base's order."""

    fail_on: float
    findings: list[Finding]
    power: Power
    notes: list[str] = field(default_factory=list)

    def with_verdict(self, verdict: Verdict) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == verdict]

    @property
    def regressed(self) -> bool:
        return any(finding.verdict == "regressed" for finding in self.findings)


@dataclass
class _Cell:
    """The usable samples of a cell in one run."""

    samples: list[Sample] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def values(self, metric: Metric) -> list[tuple[Sample, float]]:
        """Those that hold the metric and that a verdict may rest on."""
        pairs = (
            (sample, getattr(sample.metrics, metric.name))
            for sample in self.samples
            if _kind(sample) in metric.judged_kinds
        )
        return [(sample, float(value)) for sample, value in pairs if value is not None]


def compare(
    base: Run, new: Run, *, fail_on: float, allocators: Sequence[str] | None = None
) -> Comparison:
    """Every judged metric of every cell that both runs have."""
    old_cells, new_cells = _cells(base, allocators), _cells(new, allocators)
    shared = [key for key in old_cells if key in new_cells]
    slopes = _slopes(base, new, old_cells, new_cells, shared)
    same_seed = base.config.get("seed") == new.config.get("seed")
    findings: list[Finding] = []
    for key in shared:
        pair = (old_cells[key], new_cells[key])
        lost = _lost(key, *pair)
        if lost is not None:
            findings.append(lost)
            continue
        pace = slopes.get((key[3], key[2]), 0.0)
        for metric in METRICS:
            if not metric.judged:
                continue
            if metric.model == "timed":
                finding = _timed(key, metric, *pair, pace)
            else:
                finding = _steady(key, metric, *pair, fail_on, same_seed=same_seed)
            if finding is not None:
                findings.append(finding)
    findings = _judged_together(findings, fail_on)
    findings += _survival(base, new, allocators)
    return Comparison(fail_on, findings, _power(findings, old_cells, new_cells, fail_on))


# ---- samples ----


def _cells(run: Run, allocators: Sequence[str] | None) -> dict[Key, _Cell]:
    cells: dict[Key, _Cell] = {}
    for sample in run.samples:
        if allocators is not None and sample.allocator not in allocators:
            continue
        key = (sample.workload, sample.case or "", sample.threads, sample.allocator)
        cell = cells.setdefault(key, _Cell())
        if sample.error is not None:
            if sample.applicable:
                cell.errors.append(sample.error)
        elif sample.accepted:
            cell.samples.append(sample)
    return {key: cell for key, cell in cells.items() if cell.samples or cell.errors}


def _kind(sample: Sample) -> Kind:
    return kind_of(sample.raw or {}, observed=sample.observed, stepped=sample.stepped)


def _is_clean(sample: Sample) -> bool:
    return sample.noise is None or sample.noise <= CLEAN


def _slopes(
    base: Run,
    new: Run,
    old_cells: dict[Key, _Cell],
    new_cells: dict[Key, _Cell],
    shared: Iterable[Key],
) -> dict[tuple[str, int], float]:
    """How the logarithm of the rate follows that of the pace, by allocator and threads: -1 means
    that a machine at half its pace gives half the rate.  Empty where the paces were not taken
    in the same way."""
    if base.environment.python != new.environment.python:
        return {}
    x: dict[tuple[str, int], list[float]] = defaultdict(list)
    y: dict[tuple[str, int], list[float]] = defaultdict(list)
    for key in shared:
        for cell in (old_cells[key], new_cells[key]):
            points = [
                (math.log(sample.pace_ns), math.log(sample.metrics.ops_per_s))
                for sample in cell.samples
                if sample.pace_ns and sample.metrics.ops_per_s and _is_clean(sample)
            ]
            if len(points) < LEAST_CLEAN:
                continue
            middle = [statistics.median(values) for values in zip(*points, strict=True)]
            for pace, rate in points:
                if abs(rate - middle[1]) <= OUTLYING and abs(pace - middle[0]) <= OUTLYING:
                    x[key[3], key[2]].append(pace - middle[0])
                    y[key[3], key[2]].append(rate - middle[1])
    return {group: min(0.0, max(-1.0, slope(x[group], y[group]))) for group in x}


# ---- one figure ----


def _timed(key: Key, metric: Metric, old: _Cell, new: _Cell, pace: float) -> Finding | None:
    """The verdict is given when all p-values are known (`_judged_together`)."""
    taken, given = old.values(metric), new.values(metric)
    if not taken or not given:
        return None
    clean = [[pair for pair in side if _is_clean(pair[0])] for side in (taken, given)]
    before, after = _at_mean_pace(clean[0], clean[1], metric, pace)
    finding = Finding(
        *key, metric.name,
        statistics.median(value for _, value in (clean[0] or taken)),
        statistics.median(value for _, value in (clean[1] or given)),
        None, None, None, "inconclusive", "", (len(before), len(after)),
    )  # fmt: skip
    if min(len(before), len(after)) < LEAST_CLEAN:
        few = "base" if len(before) < LEAST_CLEAN else "new"
        side, every = (before, taken) if few == "base" else (after, given)
        noisy = len(every) - len(side)
        reason = f"{few} has {len(side)} clean samples"
        reason += f"; {noisy} more were disturbed by others" if noisy else ", too few"
        return replace(finding, reason=reason)
    if min(*before, *after) <= 0:
        return replace(finding, reason="a value is not above 0")
    factor = _worsening(metric, before, after)
    worse_last = (after, before) if metric.direction == "higher" else (before, after)
    return replace(finding, factor=factor, p=mann_whitney(*worse_last))


def _at_mean_pace(
    old: list[tuple[Sample, float]], new: list[tuple[Sample, float]], metric: Metric, pace: float
) -> tuple[list[float], list[float]]:
    """The values as they would be at the mean pace of all of them."""
    paces = [sample.pace_ns for sample, _ in (*old, *new)]
    if pace == 0.0 or not paces or not all(paces):
        return [value for _, value in old], [value for _, value in new]
    mean = statistics.fmean(math.log(each) for each in paces if each)
    power = pace if metric.direction == "higher" else -pace

    def scaled(sample: Sample, value: float) -> float:
        return value * math.exp(-power * (math.log(sample.pace_ns or 1.0) - mean))

    return [scaled(*pair) for pair in old], [scaled(*pair) for pair in new]


def _worsening(metric: Metric, old: Sequence[float], new: Sequence[float]) -> Estimate:
    return ratio_interval(new, old) if metric.direction == "higher" else ratio_interval(old, new)


def _steady(
    key: Key, metric: Metric, old: _Cell, new: _Cell, fail_on: float, *, same_seed: bool
) -> Finding | None:
    """A counted or sized figure."""
    taken, given = _alike(metric, old.values(metric), new.values(metric))
    before = [value for _, value in taken]
    after = [value for _, value in given]
    if not before or not after:
        return None
    middle = (statistics.median(before), statistics.median(after))
    finding = Finding(
        *key, metric.name, *middle, None, None, None, "ok", "", (len(before), len(after))
    )
    if abs(middle[1] - middle[0]) <= metric.floor:
        return finding
    if min(*before, *after, *middle) <= 0:
        return replace(finding, verdict="regressed" if middle[1] > middle[0] else "ok")
    spread = metric.repeatability
    if not same_seed:
        spread += 2 * _relative_error(taken) + 2 * _relative_error(given)
    factor = _worsening(metric, before, after)
    factor = replace(
        factor, low=factor.low * math.exp(-spread), high=factor.high * math.exp(spread)
    )
    if factor.low > 1 + fail_on:
        return replace(finding, factor=factor, verdict="regressed")
    if factor.high <= 1 + fail_on:
        return replace(finding, factor=factor)
    return replace(finding, factor=factor, verdict="inconclusive", reason=TOO_WIDE)


def _alike(
    metric: Metric, old: list[tuple[Sample, float]], new: list[tuple[Sample, float]]
) -> tuple[list[tuple[Sample, float]], list[tuple[Sample, float]]]:
    """Instructions that were counted and instructions that were stepped over are not the same."""
    if metric.name != "instructions_per_op":
        return old, new
    for source in ("perf", "stepped"):
        sides = [
            [pair for pair in side if pair[0].metrics.instructions_source == source]
            for side in (old, new)
        ]
        if all(sides):
            return sides[0], sides[1]
    return [], []


def _relative_error(side: list[tuple[Sample, float]]) -> float:
    """Of a stepped figure: its standard error as a share; 0 for others."""
    errors = [
        (sample.metrics.instructions_deviation or 0.0) / value for sample, value in side if value
    ]
    return max(errors, default=0.0)


# ---- all together ----


def _judged_together(findings: list[Finding], fail_on: float) -> list[Finding]:
    """Holm's correction over the timed figures, and their verdicts."""
    tested = [index for index, finding in enumerate(findings) if finding.p is not None]
    adjusted = holm([findings[index].p or 0.0 for index in tested])
    allowances = _allowances([findings[index] for index in tested], fail_on)
    judged = list(findings)
    for index, p in zip(tested, adjusted, strict=True):
        allowance = allowances[findings[index].allocator]
        judged[index] = _judge(findings[index], p, allowance, fail_on)
    return judged


def _allowances(tested: Sequence[Finding], fail_on: float) -> dict[str, float]:
    """For each allocator, as a logarithm: what two runs of one build may differ by as wholes."""
    logs: dict[str, list[float]] = defaultdict(list)
    for finding in tested:
        if finding.factor is not None:
            logs[finding.allocator].append(math.log(finding.factor.median))
    pooled = _spread([value for own in logs.values() for value in _around_median(own)])
    allowances = {}
    for allocator, own in logs.items():
        others = [value for name, values in logs.items() if name != allocator for value in values]
        drift = max(0.0, statistics.median(others)) if len(others) >= LEAST_CELLS else 0.0
        spread, shifted = DEFAULT_SPREAD, False
        if len(own) >= LEAST_CELLS:
            spread = max(_spread(_around_median(own)), LEAST_OF_POOLED * pooled)
            error = MEDIAN_EFFICIENCY * spread / math.sqrt(len(own))
            shifted = statistics.median(own) - drift - 2 * error > math.log1p(fail_on)
        allowances[allocator] = drift + (0.0 if shifted else 2 * spread)
    return allowances


def _around_median(values: Sequence[float]) -> list[float]:
    middle = statistics.median(values)
    return [value - middle for value in values]


def _spread(centred: Sequence[float]) -> float:
    """The robust standard deviation."""
    return DEVIATION_OF_MAD * statistics.median(map(abs, centred)) if centred else 0.0


def _judge(finding: Finding, p: float, allowance: float, fail_on: float) -> Finding:
    factor = finding.factor
    if factor is None:
        return finding
    known = replace(finding, p_adjusted=p)
    if factor.high <= 1 + fail_on:
        return replace(known, verdict="ok")
    sure = factor.low * math.exp(-allowance) > 1 + fail_on
    if sure and p <= ALPHA:
        return replace(known, verdict="regressed")
    reason = TOO_WIDE
    if sure:
        reason = f"could be chance among so many tests, p = {p:.2g}"
    elif factor.low > 1 + fail_on:
        reason = f"runs as wholes may differ by {100 * math.expm1(allowance):.1f} % here"
    return replace(known, verdict="inconclusive", reason=reason)


def _lost(key: Key, old: _Cell, new: _Cell) -> Finding | None:
    """A cell that ran in the base and fails in the new run; or one that never ran."""
    if new.samples and old.samples:
        return None
    if not old.samples:
        verdict: Verdict = "ok" if new.samples else "inconclusive"
        reason = f"failed in the base: {old.errors[0]}" if old.errors else "not in the base"
    else:
        verdict, reason = "regressed", f"fails now: {new.errors[0]}"
    counts = (len(old.samples), len(new.samples))
    return Finding(*key, "runs", None, None, None, None, None, verdict, reason, counts)


def _survival(base: Run, new: Run, allocators: Sequence[str] | None) -> list[Finding]:
    """Faults that an allocator survived in the base, and now does not."""
    findings = []
    before = {(verdict.allocator, verdict.fault): verdict for verdict in base.verdicts}
    for after in new.verdicts:
        old = before.get((after.allocator, after.fault))
        if old is None or not old.cases or not after.cases:
            continue
        if allocators is not None and after.allocator not in allocators:
            continue
        news = {kind: n for kind, n in after.by_kind.items() if kind not in old.by_kind}
        fails = bool(news) and bool(set(news) - set(after.known_kinds))
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(news.items()))
        findings.append(
            Finding(
                f"fault {after.fault}", "", 0, after.allocator, "survival",
                old.failed / old.cases, after.failed / after.cases, None, None, None,
                "regressed" if fails else "ok",
                f"fails in a way that the base did not: {kinds}" if fails else "",
                (old.cases, after.cases),
            )
        )  # fmt: skip
    return findings


def _power(
    findings: Sequence[Finding],
    old_cells: dict[Key, _Cell],
    new_cells: dict[Key, _Cell],
    fail_on: float,
) -> Power:
    tested = [finding for finding in findings if finding.p is not None]
    needed = least_samples(len(tested), ALPHA)
    factors = []
    for finding in tested:
        if finding.metric != "ops_per_s":
            continue
        pair = (old_cells[finding.cell], new_cells[finding.cell])
        deviation = statistics.fmean(_deviation(cell) for cell in pair)
        factors.append(detectable(deviation, min(finding.counts), fail_on))
    factors.sort()
    return Power(
        tests=len(tested),
        samples_needed=needed,
        short=sum(1 for finding in tested if min(finding.counts) < needed),
        median_detectable=statistics.median(factors) if factors else None,
        poor_detectable=factors[int(0.9 * (len(factors) - 1))] if factors else None,
    )


def _deviation(cell: _Cell) -> float:
    logs = [
        math.log(sample.metrics.ops_per_s)
        for sample in cell.samples
        if sample.metrics.ops_per_s and _is_clean(sample)
    ]
    return statistics.stdev(logs) if len(logs) > 1 else 0.0
