# SPDX-License-Identifier: Apache-2.0
"""Pure functions over samples: medians, intervals, tests, and what they can and can't tell.

Nothing here knows of runs or allocators.  The same values and seed give the same result.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "CONFIDENCE",
    "MEDIAN_EFFICIENCY",
    "Estimate",
    "detectable",
    "estimate",
    "holm",
    "least_p",
    "least_samples",
    "mann_whitney",
    "ratio",
    "ratio_interval",
    "slope",
]

RESAMPLES = 999
CONFIDENCE = 0.95
EXACT_LIMIT = 50
"""Values a side up to which the exact distribution is quick to compute."""
MEDIAN_EFFICIENCY = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, of normal values."""


@dataclass(frozen=True)
class Estimate:
    """A median with its bootstrap interval; with one value the interval is that value."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Half the interval's width as a share of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


def estimate(values: Sequence[float], seed: int = 0) -> Estimate | None:
    """Median and 95 % percentile-bootstrap interval (Efron & Tibshirani, An
    Introduction to the Bootstrap, 1993, ch. 13); None of no values."""
    if not values:
        return None
    middle = statistics.median(values)
    if min(values) == max(values):
        return Estimate(middle, middle, middle, len(values))
    import numpy as np  # here: it takes a while, and most commands don't need it

    drawn = _medians(values, np.random.default_rng(seed))
    low, high = np.quantile(drawn, _tails())
    return Estimate(middle, float(low), float(high), len(values))


def ratio(value: Estimate | None, base: Estimate | None) -> float | None:
    """How many times the base's median; None where there is none, or it is 0."""
    if value is None or base is None or base.median == 0:
        return None
    return value.median / base.median


def ratio_interval(
    base: Sequence[float], new: Sequence[float], seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """new's median over base's, with its percentile-bootstrap interval: both sides are drawn
    again, independently.  All values must be above 0."""
    import numpy as np

    if not base or not new or min(*base, *new) <= 0:
        raise ValueError("ratio_interval wants values above 0 on both sides")
    generator = np.random.default_rng(seed)
    drawn = _medians(new, generator) / _medians(base, generator)
    low, high = np.quantile(drawn, _tails(confidence))
    middle = statistics.median(new) / statistics.median(base)
    return Estimate(middle, float(low), float(high), min(len(base), len(new)))


def _tails(confidence: float = CONFIDENCE) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _medians(values: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """The medians of RESAMPLES drawings with replacement."""
    import numpy as np

    drawn = generator.choice(np.asarray(values, dtype=float), size=(RESAMPLES, len(values)))
    return np.asarray(np.median(drawn, axis=1))


def mann_whitney(lower: Sequence[float], higher: Sequence[float]) -> float:
    """One-sided p-value of the Mann-Whitney test that the values of `lower` tend to lie below those
    of `higher`: the chance of so clear an order if both came from one distribution.  Exact
    without ties and for up to EXACT_LIMIT values a side, else by the normal approximation."""
    from scipy import stats

    distinct = len({*lower, *higher}) == len(lower) + len(higher)
    exact = distinct and max(len(lower), len(higher)) <= EXACT_LIMIT
    result = stats.mannwhitneyu(
        lower, higher, alternative="less", method="exact" if exact else "asymptotic"
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, adjusted for being so many (Holm, A Simple Sequentially Rejective Multiple
    Test Procedure, Scand. J. Statist. 6, 1979): rejecting those below alpha keeps the
    chance of even one false rejection below alpha, whatever depends on whatever."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def least_p(base: int, new: int) -> float:
    """The least one-sided p-value that the test can give with so many values on each side."""
    return 1.0 / math.comb(base + new, new)


def least_samples(tests: int, alpha: float) -> int:
    """Values needed on each side, so that one of `tests` can be significant at all after
    Holm's correction: the clearest order must be rarer than alpha / tests."""
    count = 1
    while least_p(count, count) * max(1, tests) > alpha:
        count += 1
    return count


def detectable(deviation: float, count: int, margin: float) -> float:
    """The least true factor (1.1: a tenth worse) that will be found to be beyond 1 + margin nine
    times in ten, where the logarithms of `count` values a side deviate by `deviation`.

    From the normal approximation of the median's error: the interval's lower end (1.96
    standard errors) must lie beyond the margin with a probability of 0.9 (1.28 more).
    """
    error = MEDIAN_EFFICIENCY * deviation * math.sqrt(2.0 / count)
    return (1.0 + margin) * math.exp((1.96 + 1.28) * error)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares slope through the origin of y over x, 0 where x doesn't vary."""
    square = sum(value * value for value in x)
    return sum(a * b for a, b in zip(x, y, strict=True)) / square if square else 0.0
