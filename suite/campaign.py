# SPDX-License-Identifier: Apache-2.0
"""A SIGKILL campaign: many independent fault cases, spread over workers.

A case is one `nvdrive history`: churn, kill, recover, check, churn on, over several
generations on one heap.  Its parameters and its seed are derived from the
campaign's seed and the case's number alone, never from the worker or the
order, so a case is the same in every run.  Allocators take turns, so that a time budget
is split evenly and a busy machine hits them alike.

Only the main thread touches results; workers run one job each and return.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from suite.allocators import Allocator
from suite.case_parameters import FAULT, CaseParameters, case_parameters
from suite.cases import CaseStore
from suite.driver import Answer, Driver, Work
from suite.errors import EnvironmentMissing
from suite.progress import ProgressView
from suite.results import CaseSummary, Verdict

__all__ = ["Campaign", "CampaignSettings", "require_persistent"]

HISTORY_TIMEOUT_FACTOR = 4.0
FILL_TIMEOUT_S = 120.0
DEFAULT_FILL_TOLERANCE = 0.02
HANGS_LIMIT = 3
"""Each hang costs the whole recovery timeout, so fewer of them end an allocator's campaign
than --max-failures says (which, when 0, holds for hangs too)."""
ERRORS_LIMIT = 10
"""After so many cases without a verdict, and not one with, the allocator is left alone."""


@dataclass(frozen=True)
class CampaignSettings:
    """How much is tried."""

    seed: int
    workers: int
    cases: int | None
    """An allocator's cases; None: as many as the budget allows."""
    budget_s: float | None
    recovery_timeout_s: float
    """A recovery that takes longer is a hang."""
    max_failures: int
    """Give up on an allocator after so many failures; 0: never."""


@dataclass
class _Tally:
    """What is known of one allocator so far."""

    allocator: Allocator
    min_heap: int
    verdict: Verdict
    baselines: dict[tuple[int, int], int] = field(default_factory=dict)
    """(heap bytes, slots) to what a fresh heap takes."""
    began: float = field(default_factory=time.monotonic)
    closed: bool = False


@dataclass(frozen=True)
class _Finished:
    tally: _Tally
    parameters: CaseParameters
    answer: Answer
    summary: CaseSummary | None


class Campaign:
    """Runs the cases of several allocators; `verdicts` is up to date at any time."""

    def __init__(
        self,
        driver: Driver,
        settings: CampaignSettings,
        store: CaseStore,
        verdicts: list[Verdict],
        save: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._store = store
        self._verdicts = verdicts
        self._save = save

    def run(
        self, allocators: Sequence[Allocator], min_heaps: dict[str, int], progress: ProgressView
    ) -> None:
        """Judges the allocators.  On KeyboardInterrupt, the caller cancels the runner."""
        tallies = [self._open(each, min_heaps.get(each.name, 0)) for each in allocators]
        progress.begin(f"fault {FAULT}", self._total(tallies))
        ahead = self._cases(tallies)
        pool = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="case")
        running: set[Future[_Finished]] = set()
        try:
            while True:
                while len(running) < self._settings.workers:
                    item = next(ahead, None)
                    if item is None:
                        break
                    running.add(pool.submit(self._case, *item))
                if not running:
                    break
                done, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    self._count(future.result(), progress)
                progress.resize(self._total(tallies))
                self._save()
        except BaseException:
            self._driver.runner.cancel_all()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _total(self, tallies: Sequence[_Tally]) -> int | None:
        """Cases that will have been run in the end, as far as is known now."""
        cases = self._settings.cases
        if cases is None:
            return None
        return sum(
            tally.verdict.cases + tally.verdict.errors if tally.closed else cases
            for tally in tallies
        )

    def _open(self, allocator: Allocator, min_heap: int) -> _Tally:
        known = next((of for of in allocator.file.known_findings if of.fault == FAULT), None)
        verdict = Verdict(
            allocator=allocator.name,
            known_finding=known.document if known else None,
            known_kinds=known.verdicts if known else [],
            fault=FAULT,
            cases=0,
            states=0,
            passed=0,
            failed=0,
            planned=self._settings.cases,
        )
        self._verdicts.append(verdict)
        return _Tally(allocator, min_heap, verdict)

    def _cases(self, tallies: Sequence[_Tally]) -> Iterator[tuple[_Tally, CaseParameters]]:
        """Allocators in turn until the count or the budget is used up."""
        settings = self._settings
        began = time.monotonic()
        number = 0
        while settings.cases is None or number < settings.cases:
            if all(tally.closed for tally in tallies):
                return
            for tally in tallies:
                if settings.budget_s is not None and time.monotonic() - began >= settings.budget_s:
                    return
                if not tally.closed:
                    parameters = case_parameters(
                        settings.seed, tally.allocator.name, number, tally.min_heap
                    )
                    yield tally, parameters
            number += 1

    def _case(self, tally: _Tally, parameters: CaseParameters) -> _Finished:
        """In a worker: one case, and its evidence kept if it fails."""
        driver = self._driver
        with driver.scratch.job(driver.job_number()) as (pm_dir, work_dir):
            answer = driver.run(
                Work(
                    label=f"{FAULT} {tally.allocator.name} #{parameters.number}",
                    command="history",
                    arguments=(
                        *driver.adapter_arguments(tally.allocator, judged=True),
                        "--dir", pm_dir,
                        "--work", work_dir,
                        *self._arguments(tally, parameters),
                    ),
                    expects="verdict",
                    timeout_s=self._timeout_s(parameters),
                    pm_dir=pm_dir,
                    work_dir=work_dir,
                    allocator=tally.allocator,
                    probe=True,
                )
            )  # fmt: skip
            summary = None
            result = answer.result
            if result is not None and result.get("verdict") != "ok":
                stderr = answer.outcome.stderr_tail
                summary = self._store.keep(
                    tally.allocator, FAULT, parameters, result, work_dir, stderr
                )
        return _Finished(tally, parameters, answer, summary)

    def _arguments(self, tally: _Tally, parameters: CaseParameters) -> list[str]:
        tolerance = tally.allocator.file.fill_tolerance
        arguments = {
            "--heap-size": parameters.heap_bytes,
            "--slots": parameters.slots,
            "--threads": parameters.threads,
            "--generations": parameters.generations,
            "--timeout": self._settings.recovery_timeout_s,
            "--fill-tolerance": DEFAULT_FILL_TOLERANCE if tolerance is None else tolerance,
            "--seed": parameters.seed,
        }
        baseline = self._baseline(tally, parameters)
        if baseline is not None:
            arguments["--fill-baseline"] = baseline
        return [text for name, value in arguments.items() for text in (name, str(value))]

    def _baseline(self, tally: _Tally, parameters: CaseParameters) -> int | None:
        """What a fresh heap of that shape takes; measured once for all cases of it."""
        shape = (parameters.heap_bytes, parameters.slots)
        if shape not in tally.baselines:
            driver = self._driver
            with driver.scratch.job(driver.job_number()) as (pm_dir, work_dir):
                answer = driver.run(
                    Work(
                        label=f"fill {tally.allocator.name}",
                        command="fill",
                        arguments=(
                            *driver.adapter_arguments(tally.allocator, judged=True),
                            "--heap", pm_dir / "heap",
                            "--heap-size", str(parameters.heap_bytes),
                            "--slots", str(parameters.slots),
                        ),
                        expects="fill",
                        timeout_s=FILL_TIMEOUT_S,
                        pm_dir=pm_dir,
                        work_dir=work_dir,
                        allocator=tally.allocator,
                    )
                )  # fmt: skip
            if answer.result is None:
                return None  # the history measures it itself, or says why it can't
            # Two workers may measure the same shape at once; both find the same number.
            tally.baselines[shape] = int(answer.result["bytes"])
        return tally.baselines[shape]

    def _timeout_s(self, parameters: CaseParameters) -> float:
        """Long enough that only a broken driver meets it: each generation may recover
        a few times, and each recovery has its own time limit inside the driver."""
        per_generation = HISTORY_TIMEOUT_FACTOR * self._settings.recovery_timeout_s
        return FILL_TIMEOUT_S + parameters.generations * per_generation

    def _count(self, finished: _Finished, progress: ProgressView) -> None:
        tally, answer = finished.tally, finished.answer
        verdict = tally.verdict
        verdict.seconds = round(time.monotonic() - tally.began, 3)
        progress.advance()
        progress.show(f"{tally.allocator.name} #{finished.parameters.number}")
        if answer.outcome.cancelled:
            return
        result = answer.result
        if result is None:
            self._count_error(tally, answer.error or "no verdict", progress)
            return
        verdict.cases += 1
        verdict.states += _states(result)
        kind = str(result.get("verdict"))
        if kind == "ok":
            verdict.passed += 1
            return
        verdict.failed += 1
        verdict.by_kind[kind] = verdict.by_kind.get(kind, 0) + 1
        if finished.summary is not None:
            verdict.failures.append(finished.summary)
            if finished.summary.path is not None:
                verdict.cases_dir = self._store.relative_root
                progress.note(f"{tally.allocator.name}: {kind}: {finished.summary.detail}")
        limit = self._settings.max_failures
        if limit and (verdict.failed >= limit or verdict.by_kind.get("hang", 0) >= HANGS_LIMIT):
            self._close(tally)

    def _count_error(self, tally: _Tally, error: str, progress: ProgressView) -> None:
        verdict = tally.verdict
        verdict.errors += 1
        if verdict.error is None:
            verdict.error = error
            progress.note(f"{tally.allocator.name}: no verdict: {error}")
        if verdict.errors >= ERRORS_LIMIT and verdict.cases == 0:
            self._close(tally)

    def _close(self, tally: _Tally) -> None:
        tally.verdict.stopped_early = True
        tally.closed = True


def _states(result: dict[str, Any]) -> int:
    """Crash states that the case recovered from and checked."""
    with contextlib.suppress(TypeError, ValueError):
        return int(result.get("recoveries") or result.get("kills") or 1)
    return 1


def require_persistent(allocators: Sequence[Allocator], *, named: bool) -> list[Allocator]:
    """Those that can be judged; an error if a volatile one was asked for by name."""
    stores = [allocator.name for allocator in allocators if allocator.program is not None]
    if named and stores:
        raise EnvironmentMissing(
            f"{', '.join(stores)} has no adapter, through which a campaign could allocate and look at "
            "what survived. Name allocators that have one with -a."
        )
    volatile = [allocator.name for allocator in allocators if not allocator.persistent]
    if named and volatile:
        raise EnvironmentMissing(
            f"{', '.join(volatile)} is volatile: nothing of it survives a crash, so there is nothing "
            "to judge. Name persistent allocators with -a; `nvcrucible list allocators` shows them."
        )
    return [allocator for allocator in allocators if allocator.judged]
