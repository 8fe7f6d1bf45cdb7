# SPDX-License-Identifier: Apache-2.0
"""The power-fail laboratory in containers: no network, no capability, a read-only root.

What the containers may do is one function of the runner, which test_limits.py holds to account;
here the whole command runs in them, through both lenses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest

from suite.project import project_root

ROOT = project_root()
BAD = ROOT / "tests" / "known_bad" / "publish-before-mark"


def nvcrucible(*arguments: str | Path, results: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a command whose jobs are containers."""
    command = [sys.executable, "-m", "suite.cli", *map(str, arguments)]
    command += ["--runner", "docker", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(results)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def results(tmp_path: Path, job_image: str) -> Path:
    """Where a command keeps its run; the image that its jobs need is there."""
    del job_image
    return tmp_path


@pytest.mark.parametrize(("allocator", "lens"), [("nvmalloc", "compiled"), ("pmdk", "library")])
def test_states_are_checked_through_both_lenses(results: Path, allocator: str, lens: str) -> None:
    code, document = nvcrucible(
        "fault", "-a", allocator, "-f", "powerfail,recovery-crash", "--budget", "6s", "-n", "1",
        "--seed", "3", "--out", results, results=results,
    )  # fmt: skip
    assert code == 0, document["verdicts"]
    runner = document["environment"]["runner"]
    assert runner["name"] == "docker"
    assert "no capabilities" in runner["isolation"]
    verdicts = {each["fault"]: each for each in document["verdicts"]}
    power = verdicts["powerfail"]["power"]
    assert power["lens"] == lens
    assert power["checked"] == verdicts["powerfail"]["states"] > 20
    assert power["distinct"] > 0
    if lens == "compiled":
        assert verdicts["recovery-crash"]["states"] > 0


def test_a_case_of_an_outside_allocator_is_kept_and_replayed(
    engine: docker.APIClient, results: Path
) -> None:
    code, document = nvcrucible(
        "fault", "-a", BAD.name, "--allocator-path", BAD, "-f", "powerfail", "--cases", "1",
        "-n", "1", "--seed", "1", "--out", results, results=results,
    )  # fmt: skip
    assert code == 4, document
    (verdict,) = document["verdicts"]
    assert verdict["by_kind"] == {"overlap": 1}
    (run,) = results.glob("*/run.json")
    case = run.parent / verdict["failures"][0]["path"]
    told = json.loads((case / "case.json").read_text())
    # The source lines come out of debug information that is read inside the container.
    assert "publish_then_mark" in {site["function"] for site in told["sites"]}
    code, again = nvcrucible("replay", case, "--allocator-path", BAD, results=results)
    assert (code, again["same"]) == (4, 1), again
    names = [name for each in engine.containers(all=True) for name in each["Names"]]
    assert not [name for name in names if name.startswith("/nvcrucible-")], "none is left"
