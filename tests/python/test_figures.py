# SPDX-License-Identifier: Apache-2.0
"""Medians, intervals, percentiles, noise: against other ways to compute them."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.bench import metrics_of
from suite.latency import percentiles
from suite.noise import TICKS_PER_S, NoiseMeter, Reading, busy_seconds
from suite.statistics import Estimate, estimate, ratio

rates = st.lists(st.floats(1, 1e9), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(rates)
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.median == pytest.approx(statistics.median(values))
    ulps = 1e-12 * max(values)
    assert min(values) - ulps <= found.low <= found.median + ulps
    assert found.median - ulps <= found.high <= max(values) + ulps
    assert estimate(values) == found


def test_no_values_one_value() -> None:
    assert estimate([]) is None
    assert estimate([3.0]) == Estimate(3.0, 3.0, 3.0, 1)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    hits = 0
    for _ in range(60):
        found = estimate(list(draw.lognormal(size=25)))
        assert found is not None
        hits += found.low <= 1.0 <= found.high
    assert hits >= 51  # 95 % of 60 is 57; the percentile bootstrap is a little narrow


def test_ratios() -> None:
    base = Estimate(2.0, 2.0, 2.0, 1)
    assert ratio(Estimate(3.0, 3.0, 3.0, 1), base) == 1.5
    assert ratio(None, base) is None
    assert ratio(base, Estimate(0.0, 0.0, 0.0, 1)) is None


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(1, 10**9), st.integers(1, 50), min_size=1, max_size=30))
def test_percentiles_agree_with_the_sorted_list(counts: dict[int, int]) -> None:
    values = sorted(ns for ns, count in counts.items() for _ in range(count))
    figures = percentiles(
        {"counts": [list(pair) for pair in counts.items()], "max_ns": max(counts)}
    )
    for name, share in (("p50_ns", 50), ("p99_ns", 99), ("p999_ns", 99.9)):
        rank = max(1, int(share / 100 * len(values) + 0.5))  # as HdrHistogram rounds it
        exact = values[rank - 1]
        assert figures[name] == pytest.approx(exact, rel=0.002, abs=1)
    assert figures["max_ns"] == max(counts)


@pytest.mark.parametrize("counts", [[[1]], [["x", 1]], 7, [[1, -2]], [[-1, 2]]])
def test_a_broken_histogram_is_refused(counts: object) -> None:
    with pytest.raises(ValueError, match=r"latency\.counts"):
        percentiles({"counts": counts})


def test_nothing_timed() -> None:
    assert percentiles(None) == {}
    assert percentiles({"counts": []}) == {}


STAT = "cpu  100 20 30 400 50 6 7 8 9 1\ncpu0 1 2 3\n"


def test_busy_time_leaves_out_idle_iowait_and_guests() -> None:
    assert busy_seconds(STAT) == (100 + 20 + 30 + 6 + 7 + 8) / TICKS_PER_S
    with pytest.raises(ValueError, match="/proc/stat"):
        busy_seconds("intr 1 2 3")


def test_noise_is_what_neither_we_nor_the_job_used(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1000 0 0 0 0 0 0 0\n")
    meter = NoiseMeter(stat)
    before = meter.read()
    assert before is not None
    before = Reading(before.wall - 1.0, before.busy, before.own)
    stat.write_text(f"cpu  {1000 + TICKS_PER_S} 0 0 0 0 0 0 0\n")
    others = meter.others_s(before, 0.75)
    assert others == pytest.approx(0.25, abs=0.05)
    meter.overhead_s = 0.25
    assert meter.share(before, 0.75) == pytest.approx(0.0, abs=0.05)
    assert meter.share(before, 5.0) == 0.0
    assert meter.share(before, None) is None
    assert meter.share(None, 1.0) is None


def result(**changes: object) -> dict[str, object]:
    return {"ops": 100, "ops_per_s": 5.0, "latency": None, "instructions": None, **changes}


def test_an_observed_sample_tells_costs_alone() -> None:
    events = {
        "ops": 50, "flushes": 100, "fences": 75, "effective_fences": 50, "nt_lines": 25,
        "reflushes_within_4": 10, "xpline_writes": 100,
    }  # fmt: skip
    found = metrics_of(result(events=events, instructions=900), observed=True)
    assert found.model_dump(exclude_none=True) == {
        "flushes_per_op": 2.0,
        "fences_per_op": 1.0,
        "fences_all_per_op": 1.5,
        "nt_lines_per_op": 0.5,
        "reflush_ratio": 0.1,
        "xpline_writes_per_op": 2.0,
    }


def test_an_undisturbed_sample_tells_speed() -> None:
    found = metrics_of(result(instructions=900, peak_bytes=64), observed=False)
    assert (found.ops_per_s, found.instructions_per_op, found.peak_bytes) == (5.0, 9.0, 64)
    assert found.instructions_source == "perf"
    assert metrics_of(result(), observed=False).instructions_source is None
    assert found.fences_per_op is None


def test_a_stepped_sample_tells_instructions_alone() -> None:
    stepped: dict[str, object] = {
        "ops": None, "ops_per_s": None, "instructions": 900, "stepped_ops": 9,
        "stepped_deviation": 0.5, "driver_instructions_per_op": 25.0,
    }  # fmt: skip
    found = metrics_of(stepped, observed=False, stepped=True)
    assert found.model_dump(exclude_none=True) == {
        "instructions_per_op": 100.0,
        "instructions_source": "stepped",
        "instructions_deviation": 0.5,
        "driver_instructions_per_op": 25.0,
    }
    for key in stepped.keys() - {"ops", "ops_per_s"}:
        with pytest.raises((ValueError, TypeError)):
            metrics_of({**stepped, key: None}, observed=False, stepped=True)


@pytest.mark.parametrize(
    "changes", [{"ops": 0}, {"ops_per_s": 0}, {"ops": None}, {"ops_per_s": "x"}]
)
def test_impossible_results_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        metrics_of(result(**changes), observed=False)


def test_an_observed_sample_without_events_is_refused() -> None:
    with pytest.raises(ValueError, match="no events"):
        metrics_of(result(events=None), observed=True)


def test_an_adapter_that_is_not_observable_has_no_costs() -> None:
    found = metrics_of(result(events=None, observable=False), observed=True)
    assert found.fences_per_op is None
    assert found.ops_per_s is None
