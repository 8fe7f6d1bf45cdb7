# SPDX-License-Identifier: Apache-2.0
"""Finds the allocator folders and tells meson how to build their adapters.

An allocator is a folder with an ``allocator.yaml``; nothing else registers it.
meson runs this file while it configures, with meson's own Python, before any
virtual environment of the project exists: so it needs PyYAML and no more.

``folders.py list [--in-tree DIR] [PATH ...]`` prints one adapter a line. The
columns, which ``meson.build`` takes apart, are separated by ``|`` and the items of
a column by ``;``::

    name | folder | place (in-tree, outside) | sources | pkgconfig | link | uses |
    environment (KEY=VALUE) | headers | kind (persistent, volatile)

PATH is a folder with an ``allocator.yaml``, or a folder of such folders. A folder
that names a prebuilt ``library`` or a ``program`` is checked and not printed: it builds
nothing.

``folders.py skipped NAME=REASON ...`` prints the same pairs as a JSON object.

``folders.py recipe --compiler TEXT --options TEXT [PATH ...]`` prints as JSON how this build is
made: the compiler, the options, and for each folder the installed versions of the Debian packages
that it needs at run time.

This is the build's reader: it checks what a build depends on. The orchestrator
(``suite/``) reads the same files and checks the rest.
"""

# What it prints is its interface.
# ruff: noqa: T201
from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SCHEMA = 1
FILE = "allocator.yaml"
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
# What a package or library is called: enough for Debian's, and no shell or
# separator character among them.
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._/-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SEPARATORS = re.compile(r"[|;\n\r]")
USABLE = frozenset({"nvmalloc", "vmem"})
TOP_KEYS = frozenset(
    {
        "schema", "name", "summary", "homepage", "licence", "kind", "consistency",
        "adapter", "debian", "environment", "preload", "options", "fault_options", "fill_tolerance",
        "slow", "known_findings", "stands_as", "variants", "workloads",
    }
)  # fmt: skip
ADAPTER_KEYS = frozenset(
    {"sources", "headers", "pkgconfig", "link", "uses", "library", "program", "image"}
)


class FolderError(Exception):
    """An allocator folder that cannot be used: which file, which key, why."""

    def __init__(self, file: Path, key: str, problem: str) -> None:
        where = f"{file}: {key}" if key else str(file)
        super().__init__(f"{where}: {problem}")


@dataclass(frozen=True)
class Folder:
    """What the build needs to know of one allocator."""

    name: str
    path: Path
    sources: tuple[Path, ...]
    pkgconfig: tuple[str, ...]
    link: tuple[str, ...]
    uses: tuple[str, ...]
    environment: tuple[str, ...]
    library: Path | None
    outside: bool
    headers: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Debian's, needed at run time."""
    program: Path | None = None
    kind: str = "volatile"

    def line(self) -> str:
        """The folder as ``meson.build`` reads it."""
        columns = (
            (self.name,),
            (str(self.path),),
            ("outside" if self.outside else "in-tree",),
            tuple(str(source) for source in self.sources),
            self.pkgconfig,
            self.link,
            self.uses,
            self.environment,
            self.headers,
            (self.kind,),
        )
        return "|".join(";".join(items) for items in columns)


def _mapping(file: Path, key: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise FolderError(file, key, "must be a mapping with text keys")
    return value


def _only(file: Path, key: str, found: dict[str, Any], allowed: frozenset[str]) -> None:
    for name in found:
        if name not in allowed:
            where = f"{key}.{name}" if key else name
            known = ", ".join(sorted(allowed))
            raise FolderError(file, where, f"unknown key (known: {known})")


def _texts(
    file: Path, key: str, value: object, form: re.Pattern[str] | None = None
) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise FolderError(file, key, "must be a list")
    for index, item in enumerate(value):
        where = f"{key}[{index}]"
        if not isinstance(item, str) or not item:
            raise FolderError(file, where, f"must be text, not {item!r}")
        if form is not None and not form.fullmatch(item):
            raise FolderError(file, where, f"{item!r} is no valid name")
    return tuple(value)


def _existing(file: Path, key: str, text: object) -> Path:
    """The file that a path of the YAML file, relative to its folder, names."""
    if not isinstance(text, str) or not text:
        raise FolderError(file, key, f"must be a path, not {text!r}")
    path = (file.parent / text).resolve()
    if SEPARATORS.search(str(path)):
        raise FolderError(file, key, f"the path {path} has a '|', ';' or line break in it")
    if not path.is_file():
        raise FolderError(file, key, f"there is no file {path}")
    return path


def _environment(file: Path, value: object) -> tuple[str, ...]:
    pairs = []
    for name, text in _mapping(file, "environment", value).items():
        key = f"environment.{name}"
        if not VARIABLE.fullmatch(name):
            raise FolderError(file, key, "is no name of an environment variable")
        if not isinstance(text, str):
            raise FolderError(file, key, f'must be text: write "{text}" in quotes')
        if SEPARATORS.search(text):
            raise FolderError(file, key, "must not hold '|', ';' or a line break")
        pairs.append(f"{name}={text}")
    return tuple(pairs)


def _origin(
    file: Path, adapter: dict[str, Any]
) -> tuple[tuple[Path, ...], Path | None, Path | None]:
    """Sources, prebuilt library, program: one of them is there."""
    sources = tuple(
        _existing(file, f"adapter.sources[{index}]", text)
        for index, text in enumerate(_texts(file, "adapter.sources", adapter.get("sources")))
    )
    library = None
    if "library" in adapter:
        library = _existing(file, "adapter.library", adapter["library"])
    program = None
    if "program" in adapter:
        program = _existing(file, "adapter.program", adapter["program"])
    if sum(map(bool, (sources, library, program))) != 1:
        raise FolderError(
            file, "adapter", "needs 'sources', a prebuilt 'library' or a 'program', one of them"
        )
    return sources, library, program


def _kind(file: Path, value: object) -> str:
    if value not in ("persistent", "volatile"):
        raise FolderError(file, "kind", f"must be persistent or volatile, not {value!r}")
    return str(value)


def load_folder(path: Path, *, outside: bool) -> Folder:
    """Reads ``path/allocator.yaml``; FolderError says what is wrong with it."""
    file = path.resolve() / FILE
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FolderError(file, "", f"cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise FolderError(file, "", f"is not YAML: {error}") from error
    top = _mapping(file, "", document)
    _only(file, "", top, TOP_KEYS)
    if top.get("schema") != SCHEMA:
        raise FolderError(file, "schema", f"must be {SCHEMA}, not {top.get('schema')!r}")
    name = top.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FolderError(file, "name", f"must match {NAME.pattern}, not {name!r}")
    if SEPARATORS.search(str(file.parent)):
        raise FolderError(file, "", "the folder's path has a '|', ';' or line break in it")

    adapter = _mapping(file, "adapter", top.get("adapter"))
    _only(file, "adapter", adapter, ADAPTER_KEYS)
    sources, library, program = _origin(file, adapter)
    uses = _texts(file, "adapter.uses", adapter.get("uses"))
    for index, item in enumerate(uses):
        if item not in USABLE:
            raise FolderError(
                file, f"adapter.uses[{index}]", f"{item!r} is none of {sorted(USABLE)}"
            )
    return Folder(
        name=name,
        path=file.parent,
        sources=sources,
        pkgconfig=_texts(file, "adapter.pkgconfig", adapter.get("pkgconfig"), PACKAGE),
        link=_texts(file, "adapter.link", adapter.get("link"), PACKAGE),
        uses=uses,
        environment=_environment(file, top.get("environment")),
        library=library,
        outside=outside,
        headers=_texts(file, "adapter.headers", adapter.get("headers"), HEADER),
        program=program,
        kind=_kind(file, top.get("kind")),
        packages=_texts(file, "debian.run", _mapping(file, "debian", top.get("debian")).get("run")),
    )


def _children(path: Path) -> list[Path]:
    return sorted(file.parent for file in path.glob(f"*/{FILE}") if file.is_file())


def discover(in_tree: Path | None, outside: list[Path]) -> list[Folder]:
    """All folders, in-tree ones first, each name once; FolderError if not."""
    paths = _children(in_tree) if in_tree is not None else []
    inside = {path.resolve() for path in paths}
    for path in outside:
        found = [path] if (path / FILE).is_file() else _children(path)
        if not found:
            raise FolderError(path, "", f"neither holds {FILE} nor a folder that does")
        paths.extend(found)
    by_name: dict[str, Folder] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        folder = load_folder(path, outside=path not in inside)
        other = by_name.setdefault(folder.name, folder)
        if other is not folder:
            raise FolderError(
                folder.path / FILE, "name", f"{folder.name!r} is taken by {other.path / FILE}"
            )
    return list(by_name.values())


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those that dpkg knows to be installed; none where there is no dpkg."""
    versions = {}
    for package in packages:
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        with contextlib.suppress(OSError):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout:
                versions[package] = done.stdout
    return versions


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="folders.py")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list")
    listing.add_argument("--in-tree", type=Path)
    listing.add_argument("paths", type=Path, nargs="*")
    skipped = commands.add_parser("skipped")
    skipped.add_argument("pairs", nargs="*")
    recipe = commands.add_parser("recipe")
    recipe.add_argument("--compiler", required=True)
    recipe.add_argument("--options", required=True)
    recipe.add_argument("--in-tree", type=Path)
    recipe.add_argument("paths", type=Path, nargs="*")
    options = parser.parse_args(arguments)
    if options.command == "skipped":
        reasons = dict(pair.split("=", 1) for pair in options.pairs)
        print(json.dumps(reasons, indent=2, sort_keys=True))
        return 0
    try:
        folders = discover(options.in_tree, options.paths)
    except FolderError as error:
        print(f"folders.py: {error}", file=sys.stderr)
        return 1
    if options.command == "recipe":
        recipe = {"compiler": options.compiler, "options": options.options}
        versions = {folder.name: installed(folder.packages) for folder in folders}
        print(json.dumps({**recipe, "packages": versions}, indent=2))
        return 0
    for folder in folders:
        if folder.sources:
            print(folder.line())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
