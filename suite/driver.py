# SPDX-License-Identifier: Apache-2.0
"""Runs `nvdrive` commands through a runner and reads what they print.

The protocol is docs/driver-protocol.md: JSON documents, one a line; the last
one is the answer.  A driver that dies, hangs or prints garbage is never an
exception here but an `Answer` with an `error`: a run goes on without it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.allocators import COMMON_IMAGE, Allocator
from suite.build import Installation
from suite.nvm import Scratch
from suite.runners.base import Argument, Job, Outcome, Runner

__all__ = ["Answer", "Driver", "Work"]

EXIT_INCORRECT = 4
DOCUMENTS_KEPT = 10_000


@dataclass(frozen=True)
class Answer:
    """What one nvdrive command said, and how it ended."""

    outcome: Outcome
    documents: tuple[dict[str, Any], ...]
    result: dict[str, Any] | None
    """The last document, if it is of the type that was asked for."""
    error: str | None
    """Why there is no result: one clause."""

    @property
    def where(self) -> str | None:
        """The place of failure that the driver named, if it named one."""
        last = self.documents[-1] if self.documents else {}
        where = last.get("where") if last.get("type") == "error" else None
        return where if isinstance(where, str) else None

    @property
    def incorrect(self) -> bool:
        """The driver found the allocator to do what it must not."""
        return self.outcome.exit_code == EXIT_INCORRECT


@dataclass(frozen=True)
class Work:
    """One nvdrive command to run."""

    label: str
    command: str
    arguments: tuple[Argument, ...]
    expects: str
    """Type of the last document."""
    timeout_s: float
    pm_dir: Path
    work_dir: Path
    allocator: Allocator | None = None
    probe: bool = False
    """Preload what makes persistence events visible."""
    cpus: tuple[int, ...] = ()
    memory_bytes: int | None = None
    inputs: tuple[Path, ...] = ()
    """Folders besides the build's that the job reads."""
    program: Path | None = None
    """Instead of nvdrive: a program that speaks the same protocol."""


class _Reader:
    """Collects the documents of a job's output; remembers the first line that is none."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.garbage: str | None = None

    def __call__(self, line: str) -> None:
        if not line.strip():
            return
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("type"), str):
            self.garbage = self.garbage or line[:80]
        elif len(self.documents) < DOCUMENTS_KEPT:
            self.documents.append(document)
        else:
            self.documents[-1] = document


class Driver:
    """`nvdrive`, as the jobs of one command use it.  Safe for several threads."""

    def __init__(self, runner: Runner, installation: Installation, scratch: Scratch) -> None:
        self.runner = runner
        self.installation = installation
        self.scratch = scratch
        self._numbers = itertools.count(1)

    def job_number(self) -> int:
        return next(self._numbers)

    def adapter_arguments(
        self, allocator: Allocator, *, judged: bool = False
    ) -> tuple[Argument, ...]:
        """For a job of the bench; or of a fault campaign, where it is `judged`."""
        arguments: list[Argument] = []
        if allocator.program is None:
            arguments += ["--adapter", self.installation.adapter(allocator)]
        options = allocator.fault_options if judged else allocator.options
        if options:
            arguments += ["--options", options]
        return tuple(arguments)

    def run(self, work: Work) -> Answer:
        """Runs the command to its end.  Raises only when no job could be started at all."""
        file = work.allocator.file if work.allocator else None
        job = Job(
            label=work.label,
            program=work.program or self.installation.program(work.allocator),
            image=work.allocator.image if work.allocator else COMMON_IMAGE,
            arguments=(work.command, *work.arguments),
            pm_dir=work.pm_dir,
            work_dir=work.work_dir,
            timeout_s=work.timeout_s,
            read_only=(*self.installation.folders(), *work.inputs),
            preload=self._preload(work),
            environment=dict(file.environment) if file else {},
            cpus=work.cpus,
            memory_bytes=work.memory_bytes,
        )
        reader = _Reader()
        outcome = self.runner.start(job).wait(reader)
        return _judge(outcome, reader, work.expects)

    def _preload(self, work: Work) -> tuple[Path, ...]:
        if not work.probe or work.allocator is None:
            return ()
        return tuple(self._library(name) for name in work.allocator.file.preload)

    def _library(self, name: str) -> Path:
        probe = self.installation.build.probe
        return (
            probe if name in (probe.name, "libpmem-probe") else self.installation.build.root / name
        )

    def calibrate(
        self,
        pm_dir: Path,
        work_dir: Path,
        seconds: float,
        timeout_s: float,
        threads: int = 2,
        cpus: tuple[int, ...] = (),
    ) -> Answer:
        """Measures fences, flushes and non-temporal lines on the NVM directory."""
        arguments: list[Argument] = ["--dir", pm_dir, "--seconds", str(seconds)]
        arguments += ["--threads", str(threads)]
        if cpus:
            arguments += ["--cpus", ",".join(map(str, cpus))]
        return self.run(
            Work(
                label="calibrate",
                command="calibrate",
                arguments=tuple(arguments),
                expects="calibration",
                timeout_s=timeout_s,
                pm_dir=pm_dir,
                work_dir=work_dir,
            )
        )

    def simple(
        self,
        label: str,
        command: str,
        arguments: Sequence[Argument],
        expects: str,
        timeout_s: float = 60.0,
        allocator: Allocator | None = None,
    ) -> Answer:
        """A command that needs no heap of its own: fresh folders, then run."""
        with self.scratch.job(self.job_number()) as (pm_dir, work_dir):
            return self.run(
                Work(
                    label=label,
                    command=command,
                    arguments=tuple(arguments),
                    expects=expects,
                    timeout_s=timeout_s,
                    pm_dir=pm_dir,
                    work_dir=work_dir,
                    allocator=allocator,
                )
            )


def _judge(outcome: Outcome, reader: _Reader, expects: str) -> Answer:
    documents = tuple(reader.documents)
    last = documents[-1] if documents else None
    error: str | None = None
    if outcome.cancelled or outcome.timed_out or outcome.oom_killed or outcome.signal is not None:
        error = f"the driver {outcome.explain()}"
    elif last is not None and last["type"] == "error":
        error = _said(last)
    elif last is None or last["type"] != expects:
        what = (
            f"{reader.garbage!r}" if reader.garbage else f"{last['type']!r}" if last else "nothing"
        )
        error = (
            f"the driver {outcome.explain()} and printed {what}, where a '{expects}' was expected"
        )
    elif outcome.exit_code not in (0, EXIT_INCORRECT):
        error = f"the driver {outcome.explain()} after its '{expects}'"
    if error is not None and outcome.stderr_tail and (last is None or last["type"] != "error"):
        error += f" (it said: {outcome.stderr_tail.splitlines()[-1][:200]})"
    result = last if error is None else None
    return Answer(outcome, documents, result, error)


def _said(document: dict[str, Any]) -> str:
    where = document.get("where")
    message = document.get("message") or document.get("error") or "no reason given"
    return f"{where}: {message}" if where else str(message)
