# SPDX-License-Identifier: Apache-2.0
"""The tests and intervals behind `compare`, against other ways to compute them."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.statistics import (
    detectable,
    holm,
    least_p,
    least_samples,
    mann_whitney,
    ratio_interval,
    slope,
)

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand() -> None:
    # 4 x 0.01, 3 x 0.02, 2 x 0.03 (raised to 0.06 before it), 1 x 0.5
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []


@given(p_values)
def test_holm_never_makes_a_test_easier_nor_changes_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(a >= p for a, p in zip(adjusted, values, strict=True))
    assert all(a <= 1 for a in adjusted)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def by_enumeration(lower: list[float], higher: list[float]) -> float:
    """The share of all splits of the values whose order is at least as clear."""

    def wins(first: list[float], second: list[float]) -> int:
        return sum(a > b for a in first for b in second)

    every = lower + higher
    found = wins(lower, higher)
    splits = list(itertools.combinations(range(len(every)), len(lower)))
    rare = 0
    for chosen in splits:
        first = [every[i] for i in chosen]
        second = [every[i] for i in range(len(every)) if i not in chosen]
        rare += wins(first, second) <= found
    return rare / len(splits)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=7, max_size=9, unique=True), st.integers(3, 4))
def test_mann_whitney_is_exact(values: list[int], count: int) -> None:
    lower, higher = [float(v) for v in values[:count]], [float(v) for v in values[count:]]
    assert mann_whitney(lower, higher) == pytest.approx(by_enumeration(lower, higher))


def test_mann_whitney_says_which_side_is_lower() -> None:
    low, high = [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11.0, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    assert mann_whitney(low, high) == pytest.approx(least_p(10, 10))
    assert mann_whitney(high, low) == pytest.approx(1.0)
    assert mann_whitney([1.0, 1, 1], [1.0, 1, 1]) > 0.4  # nothing but ties


def test_how_many_samples_it_takes() -> None:
    # 1 / C(2n, n): 4 a side is 1/70, 8 a side 1/12870.
    assert least_samples(1, 0.05) == 3
    assert least_samples(40, 0.05) == 6
    assert least_samples(420, 0.05) == 8
    assert least_samples(1200, 0.05) == 9
    for tests in (1, 7, 100, 3000):
        n = least_samples(tests, 0.05)
        assert least_p(n, n) * tests <= 0.05 < least_p(n - 1, n - 1) * tests


def test_the_ratio_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        base = list(draw.lognormal(0, 0.03, size=10))
        new = list(draw.lognormal(math.log(1.1), 0.03, size=10))
        found = ratio_interval(base, new)
        assert found.low <= found.median <= found.high
        hits += found.low <= 1.1 <= found.high
    assert hits >= 87
    with pytest.raises(ValueError, match="above 0"):
        ratio_interval([1.0, 0.0], [1.0])


@pytest.mark.parametrize("deviation", [0.02, 0.05])
def test_what_is_detectable_is_found_nine_times_in_ten(deviation: float) -> None:
    draw = random.Random(11)
    factor = detectable(deviation, 10, 0.05)
    found = 0
    for _ in range(150):
        base = [math.exp(draw.gauss(0, deviation)) for _ in range(10)]
        new = [factor * math.exp(draw.gauss(0, deviation)) for _ in range(10)]
        found += ratio_interval(base, new).low > 1.05
    assert 0.8 <= found / 150 <= 1.0
    # and half of that is not
    smaller = 1.05 * math.sqrt(factor / 1.05)
    missed = sum(
        ratio_interval(
            [math.exp(draw.gauss(0, deviation)) for _ in range(10)],
            [smaller * math.exp(draw.gauss(0, deviation)) for _ in range(10)],
        ).low
        <= 1.05
        for _ in range(100)
    )
    assert missed > 40


def test_slope() -> None:
    x = [-1.0, 0.0, 2.0]
    assert slope(x, [2.0, 0.0, -4.0]) == pytest.approx(-2.0)
    assert slope([0.0, 0.0], [1.0, 2.0]) == 0.0
    assert statistics.linear_regression(x, [1.0, 1.5, 1.0], proportional=True).slope == (
        pytest.approx(slope(x, [1.0, 1.5, 1.0]))
    )
