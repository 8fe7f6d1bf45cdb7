# SPDX-License-Identifier: Apache-2.0
"""Where jemalloc's memory comes from, read off its machine code.

    callers.py tree FUNCTION [--depth N]     who calls it, who calls those, ...
    callers.py meet                          where what os_pages_map and sbrk give meets
    callers.py around                        who gets memory without passing there
    callers.py hooks                         the functions in the table of default hooks

The code is that of the static library which Debian builds of the objects of its
shared one (libjemalloc_pic.a), where local functions still have their names.  An
edge is a direct call or tail call.  What the compiler inlined has no name any
more: its calls are its caller's.
"""

# What it prints is its interface.
# ruff: noqa: T201
from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

LIBRARY = "libjemalloc_pic.a"
OBJECT = re.compile(r"^(?P<name>\S+?)(?:\.pic)?\.o:\s+file format")
HEADER = re.compile(r"^(?P<address>[0-9a-f]+) <(?P<name>[^>]+)>:$")
BRANCH = re.compile(r"^\s*[0-9a-f]+:\s+(?:call|j[a-z]+)\s+[0-9a-f]+ <(?P<name>[^>]+)>$")
RELOCATION = re.compile(r"^\s*[0-9a-f]+: R_X86_64_\w+\s+(?P<name>\S+)-0x4$")
TABLE_ENTRY = re.compile(r"^[0-9a-f]+ R_X86_64_64\s+(?P<name>[^\s+]+)(?:\+0x(?P<address>\w+))?$")
SUFFIX = re.compile(r"\.(?:constprop|isra|part|cold)(?:\.\d+)?")
FETCHERS = ("os_pages_map", "sbrk")
"""Who asks the system for memory that jemalloc did not have; the other callers of mmap() change
what it has (pages_commit, pages_decommit)."""
AT_START = frozenset({"pages_boot", "extent_dss_boot"})
"""Who calls the fetchers once, to learn something: how madvise() behaves, where the break is."""


@dataclass
class Graph:
    """The calls, by the names of the functions in the source."""

    callers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    home: dict[str, str] = field(default_factory=dict)
    """The source file of each function, without its ending."""
    at: dict[tuple[str, int], str] = field(default_factory=dict)
    """The function at an address of the text of an object file."""

    def distances(self, function: str) -> dict[str, int]:
        """How many calls each function that reaches `function` is away from it."""
        found, level = {function: 0}, {function}
        while level:
            level = {caller for each in level for caller in self.callers.get(each, set())}
            level -= found.keys() | AT_START
            found |= dict.fromkeys(level, max(found.values()) + 1)
        return found

    def meeting(self) -> set[str]:
        """The functions where ways up from all fetchers meet after the fewest calls."""
        ways = [self.distances(fetcher) for fetcher in FETCHERS]
        every = set.intersection(*(set(way) for way in ways))
        total = {function: sum(way[function] for way in ways) for function in every}
        return {function for function in every if total[function] == min(total.values())}

    def around(self) -> set[str]:
        """Who has memory fetched and is not the meeting: the lowest functions above the fetchers
        that are no SERVANTS."""
        found: set[str] = set()
        waiting, seen = list(FETCHERS), {*FETCHERS, *AT_START}
        while waiting:
            function = waiting.pop()
            if self.home.get(function) in SERVANTS:
                waiting += self.callers[function] - seen
                seen |= self.callers[function]
            else:
                found.add(function)
        return found - self.meeting()


SERVANTS = frozenset({None, "pages", "extent_mmap", "extent_dss"})
"""Files whose functions fetch what their callers decided to fetch."""


def plain(name: str) -> str:
    """The name in the source: without the prefix and what the optimiser appended."""
    return SUFFIX.sub("", name).removeprefix("je_")


def objdump(*arguments: str) -> list[str]:
    asked = ["gcc", f"-print-file-name={LIBRARY}"]
    library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if library == LIBRARY:
        sys.exit(f"callers.py: there is no {LIBRARY}: expected Debian's libjemalloc-dev")
    command = ["objdump", *arguments, library]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def with_objects(lines: list[str]) -> Iterator[tuple[str, str]]:
    where = ""
    for line in lines:
        if match := OBJECT.match(line):
            where = match["name"]
        else:
            yield where, line


def read() -> Graph:
    graph = Graph()
    function, target = "", None
    for where, line in with_objects(objdump("-dr", "--no-show-raw-insn")):
        relocation = RELOCATION.match(line)
        if target is not None:  # it stands for nothing if a relocation follows
            name = relocation["name"] if relocation else target
            if not name.startswith(".") and "+" not in name:
                graph.callers[plain(name)] |= {function} - {plain(name)}
            target = None
        if match := HEADER.match(line):
            function = plain(match["name"])
            graph.home.setdefault(function, where)
            if ".cold" not in match["name"]:
                graph.at[where, int(match["address"], 16)] = function
        elif match := BRANCH.match(line):
            target = match["name"]
    return graph


def hooks(graph: Graph) -> list[str]:
    """The functions in ehooks_default_extent_hooks, in the order of extent_hooks_t."""
    found = []
    for where, line in with_objects(
        objdump("-r", "-j", ".data.rel.ro", "-j", ".data.rel.ro.local")
    ):
        match = TABLE_ENTRY.match(line)
        if where == "ehooks" and match:
            name = match["name"]
            if name == ".text":
                name = graph.at[where, int(match["address"] or "0", 16)]
            found.append(plain(name))
    return found


def show(graph: Graph, function: str, depth: int, above: tuple[str, ...] = ()) -> None:
    print(f"{'  ' * len(above)}{function}  [{graph.home.get(function, 'libc')}]")
    if depth > 0 and function not in above:
        for caller in sorted(graph.callers.get(function, set())):
            show(graph, caller, depth - 1, (*above, function))


def main() -> int:
    parser = argparse.ArgumentParser(prog="callers.py")
    commands = parser.add_subparsers(dest="command", required=True)
    tree = commands.add_parser("tree")
    tree.add_argument("function")
    tree.add_argument("--depth", type=int, default=4)
    for name in ("meet", "around", "hooks"):
        commands.add_parser(name)
    options = parser.parse_args()
    graph = read()
    if options.command == "tree":
        show(graph, options.function, options.depth)
        return 0
    answers = {
        "meet": sorted(graph.meeting()),
        "around": sorted(graph.around()),
        "hooks": hooks(graph),
    }
    for function in answers[options.command]:
        print(f"{function}  [{graph.home.get(function)}]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
