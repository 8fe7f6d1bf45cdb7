# SPDX-License-Identifier: Apache-2.0
"""Percentiles of a latency histogram, as the driver reports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hdrh.histogram import HdrHistogram

__all__ = ["merged_percentiles", "percentiles"]

LOWEST_NS = 1
HIGHEST_NS = 3_600_000_000_000
DIGITS = 3
PERCENTILES = {"p50_ns": 50.0, "p99_ns": 99.0, "p999_ns": 99.9}


def percentiles(latency: dict[str, Any] | None) -> dict[str, float]:
    """p50_ns, p99_ns, p999_ns and max_ns; empty when nothing was timed.

    `latency` is {"counts": [[ns, count], ...], "max_ns": ns}; raises ValueError
    when it is something else.
    """
    if not latency or not latency.get("counts"):
        return {}
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for ns, count in _pairs(latency["counts"]):
        histogram.record_value(min(max(ns, LOWEST_NS), HIGHEST_NS), count)
    if not histogram.get_total_count():
        return {}
    figures = {
        name: float(histogram.get_value_at_percentile(share)) for name, share in PERCENTILES.items()
    }
    figures["max_ns"] = float(latency.get("max_ns") or histogram.get_max_value())
    return figures


def merged_percentiles(
    latencies: Sequence[dict[str, Any]], shares: Sequence[float]
) -> dict[float, float]:
    """The time that each share (0.99: 99 %) of the operations of all these histograms together
    stays within; without the shares of which there are too few operations to tell."""
    counts: dict[int, int] = {}
    for latency in latencies:
        for ns, count in _pairs(latency.get("counts") or ()):
            counts[ns] = counts.get(ns, 0) + count
    total = sum(counts.values())
    known = [share for share in shares if total * (1 - share) >= 1]
    found: dict[float, float] = {}
    passed = 0
    for ns in sorted(counts):
        passed += counts[ns]
        for share in known:
            if share not in found and passed >= share * total:
                found[share] = float(ns)
    return found


def _pairs(counts: Sequence[Any]) -> list[tuple[int, int]]:
    try:
        pairs = [(int(ns), int(count)) for ns, count in counts]
    except (TypeError, ValueError) as error:
        raise ValueError("'latency.counts' is not a list of [ns, count]") from error
    if any(ns < 0 or count < 0 for ns, count in pairs):
        raise ValueError("'latency.counts' has a negative number")
    return pairs
