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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from suite.allocators import Allocator
from suite.errors import BadInput
from suite.results import Sample
from suite.workloads import Workload

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


PROFILES = {
    "quick": Profile(
        repeat=2, warmup_s=0.05, seconds=0.15, latency_s=0.05, survival_cases=20, steps=40_000
    ),
    "default": Profile(
        repeat=5, warmup_s=0.1, seconds=0.35, latency_s=0.1, survival_cases=100, steps=100_000
    ),
    "full": Profile(
        repeat=10, warmup_s=0.5, seconds=2.0, latency_s=0.5, survival_cases=500, steps=400_000
    ),
}


@dataclass(frozen=True)
class Cell:
    """One sample to take."""

    allocator: Allocator
    workload: Workload
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
    workloads: Sequence[Workload],
    threads: Sequence[int],
    repeats: int,
    seed: int,
) -> list[Cell]:
    """Every sample of a bench, in the order in which they are to be taken."""
    order = random.Random(derive_seed(seed, "order"))  # noqa: S311 - repeatable, not secret
    plan: list[Cell] = []
    for repeat in range(repeats):
        cells = [(workload, count) for workload in workloads for count in threads]
        order.shuffle(cells)
        for workload, count in cells:
            # The same requests for every allocator: the seed doesn't depend on it.
            cell_seed = derive_seed(seed, workload.name, count, repeat)
            row = list(allocators)
            order.shuffle(row)
            plan += [Cell(each, workload, count, repeat, False, cell_seed) for each in row]
            if repeat == 0:
                plan += [
                    Cell(each, workload, count, 0, True, cell_seed)
                    for each in row
                    if each.persistent
                ]
    return plan


def stepping_plan(plan: Sequence[Cell], samples: Sequence[Sample]) -> list[Cell]:
    """One stepped sample of each allocator and workload that ran on one thread and whose
    instructions nobody could count: the machine or the container has no counter."""
    counted: dict[tuple[str, str], bool] = {}
    for sample in samples:
        if sample.threads == 1 and not sample.observed and sample.error is None:
            key = (sample.allocator, sample.workload)
            has_count = sample.metrics.instructions_per_op is not None
            counted[key] = counted.get(key, False) or has_count
    return [
        replace(cell, stepped=True)
        for cell in plan
        if (cell.threads, cell.repeat, cell.observed) == (1, 0, False)
        and counted.get((cell.allocator.name, cell.workload.name)) is False
    ]


def profile_named(name: str) -> Profile:
    """The profile; `BadInput` if there is none of that name."""
    if name not in PROFILES:
        raise BadInput(
            f"There is no profile called '{name}'. Choose one of: {', '.join(PROFILES)}."
        )
    return PROFILES[name]
