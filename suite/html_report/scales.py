# SPDX-License-Identifier: Apache-2.0
"""Axes: from a value to a share of the axis' length, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "categorical", "linear", "logarithmic", "short_number", "tail"]

TICKS = 5
STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Axis:
    """`place` maps each value of `values` to 0..1; ticks are (share, label)."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return 0.5 if high == low else min(1.0, max(0.0, (at - low) / (high - low)))


def short_number(value: float) -> str:
    """ "12k", "3.5M": three digits at most."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def linear(values: Sequence[float]) -> Axis:
    """From 0 to a round number above the largest value."""
    top = max((*values, 0.0)) or 1.0
    rough = top / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in STEPS if each * power >= rough)
    count = math.ceil(top / step - 1e-9)
    high = count * step
    ticks = tuple((i / count, short_number(i * step)) for i in range(count + 1))
    return Axis(0.0, high, False, ticks)


def logarithmic(values: Sequence[float]) -> Axis:
    """From a round number below the least value to one above the largest; all above 0."""
    positive = [value for value in values if value > 0] or [1.0]
    marks = [1.0, 2.0, 5.0]
    low = _round_down(min(positive), marks)
    high = _round_up(max(positive), marks)
    if high <= low:
        high = low * 10
    wide = math.log10(high / low)
    kept = marks if wide <= 2 else [1.0] if wide > 4 else [1.0, 3.0] if wide > 3 else marks
    ticks = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for mark in kept:
            value = mark * 10.0**power
            if low * 0.999 <= value <= high * 1.001:
                share = (math.log10(value) - math.log10(low)) / wide
                ticks.append((share, short_number(value)))
    return Axis(low, high, True, tuple(ticks))


def _round_down(value: float, marks: Sequence[float]) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max((mark * power for mark in marks if mark * power <= value * 1.0001), default=power)


def _round_up(value: float, marks: Sequence[float]) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(
        (mark * power for mark in marks if mark * power >= value * 0.9999), default=10 * power
    )


def categorical(values: Sequence[float]) -> Axis:
    """A few numbers (thread counts), by their logarithm, each with a tick."""
    known = sorted(set(values))
    low, high = known[0], known[-1]
    axis = Axis(low, high if high > low else low * 2, True, ())
    return Axis(axis.low, axis.high, True, tuple((axis.place(v), f"{v:g}") for v in known))


def tail(shares: Sequence[float]) -> tuple[dict[float, float], tuple[tuple[float, str], ...]]:
    """For percentiles: each share's place by how many nines it has, and the ticks."""
    nines = [-math.log10(1 - share) for share in shares]
    span = nines[-1] - nines[0]
    places = {s: (n - nines[0]) / span for s, n in zip(shares, nines, strict=True)}
    return places, tuple((places[share], f"{100 * share:g}") for share in shares)
