# SPDX-License-Identifier: Apache-2.0
"""Errors in YAML files say file, line, key, found and expected."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.allocators import AllocatorFile
from suite.errors import BadInput
from suite.workloads import Workload
from suite.yaml_source import load

GOOD = """\
schema: 1
name: good
kind: persistent
consistency: log
adapter:
  sources: [adapter.c]
"""


def error_of(folder: Path, text: str | bytes) -> str:
    path = folder / "allocator.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(BadInput) as caught:
        load(path, AllocatorFile)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_good_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "allocator.yaml"
    path.write_text(GOOD)
    file = load(path, AllocatorFile)
    assert (file.name, file.kind, file.adapter.sources) == ("good", "persistent", ["adapter.c"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("consistency: log", "consistency: lgo"), ["line 4", "'consistency'", "'lgo'", "'log'"]),
        (("name: good", "name: 17"), ["line 2", "'name'", "17", "a string"]),
        (("name: good", "name: ../../etc"), ["line 2", "'name'", "../../etc", "lower-case"]),
        (
            ("  sources: [adapter.c]", "  sources: adapter.c"),
            ["line 6", "'adapter.sources'", "a list"],
        ),
        (
            ("  sources: [adapter.c]", "  sources: [/a.c]"),
            ["line 6", "'adapter.sources[0]'", "relative to the allocator's folder"],
        ),
        (("kind: persistent\n", ""), ["'kind'", "found nothing", "required"]),
        (("kind: persistent", "knid: persistent"), ["'kind'", "Also wrong: knid"]),
        (
            ("  sources: [adapter.c]", "  library: ../a.so"),
            ["line 6", "'adapter.library'", "inside the allocator's folder"],
        ),
        (
            ("kind: persistent", "kind: persistent\nkind: volatile"),
            ["line 4", "second time", "line 3"],
        ),
        (("adapter:", "colour: red\nadapter:"), ["line 5", "'colour'", "not known", "consistency"]),
        (("  sources", "  sauces"), ["'adapter.sauces'", "not known", "sources"]),
        (("schema: 1", "schema: 2"), ["line 1", "'schema'", "2", "1"]),
        (("  sources: [adapter.c]", "  sources: [adapter.c"), ["not valid YAML", "line"]),
        (("schema: 1", "schema: !!python/object/apply:os.system [ls]"), ["line 1", "'schema'"]),
    ],
)
def test_mistakes_are_located(tmp_path: Path, change: tuple[str, str], expected: list[str]) -> None:
    assert change[0] in GOOD
    message = error_of(tmp_path, GOOD.replace(*change))
    for part in expected:
        assert part in message, message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- 1\n", "expected a mapping"),
        (b"x", "mapping"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: bytes, expected: str) -> None:
    assert expected in error_of(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="can't be read"):
        load(tmp_path / "allocator.yaml", AllocatorFile)


def test_a_workload_says_which_bounds(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "schema: 1\nname: w\nheap: 12X\nparameters:\n  n: {type: int, default: 5, min: 6, max: 7}\n"
    )
    with pytest.raises(BadInput) as caught:
        load(path, Workload)
    message = str(caught.value)
    assert "line 3, key 'heap': found '12X' (a string), expected a size such as" in message
    assert "parameters.n" in message


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_nothing_but_bad_input_is_raised(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        load(path, AllocatorFile)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.characters(codec="utf-8"))
def test_one_wrong_character_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, at: int, character: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "near.yaml"
    path.write_bytes((GOOD[:at] + character + GOOD[at + 1 :]).encode())
    with contextlib.suppress(BadInput):
        load(path, AllocatorFile)
