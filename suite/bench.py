# SPDX-License-Identifier: Apache-2.0
"""Takes the samples of a bench, one after the other, each a fresh process on a fresh heap.

What keeps the numbers honest: one sample at a time; the order of `plan.py`; and a
sample that others disturbed is taken again (`attempts.py`).

Where no hardware counter told the instructions, a stepped sample does (`count_instructions`);
noise does not change what it counts, so it is taken once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from suite.attempts import Attempts
from suite.budget import Timetable
from suite.driver import Answer, Driver, Work
from suite.metrics import figures_of, kind_of
from suite.noise import NoiseMeter
from suite.plan import Cell
from suite.progress import ProgressView
from suite.results import Metrics, Sample
from suite.speed import pace_ns
from suite.workloads import Budget

__all__ = ["Bench", "BenchSettings", "calibrate_noise", "metrics_of"]

TIMEOUT_BASE_S = 30.0
TIMEOUT_FACTOR = 10.0
OVERHEAD_PROBES = 3
STEPPING_SHARE = 0.8
"""Of a sample's time, after which the driver itself gives up stepping, and says why."""
INAPPLICABLE = "missing"
"""Where a driver fails that can't do at all what is asked of it."""
TOO_SLOW = "too-slow"
"""Where it fails when stepping over the allocator would take for ever."""
REFUSED = "ptrace"
"""Where the driver fails when it may not step here."""


@dataclass(frozen=True)
class BenchSettings:
    """The windows of a sample, and when one is too noisy."""

    profile: str
    warmup_s: float
    seconds: float
    latency_s: float
    noise_limit: float
    cpus: tuple[int, ...]
    """CPUs that samples are pinned to, in order of preference."""
    steps: int
    """Instructions to step over in a stepped sample."""
    stated_timeout_s: float | None = None
    traces: Mapping[str, Path] = field(default_factory=dict)
    """What the workloads read, by the name in `Variant.trace`."""
    device: str | None = None
    """For `nvdrive bench --device`: the device model's figures."""

    @property
    def timeout_s(self) -> float:
        """After which a sample's driver counts as hung."""
        if self.stated_timeout_s is not None:
            return self.stated_timeout_s
        return TIMEOUT_BASE_S + TIMEOUT_FACTOR * (self.warmup_s + self.seconds + self.latency_s)

    def of(self, budget: Budget) -> BenchSettings:
        """With what a workload's budget has instead."""
        changed = replace(
            self,
            warmup_s=self.warmup_s if budget.warmup_s is None else budget.warmup_s,
            seconds=budget.seconds or self.seconds,
            latency_s=self.latency_s if budget.latency_s is None else budget.latency_s,
        )
        timeout_s = self.stated_timeout_s or budget.timeout_s
        return changed if timeout_s is None else replace(changed, stated_timeout_s=timeout_s)


class Bench:
    """Works through a plan; appends to `samples` as it goes, and to `incorrect` each sample
    in which the driver caught the allocator doing what it must not.  What `samples` holds at the
    beginning, an interrupted run left: it is not taken again."""

    def __init__(
        self,
        driver: Driver,
        settings: BenchSettings,
        samples: list[Sample],
        incorrect: list[str],
        save: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._samples = samples
        self._incorrect = incorrect
        self._save = save
        self._noise = NoiseMeter()
        self._attempts = Attempts(samples, incorrect, settings.noise_limit)
        self._taken = {
            (each.allocator, each.workload, each.threads, each.repeat, each.observed, each.stepped)
            for each in samples
        }
        before_s = max((each.started_s + each.wall_s for each in samples), default=0.0)
        self._began = time.monotonic() - before_s

    def calibrate_noise(self) -> None:
        """Learns what starting a job costs the engine, from jobs that do nothing."""
        calibrate_noise(self._noise, self._driver)

    def run(self, plan: Sequence[Cell], progress: ProgressView, timetable: Timetable) -> str | None:
        """Takes the samples of the plan that were not taken before, round by round; None, or
        which rounds there was no time for."""
        rounds_of: dict[str, int] = {}
        for cell in plan:
            name = cell.workload.name
            rounds_of[name] = max(rounds_of.get(name, 0), cell.repeat + 1)
        rounds = max(rounds_of.values(), default=0)
        left = [cell for cell in plan if _key(cell) not in self._taken]
        self._attempts.begin(len(left))
        progress.begin("bench", len(left))
        done = len(plan) - len(left)
        for number, cells in groupby(left, key=lambda cell: cell.repeat):
            if number > 0 and not timetable.another_round():
                progress.resize(done - (len(plan) - len(left)))
                return f"time allowed {number} of {rounds} rounds of samples"
            recurring_s = 0.0
            for cell in cells:
                began = time.monotonic()
                progress.show(cell.label)
                self._take(cell)
                progress.advance()
                self._save()
                done += 1
                if number + 1 < rounds_of[cell.workload.name]:
                    recurring_s += time.monotonic() - began
            timetable.round_took(recurring_s)
        return None

    def count_instructions(
        self, plan: Sequence[Cell], progress: ProgressView, timetable: Timetable
    ) -> str | None:
        """Takes the stepped samples of a `stepping_plan`; None, or why some are missing."""
        plan = [cell for cell in plan if _key(cell) not in self._taken]
        if plan:
            progress.begin("instructions", len(plan))
        slow: list[str] = []
        for number, cell in enumerate(plan):
            if not timetable.another_sample():
                progress.resize(number)
                short = f"time allowed instruction counts of {number} of {len(plan)} cells"
                return "; ".join([short, *_too_slow(slow)])
            progress.show(cell.label)
            sample, answer = self._attempt(cell, 1)
            if answer.where == REFUSED:
                return f"instructions per operation are unknown: {sample.error}"
            self._samples.append(sample)
            if answer.where == TOO_SLOW:
                slow.append(f"{cell.allocator.name} {cell.workload.name}")
            if answer.incorrect:
                self._incorrect.append(f"{cell.label}: {sample.error}")
            progress.advance()
            self._save()
        return "; ".join(_too_slow(slow)) or None

    def _take(self, cell: Cell) -> None:
        # One row of a trial that hangs is enough: the others would take as long.
        workload = cell.workload.family if cell.workload.is_trial else cell.workload.name
        key = (cell.allocator.name, workload, cell.threads)
        if self._attempts.hung(key):
            self._samples.append(self._blank(cell, "left out: an earlier sample like it hung"))
            return
        timed = cell.workload.workload.timed
        self._attempts.take(
            key, cell.label, lambda number: self._attempt(cell, number), timed=timed
        )

    def _blank(self, cell: Cell, error: str | None) -> Sample:
        return Sample(
            allocator=cell.allocator.name,
            workload=cell.workload.name,
            family=cell.workload.family,
            parameters=dict(cell.workload.values),
            threads=cell.threads,
            repeat=cell.repeat,
            observed=cell.observed,
            stepped=cell.stepped,
            accepted=error is None,
            seed=cell.seed,
            started_s=round(time.monotonic() - self._began, 3),
            error=error,
        )

    def _attempt(self, cell: Cell, attempt: int) -> tuple[Sample, Answer]:
        sample = self._blank(cell, None)
        sample.attempt = attempt
        cpus = self._settings.cpus[: cell.threads]
        pace = pace_ns(cpus)
        before = self._noise.read()
        answer = self._run(cell)
        sample.wall_s = round(answer.outcome.wall_s, 3)
        noise = self._noise.share(before, answer.outcome.cpu_s, cpus)
        sample.noise = None if noise is None else round(noise, 4)
        sample.pace_ns = round((pace + pace_ns(cpus)) / 2, 3)
        sample.error = answer.error
        sample.applicable = answer.where not in (INAPPLICABLE, TOO_SLOW)
        if answer.result is not None:
            sample.raw = {key: value for key, value in answer.result.items() if key != "type"}
            try:
                sample.metrics = metrics_of(
                    answer.result, observed=cell.observed, stepped=cell.stepped
                )
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                sample.error = f"the driver's result can't be used: {error!r}"
        sample.accepted = sample.error is None
        return sample, answer

    def _run(self, cell: Cell) -> Answer:
        workload = cell.workload
        settings = self._settings.of(workload.budget)
        cpus = settings.cpus[: cell.threads]
        with self._driver.scratch.job(self._driver.job_number()) as (pm_dir, work_dir):
            arguments = [
                *self._driver.adapter_arguments(cell.allocator),
                "--heap", pm_dir / "heap",
                "--heap-size", str(workload.heap_bytes),
                "--workload", workload.family,
                "--threads", str(cell.threads),
                "--cpus", ",".join(map(str, cpus)),
                "--seed", str(cell.seed),
                "--warmup", str(settings.warmup_s),
                "--seconds", str(settings.seconds),
                "--latency-seconds", str(settings.latency_s),
            ]  # fmt: skip
            for name, value in workload.values.items():
                arguments += ["--param", f"{name}={value}"]
            trace = None if workload.trace is None else settings.traces[workload.trace]
            if trace is not None:
                arguments += ["--input", trace]
            if cell.observed:
                arguments.append("--observe")
            delayed = settings.device is not None and not cell.stepped
            if settings.device is not None and delayed:
                arguments += ["--device", settings.device]
            if cell.stepped:
                timeout_s = STEPPING_SHARE * settings.timeout_s
                arguments += ["--step-instructions", str(settings.steps)]
                arguments += ["--timeout", f"{timeout_s:.3f}"]
            return self._driver.run(
                Work(
                    label=f"bench {cell.label}",
                    command="bench",
                    arguments=tuple(arguments),
                    expects="result",
                    timeout_s=settings.timeout_s,
                    pm_dir=pm_dir,
                    work_dir=work_dir,
                    allocator=cell.allocator,
                    probe=cell.observed or delayed,
                    cpus=cpus,
                    inputs=() if trace is None else (trace.parent,),
                )
            )


def _too_slow(cells: Sequence[str]) -> list[str]:
    """The note on cells without an instruction count; each one's sample says more."""
    return [f"too slow to be stepped over, not counted: {', '.join(cells)}"] if cells else []


def _key(cell: Cell) -> tuple[str, str, int, int, bool, bool]:
    """What tells a cell's samples from all others."""
    return (
        cell.allocator.name, cell.workload.name, cell.threads, cell.repeat, cell.observed,
        cell.stepped,
    )  # fmt: skip


def calibrate_noise(noise: NoiseMeter, driver: Driver) -> None:
    """Learns what starting a job costs the engine, from jobs that do nothing."""
    costs = []
    for _ in range(OVERHEAD_PROBES):
        before = noise.read()
        answer = driver.simple("start-up cost", "info", (), "info")
        others = noise.others_s(before, answer.outcome.cpu_s)
        if others is not None:
            costs.append(others)
    noise.overhead_s = median(costs) if costs else 0.0


def metrics_of(result: dict[str, Any], *, observed: bool, stepped: bool = False) -> Metrics:
    """The figures of a driver's result, by the registry (`suite.metrics`)."""
    kind = kind_of(result, observed=observed, stepped=stepped)
    metrics = Metrics.model_validate(figures_of(result, kind))
    if metrics.instructions_per_op is not None:
        metrics.instructions_source = "stepped" if stepped else "perf"
    return metrics
