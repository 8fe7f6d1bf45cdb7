# SPDX-License-Identifier: Apache-2.0
"""What a runner is: a place where one job (one `nvdrive` process) runs.

Model
-----
A `Job` says *what* is to run and under which limits; a `Runner` decides *where*
and returns a `RunningJob`, whose `wait` streams standard output line by line
and ends in an `Outcome`.  The campaign and the bench know nothing else.

Paths.  An argument of a job that names a file is a `Path`, never a `str`: these are
the host's paths, and a runner that shows the job another file system (a
container) relocates them; a `str` argument is passed on untouched.  All paths of a job lie
under `job.pm_dir` (read-write; the emulated or real NVM, must outlive the job),
`job.work_dir` (read-write; outside the NVM: journals, cases) or one of
`job.read_only` (the build, an adapter from outside the tree).

Threads.  `start`, `wait` and `kill` may be called from several threads at
once, one thread a job; `cancel_all` from any thread, at any time.

Safety.  Arguments are lists; nothing is ever handed to a shell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from suite.build import Build

__all__ = ["Argument", "Job", "LineSink", "Outcome", "Runner", "RunningJob"]

Argument = str | Path
"""One element of a job's command line; a `Path` may be relocated by the runner."""

LineSink = Callable[[str], None]
"""Receives each line of the job's standard output, without its newline, as it comes."""


@dataclass(frozen=True)
class Job:
    """One process to run, and its limits."""

    label: str
    """For people: "bench pmdk larson x2 #3"."""
    program: Path
    arguments: tuple[Argument, ...]
    pm_dir: Path
    """A private directory (mode 0700) on the NVM for this job; exists already."""
    work_dir: Path
    """A private directory outside the NVM for this job; exists already."""
    timeout_s: float
    """The whole job is killed when it takes longer (wall clock)."""
    read_only: tuple[Path, ...] = ()
    """Folders that hold `program`, adapters and libraries."""
    preload: tuple[Path, ...] = ()
    """Libraries for LD_PRELOAD, in order."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal environment; the caller's environment is not inherited."""
    cpus: tuple[int, ...] = ()
    """CPUs that the job may use; empty: all that we may use."""
    memory_bytes: int | None = None
    """Memory limit, heap file on tmpfs included where the runner can (cgroup)."""
    image: str = "job"
    """The image that holds `program` (`suite.images`); only runners with images look at it."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    exit_code: int | None
    """The process's exit code; None when a signal ended it."""
    signal: int | None
    """The signal that ended it, if one did."""
    timed_out: bool
    oom_killed: bool
    """The memory limit killed it or a process in it (exit code 0 notwithstanding)."""
    cancelled: bool
    """We ended it: `cancel_all` or `kill` was called."""
    stderr_tail: str
    """The last few kilobytes of standard error."""
    wall_s: float
    cpu_s: float | None
    """User + system time of the job and its descendants; None: unknown."""

    @property
    def ok(self) -> bool:
        return (
            self.exit_code == 0
            and not self.timed_out
            and not self.oom_killed
            and not self.cancelled
        )

    def explain(self) -> str:
        """One clause for a table or an error: how the job ended."""
        if self.cancelled:
            return "was cancelled"
        if self.timed_out:
            return f"did not end within its time limit (killed after {self.wall_s:.0f} s)"
        if self.oom_killed:
            return "was killed by its memory limit"
        if self.signal is not None:
            return f"was killed by signal {self.signal}"
        return f"ended with exit code {self.exit_code}"


@runtime_checkable
class RunningJob(Protocol):
    """A job that was started."""

    def wait(self, on_line: LineSink | None = None) -> Outcome:
        """Streams output to `on_line` until the job ends or its time is up.

        All processes of the job are gone when this returns or raises.
        """
        ...

    def kill(self) -> None:
        """SIGKILLs every process of the job; `wait` then returns.  Idempotent."""
        ...


@runtime_checkable
class Runner(Protocol):
    """A place for jobs."""

    @property
    def name(self) -> str:
        """As given to `--runner`."""
        ...

    def describe(self) -> dict[str, object]:
        """JSON-able facts for the environment of a result (engine version, image ids, limits)."""
        ...

    def build(self) -> Build | None:
        """The programs in this runner's image, if its jobs do not use this machine's build.

        None: jobs run what the orchestrator builds here.
        """
        ...

    def start(self, job: Job) -> RunningJob:
        """Starts the job.  Raises `suite.errors.EnvironmentMissing` when it can't be started."""
        ...

    def cancel_all(self) -> None:
        """Ends every job that runs now and refuses to start others (Ctrl-C)."""
        ...

    def close(self) -> None:
        """Ends every job and removes what the runner made.  Idempotent."""
        ...
