# SPDX-License-Identifier: Apache-2.0
"""What `bench`, `fault` and `replay` share: a runner, the native programs, a
place on the NVM, and an orderly end.

Order of setting up: what the user typed is checked before anything is built
or made (exit 2 comes before exit 3).  Whatever ends the session (an error,
Ctrl-C, SIGTERM, a closed terminal): every job is ended by the process group or container that we
started, and the private folders are removed.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from suite.allocators import Allocator
from suite.build import find_build, install
from suite.calibration import calibrate
from suite.driver import Driver
from suite.errors import EnvironmentMissing
from suite.machine import describe_environment
from suite.nvm import find_nvm, require_space, scratch
from suite.results import Environment
from suite.runners import choose_runner
from suite.variants import Variant

__all__ = ["Session", "open_session", "say"]

UNSUPPORTED = "unsupported"
"""Where `nvdrive info` failed: this machine has not what the options need."""


def say(line: str) -> None:
    """A line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the place that prints notes


@dataclass
class Session:
    """An open session.  `allocators` are those that can really be had."""

    driver: Driver
    environment: Environment
    allocators: list[Allocator]
    min_heaps: dict[str, int] = field(default_factory=dict)

    def lacking(self, allocator: Allocator, workload: Variant) -> str | None:
        """The first capability that a workload needs and the allocator's adapter has not; what
        is made for certain workloads lacks all others."""
        if not allocator.runs(workload.family, workload.values):
            return "persistent"  # the one of which nothing is said
        if allocator.program is not None:
            return None
        facts = self.environment.allocators.get(allocator.name, {})
        capabilities = list(facts.get("capabilities", []))
        if allocator.persistent and allocator.stands_as == "volatile":
            capabilities.remove("persistent")  # with the bench's options it is not
        if "persistent" in capabilities and facts.get("consistency") != "none":
            capabilities.append("crash-safe")
        return workload.lacking(capabilities)

    def modelled(self, allocator: Allocator, workload: Variant) -> bool:
        """Whether a device model can say what of that would be slower, if anything."""
        facts = self.environment.allocators.get(allocator.name, {}).get("capabilities", [])
        if allocator.program is not None or workload.is_trial:
            return False
        return "observable" in facts or not ({"persistent", "file"} & set(facts))


@contextlib.contextmanager
def open_session(
    root: Path,
    allocators: Sequence[Allocator],
    *,
    runner_name: str,
    pm: Path | None,
    required: bool,
    space_bytes: int,
    space_for: str,
    calibrate_threads: int = 0,
) -> Iterator[Session]:
    """Everything that jobs need.  With `required`, an allocator that can't be had is
    an error (the user named it); else it is left out and the environment says why.  With
    `calibrate_threads`, the machine's own limits are measured first, for so many threads."""
    nvm = find_nvm(pm)
    require_space(nvm, space_bytes, space_for)
    with _signals_as_interrupt(), contextlib.ExitStack() as stack:
        runner = choose_runner(runner_name, say)
        stack.callback(runner.close)
        build = runner.build() or find_build(root)
        installation = install(root, build, allocators)
        driver = Driver(runner, installation, stack.enter_context(scratch(nvm)))
        environment = describe_environment(root, nvm)
        environment.runner = runner.describe()
        session = Session(driver, environment, [])
        try:
            _ask_allocators(session, allocators, required=required)
            if calibrate_threads:
                _calibrate(session, calibrate_threads)
            yield session
        except KeyboardInterrupt:
            runner.cancel_all()
            raise


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command in the same orderly way as Ctrl-C.

    The first signal raises KeyboardInterrupt; from then on, to the end of this process, they
    are ignored, so that an impatient second one can't cut short what the first began: ending
    jobs (which takes SIGKILLs only), saving, removing folders, printing.  SIGINT is set also where it
    was ignored: a shell script starts its background jobs so, and whoever then
    sends it by hand means it.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:  # none has come
            for number, handler in zip(signals, previous, strict=True):
                signal.signal(number, handler)


def _ask_allocators(session: Session, allocators: Sequence[Allocator], *, required: bool) -> None:
    """Loads each adapter once: is its library there, what is it, what does it need?"""
    for allocator in allocators:
        problem = _ask(session, allocator)
        if problem is None:
            session.allocators.append(allocator)
        elif required and allocator.name not in session.environment.unsupported:
            raise EnvironmentMissing(problem)
        else:
            session.environment.skipped[allocator.name] = problem
            say(f"left out: {problem}")


def _ask(session: Session, allocator: Allocator) -> str | None:
    """None, or the paragraph that says why this allocator can't be had."""
    driver = session.driver
    try:
        adapter = driver.installation.program(allocator)
        if allocator.program is None:
            adapter = driver.installation.adapter(allocator)
        arguments = driver.adapter_arguments(allocator)
        answer = driver.simple(
            f"info {allocator.name}", "info", arguments, "info", allocator=allocator
        )
    except EnvironmentMissing as error:
        return str(error)
    if answer.result is None and answer.where == "missing":
        return f"The allocator '{allocator.name}' can't be had here: {answer.error}."
    if answer.result is None and answer.where == UNSUPPORTED:
        reason = (answer.error or UNSUPPORTED).removeprefix(f"{UNSUPPORTED}: ")
        session.environment.unsupported[allocator.name] = {**_facts(allocator), "reason": reason}
        return f"The allocator '{allocator.name}' is not supported here: {reason}."
    if answer.result is None:
        packages = " ".join(allocator.file.debian.run)
        advice = (
            f"Install its library (Debian: `apt-get install {packages}`)."
            if packages
            else "Build it again against this project's adapter.h and libraries that are here."
        )
        return (
            f"The allocator '{allocator.name}' can't be loaded from {adapter}: {answer.error}. "
            f"Expected an adapter that `nvdrive info` can open. {advice}"
        )
    facts = answer.result.get("adapter", {})
    told = "persistent" if "persistent" in facts.get("capabilities", []) else "volatile"
    if allocator.persistent and told == "volatile":
        return (
            f"The allocator '{allocator.name}' is 'kind: persistent' in its allocator.yaml, but its "
            "adapter has not the capability NVC_PERSISTENT. Expected both to say the same. Correct "
            "one of them."
        )
    session.environment.allocators[allocator.name] = {
        **facts,
        **_facts(allocator),
        "built": driver.installation.built(allocator),
        "program": allocator.program is not None,
    }
    session.min_heaps[allocator.name] = int(facts.get("min_size") or 0)
    return None


def _facts(allocator: Allocator) -> dict[str, object]:
    """What its allocator.yaml says of it."""
    return {
        "kind": "persistent" if allocator.persistent else "volatile",
        "consistency": allocator.consistency,
        "stands_as": allocator.stands_as,
        "options": allocator.options,
        "fault_options": allocator.fault_options,
    }


def _calibrate(session: Session, threads: int) -> None:
    """Measures the machine's own limits, in the same place where the heaps will lie."""
    found = calibrate(session.driver, threads)
    session.environment.calibration = found.document
    if found.error is not None:
        session.environment.notes.append(f"not calibrated: {found.error}")
