# SPDX-License-Identifier: Apache-2.0
"""What a person sees while jobs run: on a terminal one live bar; elsewhere a
plain line every few seconds; with --json and no terminal, nothing.  Always on
standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["ProgressView", "make_progress"]

PLAIN_EVERY_S = 10.0


class ProgressView(Protocol):
    """A phase of a run, seen by a person."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def begin(self, phase: str, total: int | None) -> None:
        """A new phase of `total` steps (None: not known)."""
        ...

    def resize(self, total: int | None) -> None:
        """The phase has another number of steps than it began with."""
        ...

    def show(self, what: str) -> None:
        """What is being done now."""
        ...

    def advance(self) -> None:
        """One step is done."""
        ...

    def note(self, line: str) -> None:
        """A line that stays."""
        ...


class _Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def begin(self, phase: str, total: int | None) -> None:
        pass

    def resize(self, total: int | None) -> None:
        pass

    def show(self, what: str) -> None:
        pass

    def advance(self) -> None:
        pass

    def note(self, line: str) -> None:
        print(line, file=sys.stderr)  # noqa: T201 - this is the place that prints


class _Plain(_Silent):
    def __init__(self) -> None:
        self._phase, self._what = "", ""
        self._total: int | None = None
        self._done = 0
        self._began = self._said = time.monotonic()

    def begin(self, phase: str, total: int | None) -> None:
        self._phase, self._what, self._total, self._done = phase, "", total, 0
        self._began = time.monotonic()
        self._say()

    def resize(self, total: int | None) -> None:
        self._total = total

    def show(self, what: str) -> None:
        self._what = what
        if time.monotonic() - self._said >= PLAIN_EVERY_S:
            self._say()

    def advance(self) -> None:
        self._done += 1
        if self._done == self._total or time.monotonic() - self._said >= PLAIN_EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._began
        line = f"{self._phase}: {self._done}"
        if self._total is not None:
            line += f" of {self._total}"
            if 0 < self._done < self._total:
                left = elapsed / self._done * (self._total - self._done)
                line += f", about {left:.0f} s left"
        line += f", {elapsed:.0f} s elapsed"
        if self._what and self._done != self._total:
            line += f" ({self._what})"
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class _Live(_Silent):
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[phase]}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[what]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, phase: str, total: int | None) -> None:
        self._task = self._progress.add_task("", total=total, phase=phase, what="")

    def resize(self, total: int | None) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=total)

    def show(self, what: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, what=what)

    def advance(self) -> None:
        if self._task is not None:
            self._progress.advance(self._task)

    def note(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)


def make_progress(*, json_output: bool) -> ProgressView:
    """The view that fits where standard error goes."""
    if sys.stderr.isatty():
        return _Live(Console(stderr=True))
    return _Silent() if json_output else _Plain()
