# SPDX-License-Identifier: Apache-2.0
"""Pure functions over samples: medians and their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Estimate", "estimate", "ratio"]

RESAMPLES = 999
CONFIDENCE = 0.95


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
    Introduction to the Bootstrap, 1993, ch. 13); None of no values.  The same
    values and seed give the same interval."""
    if not values:
        return None
    middle = statistics.median(values)
    if min(values) == max(values):
        return Estimate(middle, middle, middle, len(values))
    # Imported here: they take most of a second, and most commands need neither.
    import numpy as np
    from scipy import stats

    result = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Estimate(middle, float(interval.low), float(interval.high), len(values))


def ratio(value: Estimate | None, base: Estimate | None) -> float | None:
    """How many times the base's median; None where there is none, or it is 0."""
    if value is None or base is None or base.median == 0:
        return None
    return value.median / base.median
