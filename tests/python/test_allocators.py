# SPDX-License-Identifier: Apache-2.0
"""The registry: folders, variants, names, what may lie outside the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import REPOSITORY, Project
from suite.allocators import discover
from suite.errors import BadInput
from suite.workloads import discover_workloads, parse_size, select_workloads


def test_the_project_s_own_files_are_valid() -> None:
    names = discover(REPOSITORY).names()
    assert {"nvmalloc", "pmdk", "jemalloc", "mimalloc", "tcmalloc", "glibc"} <= set(names)
    workloads = discover_workloads(REPOSITORY)
    assert set(workloads) >= {"threadtest", "larson", "shbench", "prodcon", "large", "kv", "replay"}
    assert all(workload.heap_bytes > 0 for workload in workloads.values())


def test_variants_are_rows_with_their_own_options(project: Project) -> None:
    folder = project.allocator("base")
    text = (folder / "allocator.yaml").read_text()
    (folder / "allocator.yaml").write_text(
        text + "options: {mode: log, depth: 3}\nvariants:\n"
        "  - {name: base-gc, kind: volatile, consistency: gc, options: {mode: gc, lazy: true}}\n"
    )
    base, variant = discover(project.root).all()
    assert (base.name, base.options, base.persistent) == ("base", "mode=log,depth=3", True)
    assert (variant.name, variant.base, variant.persistent) == ("base-gc", "base", False)
    assert (variant.options, variant.consistency) == ("mode=gc,depth=3,lazy=1", "gc")


def test_an_unknown_name_gets_the_nearest(project: Project) -> None:
    project.allocator("nvmalloc")
    with pytest.raises(BadInput, match="'nvmaloc'; did you mean 'nvmalloc'") as caught:
        discover(project.root).select(["nvmaloc"])
    assert caught.value.exit_code == 2


def test_selection_keeps_the_stated_order_and_drops_repeats(project: Project) -> None:
    for name in ("a", "b", "c"):
        project.allocator(name)
    registry = discover(project.root)
    assert [each.name for each in registry.select(["c", "a", "c"])] == ["c", "a"]
    assert [each.name for each in registry.select(None)] == ["a", "b", "c"]


def test_outside_folders_one_or_many(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    one = project.allocator("one", outside=outside)
    project.allocator("two", outside=outside)
    assert discover(project.root, [one]).names() == ["one"]
    registry = discover(project.root, [outside])
    assert registry.names() == ["one", "two"]
    assert all(each.outside for each in registry.all())


def test_a_name_taken_twice(project: Project, tmp_path: Path) -> None:
    project.allocator("same")
    project.allocator("same", outside=tmp_path / "outside")
    with pytest.raises(BadInput, match="Two allocators are called 'same'"):
        discover(project.root, [tmp_path / "outside"])


def test_a_folder_without_allocators(project: Project, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"found no allocator\.yaml"):
        discover(project.root, [tmp_path / "pm"])
    with pytest.raises(BadInput, match="no such folder"):
        discover(project.root, [tmp_path / "nowhere"])


def test_a_link_out_of_the_folder_is_refused(project: Project) -> None:
    folder = project.allocator("sly")
    (folder / "adapter.c").unlink()
    (folder / "adapter.c").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="leads out of"):
        discover(project.root)


def test_folders_side_by_side_may_share_sources(project: Project) -> None:
    folder = project.allocator("one")
    path = folder / "allocator.yaml"
    path.write_text(path.read_text().replace("adapter.c", "../common/shared.c"))
    assert discover(project.root).names() == ["one"]
    path.write_text(path.read_text().replace("../common/", "../../common/"))
    with pytest.raises(BadInput, match="leads out of"):
        discover(project.root)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "lower", "A B"])
def test_the_environment_can_t_change_which_code_is_loaded(project: Project, name: str) -> None:
    folder = project.allocator("sly")
    with (folder / "allocator.yaml").open("a") as file:
        file.write(f'environment: {{"{name}": "x"}}\n')
    with pytest.raises(BadInput, match="environment variable"):
        discover(project.root)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("64K", 65536), (4096, 4096), ("2G", 2 << 30)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5M", "1T", "M", "1 M", "0x10"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        parse_size(text)


def test_workloads_by_profile(project: Project) -> None:
    known = discover_workloads(project.root)
    assert known["larson"].settings("default") == {"objects": [100]}
    assert known["larson"].settings("quick") == {"objects": [10]}
    with pytest.raises(BadInput, match="'larsen'; did you mean 'larson'"):
        select_workloads(known, ["larsen"])


def test_a_workload_file_is_named_as_it_says(project: Project) -> None:
    folder = project.root / "workloads"
    (folder / "larson.yaml").rename(folder / "lasron.yaml")
    with pytest.raises(BadInput, match="expected 'lasron', the file's own name"):
        discover_workloads(project.root)
