# SPDX-License-Identifier: Apache-2.0
"""How long a bench will take, and how it ends in time.

A profile states a time for the whole bench.  Its parts, in their order:

    rounds        one sample of every cell a round; as many rounds as the profile wants,
                  or as time allows, at least one: fewer allocators or workloads, more rounds
    instructions  stepped samples, where no hardware counter told (`stepping.h`); their time is
                  set aside, and those that it does not allow all the same are left out
    survival      the fault campaign; its time is set aside from the beginning

A round is never begun that would not end in time, going by the longest one so far, so that every
cell has the same number of samples.  What was left out is noted in the run.  The figures below
are for an idle machine and the local runner; a slower machine or one that starts a container
for each sample does fewer rounds in the same time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from suite.plan import Cell, Profile

__all__ = ["Forecast", "Timetable", "forecast"]

SAMPLE_OVERHEAD_S = 0.06
"""Of a sample: starting the process, making the heap, filling it, reading the result."""
TRIAL_S = 1.5
"""A trial takes as long as it takes; most are done by then."""
STEP_S = 22e-6
STEPPING_OVERHEAD_S = 0.2
LEAST_STEPS = 40_000
"""The first pass is always made, whatever its cost."""
CASE_S = 0.6
"""Of a survival case, in one worker."""


@dataclass(frozen=True)
class Forecast:
    """The parts of a bench, in seconds."""

    samples: int
    rounds: int
    round_s: float
    """Of the first round, which takes the costs too."""
    rounds_s: float
    stepping_s: float
    survival_s: float

    @property
    def total_s(self) -> float:
        return self.rounds_s + self.stepping_s + self.survival_s

    def line(self, budget_s: float | None) -> str:
        """For people, before the bench begins."""
        text = (
            f"plan: {self.samples} samples in {self.rounds} rounds, about {_time(self.rounds_s)}; "
            f"instructions up to {_time(self.stepping_s)}; survival {_time(self.survival_s)}; "
            f"together {_time(self.total_s)}"
        )
        if budget_s is None:
            return text + "."
        if self.total_s <= budget_s:
            return f"{text}, within the profile's {_time(budget_s)}."
        return f"{text}: fewer rounds, to end within the profile's {_time(budget_s)}."


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def forecast(
    plan: Sequence[Cell],
    profile: Profile,
    seconds: float,
    survivors: int,
    cases: int,
    workers: int,
    *,
    stepped: bool,
) -> Forecast:
    """What a plan is likely to take, with `cases` for each of `survivors` allocators."""
    by_round: Counter[int] = Counter()
    for cell in plan:
        by_round[cell.repeat] += 1
    times = [0.0] * (max(by_round, default=-1) + 1)
    for cell in plan:
        times[cell.repeat] += _sample_s(cell, profile, seconds)
    steppable = {
        (cell.allocator.name, cell.workload.name)
        for cell in plan
        if cell.threads == 1 and not cell.workload.is_trial
    }
    each = STEPPING_OVERHEAD_S + STEP_S * max(profile.steps, LEAST_STEPS)
    return Forecast(
        samples=len(plan),
        rounds=len(times),
        round_s=times[0] if times else 0.0,
        rounds_s=sum(times),
        stepping_s=len(steppable) * each if stepped else 0.0,
        survival_s=survivors * cases * CASE_S / max(1, workers),
    )


def _sample_s(cell: Cell, profile: Profile, seconds: float) -> float:
    budget = cell.workload.budget
    if cell.workload.is_trial:
        return TRIAL_S
    windows = (
        profile.warmup_s if budget.warmup_s is None else budget.warmup_s,
        budget.seconds or seconds,
        profile.latency_s if budget.latency_s is None else budget.latency_s,
    )
    return SAMPLE_OVERHEAD_S + sum(windows)


class Timetable:
    """The time that a bench has, from now on."""

    def __init__(self, budget_s: float | None, survival_s: float, stepping_s: float = 0.0) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s
        self._survival_s = survival_s
        self._stepping_s = stepping_s
        self._longest_s = 0.0

    def round_took(self, seconds: float) -> None:
        self._longest_s = max(self._longest_s, seconds)

    def another_round(self) -> bool:
        """Whether one more round, as long as the longest one, would end in time."""
        return self._left_s() - self._stepping_s >= self._longest_s

    def another_sample(self) -> bool:
        """Whether there is time for anything but the survival campaign."""
        return self._left_s() > 0

    def _left_s(self) -> float:
        if self._end is None:
            return float("inf")
        return self._end - self._survival_s - time.monotonic()
