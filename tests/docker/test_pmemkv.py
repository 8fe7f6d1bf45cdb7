# SPDX-License-Identifier: Apache-2.0
"""pmemkv in its Debian 11 container: its image is made, its program runs the workload kv."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import docker

from conftest import say
from suite.images import all_targets, ensure_target
from suite.project import project_root

COMMAND = [sys.executable, "-c", "from suite.cli import main; main()"]


def test_pmemkv_runs_beside_an_adapter(
    engine: docker.APIClient, job_image: str, tmp_path: Path
) -> None:
    del job_image
    ensure_target(engine, project_root(), all_targets(project_root())["pmemkv"], say)
    done = subprocess.run(
        [
            *COMMAND, "bench", "-a", "pmdk,pmemkv,pmemkv-stree", "-w", "kv", "-t", "1",
            "-p", "mix=A", "-p", "records=2000", "--repeat", "1", "--seconds", "0.2s",
            "--survival-cases", "0", "--noise-limit", "1", "--runner", "docker", "--json",
            "--out", str(tmp_path), "--seed", "5",
        ],
        cwd=project_root(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    run = json.loads(done.stdout)
    rates = {
        (sample["allocator"], sample["parameters"]["index"]): sample["metrics"].get("ops_per_s", 0)
        for sample in run["samples"]
        if not sample["observed"] and not sample["stepped"]
    }
    assert set(rates) == {("pmdk", 0), ("pmdk", 1), ("pmemkv", 0), ("pmemkv-stree", 1)}
    assert min(rates.values()) > 0
    assert "libpmemkv1 1.4" in run["environment"]["allocators"]["pmemkv"]["library_version"]
