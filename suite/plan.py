# SPDX-License-Identifier: Apache-2.0
"""Which samples are taken, and in which order.

Rounds of repeats; in a round the (workload, threads) cells in a shuffled order;
in a cell the allocators in a shuffled order.  So the samples that are
compared with each other are taken close together in time, a slow drift of
the machine hits all allocators alike, and no allocator always comes first.
The seed fixes the order.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from suite.allocators import Allocator
from suite.errors import BadInput
from suite.results import Sample
from suite.variants import Variant

__all__ = [
    "PROFILES",
    "Cell",
    "Profile",
    "bench_plan",
    "derive_seed",
    "profile_named",
    "stepping_plan",
]


@dataclass(frozen=True)
class Profile:
    """How much time a bench takes."""

    repeat: int
    warmup_s: float
    seconds: float
    latency_s: float
    survival_cases: int
    steps: int
    """Instructions to step over in a stepped sample."""
    budget_s: float | None
    """For the whole bench (suite/budget.py); None: as long as it takes."""
    observe_all: bool
    """Count costs on every number of threads, not on the first one only: they hardly differ."""


# Many short samples tell more than few long ones: what differs from process to process (where the
# memory lies, who else is on the host) is larger than what differs within a tenth of a second.
# And it takes 8 samples a side before `compare` can call one of 400 figures regressed, 9 of 1200
# (suite/statistics.py, least_samples); `default` has two more, for those that others disturb.
PROFILES = {
    "quick": Profile(
        repeat=2, warmup_s=0.02, seconds=0.05, latency_s=0.01, survival_cases=10, steps=20_000,
        budget_s=165, observe_all=False,
    ),
    "default": Profile(
        repeat=10, warmup_s=0.04, seconds=0.1, latency_s=0.03, survival_cases=100, steps=40_000,
        budget_s=1440, observe_all=True,
    ),
    "full": Profile(
        repeat=20, warmup_s=0.2, seconds=0.5, latency_s=0.2, survival_cases=500, steps=400_000,
        budget_s=None, observe_all=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One sample to take."""

    allocator: Allocator
    workload: Variant
    threads: int
    repeat: int
    observed: bool
    seed: int
    stepped: bool = False

    @property
    def label(self) -> str:
        what = "instructions" if self.stepped else "costs" if self.observed else f"#{self.repeat}"
        return f"{self.allocator.name} {self.workload.name} x{self.threads} {what}"


def derive_seed(seed: int, *parts: object) -> int:
    """A seed for one part of a run: 63 bits of a hash, so that parts don't correlate."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def bench_plan(
    allocators: Sequence[Allocator],
    workloads: Sequence[Variant],
    threads: Sequence[int] | None,
    repeats: int,
    seed: int,
    able: Callable[[Allocator, Variant], bool] = lambda _allocator, _workload: True,
    *,
    observe_all: bool = True,
) -> list[Cell]:
    """Every sample of a bench, in the order in which they are to be taken.  `threads` as stated
    by the user; a workload's budget may take another number of repeats.  No sample is planned of
    what an allocator is not able to run."""
    order = random.Random(derive_seed(seed, "order"))  # noqa: S311 - repeatable, not secret
    plan: list[Cell] = []
    rounds = {workload.name: workload.budget.repeat or repeats for workload in workloads}
    for repeat in range(max(rounds.values(), default=0)):
        cells = [
            (workload, count)
            for workload in workloads
            if repeat < rounds[workload.name]
            for count in workload.thread_counts(threads)
        ]
        order.shuffle(cells)
        for workload, count in cells:
            # The same requests for every allocator: the seed doesn't depend on it.
            cell_seed = derive_seed(seed, workload.name, count, repeat)
            row = [each for each in allocators if able(each, workload)]
            order.shuffle(row)
            plan += [Cell(each, workload, count, repeat, False, cell_seed) for each in row]
            first = count == workload.thread_counts(threads)[0]
            if repeat == 0 and not workload.is_trial and (first or observe_all):
                plan += [
                    Cell(each, workload, count, 0, True, cell_seed) for each in row if each.judged
                ]
    return plan


def stepping_plan(plan: Sequence[Cell], samples: Sequence[Sample]) -> list[Cell]:
    """One stepped sample of each allocator and workload that ran on one thread and whose
    instructions nobody could count: the machine or the container has no counter.  The durable ones
    first, in case that time runs out."""
    counted: dict[tuple[str, str], bool] = {}
    for sample in samples:
        if sample.threads == 1 and not sample.observed and sample.error is None:
            key = (sample.allocator, sample.workload)
            has_count = sample.metrics.instructions_per_op is not None
            counted[key] = counted.get(key, False) or has_count
    cells = [
        replace(cell, stepped=True)
        for cell in plan
        if (cell.threads, cell.repeat, cell.observed) == (1, 0, False)
        and cell.workload.can_be_stepped
        and cell.allocator.program is None
        and counted.get((cell.allocator.name, cell.workload.name)) is False
    ]
    return sorted(cells, key=lambda cell: not cell.allocator.persistent)


def profile_named(name: str) -> Profile:
    """The profile; `BadInput` if there is none of that name."""
    if name not in PROFILES:
        raise BadInput(
            f"There is no profile called '{name}'. Choose one of: {', '.join(PROFILES)}."
        )
    return PROFILES[name]
