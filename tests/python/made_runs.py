# SPDX-License-Identifier: Apache-2.0
"""Runs that nobody measured, for the tests of what is computed from runs.

`Machine` draws throughputs as a shared virtual machine gives them: a pace that drifts by several per
cent within minutes for all alike, what runs differ by as wholes, what samples differ by,
and samples that others disturb.  The figures are those of real runs (suite/speed.py).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from suite.results import Environment, Metrics, NvmDirectory, Run, Sample

STARTED = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
DURABLE = ("ours", "theirs")
VOLATILE = ("plain", "fast")
BOUND = {"ours": 0.1, "theirs": 0.3, "plain": 1.0, "fast": 0.9}
"""How much of an allocator's time is computing, which follows the machine's pace."""
RATES = {"ours": 4.5e6, "theirs": 0.7e6, "plain": 90e6, "fast": 230e6}
WORKLOADS = ("larson", "large", "prodcon", "shbench", "threadtest")


def environment(**changes: Any) -> Environment:
    facts: dict[str, Any] = {
        "nvcrucible": "0.1.0",
        "python": "CPython 3.11",
        "hostname": "host",
        "kernel": "6.1",
        "cpu_model": "A CPU",
        "cpus": 2,
        "usable_cpus": [0, 1],
        "memory_bytes": 25_000_000_000,
        "flush_instructions": ["clwb"],
        "nvm": NvmDirectory(
            path="/dev/shm", how="tmpfs", fstype="tmpfs", dax=False, map_sync=False,
            emulated=True, free_bytes=1 << 30,
        ),
        "runner": {"name": "local"},
        "calibration": {"flush_fence_ns": 197.0, "nt_fence_ns": 184.0},
        "allocators": {
            **{name: {"kind": "persistent", "consistency": "log", "library_version": "1"}
               for name in DURABLE},
            **{name: {"kind": "volatile", "consistency": "none"} for name in VOLATILE},
        },
    }  # fmt: skip
    return Environment(**{**facts, **changes})


def run_of(samples: list[Sample], **changes: Any) -> Run:
    config = {
        "allocators": [*DURABLE, *VOLATILE],
        "workloads": {name: {"heap_bytes": 1, "parameters": {"size": 64}} for name in WORKLOADS},
        "threads": [1, 2],
        "warmup_s": 0.05,
        "seconds": 0.12,
        "latency_s": 0.03,
        "noise_limit": 0.1,
        "seed": 7,
        "baseline": "theirs",
        **changes.pop("config", {}),
    }
    return Run(
        schema_=1,
        name="made",
        command="bench",
        started=changes.pop("started", STARTED),
        finished=STARTED + timedelta(minutes=3),
        environment=changes.pop("environment", environment()),
        config=config,
        samples=samples,
        **changes,
    )


@dataclass
class Machine:
    """Draws runs; the seed fixes all of them."""

    seed: int
    drift: float = 0.05
    """Deviation of the pace's slow walk."""
    between: float = 0.012
    """What a cell differs by from run to run."""
    within: float = 0.02
    """What samples differ by."""
    load: float = 0.0
    """Share of the samples that others disturb."""
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def run(
        self,
        slow: dict[str, float] | None = None,
        repeats: int = 10,
        workloads: tuple[str, ...] = WORKLOADS,
        **changes: Any,
    ) -> Run:
        """`slow`: by how much each operation of an allocator takes longer."""
        slow = slow or {}
        names = [*DURABLE, *VOLATILE]
        cells = [(w, t, a) for w in workloads for t in (1, 2) for a in names]
        offset = {cell: self.random.gauss(0, self.between) for cell in cells}
        samples = []
        walk = self.random.gauss(0, self.drift)
        for repeat in range(repeats):
            self.random.shuffle(cells)
            for workload, threads, allocator in cells:
                walk = 0.995 * walk + self.random.gauss(0, 0.1 * self.drift)
                logs = (
                    math.log(RATES[allocator] * threads**0.5)
                    - BOUND[allocator] * walk
                    + offset[workload, threads, allocator]
                    + self.random.gauss(0, self.within)
                    - math.log(1 + slow.get(allocator, 0.0))
                )
                disturbed = self.random.random() < self.load
                noise = self.random.uniform(0.3, 0.6) if disturbed else self.random.uniform(0, 0.03)
                if disturbed:
                    logs -= self.random.uniform(0.2, 0.9)
                samples.append(
                    Sample(
                        allocator=allocator, workload=workload, threads=threads, repeat=repeat,
                        noise=noise, pace_ns=50 * math.exp(walk + self.random.gauss(0, 0.01)),
                        metrics=Metrics(ops_per_s=math.exp(logs)),
                    )
                )  # fmt: skip
        samples += [self._counted(*cell, slow) for cell in sorted(cells)]
        return run_of(samples, **changes)

    def _counted(
        self, workload: str, threads: int, allocator: str, slow: dict[str, float]
    ) -> Sample:
        """Costs of the durable ones, instructions of the others: one sample of each cell."""
        instructions = 300 * (1 + slow.get(allocator, 0.0)) * math.exp(self.random.gauss(0, 0.005))
        if allocator in DURABLE:
            metrics = Metrics(fences_per_op=1.02 * math.exp(self.random.gauss(0, 0.003)))
            return Sample(
                allocator=allocator, workload=workload, threads=threads, repeat=0, observed=True,
                metrics=metrics,
            )  # fmt: skip
        metrics = Metrics(instructions_per_op=instructions, instructions_source="stepped")
        return Sample(
            allocator=allocator, workload=workload, threads=threads, repeat=0, stepped=True,
            metrics=metrics,
        )  # fmt: skip
