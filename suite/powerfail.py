# SPDX-License-Identifier: Apache-2.0
"""A power-failure campaign: cases of `nvlab`, spread over workers.

A case is one `nvlab run`: a history is recorded under a lens, the states that a power cut could
leave of it are enumerated and judged, then one of them is worked on.  As in a SIGKILL campaign its
parameters follow from the campaign's seed and the case's number alone, and allocators take turns.

Two faults come out of one case: `powerfail`, a crash of the history, and `recovery-crash`, a
crash of a recovery from it.  Each that was asked for has a verdict of its own.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.allocators import Allocator
from suite.cases import CaseStore
from suite.driver import Answer, Driver, Work
from suite.errors import EnvironmentMissing
from suite.plan import derive_seed
from suite.progress import ProgressView
from suite.results import LEGAL_LIMIT, CaseSummary, PowerCost, PowerStates, Verdict
from suite.runners.base import Argument

__all__ = [
    "POWERFAIL",
    "POWER_FAULTS",
    "RECOVERY_CRASH",
    "PowerCampaign",
    "PowerParameters",
    "PowerSettings",
    "case_budget",
    "largest_power_heap",
    "power_parameters",
    "replay_power_case",
    "require_lens",
]

POWERFAIL = "powerfail"
RECOVERY_CRASH = "recovery-crash"
POWER_FAULTS = {
    POWERFAIL: "caches are lost: every state that the stores, flushes and fences so far allow",
    RECOVERY_CRASH: "power fails again, twice, while the allocator recovers from that",
}
MIB = 1 << 20
HEAPS = (8 * MIB, 8 * MIB, 8 * MIB, 16 * MIB, 32 * MIB)
EADR_ONE_IN = 8
STATES = 160
"""Tried at a crash point at most, through the compiled lens: more states of one operation stand
against more operations in the same time."""
CASE_BUDGET_S = 60.0
"""No case explores for longer, so that a budget is spread over many histories."""
CASES_IN_BUDGET = 2
"""A budget is enough for so many cases of each allocator, however long these would like to go on."""
GRACE_S = 180.0
"""What a case may take beyond its budget: recording, shrinking, explaining."""
ERRORS_LIMIT = 5
COSTS_KEPT = 40


@dataclass(frozen=True)
class PowerParameters:
    """What one case does; a function of the seed, the number and the lens only."""

    number: int
    seed: int
    heap_bytes: int
    slots: int
    threads: int
    ops: int
    generations: int
    states: int
    domain: str


def power_parameters(
    seed: int, allocator: str, number: int, *, min_heap: int = 0, compiled: bool = True
) -> PowerParameters:
    """The case of that number.  Through the library lens states cost a hundred times more, so
    its histories are shorter."""
    own = derive_seed(seed, POWERFAIL, allocator, number)
    draw = random.Random(own)  # noqa: S311 - repeatable, not secret
    heap = max(draw.choice(HEAPS) if compiled else HEAPS[0], min_heap)
    slots = draw.choice((6, 12, 24))
    threads = draw.choice((1, 1, 1, 2))
    ops = draw.choice((20, 40, 80))
    generations = draw.choice((2, 3))
    domain = "eadr" if draw.randrange(EADR_ONE_IN) == 0 else "adr"
    if not compiled:
        return PowerParameters(number, own, heap, slots, 1, ops // 4, 1, 64, domain)
    return PowerParameters(number, own, heap, slots, threads, ops, generations, STATES, domain)


def case_budget(budget_s: float | None, workers: int, allocators: int) -> float:
    """For how long one case of a campaign may explore."""
    if budget_s is None:
        return CASE_BUDGET_S
    return min(CASE_BUDGET_S, budget_s * workers / max(1, allocators) / CASES_IN_BUDGET)


def largest_power_heap(min_heap: int = 0) -> int:
    """The biggest heap that a case makes."""
    return max(*HEAPS, min_heap)


@dataclass(frozen=True)
class PowerSettings:
    """How much is tried."""

    seed: int
    workers: int
    cases: int | None
    """An allocator's cases; None: as many as the budget allows."""
    budget_s: float | None
    faults: tuple[str, ...]
    max_failures: int
    """Give up on an allocator after so many failures; 0: never."""
    recovery_timeout_s: float


@dataclass
class _Tally:
    allocator: Allocator
    min_heap: int
    adapter: Path
    compiled: bool
    verdicts: dict[str, Verdict]
    """By fault; those that were asked for."""
    began: float = field(default_factory=time.monotonic)
    closed: bool = False

    @property
    def first(self) -> Verdict:
        return next(iter(self.verdicts.values()))


@dataclass(frozen=True)
class _Finished:
    tally: _Tally
    parameters: PowerParameters
    answer: Answer
    failures: tuple[tuple[str, CaseSummary], ...]
    """Fault and summary of each."""


def require_lens(driver: Driver, allocator: Allocator) -> tuple[Path, bool]:
    """The adapter that `nvlab` loads, and whether it is compiled for the lens.

    Raises `EnvironmentMissing` where there is nothing to look through.
    """
    lens = driver.installation.lens(allocator)
    if lens is not None:
        return lens, True
    if allocator.file.preload:
        return driver.installation.adapter(allocator), False
    raise EnvironmentMissing(
        f"The stores of '{allocator.name}' can't be seen: it was not compiled for the power-fail "
        "laboratory, and names no library under 'preload' that would report its flushes. Expected an "
        "allocator that is built from sources alone ('adapter: sources:'), on x86-64 with libdw-dev."
    )


class PowerCampaign:
    """Runs the cases of several allocators; `verdicts` is up to date at any time."""

    def __init__(
        self,
        driver: Driver,
        settings: PowerSettings,
        store: CaseStore,
        verdicts: list[Verdict],
        save: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._store = store
        self._verdicts = verdicts
        self._save = save
        self._case_budget_s = CASE_BUDGET_S

    def run(
        self, allocators: Sequence[Allocator], min_heaps: dict[str, int], progress: ProgressView
    ) -> None:
        """Judges the allocators.  On KeyboardInterrupt, the caller cancels the runner."""
        tallies = [self._open(each, min_heaps.get(each.name, 0)) for each in allocators]
        settings = self._settings
        total = None if settings.cases is None else settings.cases * len(tallies)
        progress.begin(f"fault {','.join(settings.faults)}", total)
        judged = [tally for tally in tallies if not tally.closed]
        self._case_budget_s = case_budget(settings.budget_s, settings.workers, len(judged))
        ahead = self._cases(judged)
        pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="power")
        running: set[Future[_Finished]] = set()
        try:
            while True:
                while len(running) < settings.workers:
                    item = next(ahead, None)
                    if item is None:
                        break
                    running.add(pool.submit(self._case, *item))
                if not running:
                    break
                done, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    self._count(future.result(), progress)
                self._save()
        except BaseException:
            self._driver.runner.cancel_all()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self, allocator: Allocator, min_heap: int) -> _Tally:
        verdicts = {fault: self._verdict(allocator, fault) for fault in self._settings.faults}
        self._verdicts.extend(verdicts.values())
        try:
            adapter, compiled = require_lens(self._driver, allocator)
        except EnvironmentMissing as error:
            for verdict in verdicts.values():
                verdict.errors, verdict.error = 1, str(error)
            return _Tally(allocator, min_heap, Path(), False, verdicts, closed=True)
        return _Tally(allocator, min_heap, adapter, compiled, verdicts)

    def _verdict(self, allocator: Allocator, fault: str) -> Verdict:
        known = next((of for of in allocator.file.known_findings if of.fault == fault), None)
        return Verdict(
            allocator=allocator.name,
            known_finding=known.document if known else None,
            known_kinds=known.verdicts if known else [],
            fault=fault,
            cases=0,
            states=0,
            passed=0,
            failed=0,
            planned=self._settings.cases,
            power=PowerStates(),
        )

    def _cases(
        self, tallies: Sequence[_Tally]
    ) -> Iterator[tuple[_Tally, PowerParameters, float | None]]:
        """Allocators in turn until the count or the budget is used up."""
        settings = self._settings
        began = time.monotonic()
        number = 0
        while settings.cases is None or number < settings.cases:
            if all(tally.closed for tally in tallies):
                return
            for tally in tallies:
                left = None
                if settings.budget_s is not None:
                    left = settings.budget_s - (time.monotonic() - began)
                    if left <= 0:
                        return
                if not tally.closed:
                    parameters = power_parameters(
                        settings.seed,
                        tally.allocator.name,
                        number,
                        min_heap=tally.min_heap,
                        compiled=tally.compiled,
                    )
                    yield tally, parameters, left
            number += 1

    def _case(self, tally: _Tally, parameters: PowerParameters, left: float | None) -> _Finished:
        """In a worker: one case, and its failures kept."""
        driver = self._driver
        budget = self._case_budget_s if left is None else min(self._case_budget_s, left)
        with driver.scratch.job(driver.job_number()) as (pm_dir, work_dir):
            answer = driver.run(
                Work(
                    label=f"{POWERFAIL} {tally.allocator.name} #{parameters.number}",
                    command="run",
                    program=driver.installation.build.nvlab,
                    arguments=(
                        *_adapter_arguments(tally.adapter, tally.allocator),
                        "--dir", pm_dir,
                        "--work", work_dir,
                        *self._arguments(tally, parameters, budget),
                    ),
                    expects="verdict",
                    timeout_s=budget + GRACE_S,
                    pm_dir=pm_dir,
                    work_dir=work_dir,
                    allocator=tally.allocator,
                    probe=not tally.compiled,
                )
            )  # fmt: skip
            failures = tuple(self._keep(tally, parameters, answer, work_dir))
        return _Finished(tally, parameters, answer, failures)

    def _arguments(self, tally: _Tally, parameters: PowerParameters, budget: float) -> list[str]:
        tolerance = tally.allocator.file.fill_tolerance
        arguments = {
            "--seed": parameters.seed,
            "--heap-size": parameters.heap_bytes,
            "--slots": parameters.slots,
            "--threads": parameters.threads,
            "--ops": parameters.ops,
            "--generations": parameters.generations,
            "--states": parameters.states,
            "--domain": parameters.domain,
            "--faults": ",".join(self._nvlab_faults()),
            "--budget": f"{budget:.3f}",
            "--fill-tolerance": 0.02 if tolerance is None else tolerance,
        }
        return [text for name, value in arguments.items() for text in (name, str(value))]

    def _nvlab_faults(self) -> tuple[str, ...]:
        return (
            (POWERFAIL, RECOVERY_CRASH) if RECOVERY_CRASH in self._settings.faults else (POWERFAIL,)
        )

    def _keep(
        self, tally: _Tally, parameters: PowerParameters, answer: Answer, work_dir: Path
    ) -> Iterator[tuple[str, CaseSummary]]:
        for document in answer.documents:
            if document["type"] != "failure":
                continue
            fault = RECOVERY_CRASH if int(document.get("depth", 0)) > 0 else POWERFAIL
            if fault not in tally.verdicts:
                fault = next(iter(tally.verdicts))
            folder = work_dir / Path(str(document.get("case", ""))).name
            yield (
                fault,
                self._store.keep_power(tally.allocator, fault, vars(parameters), document, folder),
            )

    def _count(self, finished: _Finished, progress: ProgressView) -> None:
        tally, answer = finished.tally, finished.answer
        progress.advance()
        progress.show(f"{tally.allocator.name} #{finished.parameters.number}")
        for verdict in tally.verdicts.values():
            verdict.seconds = round(time.monotonic() - tally.began, 3)
        if answer.outcome.cancelled:
            return
        if answer.result is None:
            self._count_error(tally, answer.error or "no verdict", progress)
            return
        for fault, verdict in tally.verdicts.items():
            verdict.cases += 1
            _add_states(verdict, fault, answer.result, answer.documents)
            summaries = [summary for of, summary in finished.failures if of == fault]
            other = answer.result.get("verdict") != "ok" and not finished.failures
            if other and fault == next(iter(tally.verdicts)):
                kind = str(answer.result["verdict"])
                detail = str(answer.result.get("detail", ""))
                summaries = [CaseSummary(kind=kind, detail=detail, seed=finished.parameters.seed)]
            if not summaries:
                verdict.passed += 1
                continue
            verdict.failed += 1
            for summary in summaries:
                verdict.by_kind[summary.kind] = verdict.by_kind.get(summary.kind, 0) + 1
                verdict.failures.append(summary)
                if summary.path is not None:
                    verdict.cases_dir = self._store.relative_root
                    progress.note(f"{tally.allocator.name}: {summary.kind}: {summary.detail}")
            limit = self._settings.max_failures
            if limit and verdict.failed >= limit:
                self._close(tally)

    def _count_error(self, tally: _Tally, error: str, progress: ProgressView) -> None:
        for verdict in tally.verdicts.values():
            verdict.errors += 1
            if verdict.error is None:
                verdict.error = error
        progress.note(f"{tally.allocator.name}: no verdict: {error}")
        if tally.first.errors >= ERRORS_LIMIT and tally.first.cases == 0:
            self._close(tally)

    def _close(self, tally: _Tally) -> None:
        for verdict in tally.verdicts.values():
            verdict.stopped_early = True
        tally.closed = True


def _adapter_arguments(adapter: Path, allocator: Allocator) -> tuple[Argument, ...]:
    """An image has one size: an allocator that takes the option `grow` is told not to."""
    pairs = (pair for pair in allocator.fault_options.split(",") if pair)
    fixed = ",".join("grow=no" if pair.startswith("grow=") else pair for pair in pairs)
    return ("--adapter", adapter, *(("--options", fixed) if fixed else ()))


def _add_states(
    verdict: Verdict, fault: str, result: dict[str, Any], documents: Sequence[dict[str, Any]]
) -> None:
    power = verdict.power
    if power is None:
        return
    recovery = int(result.get("recovery_states_checked", 0))
    checked = recovery if fault == RECOVERY_CRASH else int(result["states_checked"]) - recovery
    verdict.states += checked
    power.checked += checked
    power.operations += int(result.get("ops", 0))
    power.cpu_seconds += float(result.get("cpu_seconds", 0.0))
    power.lens = str(result.get("lens", ""))
    power.all_checked += int(result["states_checked"])
    if fault == RECOVERY_CRASH:
        power.crash_points += int(result.get("recovery_crash_points", 0))
        return
    power.crash_points += int(result.get("crash_points", 0))
    power.complete_points += int(result.get("crash_points_complete", 0))
    legal = min(float(result.get("states_legal", 0)), LEGAL_LIMIT)
    share = float(result.get("share_covered", 0))
    power.legal += legal
    power.covered += (
        float(result.get("states_covered", 0))
        if legal < LEGAL_LIMIT
        else legal * (share if math.isfinite(share) else 0)
    )
    power.distinct += int(result.get("states_distinct", 0))
    power.deep += int(result.get("states_deep", 0))
    for document in documents:
        if document["type"] == "cost":
            _add_cost(power, document)


def _add_cost(power: PowerStates, document: dict[str, Any]) -> None:
    if document.get("kind") == "write-amplification":
        power.stored_bytes += int(document.get("stored_bytes", 0))
        power.media_bytes += int(document.get("media_bytes", 0))
        return
    for cost in power.costs:
        if (cost.kind, cost.file, cost.line) == (
            document["kind"],
            document["file"],
            document["line"],
        ):
            cost.times += int(document["times"])
            cost.of += int(document["of"])
            return
    if len(power.costs) < COSTS_KEPT:
        power.costs.append(
            PowerCost(
                kind=str(document["kind"]),
                file=str(document["file"]),
                line=int(document["line"]),
                function=str(document.get("function", "")),
                times=int(document["times"]),
                of=int(document["of"]),
            )
        )


def replay_power_case(
    driver: Driver, folder: Path, allocator: Allocator, timeout_s: float
) -> Answer:
    """Tries a case's state once more."""
    adapter, compiled = require_lens(driver, allocator)
    with driver.scratch.job(driver.job_number()) as (pm_dir, work_dir):
        case = work_dir / "case"
        case.mkdir()
        for name in ("case.json", "trace.nvl"):
            (case / name).write_bytes((folder / name).read_bytes())
        return driver.run(
            Work(
                label=f"replay {allocator.name} {folder.name}",
                command="replay",
                program=driver.installation.build.nvlab,
                arguments=(
                    *_adapter_arguments(adapter, allocator),
                    "--dir", pm_dir,
                    "--work", work_dir,
                    "--case", case,
                ),
                expects="verdict",
                timeout_s=timeout_s,
                pm_dir=pm_dir,
                work_dir=work_dir,
                allocator=allocator,
                probe=not compiled,
            )
        )  # fmt: skip
