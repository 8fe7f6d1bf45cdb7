# SPDX-License-Identifier: Apache-2.0
"""folders.py: what it prints for good folders, and what it says of bad ones.

Like folders.py itself it runs under the build's Python, where no pytest is.
"""

# ruff: noqa: PT009
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

FOLDERS = Path(__file__).resolve().parents[1] / "folders.py"
GOOD = """\
schema: 1
name: {name}
kind: volatile
consistency: none
adapter:
  sources: [adapter.c]
  pkgconfig: [libfoo, "bar-2.0"]
  link: [baz]
  uses: [nvmalloc]
environment:
  FOO: "a=b"
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDERS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class FoldersTest(unittest.TestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name).resolve()

    def folder(self, name: str, text: str | None = None) -> Path:
        path = self.root / name
        path.mkdir(parents=True)
        (path / "adapter.c").write_text("int x;\n")
        (path / "allocator.yaml").write_text(GOOD.format(name=path.name) if text is None else text)
        return path

    def refused(self, old: str, new: str, *expected: str) -> None:
        """The good file with one replacement is refused, for the expected reasons."""
        good = GOOD.format(name="bad")
        self.assertIn(old, good)
        path = self.folder("bad", good.replace(old, new))
        result = run("list", path)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertNotIn("Traceback", result.stderr)
        for text in (str(path / "allocator.yaml"), *expected):
            self.assertIn(text, result.stderr)

    def test_a_line_has_every_column(self) -> None:
        path = self.folder("tree/one")
        line = f"one|{path}|{{}}|{path}/adapter.c|libfoo;bar-2.0|baz|nvmalloc|FOO=a=b||volatile\n"
        self.assertEqual(run("list", "--in-tree", path.parent).stdout, line.format("in-tree"))
        self.assertEqual(run("list", path).stdout, line.format("outside"))

    def test_a_path_may_be_a_folder_of_folders(self) -> None:
        self.folder("many/b")
        self.folder("many/a")
        (self.root / "many" / "neither").mkdir()
        result = run("list", self.root / "many")
        self.assertEqual([line.split("|")[0] for line in result.stdout.splitlines()], ["a", "b"])

    def test_a_folder_named_twice_counts_once(self) -> None:
        path = self.folder("one")
        self.assertEqual(len(run("list", path, path).stdout.splitlines()), 1)

    def test_a_name_taken_twice_is_refused(self) -> None:
        first, second = self.folder("x/one"), self.folder("y/one")
        result = run("list", first, second)
        self.assertEqual(result.returncode, 1)
        self.assertIn(str(first), result.stderr)
        self.assertIn(str(second), result.stderr)

    def test_a_prebuilt_library_builds_nothing(self) -> None:
        text = GOOD.format(name="one").replace("sources: [adapter.c]", "library: one.so")
        path = self.folder("one", text)
        self.assertIn("there is no file", run("list", path).stderr)
        (path / "one.so").write_bytes(b"")
        result = run("list", path)
        self.assertEqual((result.returncode, result.stdout), (0, ""))

    def test_a_path_without_allocators_is_refused(self) -> None:
        for path in (self.root, self.root / "missing"):
            result = run("list", path)
            self.assertEqual(result.returncode, 1)
            self.assertIn(str(path), result.stderr)

    def test_bad_name(self) -> None:
        self.refused("name: bad", "name: Bad_1", "name", "Bad_1")

    def test_bad_schema(self) -> None:
        self.refused("schema: 1", "schema: 2", "schema", "must be 1, not 2")

    def test_unknown_key(self) -> None:
        self.refused("  link:", "  links:", "adapter.links", "unknown key")

    def test_missing_source(self) -> None:
        self.refused("adapter.c", "other.c", "adapter.sources[0]", "there is no file")

    def test_source_and_library(self) -> None:
        self.refused("  link:", "  library: adapter.c\n  link:", "adapter", "one of them")

    def test_separator_in_a_package(self) -> None:
        self.refused("libfoo", '"a;b"', "adapter.pkgconfig[0]", "a;b")

    def test_number_where_text_belongs(self) -> None:
        self.refused('"a=b"', "1", "environment.FOO", "quotes")

    def test_unknown_use(self) -> None:
        self.refused("uses: [nvmalloc]", "uses: [libc]", "adapter.uses[0]", "libc")

    def test_not_yaml(self) -> None:
        self.refused("schema: 1", "schema: [", "is not YAML")

    def test_not_a_mapping(self) -> None:
        path = self.folder("one", "- 1\n")
        self.assertIn("must be a mapping", run("list", path).stderr)

    def test_skipped_is_json(self) -> None:
        self.assertEqual(json.loads(run("skipped").stdout), {})
        result = run("skipped", "a=no b", "c=d=e")
        self.assertEqual(json.loads(result.stdout), {"a": "no b", "c": "d=e"})


if __name__ == "__main__":
    unittest.main()
