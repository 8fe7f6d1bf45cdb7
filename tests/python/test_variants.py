# SPDX-License-Identifier: Apache-2.0
"""Values and ranges of parameters, and the rows that they make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from project import Project
from suite.errors import BadInput
from suite.sweeps import VALUES_MAX, Values, parse_values
from suite.variants import Variant, parse_overrides, variants_of
from suite.workloads import Workload

KV = {
    "schema": 1,
    "name": "store",
    "heap": "1M",
    "parameters": {
        "mix": {"type": "int", "default": 0, "min": 0, "max": 2, "names": {"A": 0, "B": 1, "C": 2}},
        "size": {"type": "int", "default": 64, "min": 8, "max": 4096},
        "depth": {"type": "int", "default": 1, "min": 0, "max": 9},
    },
    "profiles": {"default": {"mix": ["A", "C"], "size": "64..256"}, "full": {"depth": 2}},
    "without": [{"mix": "C", "size": "128..4096"}],
    "budgets": {"quick": {"skip": True}},
}


def workload(**changes: object) -> Workload:
    return Workload.model_validate({**KV, **changes})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (64, [64]),
        ("64", [64]),
        ("4K", [4096]),
        ([64, "128", "1K"], [64, 128, 1024]),
        ("64,128,64", [64, 128]),
        ("64..512", [64, 128, 256, 512]),
        ("64..4096 x4", [64, 256, 1024, 4096]),
        ("64..1000 x2", [64, 128, 256, 512]),
        ("1K..1M x1K", [1024, 1 << 20]),
        ("0..100 +25", [0, 25, 50, 75, 100]),
        ("1..9 +1", list(range(1, 10))),
        ("5..5", [5]),
        ("A,C", [0, 2]),
        ("B, 64 .. 128", [1, 64, 128]),
    ],
)
def test_values(text: Values, values: list[int]) -> None:
    assert parse_values(text, {"A": 0, "B": 1, "C": 2}) == values


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "64..",
        "9..1",
        "0..8",
        "1..8 x1",
        "1..8 +0",
        "1..8 -2",
        "D",
        "1.5",
        "-1",
        [],
        "1..9999 +1",
    ],
)
def test_wrong_values(text: Values) -> None:
    with pytest.raises(ValueError, match=r"number|range|values"):
        parse_values(text, {"A": 0})


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from("x+"), st.integers(1, 50))
def test_a_range_lies_within_its_ends(first: int, last: int, by: str, step: int) -> None:
    try:
        values = parse_values(f"{first}..{last} {by}{step}")
    except ValueError:
        return
    assert values[0] == first
    assert all(first <= value <= last for value in values)
    assert values == sorted(set(values))
    assert len(values) <= VALUES_MAX
    after = values[-1] * step if by == "x" else values[-1] + step
    assert after > last


def names(variants: list[Variant]) -> list[str]:
    return [variant.name for variant in variants]


def test_rows_are_the_combinations_that_make_sense() -> None:
    rows = variants_of([workload()], "default")
    assert names(rows) == [
        "store mix=A",
        "store mix=A size=128",
        "store mix=A size=256",
        "store mix=C",
    ]
    assert rows[1].values == {"mix": 0, "size": 128, "depth": 1}
    assert rows[1].family == "store"
    assert names(variants_of([workload()], "full")) == ["store mix=A"]
    assert variants_of([workload()], "full")[0].values["depth"] == 2


def test_the_command_line_goes_before_the_profile() -> None:
    rows = variants_of([workload()], "default", parse_overrides(["mix=B", "store.depth=1,3"]))
    assert names(rows) == [
        "store mix=B", "store mix=B depth=3",
        "store mix=B size=128", "store mix=B size=128 depth=3",
        "store mix=B size=256", "store mix=B size=256 depth=3",
    ]  # fmt: skip


def test_a_skipped_workload_runs_when_it_is_named() -> None:
    assert variants_of([workload()], "quick", named=False) == []
    assert names(variants_of([workload()], "quick")) == ["store mix=A"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("size", "KEY|PARAMETER=VALUES"),
        ("=3", "PARAMETER=VALUES"),
        (".size=3", "PARAMETER=VALUES"),
        ("sise=64", "did you mean 'size'"),
        ("larson.size=64", "is not among"),
        ("size=9999", "between 8 and 4096, found 9999"),
        ("mix=D", "one of A, B, C"),
        ("trace=x", "no workload that is run has a parameter 'trace'"),
    ],
)
def test_wrong_overrides_are_explained(text: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        variants_of([workload()], "default", parse_overrides([text]))


def test_nothing_left_to_run_is_explained() -> None:
    with pytest.raises(BadInput, match="no combination"):
        variants_of([workload()], "default", parse_overrides(["mix=C", "size=512"]))


def test_traces_are_rows_too(tmp_path: Path) -> None:
    recordings = {"one": {"command": ["true"]}, "two": {"command": ["true"]}}
    replay = workload(recordings=recordings, profiles={}, without=[])
    rows = variants_of([replay], "default")
    assert [(row.name, row.trace) for row in rows] == [
        ("store trace=one mix=A", "one"),
        ("store trace=two mix=A", "two"),
    ]
    file = tmp_path / "mine.nvtrace"
    file.touch()
    (row,) = variants_of([replay], "default", parse_overrides([f"trace={file}"]))
    assert (row.name, row.trace) == ("store trace=mine mix=A", str(file))
    with pytest.raises(BadInput, match="no trace of that name; did you mean 'one'"):
        variants_of([replay], "default", parse_overrides(["trace=ona"]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"profiles": {"quick": {"colour": 1}}}, "name parameters of the workload only"),
        ({"profiles": {"quick": {"size": "1..9"}}}, "between 8 and 4096"),
        ({"without": [{"mix": "E"}]}, "for 'mix' in 'without'"),
        ({"budgets": {"quick": {"repeat": 0}}}, "greater than or equal to 1"),
        ({"needs": ["wings"]}, "persistent"),
    ],
)
def test_wrong_files_are_explained(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        workload(**changes)


def test_threads_of_a_workload() -> None:
    (plain,) = variants_of([workload()], "full")
    assert plain.thread_counts(None) == [1, 2]
    assert plain.thread_counts([4]) == [4]
    (alone,) = variants_of([workload(threads=[1], max_threads=1)], "full")
    assert alone.thread_counts(None) == [1]
    assert alone.thread_counts([1, 2]) == [1]
    assert alone.thread_counts([8]) == [1]


def test_rows_in_a_run(project: Project) -> None:
    """From the command line to run.json: one row for each value, named by it."""
    project.allocator("one")
    result = project.run(
        "bench", "-a", "one", "-w", "larson", "-t", "1", "-p", "objects=10..40", "--repeat", "1",
        "--profile", "quick", "--survival-cases", "0", "--runner", "local", "--pm", project.pm, "--out",
        project.results, "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr

    run = json.loads(result.stdout)
    rows = {
        sample["workload"]: sample["parameters"]["objects"]
        for sample in run["samples"]
        if not sample["observed"]
    }
    assert rows == {"larson objects=10": 10, "larson objects=20": 20, "larson objects=40": 40}
    assert {sample["family"] for sample in run["samples"]} == {"larson"}
    assert run["config"]["workloads"]["larson objects=20"]["parameters"] == {"objects": 20}
