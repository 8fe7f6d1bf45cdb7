# SPDX-License-Identifier: Apache-2.0
"""The call sites of an allocator's persistence primitives, as its sources have them.

A site has an identity that outlives edits elsewhere in its file: file, function, the text of the
line, and which one it is of those that are alike in the function.  Its line number is only where it
stands now.  The scan relies on the house style: a function's name stands at the start of a line, its
body begins with a brace of its own line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PRIMITIVES", "Identity", "Site", "nvmalloc_sources", "scan", "scan_file"]

FLUSH, FENCE, NT_STORE = "flush", "fence", "nt-store"

PRIMITIVES: Mapping[str, tuple[str, ...]] = {
    "nvm_flush": (FLUSH,),
    "nvm_flush_one": (FLUSH,),
    "nvm_clwb": (FLUSH,),
    "nvm_fence": (FENCE,),
    "nvm_store_line": (NT_STORE,),
    "nvm_log_line": (NT_STORE, FENCE),
}
"""What nvmalloc's persist.h offers, and the events that a call of it makes."""

CALL = re.compile(r"\b(" + "|".join(PRIMITIVES) + r")\(")
NAME = re.compile(r"^(?=[A-Za-z_]).*?\b([A-Za-z_]\w*)\((?!\()")
COMMENT = re.compile(r"/\*.*?(\*/|$)|//.*$|^\s*\*.*$")


@dataclass(frozen=True, order=True)
class Identity:
    """What a reviewed list says of a site."""

    file: str
    function: str
    text: str
    occurrence: int = 1
    """Counted from 1 among the function's lines of that text."""

    def __str__(self) -> str:
        which = f" (no. {self.occurrence})" if self.occurrence > 1 else ""
        return f"{self.file} {self.function}(): {self.text}{which}"


@dataclass(frozen=True)
class Site:
    """A call of a primitive, where it stands now."""

    identity: Identity
    line: int
    events: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.identity.file}:{self.line}"


def nvmalloc_sources(root: Path) -> list[Path]:
    """The files whose persistence calls count: not persist.h itself, which makes the primitives."""
    folder = root / "allocators" / "nvmalloc" / "src"
    files = sorted([*folder.glob("*.c"), *folder.glob("*.h")])
    return [path for path in files if path.name not in ("persist.h", "persist.c")]


def scan(paths: Sequence[Path]) -> list[Site]:
    """Their sites, in order."""
    return [site for path in paths for site in scan_file(path.name, path.read_text())]


def scan_file(name: str, text: str) -> Iterator[Site]:
    """The sites of one file's text."""
    function, candidate = "", ""
    seen: Counter[tuple[str, str]] = Counter()
    for number, raw in enumerate(text.splitlines(), 1):
        line = COMMENT.sub("", raw).rstrip()
        found = NAME.match(line)
        if found is not None and not line.endswith(";"):
            candidate = found[1]
        if line == "{":
            function = candidate
        call = CALL.search(line)
        if call is None or (found is not None and not line.startswith((" ", "\t"))):
            continue
        said = " ".join(line.split())
        seen[function, said] += 1
        identity = Identity(name, function, said, seen[function, said])
        yield Site(identity, number, PRIMITIVES[call[1]])
