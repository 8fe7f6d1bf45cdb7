# SPDX-License-Identifier: Apache-2.0
"""The zoo of known-bad allocators: each planted fault is caught, and nobody else is accused.

One test a plant, so that `pytest -n auto` spreads them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from suite.errors import BadInput
from suite.zoo import (
    FOLDER,
    INNOCENTS,
    Innocent,
    Place,
    Plant,
    acquit,
    find_marks,
    judge,
    load_zoo,
    missing_parts,
    nearest_site,
)

ZOO = load_zoo()
IN_CI = tuple(
    each
    for each in INNOCENTS
    if "nvmalloc" in each.name or each.name.startswith(("lane-log, seed 1,", "lane-log, eADR"))
)


def _laboratory(build: Path) -> None:
    if missing := missing_parts(build):
        pytest.skip(f"the build lacks {', '.join(map(str, missing))}: not x86-64, or no libdw-dev")


@pytest.mark.native
@pytest.mark.parametrize("plant", ZOO.plants, ids=lambda plant: plant.name)
def test_a_planted_fault_is_caught(plant: Plant, native_build: Path) -> None:
    _laboratory(native_build)
    outcome = judge(ZOO, plant, native_build)
    assert outcome.wrong == "", outcome


@pytest.mark.native
@pytest.mark.parametrize("innocent", IN_CI, ids=lambda innocent: innocent.name)
def test_nobody_is_accused_without_a_fault(innocent: Innocent, native_build: Path) -> None:
    _laboratory(native_build)
    outcome = acquit(innocent.shorter(), native_build)
    assert outcome.wrong == "", outcome


def test_the_zoo_has_the_faults_that_it_promises() -> None:
    assert len(ZOO.plants) >= 25
    kinds = {kind for plant in ZOO.plants for kind in plant.kinds}
    assert kinds >= {"lost", "resurrected", "overlap", "corrupt", "leak", "unusable", "hang"}
    assert sum("recovery-crash" in plant.faults for plant in ZOO.plants) >= 3
    assert sum(plant.run.get("threads", 1) != 1 for plant in ZOO.plants) >= 3


def test_marks_are_found_with_their_functions() -> None:
    marks = find_marks()
    assert [(mark.file, mark.function) for mark in marks["move_copies_first"]] == [
        ("adapter.c", "move_to")
    ]
    (mark,) = marks["move_copies_first"]
    line = (FOLDER / mark.file).read_text(encoding="utf-8").splitlines()[mark.line - 1]
    assert "PLANT(move_copies_first)" in line


def test_a_site_counts_in_the_plants_function_only() -> None:
    marks = [Place("log.c", 100, "commit")]
    site = {"role": "flush", "file": "log.c", "line": 103, "function": "commit", "frames": []}
    other = {**site, "line": 100, "function": "apply"}
    assert nearest_site([site], marks) == (3, "flush", 1)
    assert nearest_site([other], marks) is None
    assert nearest_site([{**site, "file": "space.c"}], marks) is None
    called = {**other, "frames": ["log.c:100 apply", "log.c:99 commit", "adapter.c:7 alloc_to"]}
    assert nearest_site([other, called, site], marks) == (1, "flush", 2)


def test_a_plant_without_a_mark_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(FOLDER, folder)
    document = yaml.safe_load((folder / "plants.yaml").read_text(encoding="utf-8"))
    dropped = document["plants"].pop()["name"]
    (folder / "plants.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(BadInput, match=dropped.replace("-", "_")):
        load_zoo(folder)
    document["plants"][0]["kinds"] = ["sad"]
    (folder / "plants.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(BadInput, match="is no list of plants"):
        load_zoo(folder)


@pytest.mark.native
def test_a_fault_that_is_not_there_is_not_caught(native_build: Path) -> None:
    """The judge can fail: the correct allocator under a plant's name is `not caught`."""
    _laboratory(native_build)
    # One thread has no second lane to forget.
    harmless = next(plant for plant in ZOO.plants if plant.name == "lane-forgotten")
    alone = harmless.model_copy(update={"run": {"script": "a1:64", "threads": 1}})
    assert judge(ZOO, alone, native_build).wrong == "not caught"
    other = harmless.model_copy(update={"kinds": ("corrupt",)})
    assert judge(ZOO, other, native_build).wrong.startswith("of another kind")
