# SPDX-License-Identifier: Apache-2.0
"""A case folder may come from somebody else: it is data, and it is checked."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from project import Project
from suite.case_parameters import case_parameters, largest_heap
from suite.cases import load_case
from suite.errors import BadInput


def case(folder: Path, **changes: Any) -> Path:
    document = {
        "schema": 1, "allocator": "good", "options": "", "fault": "sigkill", "seed": 1, "number": 0,
        "verdict": "lost", "detail": "", "arguments": ["verify", "--seed", "1"], **changes,
    }  # fmt: skip
    folder.mkdir()
    (folder / "case.json").write_text(json.dumps(document))
    for name in ("heap.before", "journal.before"):
        with gzip.open(folder / f"{name}.gz", "wb") as file:
            file.write(b"x")
    return folder


def test_a_good_case_loads(tmp_path: Path) -> None:
    folder, loaded = load_case(case(tmp_path / "c"))
    assert (folder.name, loaded.verdict) == ("c", "lost")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["churn", "--seed", "1"],
        ["verify", "--heap", "x"],
        ["verify", "--heap=x"],
        ["verify", "--adapter", "x"],
        ["verify", "--seed", "/etc/passwd"],
        ["verify", "--seed", "../x"],
        ["verify", "--seed", "$(id)"],
        ["verify", ""],
        ["history", "--work", "x"],
        ["history", "--dir=x"],
    ],
)
def test_a_case_names_no_files(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(BadInput, match="key 'arguments'"):
        load_case(case(tmp_path / "c", arguments=arguments))


def test_incomplete_and_damaged_cases(project: Project, tmp_path: Path) -> None:
    project.allocator("good")
    folder = case(tmp_path / "c")
    damaged = (folder / "heap.before.gz").read_bytes()[:-6]
    (folder / "heap.before.gz").write_bytes(damaged)
    result = project.run("replay", folder, "--pm", project.pm, "--runner", "local")
    assert result.returncode == 2
    assert "heap.before.gz is damaged" in result.stderr
    (folder / "heap.before.gz").unlink()
    with pytest.raises(BadInput, match=r"lacks heap\.before\.gz"):
        load_case(folder)
    with pytest.raises(BadInput, match="key 'seed'"):
        load_case(case(tmp_path / "d", seed="x"))
    assert project.leftovers() == []


def test_parameters_are_a_function_of_seed_and_number() -> None:
    assert case_parameters(1, "a", 5) == case_parameters(1, "a", 5)
    many = [case_parameters(1, "a", number) for number in range(200)]
    assert len({each.seed for each in many}) == 200
    assert (
        len({(each.heap_bytes, each.slots, each.threads, each.generations) for each in many}) > 40
    )
    assert {each.threads for each in many} == {1, 2, 4}
    assert case_parameters(1, "b", 5).seed != case_parameters(1, "a", 5).seed


def test_heaps_are_as_big_as_the_allocator_needs() -> None:
    small = [case_parameters(1, "a", number, 20 << 20).heap_bytes for number in range(50)]
    assert min(small) == 32 << 20
    assert case_parameters(1, "a", 0, 1 << 30).heap_bytes == 1 << 30 == largest_heap(1 << 30)
