# SPDX-License-Identifier: Apache-2.0
"""How often a sample is taken: again while others disturb it, never again after it hung.

A sample during which others took more than `noise_limit` of the CPUs is taken again,
`ATTEMPTS` times at most, and the least noisy one counts (the document holds them
all). No more than `RETRY_SHARE` of a plan is spent on such repeats, so that a busy
machine makes the run noisy, not endless.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from suite.driver import Answer
from suite.results import Sample

__all__ = ["Attempts"]

ATTEMPTS = 3
RETRY_SHARE = 0.15


class Attempts:
    """Appends to `samples` each attempt, and to `incorrect` each one in which a wrong answer of
    what is measured was caught."""

    def __init__(self, samples: list[Sample], incorrect: list[str], noise_limit: float) -> None:
        self._samples = samples
        self._incorrect = incorrect
        self._noise_limit = noise_limit
        self._retries_left = 0
        self._hung: set[Hashable] = set()

    def begin(self, planned: int) -> None:
        """A plan of so many samples begins."""
        self._retries_left = int(planned * RETRY_SHARE)

    def hung(self, key: Hashable) -> bool:
        """Did a sample with this key run into its time limit?"""
        return key in self._hung

    def take(
        self,
        key: Hashable,
        label: str,
        attempt: Callable[[int], tuple[Sample, Answer]],
        *,
        timed: bool = True,
    ) -> Answer:
        """One sample, in as many attempts as it takes; the answer of the last one.  Neighbours do
        nothing to the figures of one that is not `timed`."""
        taken: list[Sample] = []
        for number in range(1, ATTEMPTS + 1):
            sample, answer = attempt(number)
            self._samples.append(sample)
            if answer.outcome.timed_out:
                self._hung.add(key)
            if answer.incorrect:
                self._incorrect.append(f"{label}: {sample.error}")
            if sample.error is not None:
                return answer
            taken.append(sample)
            if not timed or sample.noise is None or sample.noise <= self._noise_limit:
                break
            if self._retries_left == 0 or number == ATTEMPTS:
                break
            self._retries_left -= 1
        best = min(taken, key=lambda sample: sample.noise or 0.0)
        for sample in taken:
            sample.accepted = sample is best
        return answer
