# SPDX-License-Identifier: Apache-2.0
"""Measured time against fences, on figures that were worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from suite.calibration import fence_ns, limit_ops_per_s
from suite.cost_tables import allocator_grid, calibration_grid, residual_grid
from suite.residual import residuals
from suite.results import Environment, Metrics, NvmDirectory, Run, Sample
from suite.summary import summarize

CALIBRATION: dict[str, Any] = {
    "flush": "clwb", "fence_idle_ns": 1.7, "flush_fence_ns": 200.0, "nt_fence_ns": 180.0,
    "extra_flush_ns": 6.5, "reread_idle_ns": 2.0, "reread_flush_ns": 34.0, "reread_nt_ns": 160.0,
    "noise": 0.02, "attempts": 1,
    "by_threads": [
        {"threads": 1, "flush_fence_ns": 200.0, "nt_fence_ns": 180.0, "limit_ops_per_s": 5e6},
        {"threads": 2, "flush_fence_ns": 240.0, "nt_fence_ns": 200.0, "limit_ops_per_s": 8e6},
    ],
}  # fmt: skip
FACTS: dict[str, dict[str, Any]] = {
    "ours": {"kind": "persistent", "consistency": "log", "library_version": "0.1"},
    "blind": {"kind": "persistent", "consistency": "tx", "library_version": "2"},
    "careless": {"kind": "persistent", "consistency": "none", "library_version": "1_74"},
    "dram": {"kind": "volatile", "consistency": "none", "built": "libdram 3-1"},
}


def sample(allocator: str, threads: int, rate: float, **changes: Any) -> Sample:
    known: dict[str, Any] = {
        "workload": "larson", "repeat": 0, "metrics": Metrics(ops_per_s=rate), **changes,
    }  # fmt: skip
    return Sample(allocator=allocator, threads=threads, **known)


def costs(allocator: str, threads: int, fences: float, flushes: float, streamed: float) -> Sample:
    metrics = Metrics(fences_per_op=fences, flushes_per_op=flushes, nt_lines_per_op=streamed)
    return sample(allocator, threads, 1.0, observed=True, metrics=metrics)


def run_of(*samples: Sample, calibration: dict[str, Any] | None = CALIBRATION) -> Run:
    nvm = NvmDirectory(
        path="/nvm", how="stated", fstype="tmpfs", dax=False, map_sync=False, emulated=True,
        free_bytes=1,
    )  # fmt: skip
    environment = Environment(
        nvcrucible="0", hostname="h", kernel="k", cpu_model="c", cpus=2, usable_cpus=[0, 1],
        memory_bytes=1, flush_instructions=["clwb"], nvm=nvm, calibration=calibration,
        allocators=FACTS,
    )  # fmt: skip
    return Run(
        schema=1, name="x", command="bench", started=datetime.now(UTC), environment=environment,
        config={"allocators": list(FACTS), "noise_limit": 0.1}, samples=list(samples),
    )  # fmt: skip


def test_the_rest_is_what_the_fences_don_t_explain() -> None:
    run = run_of(sample("ours", 1, 2e6), costs("ours", 1, fences=2.0, flushes=3.0, streamed=1.0))
    (row,) = residuals(run)
    assert row.measured_ns == 500.0
    assert row.fence_ns == pytest.approx(200 - 20 / 4)  # one line in four is streamed
    assert row.expected_ns == pytest.approx(390.0)
    assert row.residual_ns == pytest.approx(110.0)
    assert row.share == pytest.approx(0.78)
    assert row.multiple == pytest.approx(2.5)
    assert row.emulated_ns is None


def test_a_thread_that_was_displaced_is_not_charged_for_it() -> None:
    metrics = Metrics(ops_per_s=1e6, cpu_ns_per_op=450.0)
    (row,) = residuals(run_of(sample("ours", 1, 1.0, metrics=metrics), costs("ours", 1, 1, 1, 0)))
    assert row.measured_ns == 450.0
    assert row.residual_ns == pytest.approx(250.0)
    assert row.multiple == pytest.approx(5.0)


def test_two_threads_are_measured_by_two_threads_fences() -> None:
    run = run_of(sample("ours", 2, 4e6), costs("ours", 2, fences=1.0, flushes=1.0, streamed=0.0))
    (row,) = residuals(run)
    assert row.measured_ns == 500.0  # a thread's time
    assert row.residual_ns == pytest.approx(500 - 240)
    assert row.multiple == pytest.approx(2.0)
    assert fence_ns(CALIBRATION, 8, 0.0) == 240.0  # as many as were calibrated
    assert limit_ops_per_s({"by_threads": []}, 1) is None


def test_what_the_device_model_added_is_apart() -> None:
    emulated = sample("ours", 1, 1e6, raw={"device": {"delayed_ns": 3000, "ops": 10}})
    (row,) = residuals(run_of(emulated, costs("ours", 1, 1.0, 1.0, 0.0)))
    assert row.emulated_ns == 300.0
    assert row.residual_ns == pytest.approx(1000 - 200 - 300)


def test_who_has_a_row() -> None:
    samples = [sample(name, 1, 1e6) for name in FACTS]
    spoiled = sample("ours", 1, 9e9, accepted=False)
    rows = residuals(run_of(*samples, spoiled))
    assert [(row.allocator, row.residual_ns, row.measured_ns) for row in rows] == [
        ("ours", None, 1000.0),  # nobody counted its fences
        ("blind", None, 1000.0),
    ]
    assert residuals(run_of(*samples, calibration=None)) == []


def test_the_tables() -> None:
    run = run_of(sample("ours", 1, 2e6), costs("ours", 1, 2.0, 3.0, 1.0), sample("dram", 1, 1e8))
    grid = residual_grid(run)
    assert grid is not None
    assert grid.rows == [
        ["larson", "1", "ours", "500", "2.00", "195", "390", "110", "78 %", "2.50"]
    ]
    table = calibration_grid(run)
    assert table is not None
    assert table.columns == ["what", "x1", "x2", "read again"]
    assert [row[1:] for row in table.rows] == [
        ["1.7", "", "2"], ["200", "240", "34"], ["6.5", "", ""], ["180", "200", "160"],
    ]  # fmt: skip
    assert "2 % of the CPUs" in table.caption
    kinds = allocator_grid(run)
    assert kinds is not None
    assert [row[:4] for row in kinds.rows] == [
        ["durable", "ours", "log", "0.1"],
        ["durable", "blind", "tx", "2"],
        ["not crash-safe", "careless", "none", "1_74"],
        ["volatile", "dram", "none", "-"],
    ]
    assert kinds.rows[-1][-1] == "libdram 3-1"


def test_what_is_not_crash_safe_wins_no_contest_of_the_durable() -> None:
    run = run_of(sample("careless", 1, 9e6), sample("ours", 1, 2e6), sample("blind", 1, 1e6))
    found = {row.allocator: (row.kind, row.best, row.persistent) for row in summarize(run).rows}
    assert found == {
        "ours": ("durable", True, True),
        "blind": ("durable", False, True),
        "careless": ("not crash-safe", True, False),
    }
