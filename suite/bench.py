# SPDX-License-Identifier: Apache-2.0
"""Takes the samples of a bench, one after the other, each a fresh process on a fresh heap.

What keeps the numbers honest: one sample at a time; the order of `plan.py`; a
sample during which others took more than `noise_limit` of the CPUs is taken
again, `ATTEMPTS` times at most, and the least noisy one counts (the
document holds them all); and no more than `RETRY_SHARE` of the plan is spent on
such repeats, so that a busy machine makes the run noisy, not endless.

Where no hardware counter told the instructions, a stepped sample does (`count_instructions`);
noise does not change what it counts, so it is taken once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from suite.driver import Answer, Driver, Work
from suite.latency import percentiles
from suite.noise import NoiseMeter
from suite.plan import Cell
from suite.progress import ProgressView
from suite.results import Metrics, Sample

__all__ = ["Bench", "BenchSettings", "metrics_of"]

ATTEMPTS = 3
RETRY_SHARE = 0.15
TIMEOUT_BASE_S = 30.0
TIMEOUT_FACTOR = 10.0
OVERHEAD_PROBES = 3
STEPPING_SHARE = 0.8
"""Of a sample's time, after which the driver itself gives up stepping, and says why."""
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

    @property
    def timeout_s(self) -> float:
        """After which a sample's driver counts as hung."""
        if self.stated_timeout_s is not None:
            return self.stated_timeout_s
        return TIMEOUT_BASE_S + TIMEOUT_FACTOR * (self.warmup_s + self.seconds + self.latency_s)


class Bench:
    """Works through a plan; appends to `samples` as it goes, and to `incorrect` each sample
    in which the driver caught the allocator doing what it must not."""

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
        self._retries_left = 0
        self._began = time.monotonic()
        self._hung: set[tuple[str, str, int]] = set()

    def calibrate_noise(self) -> None:
        """Learns what starting a job costs the engine, from jobs that do nothing."""
        costs = []
        for _ in range(OVERHEAD_PROBES):
            before = self._noise.read()
            answer = self._driver.simple("start-up cost", "info", (), "info")
            others = self._noise.others_s(before, answer.outcome.cpu_s)
            if others is not None:
                costs.append(others)
        self._noise.overhead_s = median(costs) if costs else 0.0

    def run(self, plan: Sequence[Cell], progress: ProgressView) -> None:
        """Takes every sample of the plan."""
        self._retries_left = int(len(plan) * RETRY_SHARE)
        progress.begin("bench", len(plan))
        for cell in plan:
            progress.show(cell.label)
            self._take(cell)
            progress.advance()
            self._save()

    def count_instructions(self, plan: Sequence[Cell], progress: ProgressView) -> str | None:
        """Takes the stepped samples of a `stepping_plan`; None, or why it can't be done here."""
        if plan:
            progress.begin("instructions", len(plan))
        for cell in plan:
            progress.show(cell.label)
            sample, answer = self._attempt(cell, 1)
            if answer.where == REFUSED:
                return f"instructions per operation are unknown: {sample.error}"
            self._samples.append(sample)
            if answer.incorrect:
                self._incorrect.append(f"{cell.label}: {sample.error}")
            progress.advance()
            self._save()
        return None

    def _take(self, cell: Cell) -> None:
        key = (cell.allocator.name, cell.workload.name, cell.threads)
        if key in self._hung:
            self._samples.append(self._blank(cell, "left out: an earlier sample like it hung"))
            return
        attempts: list[Sample] = []
        for attempt in range(1, ATTEMPTS + 1):
            sample, answer = self._attempt(cell, attempt)
            self._samples.append(sample)
            if answer.outcome.timed_out:
                self._hung.add(key)
            if answer.incorrect:
                self._incorrect.append(f"{cell.label}: {sample.error}")
            if sample.error is not None:
                return
            attempts.append(sample)
            if sample.noise is None or sample.noise <= self._settings.noise_limit:
                break
            if self._retries_left == 0 or attempt == ATTEMPTS:
                break
            self._retries_left -= 1
        best = min(attempts, key=lambda sample: sample.noise or 0.0)
        for sample in attempts:
            sample.accepted = sample is best

    def _blank(self, cell: Cell, error: str | None) -> Sample:
        return Sample(
            allocator=cell.allocator.name,
            workload=cell.workload.name,
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
        before = self._noise.read()
        answer = self._run(cell)
        sample.wall_s = round(answer.outcome.wall_s, 3)
        noise = self._noise.share(before, answer.outcome.cpu_s)
        sample.noise = None if noise is None else round(noise, 4)
        sample.error = answer.error
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
        settings, workload = self._settings, cell.workload
        cpus = settings.cpus[: cell.threads]
        with self._driver.scratch.job(self._driver.job_number()) as (pm_dir, work_dir):
            arguments = [
                *self._driver.adapter_arguments(cell.allocator),
                "--heap", pm_dir / "heap",
                "--heap-size", str(workload.heap_bytes),
                "--workload", workload.name,
                "--threads", str(cell.threads),
                "--cpus", ",".join(map(str, cpus)),
                "--seed", str(cell.seed),
                "--warmup", str(settings.warmup_s),
                "--seconds", str(settings.seconds),
                "--latency-seconds", str(settings.latency_s),
            ]  # fmt: skip
            for name, value in workload.parameter_values(settings.profile).items():
                arguments += ["--param", f"{name}={value}"]
            if cell.observed:
                arguments.append("--observe")
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
                    probe=cell.observed,
                    cpus=cpus,
                )
            )


def metrics_of(result: dict[str, Any], *, observed: bool, stepped: bool = False) -> Metrics:
    """The figures of a driver's result.

    An observed sample was slowed by counting, so it tells costs alone, and a stepped one
    tells instructions alone; an undisturbed one tells everything but those costs.
    """
    if stepped:
        return _instructions(result)
    return _costs(result) if observed else _speed(result)


def _speed(result: dict[str, Any]) -> Metrics:
    ops = _positive(result, "ops")
    if float(result["ops_per_s"]) <= 0:
        raise ValueError(f"ops_per_s is {result['ops_per_s']}")
    instructions = result.get("instructions")
    return Metrics(
        ops_per_s=float(result["ops_per_s"]),
        instructions_per_op=None if instructions is None else float(instructions) / ops,
        instructions_source=None if instructions is None else "perf",
        failed_allocs_per_op=float(result.get("failed_allocs") or 0) / ops,
        peak_bytes=result.get("peak_bytes"),
        live_bytes=result.get("live_bytes"),
        **percentiles(result.get("latency")),
    )


def _instructions(result: dict[str, Any]) -> Metrics:
    return Metrics(
        instructions_per_op=_positive(result, "instructions") / _positive(result, "stepped_ops"),
        instructions_source="stepped",
        instructions_deviation=float(result["stepped_deviation"]),
        driver_instructions_per_op=_positive(result, "driver_instructions_per_op"),
    )


def _costs(result: dict[str, Any]) -> Metrics:
    events = result.get("events")
    if result.get("observable") is False:
        return Metrics()  # its costs are not known, and the adapter says so
    if not events:
        raise ValueError("no events were counted, although the adapter is observable")
    ops = _positive(events, "ops")
    flushes = float(events["flushes"])
    return Metrics(
        flushes_per_op=flushes / ops,
        fences_per_op=float(events["effective_fences"]) / ops,
        fences_all_per_op=float(events["fences"]) / ops,
        nt_lines_per_op=float(events.get("nt_lines") or 0) / ops,
        reflush_ratio=float(events.get("reflushes_within_4") or 0) / flushes if flushes else None,
        xpline_writes_per_op=float(events.get("xpline_writes") or 0) / ops,
    )


def _positive(document: dict[str, Any], key: str) -> float:
    value = float(document[key])
    if value <= 0:
        raise ValueError(f"{key} is {document[key]}")
    return value
