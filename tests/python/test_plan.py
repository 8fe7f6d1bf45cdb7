# SPDX-License-Identifier: Apache-2.0
"""The order of samples: complete, interleaved, fixed by the seed."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from suite.allocators import Allocator, AllocatorFile
from suite.plan import bench_plan, derive_seed, stepping_plan
from suite.results import Metrics, Sample
from suite.variants import Variant, variants_of
from suite.workloads import Workload


def allocator(name: str, persistent: bool) -> Allocator:
    kind = "persistent" if persistent else "volatile"
    file = AllocatorFile.model_validate(
        {"schema": 1, "name": name, "kind": kind, "adapter": {"sources": ["a.c"]}}
    )
    return Allocator(name, name, file, Path("/none"), False, "", persistent, "none", "")


def workload(name: str) -> Variant:
    made = Workload.model_validate({"schema": 1, "name": name, "heap": "1M"})
    (variant,) = variants_of([made], "default")
    return variant


ALLOCATORS = [allocator("a", True), allocator("b", False), allocator("c", True)]
WORKLOADS = [workload("w"), workload("x")]
seeds = st.integers(0, 2**63 - 1)


@given(seeds, st.integers(1, 4))
def test_every_sample_is_planned_once(seed: int, repeats: int) -> None:
    plan = bench_plan(ALLOCATORS, WORKLOADS, [1, 2], repeats, seed)
    counts = Counter(
        (cell.allocator.name, cell.workload.name, cell.threads, cell.observed) for cell in plan
    )
    for each in ALLOCATORS:
        for load in ("w", "x"):
            for threads in (1, 2):
                assert counts[each.name, load, threads, False] == repeats
                assert counts[each.name, load, threads, True] == (1 if each.persistent else 0)


@given(seeds)
def test_a_short_profile_counts_costs_on_the_first_number_of_threads(seed: int) -> None:
    plan = bench_plan(ALLOCATORS, WORKLOADS, [2, 1], 2, seed, observe_all=False)
    observed = Counter((cell.allocator.name, cell.threads) for cell in plan if cell.observed)
    assert observed == {("a", 2): 2, ("c", 2): 2}
    assert sum(not cell.observed for cell in plan) == 3 * 2 * 2 * 2


@given(seeds)
def test_rivals_follow_each_other_on_the_same_requests(seed: int) -> None:
    plan = bench_plan(ALLOCATORS, WORKLOADS, [1, 2], 3, seed)
    runs = [
        (key, list(cells))
        for key, cells in groupby(
            plan, lambda cell: (cell.repeat, cell.workload.name, cell.threads)
        )
    ]
    assert len(runs) == 3 * 2 * 2
    for _, cells in runs:
        assert {cell.allocator.name for cell in cells} == {"a", "b", "c"}
        assert len({cell.seed for cell in cells}) == 1


@given(seeds)
def test_the_seed_fixes_the_plan(seed: int) -> None:
    first = bench_plan(ALLOCATORS, WORKLOADS, [1, 2], 2, seed)
    assert first == bench_plan(ALLOCATORS, WORKLOADS, [1, 2], 2, seed)


def sample(
    allocator: str, threads: int, instructions: float | None, error: str | None = None
) -> Sample:
    metrics = Metrics(ops_per_s=1.0, instructions_per_op=instructions)
    return Sample(
        allocator=allocator, workload="w", threads=threads, repeat=0, metrics=metrics, error=error
    )


def test_only_what_nobody_could_count_is_stepped() -> None:
    plan = bench_plan(ALLOCATORS, WORKLOADS, [1, 2], 2, 5)
    samples = [
        sample("a", 1, None),
        sample("a", 1, None),
        sample("a", 2, None),
        sample("b", 1, None),
        sample("b", 1, 100.0),
        sample("c", 1, None, "it died"),
    ]
    (cell,) = stepping_plan(plan, samples)
    assert (cell.allocator.name, cell.workload.name, cell.threads) == ("a", "w", 1)
    assert cell.stepped
    assert cell.label == "a w x1 instructions"
    assert stepping_plan(plan, [sample("a", 2, None)]) == []


def test_no_allocator_always_comes_first() -> None:
    plan = bench_plan(ALLOCATORS, WORKLOADS, [1, 2], 20, 1)
    firsts = [
        next(iter(cells)).allocator.name
        for _, cells in groupby(plan, lambda cell: (cell.repeat, cell.workload.name, cell.threads))
    ]
    assert all(firsts.count(name) > len(firsts) / 6 for name in ("a", "b", "c"))


@given(seeds, st.lists(st.text(max_size=5), max_size=3))
def test_derived_seeds_fit_and_differ(seed: int, parts: list[str]) -> None:
    derived = derive_seed(seed, *parts)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *parts)
    assert derived != derive_seed(seed, *parts, "more")
