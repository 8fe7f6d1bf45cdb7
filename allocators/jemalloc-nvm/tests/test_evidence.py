# SPDX-License-Identifier: Apache-2.0
"""Holds docs/jemalloc-on-nvm.md to the library that is installed.

    test_evidence.py CHAINS DOCUMENT

Each command in a ``console`` block of the document must print what stands there.
Then the facts that the document derives from them are checked one by one.
"""

# meson runs this with its own Python, which need not have pytest; the commands are the document's.
# ruff: noqa: PT009, S602
from __future__ import annotations

import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import ClassVar

from callers import LIBRARY, Graph, hooks, objdump, read
from chains import RADIX_TREE, Chain, chains

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = Path()
DOCUMENT = Path()


def console_blocks(text: str) -> list[tuple[str, str]]:
    """The commands of a document and what they are said to print."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.finditer(text):
        for part in block["text"].split("$ ")[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


class EvidenceTest(unittest.TestCase):
    maxDiff = None
    graph: ClassVar[Graph]
    chains: ClassVar[list[Chain]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.graph = read()
        cls.chains = list(chains(str(PROGRAM)))

    def of(self, phase: str) -> list[Chain]:
        """The chains of a phase, but for those through the radix tree."""
        mine = [chain for chain in self.chains if chain.phase == phase]
        found = [chain for chain in mine if RADIX_TREE not in chain.functions]
        self.assertTrue(found, phase)
        return found

    def test_the_commands_print_what_the_document_says(self) -> None:
        blocks = console_blocks(DOCUMENT.read_text(encoding="utf-8"))
        self.assertGreaterEqual(len(blocks), 6)
        build = str(PROGRAM.parents[3])
        for command, expected in blocks:
            with self.subTest(command):
                done = subprocess.run(
                    command.replace(" build/", f" {build}/"),
                    shell=True,
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(done.stdout, expected)

    def test_the_static_library_is_the_code_of_the_shared_one(self) -> None:
        """Every exported function has the same size in both."""
        shared = subprocess.run(
            ["gcc", "-print-file-name=libjemalloc.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        listed = subprocess.run(
            ["nm", "-DS", "--defined-only", shared], capture_output=True, text=True, check=True
        ).stdout
        exported = re.findall(r"^\S+ (\S+) T (\S+)$", listed, re.MULTILINE)
        names = {name: int(size, 16) for size, name in exported}
        sizes = {
            match[2]: int(match[1], 16)
            for line in objdump("-t")
            if (match := re.match(r"^\S+ g\s+F \.text\s+(\S+)\s+(\S+)$", line))
        }
        self.assertGreaterEqual(len(names), 20, LIBRARY)
        for name, size in names.items():
            self.assertEqual(sizes.get(name), size, name)

    def test_mmap_and_the_break_meet_in_the_default_alloc_hook(self) -> None:
        self.assertEqual(self.graph.meeting(), {"ehooks_default_alloc_impl"})
        self.assertEqual(
            self.graph.around(), {"base_block_alloc", "hpa_central_extract", "hpa_hooks_map"}
        )

    def test_extents_come_through_one_place(self) -> None:
        """Automatic arenas and the break: below the meeting, two ways; above it, one."""
        for phase, fetcher in (("automatic", "mmap"), ("break", "sbrk")):
            for chain in self.of(phase):
                self.assertEqual(chain.call, fetcher)
                at = chain.functions.index("ehooks_default_alloc_impl")
                self.assertEqual(chain.functions[at + 1], "ecache_alloc_grow")

    def test_with_hooks_no_extent_comes_from_elsewhere(self) -> None:
        for phase in ("both", "extents"):
            for chain in self.of(phase):
                self.assertEqual(chain.call, "hook")
                self.assertEqual(chain.functions[0], "ecache_alloc_grow")

    def test_metadata_follows_the_order_of_creation(self) -> None:
        (hooked,) = self.of("both-create")
        self.assertEqual(("hook", "base_block_alloc"), (hooked.call, hooked.functions[0]))
        for chain in self.of("extents-create"):
            self.assertEqual(chain.call, "mmap")
            self.assertIn("base_block_alloc", chain.functions)

    def test_the_radix_tree_is_in_dram_always(self) -> None:
        found = [chain for chain in self.chains if RADIX_TREE in chain.functions]
        self.assertTrue(found)
        self.assertEqual({chain.call for chain in found}, {"mmap"})

    def test_the_table_of_hooks(self) -> None:
        self.assertEqual(
            [name.removeprefix("ehooks_default_") for name in hooks(self.graph)],
            [
                *("alloc", "dalloc", "destroy", "commit", "decommit"),
                *("purge_lazy", "purge_forced", "split", "merge"),
            ],
        )


if __name__ == "__main__":
    PROGRAM, DOCUMENT = (Path(argument).resolve() for argument in sys.argv[1:3])
    unittest.main(argv=sys.argv[:1])
