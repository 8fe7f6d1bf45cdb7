# SPDX-License-Identifier: Apache-2.0
"""Places for jobs to run, and the choice among them.

The docker runner's module (`suite.runners.docker`) is imported only when it is
asked for.  It must offer `connect() -> Runner`, which raises
`RunnerUnavailable` with a whole paragraph when no engine answers, the engine
refuses us, or its images can't be had.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from suite.errors import BadInput, RunnerUnavailable, nearest
from suite.runners.base import Job, Outcome, Runner, RunningJob
from suite.runners.local import LocalRunner

__all__ = ["RUNNERS", "Job", "Outcome", "Runner", "RunningJob", "choose_runner"]

RUNNERS = ("auto", "docker", "local")


def _connect_docker() -> Runner:
    try:
        module = importlib.import_module("suite.runners.docker")
    except ImportError as error:
        raise RunnerUnavailable(
            f"The docker runner can't be loaded ({error}). It needs the Python package 'docker'. "
            "Install the project with `pip install .`, or use --runner local."
        ) from error
    connect = cast("Callable[[], Runner]", module.connect)
    return connect()


def choose_runner(name: str, say: Callable[[str], None] = lambda _line: None) -> Runner:
    """The runner called `name`; `auto` takes docker where it works, else local.

    `say` receives one line when the choice was ours.
    """
    if name == "local":
        return LocalRunner()
    if name == "docker":
        return _connect_docker()
    if name != "auto":
        raise BadInput(
            f"There is no runner called '{name}'{nearest(name, RUNNERS)} "
            f"Choose one of: {', '.join(RUNNERS)}."
        )
    try:
        runner = _connect_docker()
    except RunnerUnavailable as error:
        say(f"runner: local ({first_sentence(str(error))})")
        return LocalRunner()
    say("runner: docker (an engine answers; every job gets its own container)")
    return runner


def first_sentence(paragraph: str) -> str:
    """The reason alone, for the one line that `auto` prints."""
    head, _, _ = paragraph.partition(". ")
    return head.rstrip(".")
