# SPDX-License-Identifier: Apache-2.0
"""Finding and making the native programs; adapters from outside the tree."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from project import REPOSITORY, Project
from suite.allocators import Allocator, discover
from suite.build import find_build, install
from suite.errors import BadInput, EnvironmentMissing

TUTORIAL = REPOSITORY / "docs" / "tutorial" / "bump"


@pytest.fixture
def toolless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither meson nor ninja beside Python or in the PATH."""
    monkeypatch.delenv("NVCRUCIBLE_BUILD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


@pytest.mark.usefixtures("toolless")
def test_no_meson(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="'meson' was not found") as caught:
        find_build(tmp_path)
    assert "make build" in str(caught.value)
    assert not (tmp_path / "build").exists()


@pytest.mark.usefixtures("toolless")
def test_a_build_that_fails_shows_what_failed(tmp_path: Path) -> None:
    for name in ("meson", "ninja"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\necho fine\necho 'ERROR: no compiler for C'\nexit 1\n")
        tool.chmod(0o755)
    with pytest.raises(EnvironmentMissing, match="ERROR: no compiler for C") as caught:
        find_build(tmp_path)
    assert "fine" not in str(caught.value)


def test_a_stated_build_is_used_as_it_is(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.allocator("one")
    (project.build / "allocators" / "skipped.json").write_text(json.dumps({"two": "no library"}))
    lens = project.build / "allocators" / "one.lens.so"
    lens.write_text("{}")
    monkeypatch.setenv("NVCRUCIBLE_BUILD", str(project.build))
    build = find_build(project.root)
    assert build.nvdrive == project.build / "workloads" / "nvdrive"
    assert build.adapters == {"one": project.build / "allocators" / "one.so"}
    (one,) = discover(project.root).select(["one"])
    installation = install(project.root, build, [one])
    assert installation.lens(one) == lens, "no allocator of its own, but the laboratory finds it"
    assert build.skipped == {"two": "no library"}


def copy_of_tutorial(folder: Path) -> Path:
    copy = folder / "bump"
    shutil.copytree(TUTORIAL, copy)
    return copy


def bump(folder: Path) -> list[Allocator]:
    return discover(REPOSITORY, [folder]).select(["bump"])


@pytest.mark.native
def test_an_allocator_from_outside_is_built(native: Project, tmp_path: Path) -> None:
    folder = copy_of_tutorial(tmp_path)
    allocators = bump(folder)
    build = find_build(REPOSITORY)
    adapter = install(REPOSITORY, build, allocators).adapter(allocators[0])
    try:
        assert adapter.name == "bump.so"
        assert adapter.is_file()
        source = folder / "adapter.c"
        source.write_text(source.read_text() + "\nthis is no C\n")
        with pytest.raises(
            BadInput, match="Failed while compiling the adapter of 'bump'"
        ) as caught:
            install(REPOSITORY, build, allocators)
        assert "adapter.c" in str(caught.value)
        assert "error" in str(caught.value)
    finally:
        shutil.rmtree(adapter.parent.parent)


@pytest.mark.native
def test_a_library_that_is_not_installed(native: Project, tmp_path: Path) -> None:
    folder = copy_of_tutorial(tmp_path)
    file = folder / "allocator.yaml"
    file.write_text(file.read_text().rstrip() + "\n  pkgconfig: [libnotinstalled]\n")
    with pytest.raises(EnvironmentMissing, match="libnotinstalled"):
        install(REPOSITORY, find_build(REPOSITORY), bump(folder))
    for left in (REPOSITORY / "build-outside").glob("bump-*"):
        if (
            left.is_dir()
            and str(folder) in (left / "meson-info" / "intro-buildoptions.json").read_text()
        ):
            shutil.rmtree(left)


def test_sources_that_are_not_there(project: Project, tmp_path: Path) -> None:
    folder = project.allocator("guest", outside=tmp_path / "outside")
    file = folder / "allocator.yaml"
    file.write_text(file.read_text().replace("library: adapter.so", "sources: [missing.c]"))
    result = project.run("bench", *project.common(), "--allocator-path", folder, "-a", "guest")
    assert result.returncode == 2
    assert "found 'missing.c', but there is no such file" in result.stderr


@pytest.mark.native
def test_the_tutorial_is_benched_and_judged(native: Project) -> None:
    result = native.run(
        "bench", "--allocator-path", TUTORIAL, "-a", "bump", "-w", "larson", "-t", "1",
        "--profile", "quick", "--repeat", "1", "--survival-cases", "4", "--runner", "local",
        "--out", native.results, "--seed", "1", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert any(sample["metrics"].get("ops_per_s", 0) > 0 for sample in document["samples"])
    assert document["verdicts"][0]["passed"] == 4
