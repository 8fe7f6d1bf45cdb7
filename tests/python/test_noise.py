# SPDX-License-Identifier: Apache-2.0
"""Neighbours: seen wherever they run, said in the tables, and a calibration waits for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import suite.noise
from suite.calibration import calibrate
from suite.driver import Driver
from suite.noise import TICKS_PER_S, NoiseMeter, Reading, noise_note, watch_neighbours

CPUS = 64


def stat_of(path: Path, busy: dict[int, float]) -> Path:
    """A /proc/stat of a machine with many CPUs, these busy for so many seconds, half of it stolen."""
    lines = []
    for cpu in range(CPUS):
        ticks = int(busy.get(cpu, 0.0) * TICKS_PER_S)
        lines.append(f"cpu{cpu} {ticks - ticks // 2} 0 0 0 0 0 0 {ticks // 2} 0 0")
    total = int(sum(busy.values()) * TICKS_PER_S)
    lines.insert(0, f"cpu  {total - total // 2} 0 0 0 0 0 0 {total // 2} 0 0")
    path.write_text("\n".join(lines) + "\nintr 1 2 3\n")
    return path


def begun(meter: NoiseMeter) -> Reading:
    """A reading that is one second old."""
    now = meter.read()
    assert now is not None
    return Reading(now.wall - 1.0, now.busy, now.own, now.by_cpu, now.steal)


def test_a_neighbour_on_our_cpu_counts_however_many_cpus_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite.noise.os, "cpu_count", lambda: CPUS)
    meter = NoiseMeter(stat_of(tmp_path / "stat", {}))
    before = begun(meter)
    stat_of(tmp_path / "stat", {3: 1.0})  # our job 0.5 s, somebody else 0.5 s
    everywhere = meter.share(before, 0.5)
    beside = meter.share(before, 0.5, [3])
    elsewhere = meter.share(before, 0.5, [4])
    assert everywhere is not None
    assert beside is not None
    assert everywhere == pytest.approx(0.5 / CPUS, abs=0.01)
    assert beside == pytest.approx(0.48, abs=0.05)  # two ticks are the clock's own blur
    assert elsewhere == pytest.approx(everywhere, abs=0.001)
    assert meter.share(before, 1.0, [3]) == 0.0
    assert meter.share(before, 0.5, [3, 999]) == pytest.approx(everywhere, abs=0.001)


def sample(noise: float | None, **changes: Any) -> Any:
    known = {"accepted": True, "error": None, "observed": False, "stepped": False}
    return SimpleNamespace(noise=noise, **{**known, **changes})


def test_the_tables_say_that_neighbours_were_busy() -> None:
    quiet = [sample(0.01), sample(None), sample(0.9, observed=True), sample(0.9, stepped=True)]
    assert noise_note(quiet, 0.1) is None
    repeated = noise_note([*quiet, sample(0.5, accepted=False)], 0.1)
    assert repeated is not None
    assert "1 samples were repeated; none stayed above" in repeated
    loud = noise_note([*quiet, sample(0.3), sample(0.2), sample(0.8, error="died")], 0.1)
    assert loud is not None
    assert "2 of 4 stayed above, the worst at 30 %" in loud
    assert "10 % of the CPUs" in loud


def test_neighbours_are_watched_for_a_while() -> None:
    seen = watch_neighbours(0.05)
    assert seen is not None
    assert 0 <= seen.stolen <= 1
    assert 0 <= seen.busy <= 1


class _Driver:
    """Answers calibrations; the machine is as noisy during them as it is told."""

    def __init__(self, errors: list[str | None]) -> None:
        self.errors = errors
        self.asked: list[tuple[int, tuple[int, ...]]] = []
        self.scratch = self

    @contextlib.contextmanager
    def job(self, _number: int) -> Iterator[tuple[Path, Path]]:
        yield Path("/nvm"), Path("/work")

    def job_number(self) -> int:
        return 1

    def calibrate(self, *arguments: Any) -> Any:
        error = self.errors[len(self.asked)]
        self.asked.append((arguments[4], arguments[5]))
        result = None if error else {"type": "calibration", "nt_fence_ns": float(len(self.asked))}
        return SimpleNamespace(result=result, error=error, outcome=SimpleNamespace(cpu_s=0.1))


def test_a_calibration_amid_noise_is_repeated_and_the_quietest_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noises = iter([0.5, 0.2, 0.4])
    monkeypatch.setattr(NoiseMeter, "share", lambda *_arguments: next(noises))
    driver = _Driver([None, None, None])
    found = calibrate(cast("Driver", driver), 100)
    assert found.document == {"nt_fence_ns": 2.0, "noise": 0.2, "attempts": 3}
    assert [threads for threads, _ in driver.asked] == [64, 64, 64]
    assert all(cpus for _, cpus in driver.asked)


def test_a_quiet_calibration_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseMeter, "share", lambda *_arguments: 0.01)
    found = calibrate(cast("Driver", _Driver([None])), 2)
    assert found.document == {"nt_fence_ns": 1.0, "noise": 0.01, "attempts": 1}


def test_a_calibration_that_fails_says_why() -> None:
    found = calibrate(cast("Driver", _Driver(["no room"])), 2)
    assert (found.document, found.error) == (None, "no room")
