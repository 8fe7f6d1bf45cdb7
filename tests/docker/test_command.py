# SPDX-License-Identifier: Apache-2.0
"""The nvcrucible command with containers: chosen by itself, one a job, gone after Ctrl-C; and compose."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from conftest import say
from suite.images import TARGETS, ensure_target
from suite.project import project_root
from suite.runners.docker import RUN_LABEL

COMMAND = [sys.executable, "-c", "from suite.cli import main; main()"]
QUICK = [
    "-a", "nvmalloc,jemalloc", "-w", "threadtest", "-t", "1", "--repeat", "1", "--seconds", "0.1s",
    "--survival-cases", "2", "--noise-limit", "1", "-n", "2", "--seed", "5",
]  # fmt: skip
PATIENCE_S = 240


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str], what: str) -> Any:
    """What `found` returns as soon as that is true; the process must live until then."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode} before {what}: {process.communicate()}")
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no {what} within {PATIENCE_S} s: {process.communicate()}")


def test_bench_chooses_docker_and_every_job_has_a_container_of_its_own(
    engine: docker.APIClient, job_image: str, tmp_path: Path
) -> None:
    del job_image
    since = int(time.time()) - 1
    done = subprocess.run(
        [*COMMAND, "bench", *QUICK, "--json", "--out", str(tmp_path)],
        cwd=project_root(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = json.loads(done.stdout)
    facts = run["environment"]["runner"]
    assert facts["name"] == "docker"
    events = list(
        engine.events(
            since=since,
            until=int(time.time()) + 1,
            filters={"type": "container", "label": f"{RUN_LABEL}={facts['run']}"},
            decode=True,
        )
    )
    names = {
        action: [
            event["Actor"]["Attributes"]["name"] for event in events if event["Action"] == action
        ]
        for action in ("create", "start", "destroy")
    }
    jobs = len(run["samples"]) + sum(verdict["cases"] for verdict in run["verdicts"])
    assert len(names["start"]) >= jobs > 0
    assert len(set(names["start"])) == len(names["start"]), "a container served two jobs"
    assert sorted(names["create"]) == sorted(names["start"]) == sorted(names["destroy"])


def test_ctrl_c_leaves_no_container_and_keeps_the_results(
    engine: docker.APIClient, job_image: str, tmp_path: Path
) -> None:
    del job_image
    before = {container["Id"] for container in engine.containers(all=True)}
    process = subprocess.Popen(
        [*COMMAND, "bench", "-a", "nvmalloc,jemalloc", "-w", "threadtest", "-t", "1", "--seconds", "2s",
         "--repeat", "50", "--runner", "docker", "--out", str(tmp_path)],
        cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def running() -> list[str]:
        listed = engine.containers(filters={"label": RUN_LABEL})
        return [container["Id"] for container in listed if container["Id"] not in before]

    wait_for(lambda: len(list(tmp_path.iterdir())) and running(), process, "container ran")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    left = {container["Id"] for container in engine.containers(all=True)} - before
    assert left == set()
    assert list(tmp_path.glob("*/run.json")), stderr


def test_compose_runs_the_bench_under_the_limits(engine: docker.APIClient, tmp_path: Path) -> None:
    compose = compose_command()
    ensure_target(engine, project_root(), TARGETS["orchestrator"], say)
    # A copy: the engine mounts results/ of the folder that holds the file.
    shutil.copy(project_root() / "compose.yaml", tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    nvm = Path("/dev/shm") / f"nvcrucible-compose-{os.getpid()}"
    nvm.mkdir()
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    project = f"nvctest{os.getpid()}"
    environment = {
        **os.environ,
        "NVM_DIR": str(nvm),
        "NVC_UID": str(os.getuid()),
        "NVC_GID": str(os.getgid()),
        "NVC_CPUS": cpus,
        "NVC_MEMORY": "3g",
    }
    process = subprocess.Popen(
        [*compose, "-p", project, "run", "-T", "--rm", "bench", *QUICK],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        ours = {"label": f"com.docker.compose.project={project}"}
        (container, *_) = wait_for(
            lambda: engine.containers(filters=ours), process, "container ran"
        )
        host = engine.inspect_container(container["Id"])["HostConfig"]
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        shutil.rmtree(nvm)
    assert process.returncode == 0, output[-3000:]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["CpusetCpus"] == cpus
    assert host["Memory"] == host["MemorySwap"] == 3 << 30
    assert host["PidsLimit"] > 0
    (run,) = results.glob("*/run.json")
    assert run.stat().st_uid == os.getuid()
    assert json.loads(run.read_text())["environment"]["runner"]["name"] == "local"


def compose_command() -> list[str]:
    """Compose of either generation; skips where there is none."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        asked = subprocess.run([*command, "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return command
    pytest.skip("neither `docker compose` nor `docker-compose` is installed")
