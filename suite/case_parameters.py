# SPDX-License-Identifier: Apache-2.0
"""What a fault case does, as a function of the campaign's seed and the case's number alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

from suite.plan import derive_seed

__all__ = ["FAULT", "CaseParameters", "case_parameters", "largest_heap"]

MIB = 1 << 20
FAULT = "sigkill"
HEAP_SIZES = (16 * MIB, 32 * MIB, 64 * MIB)
SLOTS = (64, 256, 1024)
THREADS = (1, 2, 4)
GENERATIONS = (3, 4, 6)


@dataclass(frozen=True)
class CaseParameters:
    """What one case does; a function of the seed and the number only."""

    number: int
    seed: int
    heap_bytes: int
    slots: int
    threads: int
    generations: int


def case_parameters(seed: int, allocator: str, number: int, min_heap: int = 0) -> CaseParameters:
    """The case of that number."""
    own = derive_seed(seed, FAULT, allocator, number)
    draw = random.Random(own)  # noqa: S311 - repeatable, not secret
    sizes = [size for size in HEAP_SIZES if size >= min_heap] or [min_heap]
    return CaseParameters(
        number=number,
        seed=own,
        heap_bytes=draw.choice(sizes),
        slots=draw.choice(SLOTS),
        threads=draw.choice(THREADS),
        generations=draw.choice(GENERATIONS),
    )


def largest_heap(min_heap: int = 0) -> int:
    """The biggest heap that a case makes."""
    return max(*HEAP_SIZES, min_heap)
