# SPDX-License-Identifier: Apache-2.0
"""Runs chains.c's program and names the functions on its way to the system.

    chains.py PROGRAM [PHASE...]

Prints each different chain of the phases (all, if none is named) once: the phase,
the call that ended it, and the functions from the one that called mmap(), sbrk() or
the hook up to the one that the program called.  Left out are chains through the
radix tree from address to extent: it grows when addresses are new to it, which
depends on where the kernel maps things.
"""

# What it prints is its interface.
# ruff: noqa: T201
from __future__ import annotations

import bisect
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

SYMBOL = re.compile(r"^(?P<address>[0-9a-f]+) [tTwW] (?P<name>\S+)$", re.MULTILINE)
SUFFIX = re.compile(r"\.(?:constprop|isra|part|cold)(?:\.\d+)?")
RADIX_TREE = "rtree_leaf_elm_lookup_hard"
PROGRAM = {"main", "take_blocks", "made_arena"}


@dataclass(frozen=True)
class Chain:
    """One way from the program to the system, or to a hook."""

    phase: str
    call: str
    functions: tuple[str, ...]


def chains(program: str) -> Counter[Chain]:
    """How often the program went which way."""
    listed = subprocess.run(["nm", "-n", program], capture_output=True, text=True, check=True)
    symbols = [
        (int(found["address"], 16), found["name"]) for found in SYMBOL.finditer(listed.stdout)
    ]
    addresses = [address for address, _ in symbols]

    def name(text: str) -> str:
        # A return address may already be the next function's first byte.
        at = bisect.bisect_right(addresses, int(text, 16) - 1) - 1
        return SUFFIX.sub("", symbols[at][1]).removeprefix("je_")

    printed = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    found: Counter[Chain] = Counter()
    for line in printed.stdout.splitlines():
        phase, call, _, *frames = line.split()
        functions: list[str] = []
        for function in map(name, frames):
            if function in PROGRAM:
                break
            functions.append(function)
        found[Chain(phase, call, tuple(functions))] += 1
    return found


def main() -> int:
    if len(sys.argv) < 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    program, *phases = sys.argv[1:]
    for chain in chains(program):
        if RADIX_TREE not in chain.functions and chain.phase in (phases or [chain.phase]):
            print(f"{chain.phase}: {chain.call} < {' < '.join(chain.functions)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
