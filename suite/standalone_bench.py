# SPDX-License-Identifier: Apache-2.0
"""Takes the samples of standalone workloads: each a fresh process of the workload's own program.

What keeps the numbers honest is what does in `bench`: one sample at a time, a shuffled order, and
repeats of what others disturbed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from suite.attempts import Attempts
from suite.bench import BenchSettings, calibrate_noise
from suite.driver import Answer, Driver, Work
from suite.errors import EnvironmentMissing
from suite.latency import percentiles
from suite.noise import NoiseMeter
from suite.progress import ProgressView
from suite.results import Metrics, Run, Sample
from suite.runners.base import Argument
from suite.standalone import Standalone, StandaloneCell

__all__ = ["StandaloneBench", "standalone_metrics"]

MISSING = "missing"
"""Where a program fails that can't have a subject or a case here."""
REPORT_MARGIN_S = 2.0
"""Left to a case with a stated time for being killed and for saying so."""


class StandaloneBench:
    """Works through a plan; appends to the run's samples as it goes.  What the run has at the
    beginning, an interrupted one left: it is not taken again."""

    def __init__(
        self,
        driver: Driver,
        settings: BenchSettings,
        run: Run,
        incorrect: list[str],
        save: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._run = run
        self._save = save
        self._noise = NoiseMeter()
        self._attempts = Attempts(run.samples, incorrect, settings.noise_limit)
        self._taken = {
            (each.allocator, each.workload, each.case, each.threads, each.repeat)
            for each in run.samples
        }
        before_s = max((each.started_s + each.wall_s for each in run.samples), default=0.0)
        self._began = time.monotonic() - before_s
        self._missing: set[tuple[str, str, str]] = set()

    def run(self, plan: Sequence[StandaloneCell], progress: ProgressView) -> None:
        """Takes the samples of the plan that were not taken before."""
        plan = [cell for cell in plan if _key(cell) not in self._taken]
        for workload in {cell.workload.name: cell.workload for cell in plan}.values():
            self._require_program(workload)
        calibrate_noise(self._noise, self._driver)
        self._attempts.begin(len(plan))
        progress.begin("bench", len(plan))
        for cell in plan:
            progress.show(cell.label)
            self._take(cell, progress)
            progress.advance()
            self._save()

    def _require_program(self, workload: Standalone) -> None:
        build = self._driver.installation.build
        program = build.standalone(workload.name)
        if not build.in_image and not program.is_file():
            raise EnvironmentMissing(
                f"The program of the workload '{workload.name}' is not there: {program}. Expected "
                "the build to put it there. Build again with `make build`."
            )

    def _take(self, cell: StandaloneCell, progress: ProgressView) -> None:
        where = (cell.subject, cell.workload.name, cell.case_name)
        if where in self._missing:
            return
        key = (*where, cell.threads)
        if self._attempts.hung(key):
            left_out = "left out: an earlier sample like it hung"
            self._run.samples.append(self._blank(cell, left_out))
            return
        answer = self._attempts.take(key, cell.label, lambda number: self._attempt(cell, number))
        if answer.where == MISSING:
            self._missing.add(where)
            reason = f"{cell.subject} in {cell.workload.name}/{cell.case_name}: {answer.error}"
            self._run.environment.skipped[
                f"{cell.workload.name}/{cell.case_name} {cell.subject}"
            ] = reason
            progress.note(f"left out: {reason}")

    def _blank(self, cell: StandaloneCell, error: str | None) -> Sample:
        return Sample(
            allocator=cell.subject,
            workload=cell.workload.name,
            case=cell.case_name,
            threads=cell.threads,
            repeat=cell.repeat,
            accepted=error is None,
            seed=cell.seed,
            started_s=round(time.monotonic() - self._began, 3),
            error=error,
        )

    def _attempt(self, cell: StandaloneCell, attempt: int) -> tuple[Sample, Answer]:
        sample = self._blank(cell, None)
        sample.attempt = attempt
        before = self._noise.read()
        answer = self._execute(cell)
        sample.wall_s = round(answer.outcome.wall_s, 3)
        noise = self._noise.share(before, answer.outcome.cpu_s, self._settings.cpus[: cell.threads])
        sample.noise = None if noise is None else round(noise, 4)
        sample.error = answer.error
        if answer.result is not None:
            sample.raw = {key: value for key, value in answer.result.items() if key != "type"}
            try:
                sample.metrics = standalone_metrics(answer.result, cell)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                sample.error = f"the program's result can't be used: {error!r}"
        sample.accepted = sample.error is None
        return sample, answer

    def _execute(self, cell: StandaloneCell) -> Answer:
        settings = self._settings
        cpus = settings.cpus[: cell.threads]
        timeout_s = self._timeout_s(cell)
        with self._driver.scratch.job(self._driver.job_number()) as (pm_dir, work_dir):
            arguments: list[Argument] = [
                "--case", cell.case_name,
                "--subject", cell.subject,
                "--threads", str(cell.threads),
                "--cpus", ",".join(map(str, cpus)),
                "--seed", str(cell.seed),
                "--warmup", str(settings.warmup_s),
                "--seconds", str(settings.seconds),
                "--timeout", f"{timeout_s:.3f}",
                "--dir", pm_dir,
                "--work", work_dir,
            ]  # fmt: skip
            for name, value in cell.case.parameters.items():
                arguments += ["--param", f"{name}={value}"]
            return self._driver.run(
                Work(
                    label=f"bench {cell.label}",
                    command="bench",
                    arguments=tuple(arguments),
                    expects="result",
                    timeout_s=timeout_s + REPORT_MARGIN_S,
                    pm_dir=pm_dir,
                    work_dir=work_dir,
                    cpus=cpus,
                    program=self._driver.installation.build.standalone(cell.workload.name),
                )
            )

    def _timeout_s(self, cell: StandaloneCell) -> float:
        if self._settings.stated_timeout_s is not None or cell.case.timeout_s is None:
            return self._settings.timeout_s
        return cell.case.timeout_s


def _key(cell: StandaloneCell) -> tuple[str, str, str | None, int, int]:
    return (cell.subject, cell.workload.name, cell.case_name, cell.threads, cell.repeat)


def standalone_metrics(result: dict[str, Any], cell: StandaloneCell) -> Metrics:
    """The figures of a program's result; ValueError if it is no answer to what was asked."""
    asked = {
        "workload": cell.workload.name,
        "case": cell.case_name,
        "subject": cell.subject,
        "threads": cell.threads,
    }
    for key, value in asked.items():
        if result.get(key) != value:
            raise ValueError(f"{key} is {result.get(key)!r}, and {value!r} was asked for")
    ops, rate = float(result["ops"]), float(result["ops_per_s"])
    if not (ops > 0 and rate > 0):
        raise ValueError(f"ops is {result['ops']} and ops_per_s {result['ops_per_s']}")
    figures = result.get("figures") or {}
    unknown = set(figures) - set(cell.workload.figures)
    if unknown:
        raise ValueError(f"figures that the workload's file does not name: {sorted(unknown)}")
    instructions = result.get("instructions")
    return Metrics(
        ops_per_s=rate,
        instructions_per_op=None if instructions is None else float(instructions) / ops,
        instructions_source=None if instructions is None else "perf",
        peak_bytes=result.get("peak_bytes"),
        figures={key: float(value) for key, value in figures.items() if value is not None},
        **percentiles(result.get("latency")),
    )
