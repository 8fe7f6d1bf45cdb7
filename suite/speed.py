# SPDX-License-Identifier: Apache-2.0
"""How fast the machine is just now: the time of a fixed loop, taken beside each sample.

Shared and virtual machines change their pace: the clock frequency moves with the load of all
cores and, on a host that others use too, with theirs.  Nothing in /proc tells of it.  We saw the
same program drift by 10 % within two minutes on an otherwise idle virtual machine, all
allocators together, those that compute far more than those that wait for fences.

So each sample carries `pace_ns`: nanoseconds for one round of a loop that only computes, on
the CPUs that the sample used, the mean of just before and just after it.  `compare` learns from
it how much of a difference is the machine's (suite/comparison.py).  The loop runs in the
interpreter: its figure can be compared only between runs of the same interpreter, which
`environment.python` names.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

__all__ = ["pace_ns"]

ROUNDS = 20_000
"""Half a millisecond: long against the clock's 50 ns, short against a scheduler's time slice."""
TRIES = 3
"""The quickest one counts: the others were interrupted, or met cold caches."""


def _loop() -> float:
    began = time.perf_counter_ns()
    value = 1
    for _ in range(ROUNDS):
        value = (value * 5 + 1) & 0xFFFF
    return (time.perf_counter_ns() - began) / ROUNDS


def _on(cpu: int) -> float:
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {cpu})
    return min(_loop() for _ in range(TRIES))


def pace_ns(cpus: Sequence[int]) -> float:
    """Nanoseconds for one round of the loop, the mean over these CPUs; the calling thread
    keeps the CPUs that it may run on."""
    allowed = os.sched_getaffinity(0)
    try:
        figures = [_on(cpu) for cpu in cpus] or [min(_loop() for _ in range(TRIES))]
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)
    return sum(figures) / len(figures)
