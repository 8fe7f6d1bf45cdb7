# SPDX-License-Identifier: Apache-2.0
"""The Daisy heaps in the suite: the two historical designs must be caught, ours must not,
and the command that docs/daisy.md names makes its tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from project import REPOSITORY, Project
from suite.allocators import discover

pytestmark = pytest.mark.native

DESIGNS = ("daisy-bitmap", "daisy-list")


def test_campaigns_catch_the_historical_designs_and_pass_ours(native: Project) -> None:
    result = native.run(
        "fault", "-a", "daisy-bitmap,daisy-list,nvdaisy", "-f", "sigkill", "--cases", "24", "-n", "2",
        "--runner", "local", "--out", native.results, "--seed", "5", "--json", timeout=300,
    )  # fmt: skip
    assert result.returncode == 4, result.stderr + result.stdout
    verdicts = {verdict["allocator"]: verdict for verdict in json.loads(result.stdout)["verdicts"]}
    for name in DESIGNS:
        verdict = verdicts[name]
        known = discover(REPOSITORY).select([name])[0].file.known_findings[0]
        assert verdict["errors"] == 0
        assert verdict["failed"] > 0
        assert set(verdict["by_kind"]) <= set(known.verdicts)
    assert verdicts["nvdaisy"]["passed"] == 24

    cases = sorted(native.results.glob("*/cases/daisy-*"))
    for name in DESIGNS:
        case = next(case for case in cases if case.name.startswith(name))
        again = native.run("replay", case, "--runner", "local", "--json", timeout=120)
        assert again.returncode == 4, again.stderr + again.stdout


def test_the_command_of_the_document_makes_its_tables(native: Project, tmp_path: Path) -> None:
    document = tmp_path / "daisy.md"
    document.write_text("before\n<!-- fill: begin -->\nold\n<!-- fill: end -->\nafter\n")
    command = "allocators/nvdaisy/tools/fill_table.py"
    assert f"python {command} --build build --document" in (
        REPOSITORY / "docs" / "daisy.md"
    ).read_text(encoding="utf-8")
    subprocess.run(
        [sys.executable, REPOSITORY / command, "--build", native.build, "--document", document,
         "--heap-megabytes", "1", "--repeat", "1"],
        check=True, timeout=200,
    )  # fmt: skip
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    for row in ("daisy-bitmap", "daisy-list", "**nvdaisy**"):
        assert text.count(f"\n| {row} |") == 3
    assert " ns |" in text
