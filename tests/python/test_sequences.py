# SPDX-License-Identifier: Apache-2.0
"""Exhaustive sequences of operations: sums over shards, and the real laboratory on short ones."""

from __future__ import annotations

import pytest

from project import Project
from suite.sequences import Total, run_shard

IMPOSSIBLE = 16
"""Of the 100 of two operations: those with a slot that is full, or empty, at the wrong time."""


def test_one_undecided_crash_point_is_not_exhaustive() -> None:
    sequences = {"type": "sequences", "tried": 2, "impossible": 0, "incomplete": 0}
    verdict = {
        "type": "verdict", "verdict": "ok", "detail": "", "crash_points": 5, "crash_points_complete": 5,
        "recovery_crash_points": 0, "states_checked": 9, "states_distinct": 9,
        "recovery_states_checked": 0, "cpu_seconds": 0.5,
    }  # fmt: skip
    total = Total("gc")
    assert not total.exhaustive
    total.add([sequences, verdict])
    total.add([sequences, verdict])
    assert total.exhaustive
    assert total.sums["states_checked"] == 18
    total.add([{**sequences, "incomplete": 1}, {**verdict, "crash_points_complete": 4}])
    assert not total.exhaustive
    assert not total.failures
    total.add([sequences, {**verdict, "verdict": "lost", "detail": "slot 3"}])
    assert total.failures == ["lost: slot 3"]


@pytest.mark.native
@pytest.mark.parametrize(("mode", "length"), [("owned", 1), ("strict", 2), ("gc", 2)])
def test_every_state_of_short_sequences(native: Project, mode: str, length: int) -> None:
    nvlab = native.build / "faults" / "nvlab"
    if not nvlab.is_file():
        pytest.skip("the build has no faults/nvlab: libdw-dev was missing")
    lens = native.build / "allocators" / "nvmalloc.lens.so"
    total = Total(mode)
    shards = 2
    for shard in range(shards):
        total.add(run_shard(nvlab, lens, native.pm, mode, length, shard, shards))
    words = 10 if length == 1 else 110
    assert total.sums["tried"] + total.sums["impossible"] == words
    assert total.sums["impossible"] == (0 if length == 1 else IMPOSSIBLE)
    assert total.failures == []
    assert total.exhaustive
    assert total.sums["states_checked"] >= total.sums["crash_points"]
