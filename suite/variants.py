# SPDX-License-Identifier: Apache-2.0
"""A workload with all its parameters fixed: what a row of the tables is about.

A workload's profile, or -p on the command line, may give a parameter several values; every
combination of them is a variant.  Its name is the workload's, and after it the parameters that
make it another one than its siblings: those with several values and those stated with -p,
unless they have their default; and any whose values have names.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.errors import BadInput, nearest
from suite.workloads import Budget, Workload

__all__ = ["DEFAULT_THREADS", "Override", "Variant", "parse_overrides", "variants_of"]

DEFAULT_THREADS = (1, 2)
TRACE = "trace"
"""-p replay.trace=NAME or FILE: what looks like a parameter, and names a trace."""


@dataclass(frozen=True)
class Override:
    """`-p [WORKLOAD.]PARAMETER=VALUES`."""

    workload: str | None
    """None: every workload that has the parameter."""
    parameter: str
    values: str


@dataclass(frozen=True)
class Variant:
    """One row's workload."""

    workload: Workload
    name: str
    """Of the row, e.g. "kv mix=A index=hash"."""
    values: Mapping[str, int]
    """Of every parameter."""
    budget: Budget
    trace: str | None = None
    """Of the workload's recordings, by name; or a file of the user's."""

    @property
    def family(self) -> str:
        """The workload's own name."""
        return self.workload.name

    @property
    def heap_bytes(self) -> int:
        return self.workload.heap_bytes

    @property
    def can_be_stepped(self) -> bool:
        return not (self.is_trial or self.workload.operation)

    @property
    def is_trial(self) -> bool:
        return self.workload.shape == "trial"

    def thread_counts(self, stated: Sequence[int] | None) -> list[int]:
        """How many threads it runs on, where the command line states these, or none."""
        counts = list(stated or self.workload.threads or DEFAULT_THREADS)
        most = self.workload.max_threads
        return counts if most is None else [n for n in counts if n <= most] or [most]

    def lacking(self, capabilities: Sequence[str]) -> str | None:
        """The first capability that an adapter with these lacks."""
        return next((need for need in self.workload.needs if need not in capabilities), None)

    def document(self) -> dict[str, object]:
        """For the run's `config`."""
        return {
            "family": self.family,
            "shape": self.workload.shape,
            "operation": self.workload.operation,
            "heap_bytes": self.heap_bytes,
            "parameters": dict(self.values),
            "trace": self.trace,
        }


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """The command line's -p options."""
    overrides = []
    for text in texts:
        target, equals, values = text.partition("=")
        workload, dot, parameter = target.rpartition(".")
        if not (equals and values and parameter) or (dot and not workload):
            raise BadInput(
                f"-p {text}: expected [WORKLOAD.]PARAMETER=VALUES, such as size=64..1024 or "
                "larson.epoch=1000,5000."
            )
        overrides.append(Override(workload or None, parameter, values))
    return overrides


def variants_of(
    workloads: Sequence[Workload],
    profile: str,
    overrides: Sequence[Override] = (),
    *,
    named: bool = True,
) -> list[Variant]:
    """Every variant of these workloads.  Unless they were `named`, without those that the
    profile skips."""
    _check_targets(workloads, overrides)
    found = []
    for workload in workloads:
        budget = workload.budget(profile)
        if named or not budget.skip:
            found += _variants(workload, profile, budget, overrides)
    return found


def _check_targets(workloads: Sequence[Workload], overrides: Sequence[Override]) -> None:
    for each in overrides:
        owners = [workload for workload in workloads if each.workload in (None, workload.name)]
        if not owners:
            raise BadInput(
                f"-p {each.workload}.{each.parameter}: the workload '{each.workload}' is not among "
                f"those that are run: {', '.join(workload.name for workload in workloads)}."
            )
        known = {name for workload in owners for name in workload.parameters}
        known |= {TRACE for workload in owners if workload.recordings}
        if each.parameter not in known:
            raise BadInput(
                f"-p {each.parameter}: no workload that is run has a parameter "
                f"'{each.parameter}'{nearest(each.parameter, known)} They have: "
                f"{', '.join(sorted(known))}."
            )


def _variants(
    workload: Workload, profile: str, budget: Budget, overrides: Sequence[Override]
) -> list[Variant]:
    settings = workload.settings(profile)
    stated = set()
    for each in overrides:
        if each.workload in (None, workload.name) and each.parameter in settings:
            stated.add(each.parameter)
            try:
                settings[each.parameter] = workload.parameters[each.parameter].values(each.values)
            except ValueError as error:
                raise BadInput(
                    f"-p {each.parameter}={each.values}: '{each.parameter}' of the workload "
                    f"'{workload.name}' takes {error}."
                ) from error
    told = [
        name
        for name, values in settings.items()
        if name in stated or len(values) > 1 or workload.parameters[name].names
    ]
    found = []
    for trace, combination in itertools.product(
        _traces(workload, overrides), itertools.product(*settings.values())
    ):
        values = dict(zip(settings, combination, strict=True))
        if workload.sensible(values):
            name = _name(workload, told, values, trace)
            found.append(Variant(workload, name, values, budget, trace))
    if not found:
        raise BadInput(
            f"The workload '{workload.name}' can't be run so: no combination of the values stated "
            "with -p makes sense for it (see 'without' in its YAML file)."
        )
    return found


def _traces(workload: Workload, overrides: Sequence[Override]) -> Sequence[str | None]:
    if not workload.recordings:
        return [None]
    chosen: list[str] = []
    for each in overrides:
        if each.workload in (None, workload.name) and each.parameter == TRACE:
            chosen += each.values.split(",")
    for name in chosen:
        if name not in workload.recordings and not Path(name).is_file():
            raise BadInput(
                f"-p {TRACE}={name}: there is no trace of that name"
                f"{nearest(name, workload.recordings)} and no such file. Expected one of "
                f"{', '.join(workload.recordings)}, or a file that `nvcrucible record` made."
            )
    return chosen or list(workload.recordings)


def _name(
    workload: Workload, told: Sequence[str], values: Mapping[str, int], trace: str | None
) -> str:
    words = [workload.name]
    if trace is not None:
        words.append(f"{TRACE}={trace if trace in workload.recordings else Path(trace).stem}")
    for name in told:
        parameter = workload.parameters[name]
        if parameter.names or values[name] != parameter.default:
            words.append(f"{name}={parameter.shown(values[name])}")
    return " ".join(words)
