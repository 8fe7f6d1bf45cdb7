# SPDX-License-Identifier: Apache-2.0
"""What `bench` and `fault` do alike: record a run as it goes, print it, judge it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from suite.errors import (
    CorrectnessFailure,
    CrucibleError,
    Interrupted,
    NothingMeasured,
)
from suite.output import print_json
from suite.report import show
from suite.results import SCHEMA, Run, RunFolder
from suite.session import Session, say

__all__ = ["problem_of", "recorded", "reopened", "verdict_of_run"]


@contextlib.contextmanager
def recorded(
    command: Literal["bench", "fault"],
    name: str,
    parent: Path,
    session: Session,
    config: dict[str, Any],
) -> Iterator[RunFolder]:
    """A run folder that holds whatever was measured, however the block ends.

    Ctrl-C in the block is noted in the run and goes no further: what was
    measured is worth showing.
    """
    run = Run(
        schema_=SCHEMA,
        name=name or command,
        command=command,
        started=datetime.now(UTC),
        environment=session.environment,
        config=config,
    )
    with _kept(RunFolder.create(parent, run), session) as folder:
        yield folder


@contextlib.contextmanager
def reopened(path: Path, run: Run, session: Session) -> Iterator[RunFolder]:
    """The folder of a run that goes on."""
    samples = (
        f"gone on with after {len(run.samples)} samples, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )
    run.environment.notes.append(samples)
    run.interrupted, run.finished = False, None
    with _kept(RunFolder(path if path.is_dir() else path.parent, run), session) as folder:
        yield folder


@contextlib.contextmanager
def _kept(folder: RunFolder, session: Session) -> Iterator[RunFolder]:
    run = folder.run
    folder.save()
    try:
        yield folder
    except KeyboardInterrupt:
        run.interrupted = True
        session.driver.runner.cancel_all()
    finally:
        run.finished = datetime.now(UTC)
        folder.save()


def verdict_of_run(
    folder: RunFolder,
    *,
    json_output: bool,
    baseline: str | None = None,
    incorrect: Sequence[str] = (),
    every_case_counts: bool = False,
) -> int:
    """Prints the run; returns 0 or raises what its outcome is called."""
    run = folder.run
    if json_output:
        print_json(run.document())
    else:
        show(run, folder.path, baseline)
    problem = problem_of(run, folder.path, incorrect, every_case_counts=every_case_counts)
    if problem is None:
        return 0
    say(f"nvcrucible: {problem}")
    return problem.exit_code


def problem_of(
    run: Run, path: Path, incorrect: Sequence[str], *, every_case_counts: bool
) -> CrucibleError | None:
    """What the run's outcome is called; None if all is well."""
    # A campaign answers for every failure, a bench for those that are news.
    failed = [
        verdict
        for verdict in run.verdicts
        if (verdict.failed if every_case_counts else verdict.unexplained)
    ]
    if run.interrupted:
        return Interrupted(
            f"Interrupted. Every job has been ended; {_amount(run)} so far are kept in {path}. "
            f"`nvcrucible report {path}` shows them again"
            + (f", `nvcrucible bench --resume {path}` goes on." if run.command == "bench" else ".")
        )
    if failed or incorrect:
        return CorrectnessFailure(_failure_text(run, path, incorrect))
    judged = sum(verdict.cases for verdict in run.verdicts)
    measured = sum(1 for sample in run.samples if sample.accepted and sample.error is None)
    if not judged and not measured:
        return NothingMeasured(
            f"Nothing was measured: {_first_error(run)}. Expected at least one sample or case. "
            f"`nvcrucible doctor` examines this machine; {path}/run.json has every error."
        )
    unjudged = [verdict for verdict in run.verdicts if verdict.errors or not verdict.cases]
    if every_case_counts and unjudged:
        names = ", ".join(f"{verdict.allocator} ({verdict.errors})" for verdict in unjudged)
        return NothingMeasured(
            f"Cases without a verdict: {names}; the first said: {_first_error(run)}. Expected a "
            "verdict of each. Run it again with the same seed; if it comes back, the driver or the "
            "adapter is at fault."
        )
    return None


def _amount(run: Run) -> str:
    cases = sum(verdict.cases for verdict in run.verdicts)
    parts = [f"{len(run.samples)} samples"] if run.command == "bench" else []
    if cases or run.command == "fault":
        parts.append(f"{cases} cases")
    return " and ".join(parts)


def _first_error(run: Run) -> str:
    errors = [sample.error for sample in run.samples if sample.error]
    errors += [verdict.error for verdict in run.verdicts if verdict.error]
    errors += list(run.environment.skipped.values())
    return errors[0].rstrip(".") if errors else "no allocator was left to run"


def _failure_text(run: Run, path: Path, incorrect: Sequence[str]) -> str:
    parts = []
    for verdict in run.verdicts:
        if not verdict.failed:
            continue
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(verdict.by_kind.items()))
        counts = f"{verdict.failed} of {verdict.cases} cases ({kinds})"
        text = f"{verdict.allocator} broke the recovery contract in {counts}."
        kept = next((case for case in verdict.failures if case.path), None)
        if kept is not None:
            text += f" Replay one: nvcrucible replay {path}/{kept.path}"
        parts.append(text)
    parts += [f"The driver caught a wrong answer in {found}." for found in incorrect[:3]]
    return "\n".join(parts)
