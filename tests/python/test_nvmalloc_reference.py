# SPDX-License-Identifier: Apache-2.0
"""docs/nvmalloc.md says what nvmalloc.h and the library are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from project import REPOSITORY, Project

LIBRARY = REPOSITORY / "allocators" / "nvmalloc"
HEADER = (LIBRARY / "include" / "nvmalloc.h").read_text(encoding="utf-8")
DOCUMENT = REPOSITORY / "docs" / "nvmalloc.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def declarations() -> dict[str, str]:
    """Name to prototype, in one line, of everything that the library exports."""
    code = re.sub(r"/\*.*?\*/", " ", HEADER, flags=re.DOTALL)
    found = {}
    for text in re.findall(r"^NVM_API\s+([^;]+;)", code, re.MULTILINE):
        prototype = one_line(text)
        (name,) = re.findall(r"(\w+)(?:\(|;)", prototype)[:1]
        found[name] = prototype
    return found


def one_line(text: str) -> str:
    return " ".join(text.split())


def sections() -> dict[str, str]:
    """Title of each part of the third level to its text."""
    parts = re.split(r"^### +(.+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_header_was_understood() -> None:
    names = set(declarations())
    assert len(names) == len(re.findall(r"^NVM_API\b", HEADER, re.MULTILINE))
    assert {"nvm_create", "nvm_publish", "nvm_defrag", "NVM_TRACE_LEAF"} <= names


def test_every_function_is_documented_and_no_other() -> None:
    assert set(sections()) == set(declarations())


@pytest.mark.parametrize("name", sorted(declarations()))
def test_its_synopsis_is_the_header_s(name: str) -> None:
    text = sections()[name]
    synopsis = re.match(r"\s*`([^`]+)`", text)
    assert synopsis is not None
    assert one_line(synopsis[1]) == declarations()[name]
    assert len(text.split()) > len(synopsis[1].split()) + 5  # and something is said of it


def test_what_is_named_exists() -> None:
    """Functions and constants in running text, too."""
    source = HEADER + "".join(path.read_text() for path in (LIBRARY / "src").glob("*.[ch]"))
    for name in set(re.findall(r"\b(?:nvm|NVM)_\w+", TEXT)) - {"nvm_"}:
        assert re.search(rf"\b{name}\b", source), name


def test_the_limits_are_the_header_s() -> None:
    constants = dict(re.findall(r"^#define\s+(NVM_\w+)\s+(.+)$", HEADER, re.MULTILINE))
    assert f"`NVM_ACTIONS_MAX`, {constants['NVM_ACTIONS_MAX']})" in TEXT
    assert f"`NVM_NAME_MAX`, {constants['NVM_NAME_MAX']}" in one_line(TEXT)
    assert constants["NVM_MIN_HEAP"] == "((size_t)256 << 10)"
    assert constants["NVM_UNIT"] == "((size_t)64 << 10)"
    assert "`NVM_MIN_HEAP`, 256 KiB" in one_line(TEXT)
    assert "`NVM_UNIT` (64 KiB)" in TEXT


def test_every_variable_of_the_environment_is_documented() -> None:
    read = set()
    for path in (LIBRARY / "src").glob("*.c"):
        read |= set(re.findall(r'getenv\("(\w+)"\)', path.read_text()))
    section = TEXT[TEXT.index("\n## Environment\n") : TEXT.index("\n## On media\n")]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == read


def test_every_error_of_the_header_is_explained() -> None:
    listed = re.findall(r"^ \* {3}((?:E[A-Z]+ )*E[A-Z]+)(?: \.\.\.)? {2,}", HEADER, re.MULTILINE)
    names = {name for line in listed for name in line.split()}
    assert {"EINVAL", "EUCLEAN", "EPERM", "ENOSPC"} <= names
    table = TEXT[TEXT.index("\n## Errors\n") : TEXT.index("\n## Threads\n")]
    assert names <= set(re.findall(r"`(E[A-Z]+)`", table))


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ +(.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        if path:
            assert (DOCUMENT.parent / path).exists(), target
        else:
            assert anchor in anchors, target


@pytest.mark.native
def test_the_costs_are_those_that_are_measured(native: Project) -> None:
    program = native.build / "allocators" / "nvmalloc" / "tests" / "test_nvm_costs"
    if not Path(program).is_file():
        pytest.skip("the build has no C tests (-Dtests=false)")
    done = subprocess.run([program, "--markdown"], capture_output=True, text=True, check=True)
    rows = done.stdout.strip()
    assert len(rows.splitlines()) > 10
    assert rows in TEXT
