# SPDX-License-Identifier: Apache-2.0
"""Every error that a user can meet, each with its exit code.

An error is one paragraph: what was found and where, what was expected, what
to do.  Exit codes are part of the interface (scripts and CI jobs act on them):
0 ok, 1 regression, 2 usage, 3 nothing measured or environment missing,
4 a correctness failure was found, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "BadInput",
    "CorrectnessFailure",
    "CrucibleError",
    "EnvironmentMissing",
    "Interrupted",
    "NotComparable",
    "NothingMeasured",
    "Regression",
    "RunnerUnavailable",
    "nearest",
]

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class CrucibleError(Exception):
    """Base of all of them; `str(error)` is the paragraph that the user reads."""

    exit_code = 1
    kind = "error"


class BadInput(CrucibleError):
    """The command line or a file that it names is wrong."""

    exit_code = 2
    kind = "usage"


class EnvironmentMissing(CrucibleError):
    """The machine lacks something: a compiler, a library, an NVM directory, space."""

    exit_code = 3
    kind = "environment"


class RunnerUnavailable(EnvironmentMissing):
    """This runner cannot work here; `--runner auto` then takes the next one."""

    kind = "runner"


class NothingMeasured(CrucibleError):
    """The run ended without a single usable sample or case."""

    exit_code = 3
    kind = "nothing-measured"


class NotComparable(CrucibleError):
    """Two runs have nothing in common that could be compared."""

    exit_code = 3
    kind = "not-comparable"


class Regression(CrucibleError):
    """The new run is worse than the base."""

    exit_code = 1
    kind = "regression"


class CorrectnessFailure(CrucibleError):
    """An allocator broke the recovery contract."""

    exit_code = 4
    kind = "correctness"


class Interrupted(CrucibleError):
    """Ctrl-C or SIGTERM; what was measured has been kept."""

    exit_code = EXIT_INTERRUPTED
    kind = "interrupted"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that names something unknown: the nearest known name, or a full stop."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else "."
