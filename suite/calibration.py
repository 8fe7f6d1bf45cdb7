# SPDX-License-Identifier: Apache-2.0
"""What flushes and fences cost on this machine, measured in the run that it is compared with.

A calibration is disturbed like any sample, and every figure that is shown as a multiple of it
would be with it: so it is taken again while others are busy, and the least noisy one counts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from suite.driver import Driver
from suite.noise import NoiseMeter

__all__ = ["Calibrated", "calibrate", "fence_ns", "limit_ops_per_s"]

SECONDS = 0.2
TIMEOUT_S = 60.0
ATTEMPTS = 3
QUIET = 0.05
"""A calibration is repeated when others took more of the CPUs; their tick makes for 2.5 % alone."""
THREADS_MOST = 64
"""`nvdrive calibrate` takes no more."""


@dataclass(frozen=True)
class Calibrated:
    """The driver's document with `noise` and `attempts` added, or why there is none."""

    document: dict[str, Any] | None
    error: str | None = None


def calibrate(driver: Driver, threads: int) -> Calibrated:
    """On one thread and on up to `threads` at once, on the CPUs that samples are pinned to."""
    meter = NoiseMeter()
    best: dict[str, Any] | None = None
    for attempt in range(1, ATTEMPTS + 1):
        before = meter.read()
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        with driver.scratch.job(driver.job_number()) as (pm_dir, work_dir):
            answer = driver.calibrate(
                pm_dir, work_dir, SECONDS, TIMEOUT_S, min(threads, THREADS_MOST), cpus
            )
        if answer.result is None:
            return Calibrated(best, None if best else answer.error)
        noise = meter.share(before, answer.outcome.cpu_s)
        document = {key: value for key, value in answer.result.items() if key != "type"}
        document |= {"noise": None if noise is None else round(noise, 4), "attempts": attempt}
        if best is None or (noise or 0.0) < (best["noise"] or 0.0):
            best = document
        best["attempts"] = attempt
        if noise is None or noise <= QUIET:
            break
    return Calibrated(best)


def _of_threads(calibration: dict[str, Any], threads: int) -> dict[str, Any] | None:
    """What was measured with that many threads, or with the most there were."""
    entries: list[dict[str, Any]] = calibration.get("by_threads") or []
    fitting = [entry for entry in entries if entry["threads"] <= threads]
    return max(fitting, key=lambda entry: int(entry["threads"]), default=None)


def fence_ns(calibration: dict[str, Any], threads: int, nt_share: float) -> float | None:
    """What an effective fence costs on that many threads: that after a flushed line, that after a
    non-temporal one, or, where an allocator has both, their mean by its lines."""
    entry = _of_threads(calibration, threads)
    if entry is None:
        return None
    flushed, streamed = float(entry["flush_fence_ns"]), float(entry["nt_fence_ns"])
    return flushed + nt_share * (streamed - flushed)


def limit_ops_per_s(calibration: dict[str, Any], threads: int) -> float | None:
    """What that many threads reach with one durable line an operation and nothing else."""
    entry = _of_threads(calibration, threads)
    return None if entry is None else float(entry["limit_ops_per_s"])
